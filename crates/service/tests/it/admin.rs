//! Tests of operators' actions: plans, accounts and clusters are changed and removed, and each change is logged.

use std::time::Duration;

use pinfold_model::{
    AccountId, Actor, ClusterId, Email, PinOptions, Plan, PlanCode, PlanLimits, Plans, Role,
};
use pinfold_service::{
    AccountEdit, ClusterEdit, Error, GatewayEdit, LogQuery, NewAccount, PinRequest, PlanChange, PlanSource,
    RemoveAccountOutcome, Service, Settings,
};

use crate::world::{DEADLINE, GIB, MIB, World, new_account};

const BY: Actor = Actor::OPERATOR;

fn team(storage_bytes: u64) -> Plan {
    let limits = PlanLimits { storage_bytes, ..Plan::premium().limits };
    Plan { code: PlanCode::new("team"), name: "Team".to_owned(), limits, ..Plan::premium() }
}

async fn set(world: &World, id: AccountId, edit: AccountEdit) -> Result<(), Error> {
    world.service.admin.change_account(BY, id, edit).await.map(drop)
}

async fn actions(service: &Service, account: AccountId) -> Vec<String> {
    let log = service.audit_log.list_all(Some(account), None, LogQuery::default()).await.unwrap();
    log.entries.into_iter().map(|entry| entry.action).collect()
}

async fn admin(world: &World, name: &str) -> AccountId {
    let new = NewAccount {
        email: Email::parse(&format!("{name}@example.org")).unwrap(),
        name: name.to_owned(),
        plan: PlanCode::new("free"),
        role: Role::Admin,
        password: None,
    };
    world.service.accounts.create(new).await.unwrap().id
}

#[tokio::test]
async fn saved_plan_overrides_the_configured_one_until_it_is_deleted() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let admin = &world.service.admin;
    let small = Plan { limits: PlanLimits { storage_bytes: MIB, ..Plan::free().limits }, ..Plan::free() };
    let view = admin.save_plan(BY, small).await.unwrap();
    assert_eq!((view.source, view.accounts), (PlanSource::Overridden, 1));
    assert_eq!(world.fresh(alice.account.id).await.storage_limit_bytes, MIB);
    let large = world.cluster.publish("large", 2 * MIB);
    let refused = world.pin(&alice, PinRequest::new(large)).await;
    assert_eq!(refused.err(), Some(Error::QuotaExceeded));

    admin.delete_plan(BY, &PlanCode::new("free")).await.unwrap();
    assert_eq!(world.fresh(alice.account.id).await.storage_limit_bytes, GIB);
    world.pin(&alice, PinRequest::new(large)).await.unwrap();
    let again = admin.delete_plan(BY, &PlanCode::new("free")).await;
    assert_eq!(again, Err(Error::PlanNotFound), "a configured plan can't be deleted");
}

