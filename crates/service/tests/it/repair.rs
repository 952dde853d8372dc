//! Tests of damaged content: its pins stay pinned, it is fetched again, and the damage is reported until then.

use std::time::Duration;

use pinfold_cluster::{ClusterError, Fate};
use pinfold_model::{Clock, FailureCode, PinState};

use crate::world::{MIB, World};

#[tokio::test]
async fn damaged_blocks_are_repaired_without_charge() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let cid = world.cluster.publish("a dag", MIB);
    world.create_pin(&alice, cid).await.unwrap();
    world.run_until_idle().await;
    world.cluster.damage(&format!("pin/cl0-global/{cid}"), 3);

    // One turn detects the damage and another detects the repair.
    world.run_until_idle().await;
    assert!(world.service.damaged_pins.list().await.unwrap().is_empty());
    let status = world.service.pins.status(&alice, &cid, None).await.unwrap();
    assert_eq!((status.view.state, status.damaged_blocks, status.error), (PinState::Pinned, 0, None));
    assert_eq!(world.fresh(alice.account.id).await.used_bytes, MIB);
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn unrepairable_pin_stays_pinned_and_is_retried() {
    let world = World::start().await;
    let (alice, ben) = (world.account("alice", "free").await, world.account("ben", "free").await);
    let cid = world.cluster.publish("a dag", MIB);
    for caller in [&alice, &ben] {
        world.create_pin(caller, cid).await.unwrap();
    }
    world.run_until_idle().await;
    world.cluster.unpublish(&cid);
    world.cluster.damage(&format!("pin/cl0-global/{cid}"), 3);
    world.run_until_idle().await;

    for _ in 0..20 {
        let status = world.service.pins.status(&alice, &cid, None).await.unwrap();
        assert_eq!((status.view.state, status.damaged_blocks), (PinState::Pinned, 3));
        assert_eq!(status.error.unwrap().code, FailureCode::NotFound);
        let next = status.next_try_at.unwrap();
        assert!(next > world.clock.now());
        world.clock.advance(next.since(world.clock.now()));
        world.run_until_idle().await;
    }
    let [damaged] = &world.service.damaged_pins.list().await.unwrap()[..] else { panic!("one of the two") };
    assert_eq!((damaged.cid, damaged.blocks), (cid, 3));
    assert_eq!(damaged.accounts, [alice.account.email.clone(), ben.account.email.clone()]);

    // The content is available again.
    world.cluster.publish("a dag", MIB);
    world.clock.advance(Duration::from_mins(10));
    world.run_until_idle().await;
    assert!(world.service.damaged_pins.list().await.unwrap().is_empty());
    world.check_idle(&[&alice, &ben]).await;
}

#[tokio::test]
async fn new_pin_of_damaged_content_waits_for_the_repair() {
    let world = World::start().await;
    let (alice, ben) = (world.account("alice", "free").await, world.account("ben", "free").await);
    let cid = world.cluster.publish("a dag", MIB);
    world.create_pin(&alice, cid).await.unwrap();
    world.run_until_idle().await;
    let down = || Fate::Fails(ClusterError::Unavailable("scripted".to_owned()));
    world.cluster.script_hold(&cid, [down()]);
    world.cluster.damage(&format!("pin/cl0-global/{cid}"), 1);
    world.run_until_idle().await;

    world.cluster.script_hold(&cid, [down()]);
    let receipt = world.create_pin(&ben, cid).await.unwrap();
    assert_eq!(receipt.view.state, PinState::Queued);
    assert_eq!(world.fresh(ben.account.id).await.used_bytes, 0);
    world.run_until_idle().await;
    assert_eq!(
        world.state(&ben, &cid).await,
        Some(PinState::Queued),
        "the repair was attempted at once and failed"
    );
    world.clock.advance(Duration::from_mins(10));
    world.run_until_idle().await;
    assert_eq!(world.state(&ben, &cid).await, Some(PinState::Pinned));
    world.check_idle(&[&alice, &ben]).await;
}

#[tokio::test]
async fn removed_pin_is_not_listed_as_damaged() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let cid = world.cluster.publish("a dag", MIB);
    world.create_pin(&alice, cid).await.unwrap();
    world.run_until_idle().await;
    world.cluster.unpublish(&cid);
    world.cluster.damage(&format!("pin/cl0-global/{cid}"), 1);
    world.run_until_idle().await;
    world.remove(&alice, &cid).await.unwrap();
    world.run_until_idle().await;
    assert!(world.service.damaged_pins.list().await.unwrap().is_empty());
    assert!(world.cluster.all_names().is_empty());
    // The same content can be pinned again.
    world.cluster.publish("a dag", MIB);
    let again = pinfold_service::PinRequest::new(cid);
    assert_eq!(world.pin(&alice, again).await.unwrap().view.state, PinState::Pinned);
}
