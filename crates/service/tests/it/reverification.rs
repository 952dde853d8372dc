//! Tests of a block store that lost its holds: all blocks are stored under one hold, and every pin is reverified.

use std::sync::Arc;
use std::time::Duration;

use cid::Cid;
use pinfold_cluster::{Cluster, HoldName, HoldOptions};
use pinfold_model::{Clock, ClusterId, FailureCode, PinState};
use pinfold_node::car::header;
use pinfold_service::Caller;

use crate::cars;
use crate::world::{LONG, MIB, World};

const REBUILT: &str = "upload/rebuilt";

/// Replaces the holds of these CIDs with those of a rebuilt index: none for a pin, and one for all blocks.
async fn rebuild(world: &World, cids: &[Cid]) {
    let terms = HoldOptions {
        bytes_max: u64::MAX,
        blocks_max: u64::MAX,
        find_time: Duration::ZERO,
        stall_time: Duration::ZERO,
        origins: Vec::new(),
    };
    let rebuilt = HoldName::parse(REBUILT).unwrap();
    for cid in cids {
        world.cluster.hold(&rebuilt, cid, &terms, &Arc::default()).await.unwrap();
        world.cluster.unpublish(cid);
    }
    for name in world.cluster.all_names().into_iter().filter(|name| name.starts_with("pin/")) {
        world.cluster.release(&HoldName::parse(name).unwrap()).await.unwrap();
    }
    world.store.reverify_all(world.clock.now()).await.unwrap();
}

async fn assert_pinned(world: &World, owner: &Caller, cids: &[Cid]) {
    for cid in cids {
        assert_eq!(world.state(owner, cid).await, Some(PinState::Pinned), "{cid}");
    }
}

#[tokio::test]
async fn pins_stay_pinned_during_reverification() {
    let mut world = World::start().await;
    let alice = world.account("alice", "free").await;
    let cids = [1, 2, 3].map(|at| world.cluster.publish(&format!("dag {at}"), at * MIB));
    for cid in &cids {
        world.create_pin(&alice, *cid).await.unwrap();
    }
    let removed = world.cluster.publish("removed before", MIB);
    world.run_until_idle().await;
    rebuild(&world, &[cids.as_slice(), &[removed]].concat()).await;
    world.restart().await;

    assert_pinned(&world, &alice, &cids).await;
    assert_eq!(world.fresh(alice.account.id).await.used_bytes, 6 * MIB);
    world.run_until_idle().await;
    assert_pinned(&world, &alice, &cids).await;
    assert!(!world.cluster.has(&removed), "unreferenced blocks were released with the hold");
    world.check_idle(&[&alice]).await;
    assert_eq!(world.fresh(alice.account.id).await.used_bytes, 6 * MIB);
}

#[tokio::test]
async fn pin_with_lost_blocks_stays_and_reports_them() {
    let mut world = World::start().await;
    let alice = world.account("alice", "free").await;
    let (whole, lost) = (world.cluster.publish("whole", MIB), world.cluster.publish("lost", MIB));
    for cid in [whole, lost] {
        world.create_pin(&alice, cid).await.unwrap();
    }
    world.run_until_idle().await;
    rebuild(&world, &[whole]).await;
    world.cluster.unpublish(&lost);
    world.restart().await;

    for _ in 0..20 {
        world.run_until_idle().await;
        assert_pinned(&world, &alice, &[whole, lost]).await;
        let status = world.service.pins.status(&alice, &lost, None).await.unwrap();
        assert_eq!(status.error.unwrap().code, FailureCode::NotFound);
        let next = status.next_try_at.unwrap();
        assert!(next > world.clock.now() && next <= world.clock.now().after(Duration::from_secs(300)));
        assert!(world.cluster.holds(REBUILT, &whole), "the hold stays until every placement completes");
        world.clock.advance(Duration::from_secs(300));
    }
    world.cluster.publish("lost", MIB);
    world.run_until_idle().await;
    let status = world.service.pins.status(&alice, &lost, None).await.unwrap();
    assert_eq!((status.error, status.next_try_at), (None, None));
    assert!(world.cluster.holds(&format!("pin/{}/{lost}", ClusterId::default()), &lost));
    world.check_idle(&[&alice]).await;
    assert_eq!(world.fresh(alice.account.id).await.used_bytes, 2 * MIB);
}

#[tokio::test]
async fn car_import_restores_lost_blocks() {
    let mut world = World::start().await;
    let alice = world.account("alice", "free").await;
    let blocks = cars::blocks(&["lost"]);
    let lost = world.cluster.publish("lost", 4);
    assert_eq!(lost, *blocks[0].cid());
    world.create_pin(&alice, lost).await.unwrap();
    world.run_until_idle().await;
    rebuild(&world, &[]).await;
    world.cluster.unpublish(&lost);
    world.restart().await;
    world.run_until_idle().await;
    assert!(!world.cluster.has(&lost));

    let background = world.service.run();
    let car = cars::car(&header(&[lost]), &blocks);
    cars::import(&world, &alice, &car, &[], LONG).await.unwrap()[0].1.as_ref().unwrap();
    background.stop().await;
    world.run_until_idle().await;
    assert_eq!(world.service.pins.status(&alice, &lost, None).await.unwrap().error, None);
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn pin_removed_during_reverification_is_released() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let cid = world.cluster.publish("dag", MIB);
    world.create_pin(&alice, cid).await.unwrap();
    world.run_until_idle().await;
    rebuild(&world, &[]).await;
    world.cluster.unpublish(&cid);
    world.run_until_idle().await;
    world.remove(&alice, &cid).await.unwrap();
    world.run_until_idle().await;
    world.check_idle(&[&alice]).await;
    assert_eq!(world.fresh(alice.account.id).await.used_bytes, 0);
}
