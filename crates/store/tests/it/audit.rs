//! The audit log: entries are written in the transaction of the change, listed newest first, and deleted oldest first.

use std::collections::HashSet;
use std::time::Duration;

use pinfold_model::{AccountId, Actor, AuditEntry, AuditEvent, AuditStatus, Details, Source};
use pinfold_store::{AuditFilter, Capacity, CreatePin, CreatePinOutcome};

use crate::world::{World, at, cid, created, failed_outcome, held, named, new_pin, now, times};

/// All audit entries of an account, newest first.
async fn log(world: &World, account: AccountId) -> Vec<AuditEntry> {
    let filter = AuditFilter { account: Some(account), ..AuditFilter::default() };
    let list = world.store.list_audit(&filter, None, 0, 1_000, 1_000).await.unwrap();
    assert_eq!(list.total, list.entries.len() as u64);
    list.entries
}

async fn actions(world: &World, account: AccountId) -> Vec<String> {
    log(world, account).await.into_iter().map(|entry| entry.action).collect()
}

#[tokio::test]
async fn pin_changes_are_logged_with_their_actor() {
    let world = World::start().await;
    let ada = world.account("ada", 1_000).await;
    let by =
        Actor { source: Source::Web, address: Some("192.0.2.7".parse().unwrap()), ..Actor::account(ada) };
    let request =
        CreatePin { actor: by, options: named("a \"b\""), action: "file.upload", ..new_pin(ada, cid(1)) };
    created(world.store.create_pin(request.clone(), now()).await.unwrap());
    let again = world.store.create_pin(request.clone(), at(1)).await.unwrap();
    assert!(matches!(again, CreatePinOutcome::Done { created: false, .. }));
    world.store.create_pin(CreatePin { options: named("c"), ..request }, at(2)).await.unwrap();
    world.store.remove_pin(ada, &cid(1), None, by, at(3)).await.unwrap();

    let log = log(&world, ada).await;
    let entries: Vec<_> = log.iter().map(|entry| (entry.action.as_str(), entry.at)).collect();
    assert_eq!(
        entries,
        [("pin.remove", at(3)), ("pin.update", at(2)), ("file.upload", now()), ("account.create", now())],
        "a request that changes nothing is not logged"
    );
    for entry in &log[..3] {
        assert_eq!((entry.by, entry.subject.as_str()), (by, cid(1).to_string().as_str()));
        assert_eq!((entry.account, entry.status), (Some(ada), AuditStatus::Done));
    }
    assert_eq!(log[0].details.as_deref(), Some(r#"{"cluster":"cl0-global"}"#));
    assert_eq!(log[2].details.as_deref(), Some(r#"{"cluster":"cl0-global","name":"a \"b\""}"#));
    assert_eq!((log[3].by, log[3].subject.as_str()), (Actor::OPERATOR, "ada@example.org"));
}

#[tokio::test]
async fn changes_by_the_service_are_logged_for_every_affected_account() {
    let world = World::start().await;
    let (ada, bea) = (world.account("ada", 1_000).await, world.account("bea", 10).await);
    for account in [ada, bea] {
        let options = times(Some(at(10)), None);
        created(
            world.store.create_pin(CreatePin { options, ..new_pin(account, cid(1)) }, now()).await.unwrap(),
        );
    }
    let leased = world.lease_one(now()).await;
    world.complete_placement(&leased, held(100)).await;
    assert_eq!(
        actions(&world, bea).await,
        ["pin.fail", "pin.create", "account.create"],
        "her quota is too small"
    );
    assert_eq!(world.store.expire_pins(at(10), 10).await.unwrap().len(), 2);
    assert_eq!(actions(&world, ada).await, ["pin.expire", "pin.create", "account.create"]);
    let ended = log(&world, ada).await.remove(0);
    assert_eq!((ended.by, ended.subject), (Actor::SYSTEM, cid(1).to_string()));

    created(world.create_pin(ada, cid(2)).await);
    let leases = world.store.lease_placements(Capacity::each(2), at(20), at(80)).await.unwrap();
    for leased in leases {
        let outcome =
            if leased.wanted { failed_outcome() } else { pinfold_store::PlacementOutcome::Released };
        world.complete_placement(&leased, outcome).await;
    }
    let failed = log(&world, ada).await.into_iter().find(|entry| entry.action == "pin.fail").unwrap();
    assert_eq!((failed.subject, failed.status), (cid(2).to_string(), AuditStatus::Refused));
    assert!(failed.details.unwrap().contains("fetch failed"));
}

#[tokio::test]
async fn refused_pin_is_not_logged() {
    let world = World::start().await;
    let ada = world.account("ada", 1_000).await;
    let none = CreatePin { in_flight_max: 0, ..new_pin(ada, cid(1)) };
    assert!(matches!(world.store.create_pin(none, now()).await.unwrap(), CreatePinOutcome::TooManyInFlight));
    world.remove(ada, &cid(1)).await;
    assert_eq!(actions(&world, ada).await, ["account.create"]);
}

/// Writes `count` entries, one second apart; every third has a different action.
async fn write_many(world: &World, account: Option<AccountId>, count: u32) {
    let entries = (0..count).map(|n| {
        let action = if n % 3 == 0 { "account.login" } else { "session.end" };
        let act =
            AuditEvent { account, ..AuditEvent::new(AccountId(0), Actor::OPERATOR, action, n.to_string()) };
        let act = act.with(Details::default().with("n", n));
        world.store.record_audit_event(act, at(i64::from(n)))
    });
    futures::future::join_all(entries).await.into_iter().for_each(|done| done.unwrap());
}

#[tokio::test]
async fn audit_cursor_visits_every_entry_once_with_equal_timestamps() {
    let world = World::start().await;
    let ada = world.account("ada", 1_000).await;
    for _ in 0..3 {
        write_many(&world, Some(ada), 40).await;
    }
    let filter = AuditFilter { account: Some(ada), ..AuditFilter::default() };
    let (mut seen, mut before) = (HashSet::new(), None);
    loop {
        let list = world.store.list_audit(&filter, before, 0, 7, 1_000).await.unwrap();
        assert_eq!(list.total, 121);
        let Some(last) = list.entries.last() else { break };
        before = Some(last.cursor());
        assert!(list.entries.is_sorted_by(|newer, older| newer.cursor() > older.cursor()));
        assert!(list.entries.iter().all(|entry| seen.insert(entry.id)));
        write_many(&world, None, 1).await;
    }
    assert_eq!(seen.len(), 121);
}

#[tokio::test]
async fn audit_filters_match_and_totals_are_bounded() {
    let world = World::start().await;
    let (ada, bea) = (world.account("ada", 1_000).await, world.account("bea", 1_000).await);
    for account in [Some(ada), Some(bea), None] {
        write_many(&world, account, 30).await;
    }
    let own = AuditFilter { account: Some(ada), ..AuditFilter::default() };
    let count = async |filter: &AuditFilter, count_max| {
        let list = world.store.list_audit(filter, None, 0, 1_000, count_max).await.unwrap();
        assert!(list.total == list.entries.len() as u64 || list.total == u64::from(count_max));
        list.total
    };
    assert_eq!(count(&own, 1_000).await, 31);
    assert_eq!(count(&own, 12).await, 12, "counting stops at the bound");
    let logins = AuditFilter { action: Some("account.login".to_owned()), ..own.clone() };
    assert_eq!(count(&logins, 1_000).await, 10);
    let span = AuditFilter { from: Some(at(10)), to: Some(at(20)), ..own.clone() };
    assert_eq!(count(&span, 1_000).await, 10);
    assert_eq!(count(&AuditFilter { from: Some(at(10)), to: Some(at(20)), ..logins }, 1_000).await, 3);
    assert_eq!(count(&AuditFilter::default(), 1_000).await, 92, "entries without an account are included");
    let login = Some("account.login".to_owned());
    assert_eq!(count(&AuditFilter { action: login, ..AuditFilter::default() }, 1_000).await, 30);
    let skipped = world.store.list_audit(&own, None, 28, 10, 1_000).await.unwrap();
    assert_eq!(skipped.entries.len(), 3);
}

#[tokio::test]
async fn old_entries_are_deleted_in_steps_oldest_first() {
    let world = World::start().await;
    write_many(&world, None, 10).await;
    let all = AuditFilter::default();
    assert_eq!(world.store.delete_old_audit_entries(at(6), 4).await.unwrap(), 4);
    let left = world.store.list_audit(&all, None, 0, 100, 100).await.unwrap().entries;
    assert_eq!(left.last().unwrap().at, at(4), "the oldest entries were deleted first");
    assert_eq!(world.store.delete_old_audit_entries(at(6), 4).await.unwrap(), 2);
    assert_eq!(world.store.delete_old_audit_entries(at(6), 4).await.unwrap(), 0);
    let left = world.store.list_audit(&all, None, 0, 100, 100).await.unwrap();
    assert_eq!((left.total, left.entries.last().unwrap().at), (4, at(6)));
}

#[tokio::test]
async fn long_subject_is_truncated_at_a_character_boundary() {
    let world = World::start().await;
    let ada = world.account("ada", 1_000).await;
    let act =
        AuditEvent::new(ada, Actor::account(ada), "test.long", format!("x{}", "é".repeat(10_000))).refused();
    world.store.record_audit_event(act, now().after(Duration::from_secs(1))).await.unwrap();
    let entry = log(&world, ada).await.remove(0);
    assert_eq!((entry.subject.len(), entry.status), (599, AuditStatus::Refused));
}