#[tokio::test]
async fn saved_plan_survives_a_restart_and_applies_to_other_processes() {
    let mut world = World::start().await;
    world.service.admin.save_plan(BY, team(5 * MIB)).await.unwrap();
    world.restart().await;
    let alice = new_account(&world.service, "alice", "team").await;
    assert_eq!(alice.plan.limits.storage_bytes, 5 * MIB);

    // A command next to the server saves another plan and assigns it.
    let (store, clock) = (world.store.clone(), world.clock.clone());
    let offline = pinfold_service::Offline::new(store, clock, Settings::default()).await.unwrap();
    let other = Plan { code: PlanCode::new("other"), ..team(7 * MIB) };
    offline.admin.save_plan(BY, other).await.unwrap();
    let edit = AccountEdit { plan: Some(PlanCode::new("other")), ..AccountEdit::default() };
    offline.admin.change_account(BY, alice.account.id, edit).await.unwrap();
    let (account, plan) = world.service.subscriptions.of(&alice).await.unwrap();
    assert_eq!((account.storage_limit_bytes, plan.limits.storage_bytes), (7 * MIB, 7 * MIB));

    // Then it changes the plan, which the server notices by itself.
    let background = world.service.run();
    let more = Plan { code: PlanCode::new("other"), ..team(9 * MIB) };
    offline.admin.save_plan(BY, more).await.unwrap();
    let noticed = async {
        while world.service.subscriptions.of(&alice).await.unwrap().1.limits.storage_bytes != 9 * MIB {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, noticed).await.unwrap();
    background.stop().await;
}

#[tokio::test]
async fn invalid_plan_is_refused() {
    let world = World::start().await;
    let admin = &world.service.admin;
    let limits = || team(1).limits;
    for bad in [
        Plan { name: " ".to_owned(), ..team(1) },
        Plan { name: "a\nb".to_owned(), ..team(1) },
        Plan { descriptions: vec!["x".to_owned(); 21], ..team(1) },
        Plan { descriptions: vec!["x\ny".to_owned()], ..team(1) },
        Plan { price_cents: u64::MAX, ..team(1) },
        team(u64::MAX),
        Plan { limits: PlanLimits { file_bytes_max: Some(0), ..limits() }, ..team(1) },
        Plan { limits: PlanLimits { requests_per_minute: 0, ..limits() }, ..team(1) },
        Plan {
            limits: PlanLimits { clusters: Some(vec![ClusterId::parse("cl9").unwrap()]), ..limits() },
            ..team(1)
        },
    ] {
        let refused = admin.save_plan(BY, bad.clone()).await;
        assert!(matches!(refused, Err(Error::InvalidRequest(_))), "{bad:?}");
    }
    assert_eq!(admin.plans().await.unwrap().len(), 2);
}

#[tokio::test]
async fn plan_in_use_is_deleted_only_if_a_configured_one_replaces_it() {
    let world = World::start().await;
    let admin = &world.service.admin;
    admin.save_plan(BY, team(GIB)).await.unwrap();
    let alice = world.account("alice", "team").await;
    assert_eq!(admin.delete_plan(BY, &PlanCode::new("team")).await, Err(Error::PlanInUse));
    set(
        &world,
        alice.account.id,
        AccountEdit { plan: Some(PlanCode::new("free")), ..AccountEdit::default() },
    )
    .await
    .unwrap();
    admin.delete_plan(BY, &PlanCode::new("team")).await.unwrap();
}

#[tokio::test]
async fn accounts_select_only_self_service_plans() {
    let plans = Plans::new(vec![Plan::free(), Plan { self_service: true, ..team(2 * MIB) }, Plan::premium()]);
    let world = World::start_with(Settings { plans, ..Settings::default() }).await;
    let alice = world.account("alice", "free").await;
    let change = async |code: &str| {
        let changed = world.service.subscriptions.change(&alice, &PlanCode::new(code)).await;
        changed.map(|(account, plan)| (account.storage_limit_bytes, plan.code.to_string()))
    };
    assert_eq!(change("premium").await, Err(Error::PlanChangeNotAllowed));
    assert!(matches!(change("gold").await, Err(Error::InvalidRequest(_))));
    assert_eq!(change("team").await, Ok((2 * MIB, "team".to_owned())));
    assert_eq!(change("free").await, Ok((GIB, "free".to_owned())));

    let cid = world.cluster.publish("three", 3 * MIB);
    world.pin(&alice, PinRequest::new(cid)).await.unwrap();
    let refused = change("team").await;
    assert_eq!(refused, Err(Error::PlanTooSmall { used_bytes: 3 * MIB, limit_bytes: 2 * MIB }));
    assert_eq!(world.fresh(alice.account.id).await.plan.as_str(), "free");
    assert_eq!(
        actions(&world.service, alice.account.id).await.iter().filter(|a| *a == "plan.change").count(),
        2
    );
}

#[tokio::test]
async fn plan_changes_can_be_restricted_by_the_operator() {
    for (plan_change, to_premium) in [(PlanChange::Any, true), (PlanChange::Operator, false)] {
        let world = World::start_with(Settings { plan_change, ..Settings::default() }).await;
        let alice = world.account("alice", "free").await;
        let changed = world.service.subscriptions.change(&alice, &PlanCode::new("premium")).await;
        assert_eq!(changed.is_ok(), to_premium);
        let same = world.service.subscriptions.change(&alice, &PlanCode::new("free")).await;
        assert!(same.is_ok() || to_premium, "an account may select the plan that it has");
    }
}

#[tokio::test]
async fn timelocks_stay_after_a_change_to_a_plan_without_them() {
    let world = World::start().await;
    let alice = world.account("alice", "premium").await;
    let cid = world.cluster.publish("locked", MIB);
    let request =
        PinRequest::new(cid).with(PinOptions { timelock: Some(world.in_an_hour()), ..PinOptions::default() });
    world.pin(&alice, request.clone()).await.unwrap();
    let (_, plan) = world.service.subscriptions.change(&alice, &PlanCode::new("free")).await.unwrap();
    let alice = pinfold_service::Caller { plan, ..alice };
    assert!(world.uploads(&alice).await[0].expires_at.is_some());
    assert_eq!(world.pin(&alice, request).await.err(), Some(Error::TimelockNotAllowed));
    world.clock.advance(Duration::from_hours(2));
    world.run_until_idle().await;
    assert!(world.uploads(&alice).await.is_empty(), "the pins expire at their timelocks");
}

#[tokio::test]
async fn plan_that_is_too_small_keeps_pins_and_refuses_new_ones() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let cid = world.cluster.publish("three", 3 * MIB);
    world.pin(&alice, PinRequest::new(cid)).await.unwrap();
    world.service.admin.save_plan(BY, team(2 * MIB)).await.unwrap();
    let edit = AccountEdit { plan: Some(PlanCode::new("team")), ..AccountEdit::default() };
    set(&world, alice.account.id, edit).await.unwrap();
    assert_eq!(world.uploads(&alice).await.len(), 1);
    let one = world.cluster.publish("one", 1);
    assert_eq!(world.pin(&alice, PinRequest::new(one)).await.err(), Some(Error::QuotaExceeded));
    world.remove(&alice, &cid).await.unwrap();
    world.pin(&alice, PinRequest::new(one)).await.unwrap();
}

