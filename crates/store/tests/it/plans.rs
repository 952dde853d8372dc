//! Saved plans and cluster descriptions, and the accounts of a plan.

use pinfold_model::{AccountId, Actor, ClusterId, Plan, PlanCode, PlanLimits, Role};
use pinfold_store::{
    AccountChanges, AuditFilter, BeginRemovalOutcome, DeletePlanOutcome, PlanGrant, SavePlanOutcome,
    SavedClusterInfo, Store, UpdateAccountOutcome,
};

use crate::world::{World, now};

const BY: Actor = Actor::OPERATOR;

fn plan(code: &str, storage_bytes: u64) -> Plan {
    let limits = PlanLimits {
        storage_bytes,
        file_bytes_max: Some(7),
        clusters: Some(vec![ClusterId::default(), ClusterId::parse("cl1-eu").unwrap()]),
        ..Plan::premium().limits
    };
    let descriptions = vec!["One".to_owned(), "Two ü".to_owned()];
    let code = PlanCode::new(code);
    Plan { code, name: "Ä plan".to_owned(), descriptions, price_cents: 999, self_service: true, limits }
}

/// Applies a plan to all of its accounts.
async fn follow(store: &Store, code: &str, configured_bytes: u64) {
    let (code, mut last) = (PlanCode::new(code), None);
    loop {
        last = store.apply_plan_storage(&code, configured_bytes, last).await.unwrap();
        if last.is_none() {
            return;
        }
    }
}

async fn limit(store: &Store, id: AccountId) -> u64 {
    store.account(id).await.unwrap().unwrap().storage_limit_bytes
}

fn grant(code: &str, configured_bytes: Option<u64>, must_fit: bool) -> AccountChanges {
    let plan = PlanGrant { code: PlanCode::new(code), configured_bytes, must_fit };
    AccountChanges { plan: Some(plan), ..AccountChanges::default() }
}

#[tokio::test]
async fn saved_plan_round_trips() {
    let world = World::start().await;
    let store = &world.store;
    let all = Plan { code: PlanCode::new("all"), descriptions: Vec::new(), ..Plan::free() };
    for plan in [plan("team", 5), plan("team", 6), all.clone()] {
        assert_eq!(store.save_plan(plan, BY, now()).await.unwrap(), SavePlanOutcome::Done);
    }
    let other = world.open().await;
    assert_eq!(other.saved_plans().await.unwrap(), [all, plan("team", 6)]);
}

#[tokio::test]
async fn number_of_saved_plans_is_limited() {
    let world = World::start().await;
    for number in 0..100 {
        let saved = world.store.save_plan(plan(&format!("p{number}"), 5), BY, now()).await.unwrap();
        assert_eq!(saved, SavePlanOutcome::Done);
    }
    let saved = world.store.save_plan(plan("more", 5), BY, now()).await.unwrap();
    assert_eq!(saved, SavePlanOutcome::TooMany);
    let again = world.store.save_plan(plan("p7", 6), BY, now()).await.unwrap();
    assert_eq!(again, SavePlanOutcome::Done, "an existing plan can be changed");
}

#[tokio::test]
async fn accounts_follow_their_plan_unless_they_have_an_individual_limit() {
    let world = World::start().await;
    let store = &world.store;
    let (ada, ben) = (world.account("ada", 100).await, world.account("ben", 100).await);
    let own = AccountChanges { storage_override: Some(Some(77)), ..AccountChanges::default() };
    let changed = store.update_account(ben, own, BY, now()).await.unwrap();
    assert!(matches!(changed, UpdateAccountOutcome::Done(account) if account.storage_limit_bytes == 77));

    store.save_plan(plan("free", 500), BY, now()).await.unwrap();
    follow(store, "free", 100).await;
    assert_eq!((limit(store, ada).await, limit(store, ben).await), (500, 77));
    let new = world.account("new", 100).await;
    assert_eq!(limit(store, new).await, 500, "the saved plan takes precedence over the configured limit");

    assert_eq!(
        store.delete_plan(PlanCode::new("free"), true, BY, now()).await.unwrap(),
        DeletePlanOutcome::Done
    );
    follow(store, "free", 100).await;
    assert_eq!((limit(store, ada).await, limit(store, ben).await), (100, 77));
}

#[tokio::test]
async fn plan_is_applied_to_accounts_in_steps() {
    let world = World::start().await;
    let accounts = (0..1_100).map(|number| {
        let store = world.store.clone();
        async move { crate::world::account(&store, &format!("a{number}"), 100).await }
    });
    futures::future::join_all(accounts).await;
    world.store.save_plan(plan("free", 500), BY, now()).await.unwrap();
    follow(&world.store, "free", 100).await;
    let accounts = world.store.accounts(None, 2_000).await.unwrap();
    assert_eq!(accounts.iter().filter(|account| account.storage_limit_bytes == 500).count(), 1_100);
}

