//! Tests of concurrent operations.

use std::time::Duration;

use pinfold_cluster::{ClusterError, Fate, Gate};
use pinfold_model::PinState;
use pinfold_service::{Error, PinRequest, Wait};

use crate::world::{LONG, MIB, World};

#[tokio::test]
async fn pin_requested_during_release_keeps_its_blocks() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let cid = world.cluster.publish("hello", MIB);
    world.pin(&alice, PinRequest::new(cid)).await.unwrap();

    let gate = Gate::default();
    world.cluster.script_release([Fate::Waits(gate.clone())]);
    world.remove(&alice, &cid).await.unwrap();
    tokio::join!(world.run_until_idle(), async {
        gate.reached().await;
        let receipt = world.create_pin(&alice, cid).await.unwrap();
        assert_eq!(receipt.view.state, PinState::Queued, "its blocks are being released");
        gate.open();
    });
    assert_eq!(world.state(&alice, &cid).await, Some(PinState::Pinned));
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn lease_that_expires_during_a_release_loses_nothing() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let cid = world.cluster.publish("hello", MIB);
    world.pin(&alice, PinRequest::new(cid)).await.unwrap();

    let gate = Gate::default();
    world.cluster.script_release([Fate::Waits(gate.clone())]);
    world.remove(&alice, &cid).await.unwrap();
    tokio::join!(world.run_until_idle(), async {
        gate.reached().await;
        world.create_pin(&alice, cid).await.unwrap();
        // The clock jumps, and another worker leases the placement while the release still hangs.
        world.clock.advance(Duration::from_hours(1));
        tokio::join!(world.run_until_idle(), async {
            tokio::task::yield_now().await;
            gate.open();
        });
    });
    world.run_until_idle().await;
    assert_eq!(world.state(&alice, &cid).await, Some(PinState::Pinned));
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn work_does_not_begin_after_its_lease_expired() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let cid = world.cluster.publish("hello", MIB);
    world.pin(&alice, PinRequest::new(cid)).await.unwrap();
    let (gate, down) = (Gate::default(), ClusterError::Unavailable("down".to_owned()));
    world.cluster.script_release([Fate::Waits(gate.clone()), Fate::Works, Fate::Fails(down)]);
    world.remove(&alice, &cid).await.unwrap();
    let due_at = async || world.store.placements(None, 1).await.unwrap()[0].due_at;
    let end_lease = async || {
        let before = due_at().await;
        world.clock.advance(Duration::from_hours(1));
        before
    };
    let claimed_since = async |before| {
        while due_at().await == before {
            tokio::task::yield_now().await;
        }
    };
    let turn = async || world.service.workers.turn().await.unwrap();
    tokio::join!(turn(), async {
        gate.reached().await;
        let before = end_lease().await;
        // While the first release hangs, two more workers try it, and the second lease expires as well.
        tokio::join!(turn(), async {
            claimed_since(before).await;
            let before = end_lease().await;
            tokio::join!(turn(), async {
                claimed_since(before).await;
                gate.open();
            });
        });
    });
    let placements = world.store.placements(None, 1).await.unwrap();
    assert!(placements.is_empty(), "the second worker was asked to release: {placements:?}");
}