#[tokio::test]
async fn account_can_have_an_individual_storage_limit() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await.account.id;
    let storage = async |bytes| {
        let edit = AccountEdit { storage_override_bytes: Some(bytes), ..AccountEdit::default() };
        set(&world, alice, edit).await.unwrap();
        world.fresh(alice).await.storage_limit_bytes
    };
    assert_eq!(storage(Some(5)).await, 5);
    world.service.admin.save_plan(BY, Plan { code: PlanCode::new("free"), ..team(9) }).await.unwrap();
    assert_eq!(world.fresh(alice).await.storage_limit_bytes, 5);
    assert_eq!(storage(None).await, 9, "the limit of the plan again");
}

#[tokio::test]
async fn last_admin_can_not_be_removed() {
    let world = World::start().await;
    let (first, second) = (admin(&world, "first").await, admin(&world, "second").await);
    let demote = || AccountEdit { role: Some(Role::User), ..AccountEdit::default() };
    let disable = || AccountEdit { disabled: Some(true), ..AccountEdit::default() };
    let both = tokio::join!(set(&world, first, demote()), set(&world, second, disable()));
    assert!(matches!(both, (Ok(()), Err(Error::LastAdmin)) | (Err(Error::LastAdmin), Ok(()))), "{both:?}");
    let last = if both.0.is_ok() { second } else { first };
    for refused in [set(&world, last, demote()).await, set(&world, last, disable()).await] {
        assert_eq!(refused, Err(Error::LastAdmin));
    }
    let removed = world.service.admin.remove_account(BY, last, true).await;
    assert_eq!(removed, Err(Error::LastAdmin));
}

