//! Operator views and operations across accounts: lists and removals.

use pinfold_model::{AccountId, Actor, ClusterId, Email, PinPhase, PinState, PlanCode, Role};
use pinfold_store::{
    AccountChanges, AccountFilter, AdminPinsFilter, BeginRemovalOutcome, CreatePinOutcome, Damage, PlanGrant,
    RemovalStep, UpdateAccountOutcome,
};

use crate::world::{World, cid, created, failed_outcome, held, now};

const BY: Actor = Actor::OPERATOR;

/// Emails of all matching accounts, read page by page.
async fn accounts(world: &World, filter: &AccountFilter) -> Vec<String> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let page = world.store.list_accounts(filter, cursor, 2).await.unwrap();
        assert!(page.accounts.len() <= 2);
        found.extend(page.accounts.into_iter().map(|record| record.account.email.to_string()));
        cursor = page.next;
        if cursor.is_none() {
            return found;
        }
    }
}

/// All matching pins, read page by page: their account and phase.
async fn pins(world: &World, filter: &AdminPinsFilter) -> Vec<(AccountId, PinPhase)> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let page = world.store.list_admin_pins(filter, cursor, 2).await.unwrap();
        found.extend(page.pins.into_iter().map(|pin| (pin.account, pin.phase)));
        // The string form of a cursor parses back to the same cursor.
        cursor = page.next.map(|next| next.to_string().parse().unwrap());
        if cursor.is_none() {
            return found;
        }
    }
}

/// Creates a pin and completes its placement with this size.
async fn pin_and_complete(world: &World, account: AccountId, number: u32, bytes: u64) {
    created(world.create_pin(account, cid(number)).await);
    let leased = world.lease_one(now()).await;
    world.complete_placement(&leased, held(bytes)).await;
}

#[tokio::test]
async fn account_list_applies_every_filter() {
    let world = World::start().await;
    let names = ["ada", "ben", "cyd", "dan", "eve"];
    let mut ids = Vec::new();
    for name in names {
        ids.push(world.account(name, 100).await);
    }
    let change = async |id, changes| {
        let changed = world.store.update_account(id, changes, BY, now()).await.unwrap();
        assert!(matches!(changed, UpdateAccountOutcome::Done(_)), "{changed:?}");
    };
    let admin = AccountChanges { role: Some(Role::Admin), ..AccountChanges::default() };
    change(ids[0], admin.clone()).await;
    change(ids[3], AccountChanges { name: Some("Ada too_100%".to_owned()), ..admin }).await;
    change(ids[4], AccountChanges { disabled: Some(true), ..AccountChanges::default() }).await;
    let code = PlanCode::new("premium");
    let plan = PlanGrant { code: code.clone(), configured_bytes: Some(1), must_fit: true };
    change(ids[1], AccountChanges { plan: Some(plan), ..AccountChanges::default() }).await;

    let all = AccountFilter::default();
    let email = |name: &&str| format!("{name}@example.org");
    assert_eq!(accounts(&world, &all).await, names.iter().rev().map(email).collect::<Vec<_>>());
    let found = async |filter| accounts(&world, &filter).await.join(" ").replace("@example.org", "");
    let none = AccountFilter::default;
    assert_eq!(found(AccountFilter { role: Some(Role::Admin), ..none() }).await, "dan ada");
    assert_eq!(found(AccountFilter { role: Some(Role::User), ..none() }).await, "eve cyd ben");
    assert_eq!(found(AccountFilter { disabled: Some(true), ..none() }).await, "eve");
    assert_eq!(found(AccountFilter { disabled: Some(false), ..none() }).await, "dan cyd ben ada");
    assert_eq!(found(AccountFilter { plan: Some(code), ..none() }).await, "ben");
    assert_eq!(found(AccountFilter { search: Some("ADA".to_owned()), ..none() }).await, "dan ada");
    assert_eq!(found(AccountFilter { search: Some("too_100%".to_owned()), ..none() }).await, "dan");
    assert_eq!(found(AccountFilter { search: Some("t_o".to_owned()), ..none() }).await, "");
    let both = AccountFilter { role: Some(Role::Admin), search: Some("dan".to_owned()), ..none() };
    assert_eq!(found(both).await, "dan");
}

