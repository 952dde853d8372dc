//! Placements: leases, outcomes and their schedule.

use std::time::Duration;

use pinfold_model::{Actor, Event, PinKind, PinPhase, PlacementState};
use pinfold_store::{
    Capacity, CompleteOutcome, CreatePinOutcome, PinRemoval, PlacementOutcome, RemovePinOutcome,
};

use crate::world::{LEASE, World, at, cid, created, failed_outcome, failure, held, new_pin, now, times};

/// Brings the only placement, of `cid(1)`, into a state.
async fn bring(world: &World, state: PlacementState) {
    let account = world.account("ada", 1_000).await;
    created(world.create_pin(account, cid(1)).await);
    match state {
        PlacementState::Queued => {}
        PlacementState::Pinning => {
            // The lease expires.
            world.lease_one(now()).await;
        }
        PlacementState::Releasing => {
            let leased = world.lease_one(now()).await;
            world.complete_placement(&leased, held(10)).await;
            assert!(matches!(
                world.remove(account, &cid(1)).await,
                RemovePinOutcome::Done(PinRemoval { work: true, .. })
            ));
        }
        PlacementState::Pinned | PlacementState::Unpinned => panic!("a completed placement is not leased"),
    }
}

#[tokio::test]
async fn lease_changes_the_row_as_the_model_defines() {
    for state in PlacementState::ALL.iter().copied().filter(|state| !state.is_terminal()) {
        let world = World::start().await;
        bring(&world, state).await;
        let before = world.store.placements(None, 2).await.unwrap();
        assert_eq!(before[0].state, state);
        let leased = world.lease_one(at(1_000)).await;
        assert_eq!(leased.placement.state, state.after(Event::Leased), "{state}");
        assert_eq!(world.store.placements(None, 2).await.unwrap(), [leased.placement]);
    }
}

#[tokio::test]
async fn completed_placement_is_not_leased() {
    for outcome in [held(10), failed_outcome()] {
        let world = World::start().await;
        let account = world.account("ada", 1_000).await;
        created(world.create_pin(account, cid(1)).await);
        let leased = world.lease_one(now()).await;
        world.complete_placement(&leased, outcome.clone()).await;
        let again = world.store.lease_placements(Capacity::each(1), at(1_000), at(2_000)).await.unwrap();
        match outcome {
            PlacementOutcome::Failed { .. } => {
                assert!(!again[0].wanted, "a failed placement is released");
                assert_eq!(again[0].placement.state, PlacementState::Releasing);
                world.complete_placement(&again[0], PlacementOutcome::Released).await;
                assert_eq!(
                    world.store.placements(None, 2).await.unwrap()[0].state,
                    PlacementState::Unpinned,
                    "the failed pin still references it"
                );
            }
            PlacementOutcome::Held { .. }
            | PlacementOutcome::Postponed { .. }
            | PlacementOutcome::Released => {
                assert!(again.is_empty(), "{again:?}");
            }
        }
        assert!(
            world.store.lease_placements(Capacity::each(1), at(1_000), at(2_000)).await.unwrap().is_empty()
        );
        assert_eq!(world.store.next_placement_due(at(1_000), Capacity::each(1)).await.unwrap(), None);
    }
}

#[tokio::test]
async fn expired_lease_can_not_complete_a_placement() {
    let world = World::start().await;
    let account = world.account("ada", 1_000).await;
    created(world.create_pin(account, cid(1)).await);
    let late = world.lease_one(now()).await;
    let until = now().after(LEASE);
    assert!(
        world.store.lease_placements(Capacity::each(1), now(), until).await.unwrap().is_empty(),
        "the placement is leased"
    );
    let next = world.lease_one(until).await;
    assert_eq!(world.complete_placement(&late, held(10)).await, CompleteOutcome::LeaseLost);
    assert_eq!(
        world.store.renew_leases(vec![late.lease, next.lease], at(500)).await.unwrap(),
        [(next.lease, true)]
    );
    let done = world.complete_placement(&next, held(20)).await;
    assert_eq!(done, CompleteOutcome::Now { state: PlacementState::Pinned, work: false });
    assert_eq!(world.store.account(account).await.unwrap().unwrap().used_bytes, 20);
}