#[tokio::test]
async fn fetch_stops_when_its_pin_is_removed() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let cid = world.cluster.publish("endless", MIB);
    let gate = Gate::default();
    world.cluster.script_hold(&cid, [Fate::Waits(gate.clone())]);

    let (waited, (), ()) = tokio::join!(
        world.service.pins.pin(&alice, PinRequest::new(cid), LONG),
        async {
            while world.state(&alice, &cid).await.is_none() {
                tokio::task::yield_now().await;
            }
            world.run_until_idle().await;
        },
        async {
            gate.reached().await;
            world.remove(&alice, &cid).await.unwrap();
        }
    );
    assert_eq!(waited, Err(Error::PinNotFound), "the waiting request gets the error");
    world.run_until_idle().await;
    assert_eq!(world.cluster.all_names(), Vec::<String>::new());
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn unfinished_pin_continues_after_a_restart() {
    let mut world = World::start().await;
    let alice = world.account("alice", "free").await;
    let cid = world.cluster.publish("hello", MIB);
    let gate = Gate::default();
    world.cluster.script_hold(&cid, [Fate::Waits(gate.clone())]);
    world.create_pin(&alice, cid).await.unwrap();
    tokio::select! {
        () = world.run_until_idle() => panic!("the gate is closed"),
        () = gate.reached() => {}
    }
    assert_eq!(world.state(&alice, &cid).await, Some(PinState::Pinning));

    world.restart().await;
    world.run_until_idle().await;
    assert_eq!(
        world.state(&alice, &cid).await,
        Some(PinState::Pinning),
        "the lease of the killed process is still valid"
    );
    world.clock.advance(Duration::from_secs(61));
    world.run_until_idle().await;
    assert_eq!(world.state(&alice, &cid).await, Some(PinState::Pinned));
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn start_takes_over_leases_of_a_killed_process() {
    let mut world = World::start().await;
    let alice = world.account("alice", "free").await;
    let cid = world.cluster.publish("hello", MIB);
    let gate = Gate::default();
    world.cluster.script_hold(&cid, [Fate::Waits(gate.clone())]);
    world.create_pin(&alice, cid).await.unwrap();
    tokio::select! {
        () = world.run_until_idle() => panic!("the gate is closed"),
        () = gate.reached() => {}
    }
    world.restart().await;
    world.service.workers.take_over().await.unwrap();
    world.run_until_idle().await;
    assert_eq!(world.state(&alice, &cid).await, Some(PinState::Pinned));
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn removal_survives_a_restart_and_an_unavailable_cluster() {
    let mut world = World::start().await;
    let alice = world.account("alice", "free").await;
    let cid = world.cluster.publish("hello", MIB);
    world.pin(&alice, PinRequest::new(cid)).await.unwrap();
    world.remove(&alice, &cid).await.unwrap();
    world.restart().await;
    let down = || Fate::Fails(ClusterError::Unavailable("connection refused".to_owned()));
    world.cluster.script_release([down(), down(), down(), down()]);
    for _ in 0..5 {
        world.run_until_idle().await;
        world.clock.advance(Duration::from_mins(10));
    }
    assert!(!world.cluster.has(&cid));
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn removal_returns_before_the_release_which_survives_a_restart() {
    let mut world = World::start().await;
    let alice = world.account("alice", "free").await;
    let cid = world.cluster.publish("hello", MIB);
    world.pin(&alice, PinRequest::new(cid)).await.unwrap();
    let gate = Gate::default();
    world.cluster.script_release([Fate::Waits(gate.clone())]);
    world.remove(&alice, &cid).await.unwrap();
    tokio::select! {
        () = world.run_until_idle() => panic!("the gate is closed"),
        () = gate.reached() => {}
    }
    assert!(world.cluster.has(&cid), "its blocks are still there");
    assert_eq!(world.state(&alice, &cid).await, None, "the removal is complete for its owner");
    assert_eq!(world.fresh(alice.account.id).await.used_bytes, 0);

    // The process is killed during the release.
    world.restart().await;
    assert_eq!(world.state(&alice, &cid).await, None);
    world.service.workers.take_over().await.unwrap();
    world.run_until_idle().await;
    assert!(!world.cluster.has(&cid));
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn removal_returns_before_the_release_in_a_running_service() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let [first, second] = ["first", "second"].map(|name| world.cluster.publish(name, MIB));
    for cid in [first, second] {
        world.pin(&alice, PinRequest::new(cid)).await.unwrap();
    }
    let gate = Gate::default();
    world.cluster.script_release([Fate::Waits(gate.clone()), Fate::Waits(gate.clone())]);
    let background = world.service.run();
    world.remove(&alice, &first).await.unwrap();
    gate.reached().await;
    world.remove(&alice, &second).await.unwrap();
    assert_eq!(world.uploads(&alice).await, []);
    assert!(world.cluster.has(&first) && world.cluster.has(&second));
    // An orderly stop does not wait for the releases either.
    background.stop().await;
    world.run_until_idle().await;
    assert_eq!(world.cluster.all_names(), Vec::<String>::new());
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn receipt_after_the_wait_has_the_current_state() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let background = world.service.run();
    // The fetch must begin within the wait. A slow machine may need another attempt.
    for wait_ms in [100, 1_000, 10_000] {
        let cid = world.cluster.publish(&wait_ms.to_string(), MIB);
        let gate = Gate::default();
        world.cluster.script_hold(&cid, [Fate::Waits(gate.clone())]);
        let wait = Wait::For(Duration::from_millis(wait_ms));
        let pin = world.service.pins.pin(&alice, PinRequest::new(cid), wait);
        let (begun, answer) =
            tokio::join!(tokio::time::timeout(Duration::from_millis(wait_ms / 2), gate.reached()), pin);
        if begun.is_ok() {
            assert_eq!(answer.unwrap().view.state, PinState::Pinning);
            background.stop().await;
            return;
        }
    }
    panic!("the fetch never began");
}

#[tokio::test]
async fn all_waiting_requests_get_the_same_error() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let cid = world.cluster.publish("gone", MIB);
    world.cluster.unpublish(&cid);
    let background = world.service.run();
    let waits = (0..8).map(|_| world.service.pins.pin(&alice, PinRequest::new(cid), LONG));
    for answer in futures::future::join_all(waits).await {
        assert_eq!(answer, Err(Error::CidNotFound));
    }
    background.stop().await;
    world.run_until_idle().await;
    assert_eq!(world.uploads(&alice).await, []);
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn running_service_works_without_explicit_turns() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let background = world.service.run();
    let pins = (0..50).map(|i| {
        let cid = world.cluster.publish(&format!("{i}"), 100);
        world.service.pins.pin(&alice, PinRequest::new(cid), LONG)
    });
    for receipt in futures::future::join_all(pins).await {
        assert_eq!(receipt.unwrap().view.state, PinState::Pinned);
    }
    background.stop().await;
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn stop_leaves_running_work_to_the_next_start() {
    let mut world = World::start().await;
    let alice = world.account("alice", "free").await;
    let cid = world.cluster.publish("hello", MIB);
    let gate = Gate::default();
    world.cluster.script_hold(&cid, [Fate::Waits(gate.clone())]);
    let background = world.service.run();
    world.create_pin(&alice, cid).await.unwrap();
    gate.reached().await;
    background.stop().await;
    assert_eq!(world.state(&alice, &cid).await, Some(PinState::Queued));
    world.restart().await;
    world.run_until_idle().await;
    assert_eq!(world.state(&alice, &cid).await, Some(PinState::Pinned), "no lease delays it");
}