#[tokio::test]
async fn plan_in_use_is_not_deleted() {
    let world = World::start().await;
    let store = &world.store;
    let ada = world.account("ada", 100).await;
    let delete = || store.delete_plan(PlanCode::new("team"), false, BY, now());
    assert_eq!(delete().await.unwrap(), DeletePlanOutcome::NotFound);
    store.save_plan(plan("team", 500), BY, now()).await.unwrap();
    store.update_account(ada, grant("team", None, true), BY, now()).await.unwrap();
    assert_eq!(delete().await.unwrap(), DeletePlanOutcome::InUse);
    store.update_account(ada, grant("free", Some(100), true), BY, now()).await.unwrap();
    assert_eq!(delete().await.unwrap(), DeletePlanOutcome::Done);

    let gone = store.update_account(ada, grant("team", None, true), BY, now()).await.unwrap();
    assert_eq!(gone, UpdateAccountOutcome::UnknownPlan);
    assert_eq!(limit(store, ada).await, 100, "nothing was changed");
}

#[tokio::test]
async fn plan_is_never_assigned_while_it_is_deleted() {
    let world = World::start().await;
    let store = &world.store;
    let ada = world.account("ada", 100).await;
    for _ in 0..20 {
        store.save_plan(plan("team", 500), BY, now()).await.unwrap();
        let (given, deleted) = tokio::join!(
            store.update_account(ada, grant("team", None, true), BY, now()),
            store.delete_plan(PlanCode::new("team"), false, BY, now())
        );
        let is_given = matches!(given.unwrap(), UpdateAccountOutcome::Done(_));
        assert_eq!(
            deleted.unwrap(),
            if is_given { DeletePlanOutcome::InUse } else { DeletePlanOutcome::Done }
        );
        store.update_account(ada, grant("free", Some(100), true), BY, now()).await.unwrap();
        store.delete_plan(PlanCode::new("team"), false, BY, now()).await.unwrap();
    }
}

#[tokio::test]
async fn every_account_change_is_logged() {
    let world = World::start().await;
    let (ada, ben) = (world.account("ada", 100).await, world.account("ben", 100).await);
    let by = Actor::account(ben);
    let changes = AccountChanges {
        name: Some("Ada".to_owned()),
        role: Some(Role::Admin),
        disabled: Some(true),
        storage_override: Some(Some(9)),
        ..grant("premium", Some(500), false)
    };
    world.store.update_account(ada, changes, by, now()).await.unwrap();
    let filter = AuditFilter { account: Some(ada), ..AuditFilter::default() };
    let log = world.store.list_audit(&filter, None, 0, 100, 100).await.unwrap();
    let mut actions: Vec<&str> = log.entries.iter().map(|entry| entry.action.as_str()).collect();
    actions.sort_unstable();
    let expected = [
        "account.create",
        "account.disable",
        "account.name",
        "account.role",
        "account.storage",
        "plan.change",
    ];
    assert_eq!(actions, expected);
    let by_ben = AuditFilter { actor: Some(ben), ..AuditFilter::default() };
    let log = world.store.list_audit(&by_ben, None, 0, 100, 100).await.unwrap();
    assert_eq!((log.entries.len(), log.total), (5, 5), "the log can be filtered by actor");
    assert!(log.entries.iter().all(|entry| entry.account == Some(ada)));
}

#[tokio::test]
async fn concurrent_changes_leave_one_admin() {
    let world = World::start().await;
    let store = &world.store;
    let mut admins = Vec::new();
    for number in 0..4 {
        let id = world.account(&format!("admin{number}"), 100).await;
        let role = AccountChanges { role: Some(Role::Admin), ..AccountChanges::default() };
        store.update_account(id, role, BY, now()).await.unwrap();
        admins.push(id);
    }
    let demote = AccountChanges { role: Some(Role::User), ..AccountChanges::default() };
    let disable = AccountChanges { disabled: Some(true), ..AccountChanges::default() };
    let (a, b, c, d) = tokio::join!(
        store.update_account(admins[0], demote.clone(), BY, now()),
        store.update_account(admins[1], disable, BY, now()),
        store.begin_account_removal(admins[2], true, BY, now()),
        store.update_account(admins[3], demote, BY, now()),
    );
    let refused = [
        a.unwrap() == UpdateAccountOutcome::LastAdmin,
        b.unwrap() == UpdateAccountOutcome::LastAdmin,
        d.unwrap() == UpdateAccountOutcome::LastAdmin,
    ];
    let refused = refused.into_iter().filter(|refused| *refused).count();
    let removal = usize::from(c.unwrap() == BeginRemovalOutcome::LastAdmin);
    assert_eq!(refused + removal, 1, "one of the two changes is refused");
}

#[tokio::test]
async fn saved_cluster_description_round_trips() {
    let world = World::start().await;
    let store = &world.store;
    let saved = SavedClusterInfo {
        cluster: ClusterId::default(),
        label: "Müller".to_owned(),
        region: None,
        country: Some("DE".to_owned()),
        gateways: vec![("https://a.example.org/ipfs/".to_owned(), "A b".to_owned())],
    };
    store
        .save_cluster_info(SavedClusterInfo { label: "x".to_owned(), ..saved.clone() }, BY, now())
        .await
        .unwrap();
    store.save_cluster_info(saved.clone(), BY, now()).await.unwrap();
    assert_eq!(store.saved_cluster_infos().await.unwrap(), [saved]);
    assert!(store.delete_cluster_info(ClusterId::default(), BY, now()).await.unwrap());
    assert!(!store.delete_cluster_info(ClusterId::default(), BY, now()).await.unwrap());
    assert!(store.saved_cluster_infos().await.unwrap().is_empty());
}