#[tokio::test]
async fn exclusive_start_takes_over_leased_placements() {
    let world = World::start().await;
    let account = world.account("ada", 1_000).await;
    created(world.create_pin(account, cid(1)).await);
    let lost = world.lease_one(now()).await;
    let store = world.open().await;
    assert_eq!(store.reset_placement_leases(now(), at(300)).await.unwrap(), 1);
    let next = world.lease_one(now()).await;
    assert_ne!(next.lease, lost.lease);
    assert_eq!(world.complete_placement(&lost, held(10)).await, CompleteOutcome::LeaseLost);
    world.complete_placement(&next, held(10)).await;
    assert_eq!(store.reset_placement_leases(now(), at(300)).await.unwrap(), 0);
}

#[tokio::test]
async fn longest_waiting_account_is_first_and_no_account_fills_the_queue() {
    let world = World::start().await;
    let (busy, other) = (world.account("busy", 1_000).await, world.account("other", 1_000).await);
    for number in 0..20 {
        created(world.create_pin(busy, cid(number)).await);
    }
    created(world.create_pin(other, cid(100)).await);
    let leases = world.store.lease_placements(Capacity::each(3), now(), at(60)).await.unwrap();
    let order: Vec<_> = leases.iter().map(|leased| leased.placement.cid).collect();
    assert_eq!(order, [cid(0), cid(100), cid(1)]);
}

#[tokio::test]
async fn postponed_placement_blocks_no_other_and_keeps_its_position() {
    let world = World::start().await;
    let account = world.account("ada", 1_000).await;
    for number in 0..20 {
        created(world.store.create_pin(new_pin(account, cid(number)), at(i64::from(number))).await.unwrap());
    }
    let leases = world.store.lease_placements(Capacity::each(19), at(30), at(90)).await.unwrap();
    for leased in &leases {
        let put_off = PlacementOutcome::Postponed { failure: Some(failure()), next_at: at(100) };
        world.store.complete_placement(leased.lease, put_off, at(30)).await.unwrap();
    }
    assert_eq!(world.store.next_placement_due(at(30), Capacity::each(1)).await.unwrap(), Some(at(30)));
    let last = world.lease_one(at(30)).await;
    assert_eq!(last.placement.cid, cid(19));
    world.complete_placement(&last, held(1)).await;
    assert_eq!(world.store.next_placement_due(at(30), Capacity::each(1)).await.unwrap(), Some(at(100)));
    let again = world.store.lease_placements(Capacity::each(3), at(100), at(160)).await.unwrap();
    let again: Vec<_> = again.iter().map(|leased| leased.placement.cid).collect();
    assert_eq!(again, [cid(0), cid(1), cid(2)], "the earlier request is first again");
}

#[tokio::test]
async fn pin_requested_during_release_is_fetched_again() {
    let world = World::start().await;
    bring(&world, PlacementState::Releasing).await;
    let release = world.lease_one(now()).await;
    assert!(!release.wanted);
    let account = world.store.accounts(None, 1).await.unwrap()[0].id;
    let pin = created(world.create_pin(account, cid(1)).await);
    assert_eq!((pin.phase, pin.charged_bytes), (PinPhase::Pending, 0));
    let done = world.complete_placement(&release, PlacementOutcome::Released).await;
    assert_eq!(done, CompleteOutcome::Now { state: PlacementState::Queued, work: true });
    assert!(world.lease_one(now()).await.wanted);
}

#[tokio::test]
async fn postponed_placement_is_due_again_and_counts_attempts() {
    let world = World::start().await;
    let account = world.account("ada", 1_000).await;
    created(world.create_pin(account, cid(1)).await);
    for (tries, failure) in [(1, Some(failure())), (1, None), (2, Some(failure()))] {
        let leased = world.lease_one(at(100)).await;
        world.complete_placement(&leased, PlacementOutcome::Postponed { failure, next_at: at(100) }).await;
        let placement = world.store.placement(leased.lease.placement).await.unwrap().unwrap();
        assert_eq!((placement.attempts, placement.state), (tries, PlacementState::Queued));
        assert!(!placement.leased && placement.error.is_some());
        assert_eq!(placement.due_at, Some(at(100)));
        assert!(
            world.store.lease_placements(Capacity::each(1), at(99), at(200)).await.unwrap().is_empty(),
            "not before it is due"
        );
    }
}