#[tokio::test]
async fn account_removal_continues_after_a_restart() {
    let mut world = World::start().await;
    let (alice, bob) = (world.account("alice", "free").await, world.account("bob", "free").await);
    let shared = world.cluster.publish("shared", MIB);
    let own = world.cluster.publish("own", MIB);
    for (who, cid) in [(&alice, shared), (&alice, own), (&bob, shared)] {
        world.pin(who, PinRequest::new(cid)).await.unwrap();
    }
    let id = alice.account.id;
    let refused = world.service.admin.remove_account(BY, id, false).await;
    assert_eq!(refused, Err(Error::AccountHasPins { pins: 2 }));
    let leaving = world.service.admin.remove_account(Actor::account(bob.account.id), id, true).await;
    assert_eq!(leaving, Ok(RemoveAccountOutcome::Begun { pins: 2 }));
    world.restart().await;
    world.run_until_idle().await;
    assert_eq!(world.service.admin.account(id).await.err(), Some(Error::AccountNotFound));
    world.check_idle(&[&bob]).await;
    assert!(world.cluster.has(&shared) && !world.cluster.holds(&format!("pin/cl0-global/{own}"), &own));

    let log = world.service.audit_log.list_all(Some(id), None, LogQuery::default()).await.unwrap();
    let entry = log.entries.iter().find(|entry| entry.action == "account.remove").unwrap();
    assert_eq!(entry.by.actor, Some(bob.account.id), "the log names the actor after the account is removed");
}

#[tokio::test]
async fn running_service_removes_accounts() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let cid = world.cluster.publish("own", MIB);
    world.pin(&alice, PinRequest::new(cid)).await.unwrap();
    let background = world.service.run();
    let admin = &world.service.admin;
    admin.remove_account(BY, alice.account.id, true).await.unwrap();
    let gone = async {
        while admin.account(alice.account.id).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, gone).await.unwrap();
    background.stop().await;
}

#[tokio::test]
async fn cluster_description_is_changed_and_restored() {
    let mut world = World::start().await;
    let alice = world.account("alice", "free").await;
    let id = ClusterId::default();
    let gateway = GatewayEdit { url: "https://gw.example.org/ipfs/".to_owned(), label: None };
    let edit = ClusterEdit {
        label: Some("Elsewhere".to_owned()),
        country: Some(Some("DE".to_owned())),
        gateways: Some(vec![gateway]),
        ..ClusterEdit::default()
    };
    world.service.admin.change_cluster(BY, &id, edit).await.unwrap();
    for _ in 0..2 {
        let shown = world.service.clusters.list(&alice).remove(0);
        assert_eq!((shown.label.as_str(), shown.country.as_deref()), ("Elsewhere", Some("DE")));
        let gateway = &shown.gateways[0];
        assert_eq!(
            (gateway.url.as_str(), gateway.label.as_str()),
            ("https://gw.example.org/ipfs/", "Elsewhere")
        );
        world.restart().await;
    }
    let view = world.service.admin.clusters().await.unwrap().remove(0);
    assert!(view.is_saved && view.problem.is_none() && view.usage.is_some());
    let bad = GatewayEdit { url: "ftp://gw.example.org/".to_owned(), label: None };
    let bad = ClusterEdit { gateways: Some(vec![bad]), ..ClusterEdit::default() };
    let refused = world.service.admin.change_cluster(BY, &id, bad).await;
    assert!(matches!(refused, Err(Error::InvalidRequest(_))));
    let nowhere = ClusterId::parse("cl9").unwrap();
    let unknown = world.service.admin.change_cluster(BY, &nowhere, ClusterEdit::default()).await;
    assert_eq!(unknown.err(), Some(Error::ClusterNotFound));

    world.service.admin.reset_cluster(BY, &id).await.unwrap();
    assert_eq!(world.service.clusters.list(&alice)[0].label, "Here");
}

#[tokio::test]
async fn statistics_count_pins_by_state() {
    let world = World::start().await;
    let (alice, bob) = (world.account("alice", "free").await, world.account("bob", "premium").await);
    let cid = world.cluster.publish("shared", MIB);
    world.pin(&alice, PinRequest::new(cid)).await.unwrap();
    world.pin(&bob, PinRequest::new(cid)).await.unwrap();
    let nowhere = world.cluster.publish("later", MIB);
    world.create_pin(&bob, nowhere).await.unwrap();
    let statistics = world.service.admin.statistics().await.unwrap();
    let plans: Vec<_> = statistics.accounts.iter().map(|sum| (sum.plan.as_str(), sum.accounts)).collect();
    assert_eq!(plans, [("free", 1), ("premium", 1)]);
    let cluster = &statistics.clusters[0];
    assert_eq!((cluster.pins.pinned, cluster.pins.queued, cluster.charged_bytes), (2, 1, 2 * MIB));
    assert_eq!((statistics.queue, cluster.damaged_dags), (1, 0));
}
