//! Operations on a whole database: snapshots and reverification.

use std::os::unix::fs::PermissionsExt;

use pinfold_model::{PinPhase, PlacementState};
use pinfold_store::{Capacity, Damage, PlacementOutcome, ReverifyCounts, Store, StoreError};

use crate::world::{World, at, cid, created, failed_outcome, failure, held, new_pin, now};

/// Creates an account that has a DAG pinned.
async fn pinned(world: &World, number: u32) -> pinfold_model::AccountId {
    let account = world.account(&format!("ada{number}"), 1_000).await;
    created(world.create_pin(account, cid(number)).await);
    let leased = world.lease_one(now()).await;
    world.complete_placement(&leased, held(10)).await;
    account
}

#[tokio::test]
async fn snapshot_is_complete_and_private() {
    let world = World::start().await;
    let ada = pinned(&world, 1).await;
    let copy = world.path().with_file_name("copy.db");
    world.store.snapshot(&copy).await.unwrap();
    created(world.create_pin(ada, cid(2)).await);

    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(
        matches!(world.store.snapshot(&copy).await, Err(StoreError::Failed(_))),
        "an existing file is not overwritten"
    );
    let store = Store::open(&copy).await.unwrap();
    let placements = store.placements(None, 10).await.unwrap();
    assert_eq!(placements, world.store.placements(None, 1).await.unwrap());
    assert_eq!(store.account(ada).await.unwrap().unwrap().used_bytes, 10);
    assert_eq!(
        world.store.placements(None, 10).await.unwrap().len(),
        2,
        "the original database stays in use"
    );
}

#[tokio::test]
async fn reverified_pin_is_charged_once() {
    let world = World::start().await;
    let ada = pinned(&world, 1).await;
    let newest = world.store.newest_placement().await.unwrap().unwrap();
    assert_eq!(world.store.count_in_progress(newest).await.unwrap(), 0);
    assert_eq!(world.store.reverify_all(now()).await.unwrap(), 1);
    assert_eq!(
        world.store.count_in_progress(newest).await.unwrap(),
        1,
        "the upload hold of its blocks is kept until then"
    );
    assert_eq!(world.store.reverify_counts().await.unwrap(), ReverifyCounts { due: 1, failing: 0 });

    let leased = world.lease_one(now()).await;
    assert_eq!(
        (leased.placement.state, leased.wanted, leased.budget_bytes),
        (PlacementState::Pinned, true, u64::MAX)
    );
    assert_eq!(world.pins(ada).await[0].phase, PinPhase::Active);
    assert_eq!(world.store.reverify_all(now()).await.unwrap(), 0, "the placement is leased");
    world.complete_placement(&leased, held(10)).await;
    assert_eq!(world.store.account(ada).await.unwrap().unwrap().used_bytes, 10);
    assert_eq!(world.store.reverify_counts().await.unwrap(), ReverifyCounts::default());
    assert_eq!(world.store.count_in_progress(newest).await.unwrap(), 0);
}

#[tokio::test]
async fn failed_reverification_keeps_the_pin_and_is_retried() {
    let world = World::start().await;
    let ada = pinned(&world, 1).await;
    world.store.reverify_all(now()).await.unwrap();
    for (tries, outcome) in [
        (1, PlacementOutcome::Failed { failure: failure(), over_budget_bytes: None, next_at: at(10) }),
        (2, PlacementOutcome::Postponed { failure: Some(failure()), next_at: at(10) }),
    ] {
        let leased = world.lease_one(at(100)).await;
        world.complete_placement(&leased, outcome).await;
        let pin = world.pins(ada).await.remove(0);
        assert_eq!((pin.phase, pin.charged_bytes), (PinPhase::Active, 10));
        assert_eq!((pin.placement.state, pin.placement.attempts), (PlacementState::Pinned, tries));
        assert_eq!(pin.placement.due_at, Some(at(10)));
        assert_eq!(world.store.reverify_counts().await.unwrap(), ReverifyCounts { due: 1, failing: 1 });
    }
    let leased = world.lease_one(at(100)).await;
    world.complete_placement(&leased, held(10)).await;
    assert_eq!(world.pins(ada).await[0].placement.error, None);
}

#[tokio::test]
async fn single_placement_is_reverified() {
    let world = World::start().await;
    for number in [1, 2] {
        pinned(&world, number).await;
    }
    let cluster = pinfold_model::ClusterId::default();
    assert!(world.store.reverify(&cid(2), &cluster, now()).await.unwrap());
    assert!(!world.store.reverify(&cid(3), &cluster, now()).await.unwrap(), "the content is not pinned");
    assert_eq!(world.lease_one(now()).await.placement.cid, cid(2));
}

#[tokio::test]
async fn new_pins_are_leased_before_reverification() {
    let world = World::start().await;
    let ada = pinned(&world, 1).await;
    world.store.reverify_all(now()).await.unwrap();
    created(world.create_pin(ada, cid(2)).await);
    let order: Vec<_> = world.store.lease_placements(Capacity::each(2), now(), at(60)).await.unwrap();
    assert_eq!(order.iter().map(|leased| leased.placement.cid).collect::<Vec<_>>(), [cid(2), cid(1)]);
}

#[tokio::test]
async fn owner_emails_lists_accounts_with_the_cid_pinned() {
    let world = World::start().await;
    pinned(&world, 1).await;
    let bea = world.account("bea", 1_000).await;
    created(world.create_pin(bea, cid(1)).await);
    let poor = world.account("poor", 1_000).await;
    created(world.create_pin(poor, cid(2)).await);
    let leased = world.lease_one(now()).await;
    world.complete_placement(&leased, failed_outcome()).await;
    let owners = |number, limit| {
        let store = &world.store;
        async move {
            let owners =
                store.owner_emails(&cid(number), &pinfold_model::ClusterId::default(), limit).await.unwrap();
            owners.iter().map(ToString::to_string).collect::<Vec<_>>()
        }
    };
    assert_eq!(owners(1, 10).await, ["ada1@example.org", "bea@example.org"]);
    assert_eq!(owners(1, 1).await, ["ada1@example.org"]);
    assert_eq!(owners(2, 10).await, [""; 0]);
}

#[tokio::test]
async fn repair_retries_never_delay_new_pins() {
    let world = World::start().await;
    let ada = pinned(&world, 1).await;
    let damage = Damage { cid: cid(1), cluster: new_pin(ada, cid(1)).cluster, blocks: 3 };
    world.store.record_damage(vec![damage], at(5)).await.unwrap();
    world.create_pin(ada, cid(2)).await;
    let leases = world.store.lease_placements(Capacity::each(2), at(6), at(60)).await.unwrap();
    assert_eq!(leases.iter().map(|leased| leased.placement.cid).collect::<Vec<_>>(), [cid(2), cid(1)]);
    world.complete_placement(&leases[0], held(10)).await;
    world
        .complete_placement(
            &leases[1],
            PlacementOutcome::Postponed { failure: Some(failure()), next_at: at(2 * 3_600) },
        )
        .await;

    world.store.create_pin(new_pin(ada, cid(3)), at(2 * 3_600)).await.unwrap();
    let leases =
        world.store.lease_placements(Capacity::each(2), at(2 * 3_600 + 1), at(3 * 3_600)).await.unwrap();
    assert_eq!(leases.iter().map(|leased| leased.placement.cid).collect::<Vec<_>>(), [cid(3), cid(1)]);
}