#[tokio::test]
async fn only_pins_within_the_quota_become_active() {
    let world = World::start().await;
    let (poor, rich) = (world.account("poor", 50).await, world.account("rich", 100).await);
    for account in [poor, rich] {
        created(world.create_pin(account, cid(1)).await);
    }
    let leased = world.lease_one(now()).await;
    assert_eq!(leased.budget_bytes, 100, "the largest budget among the accounts");
    world.complete_placement(&leased, held(100)).await;
    assert_eq!(world.pins(poor).await[0].phase, PinPhase::Failed);
    let active = &world.pins(rich).await[0];
    assert_eq!((active.phase, active.charged_bytes), (PinPhase::Active, 100));
    assert_eq!(active.placement.kind, PinKind::File);
    assert!(
        matches!(world.create_pin(rich, cid(2)).await, CreatePinOutcome::OverQuota),
        "no storage is left"
    );
    assert!(
        matches!(world.create_pin(poor, cid(1)).await, CreatePinOutcome::OverQuota),
        "the size is known now"
    );
    assert_eq!(world.pins(poor).await[0].phase, PinPhase::Failed, "the request changed nothing");
}

#[tokio::test]
async fn pin_expires_at_its_time() {
    let world = World::start().await;
    let account = world.account("ada", 1_000).await;
    for (number, seconds) in [(1, Some(10)), (2, Some(20)), (3, None)] {
        let options = times(seconds.map(at), None);
        let request = pinfold_store::CreatePin { options, ..new_pin(account, cid(number)) };
        created(world.store.create_pin(request, now()).await.unwrap());
        let leased = world.lease_one(now()).await;
        world.complete_placement(&leased, held(5)).await;
    }
    assert_eq!(world.store.next_expiry().await.unwrap(), Some(at(10)));
    assert!(world.store.expire_pins(now().after(Duration::from_millis(9_999)), 10).await.unwrap().is_empty());
    let ended = world.store.expire_pins(at(10), 10).await.unwrap();
    assert!(ended.len() == 1 && ended[0].work);
    assert_eq!(world.store.next_expiry().await.unwrap(), Some(at(20)));
    assert_eq!(world.store.account(account).await.unwrap().unwrap().used_bytes, 10);
    assert_eq!(world.lease_one(at(10)).await.placement.cid, cid(1), "its blocks are due for release");
}

#[tokio::test]
async fn pending_release_does_not_delay_pins() {
    let world = World::start().await;
    let account = world.account("ada", 1_000).await;
    for number in 0..3 {
        created(world.create_pin(account, cid(number)).await);
        let leased = world.lease_one(now()).await;
        world.complete_placement(&leased, held(1)).await;
    }
    for number in 0..3 {
        world.store.remove_pin(account, &cid(number), None, Actor::account(account), now()).await.unwrap();
    }
    created(world.store.create_pin(new_pin(account, cid(9)), at(1)).await.unwrap());
    let capacity = |pins, releases| Capacity { pins, releases };
    assert_eq!(
        world.store.next_placement_due(at(1), capacity(0, 0)).await.unwrap(),
        Some(now()),
        "it is not yet due"
    );
    let pins = world.store.lease_placements(capacity(2, 0), at(1), at(60)).await.unwrap();
    assert_eq!(pins.iter().map(|leased| leased.placement.cid).collect::<Vec<_>>(), [cid(9)]);
    assert_eq!(
        world.store.next_placement_due(at(1), capacity(2, 0)).await.unwrap(),
        Some(at(60)),
        "no capacity for a release"
    );
    assert_eq!(world.store.next_placement_due(at(1), capacity(0, 1)).await.unwrap(), Some(at(1)));
    let releases = world.store.lease_placements(capacity(2, 2), at(1), at(60)).await.unwrap();
    assert_eq!(releases.iter().map(|leased| leased.placement.cid).collect::<Vec<_>>(), [cid(0), cid(1)]);
}