#[tokio::test]
async fn admin_pin_list_applies_every_filter() {
    let world = World::start().await;
    let (ada, ben) = (world.account("ada", 1_000).await, world.account("ben", 1_000).await);
    for number in 0..3 {
        pin_and_complete(&world, ada, number, 10).await;
    }
    assert!(matches!(world.create_pin(ben, cid(0)).await, CreatePinOutcome::Done { .. }));
    created(world.create_pin(ben, cid(7)).await);
    let leased = world.lease_one(now()).await;
    world.complete_placement(&leased, failed_outcome()).await;
    created(world.create_pin(ben, cid(8)).await);
    let damage = Damage { cid: cid(0), cluster: ClusterId::default(), blocks: 2 };
    world.store.record_damage(vec![damage], now()).await.unwrap();

    let none = AdminPinsFilter::default;
    let (active, failed, pending) = (PinPhase::Active, PinPhase::Failed, PinPhase::Pending);
    let everything =
        [(ben, pending), (ben, failed), (ben, active), (ada, active), (ada, active), (ada, active)];
    assert_eq!(pins(&world, &none()).await, everything);
    let of_ada = AdminPinsFilter { account: Some(ada), ..none() };
    assert_eq!(pins(&world, &of_ada).await, [(ada, active); 3]);
    let of_cid = AdminPinsFilter { cid: Some(cid(0)), ..none() };
    assert_eq!(pins(&world, &of_cid).await, [(ada, active), (ben, active)]);
    let of_both = AdminPinsFilter { cid: Some(cid(0)), account: Some(ben), ..none() };
    assert_eq!(pins(&world, &of_both).await, [(ben, active)]);
    let damaged = AdminPinsFilter { is_damaged: true, ..none() };
    assert_eq!(pins(&world, &damaged).await, [(ada, active), (ben, active)]);
    let damaged_of_ada = AdminPinsFilter { is_damaged: true, account: Some(ada), ..none() };
    assert_eq!(pins(&world, &damaged_of_ada).await, [(ada, active)]);
    for (state, expected) in [
        (PinState::Failed, vec![(ben, failed)]),
        (PinState::Queued, vec![(ben, pending)]),
        (PinState::Pinning, vec![]),
        (PinState::Pinned, vec![(ben, active), (ada, active), (ada, active), (ada, active)]),
        (PinState::Unpinned, vec![]),
    ] {
        assert_eq!(
            pins(&world, &AdminPinsFilter { state: Some(state), ..none() }).await,
            expected,
            "{state}"
        );
    }
    let elsewhere = AdminPinsFilter { cluster: Some(ClusterId::parse("cl9").unwrap()), ..none() };
    assert!(pins(&world, &elsewhere).await.is_empty());
}

#[tokio::test]
async fn admin_removes_pin_of_any_account_by_id() {
    let world = World::start().await;
    let ada = world.account("ada", 1_000).await;
    pin_and_complete(&world, ada, 1, 10).await;
    let pin = world.pins(ada).await.remove(0);
    assert!(world.store.admin_remove_pin(pin.id, BY, now()).await.unwrap().is_some());
    assert!(world.store.admin_remove_pin(pin.id, BY, now()).await.unwrap().is_none());
    assert!(world.pins(ada).await.is_empty());
    assert_eq!(world.store.account(ada).await.unwrap().unwrap().used_bytes, 0);
}

#[tokio::test]
async fn account_removal_deletes_pins_in_steps_across_a_restart() {
    let mut world = World::start().await;
    let (ada, ben) = (world.account("ada", 1_000).await, world.account("ben", 1_000).await);
    for number in 0..5 {
        pin_and_complete(&world, ada, number, 10).await;
    }
    assert!(matches!(world.create_pin(ben, cid(0)).await, CreatePinOutcome::Done { .. }));
    let begin =
        async |world: &World, force| world.store.begin_account_removal(ada, force, BY, now()).await.unwrap();
    assert_eq!(begin(&world, false).await, BeginRemovalOutcome::HasPins { pins: 5 });
    assert!(!world.store.account(ada).await.unwrap().unwrap().disabled);
    assert_eq!(begin(&world, true).await, BeginRemovalOutcome::Begun { pins: 5 });
    assert!(world.store.account(ada).await.unwrap().unwrap().disabled);
    assert_eq!(
        begin(&world, false).await,
        BeginRemovalOutcome::Begun { pins: 5 },
        "a repeated removal has the same result"
    );

    // An account being removed cannot create pins or be enabled again.
    assert!(matches!(world.create_pin(ada, cid(0)).await, CreatePinOutcome::Done { created: false, .. }));
    assert!(matches!(world.create_pin(ada, cid(9)).await, CreatePinOutcome::OverQuota));
    let enable = AccountChanges { disabled: Some(false), ..AccountChanges::default() };
    assert_eq!(
        world.store.update_account(ada, enable, BY, now()).await.unwrap(),
        UpdateAccountOutcome::Removing
    );

    let step = world.store.continue_account_removal(3, now()).await.unwrap();
    assert!(matches!(step, RemovalStep::Pins(pins) if pins.len() == 3));
    world.store.close().await;
    world.store = world.open().await;
    let step = world.store.continue_account_removal(3, now()).await.unwrap();
    assert!(matches!(step, RemovalStep::Pins(pins) if pins.len() == 2));
    assert_eq!(world.store.continue_account_removal(3, now()).await.unwrap(), RemovalStep::Gone(ada));
    assert_eq!(world.store.continue_account_removal(3, now()).await.unwrap(), RemovalStep::Nothing);
    assert_eq!(world.store.account(ada).await.unwrap(), None);
    assert_eq!(world.pins(ben).await.len(), 1, "pins of other accounts stay");
    let figures = world.store.statistics().await.unwrap();
    assert_eq!(figures.accounts.iter().map(|sum| sum.accounts).sum::<u64>(), 1);

    let email = Email::parse("ada@example.org").unwrap();
    assert_eq!(world.store.account_by_email(&email).await.unwrap(), None);
    world.account("ada", 100).await;
}

#[tokio::test]
async fn account_without_pins_is_removed_at_once() {
    let world = World::start().await;
    let ada = world.account("ada", 100).await;
    let begin = || world.store.begin_account_removal(ada, false, BY, now());
    assert_eq!(begin().await.unwrap(), BeginRemovalOutcome::Gone);
    assert_eq!(begin().await.unwrap(), BeginRemovalOutcome::NotFound);
}
