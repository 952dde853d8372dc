//! Tests of CAR uploads.

use cid::{Cid, Version};
use pinfold_model::{Email, PinState};
use pinfold_node::Block;
use pinfold_node::car::{HEADER, header, section_head};
use pinfold_service::{Caller, Error, KeptRoots, UploadRequest, Wait};

use crate::world::{LONG, MIB, World};

pub(crate) fn blocks(texts: &[&'static str]) -> Vec<Block> {
    let hash = |text: &&'static str| Block::hash(Version::V1, 0x55, 0x12, text.as_bytes().into()).unwrap();
    texts.iter().map(hash).collect()
}

pub(crate) fn car(header: &[u8], blocks: &[Block]) -> Vec<u8> {
    let sections = blocks.iter().flat_map(|block| {
        let head = section_head(block.cid(), block.data().len());
        head.into_iter().chain(block.data().iter().copied())
    });
    header.iter().copied().chain(sections).collect()
}

pub(crate) async fn import(
    world: &World,
    caller: &Caller,
    car: &[u8],
    roots: &[Cid],
    wait: Wait,
) -> Result<KeptRoots, Error> {
    let (uploads, terms) = (&world.service.uploads, UploadRequest::default());
    let received = uploads.receive_car(caller, &terms, car).await?;
    uploads.keep_car(caller, received, roots.to_vec(), terms, wait).await
}

#[tokio::test]
async fn every_car_root_is_pinned_before_the_upload_hold_is_released() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let blocks = blocks(&["one", "two"]);
    let roots: Vec<Cid> = blocks.iter().map(|block| *block.cid()).collect();
    let elsewhere = world.cluster.publish("elsewhere", MIB);
    let car = car(&header(&[roots[0], elsewhere, roots[1], roots[0]]), &blocks);
    let background = world.service.run();
    let pins = import(&world, &alice, &car, &[], LONG).await.unwrap();
    background.stop().await;

    let order: Vec<Cid> = pins.iter().map(|(root, _)| *root).collect();
    assert_eq!(order, [roots[0], elsewhere, roots[1]]);
    for (root, receipt) in pins {
        assert_eq!(receipt.unwrap().view.state, PinState::Pinned, "{root}");
    }
    world.run_until_idle().await;
    world.check_idle(&[&alice]).await;
    assert_eq!(world.fresh(alice.account.id).await.used_bytes, MIB + 6);
}

#[tokio::test]
async fn failed_car_root_does_not_affect_the_others() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let blocks = blocks(&["here"]);
    let missing = world.cluster.publish("gone", 5);
    world.cluster.unpublish(&missing);
    let background = world.service.run();
    let pins = import(&world, &alice, &car(&header(&[missing, *blocks[0].cid()]), &blocks), &[], LONG).await;
    background.stop().await;
    let pins: Vec<_> = pins.unwrap().into_iter().map(|(_, receipt)| receipt.map(|_| ())).collect();
    assert_eq!(pins, [Err(Error::CidNotFound), Ok(())]);
    world.run_until_idle().await;
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn car_without_a_root_requires_one_in_the_request() {
    let mut world = World::start().await;
    let alice = world.account("alice", "free").await;
    let blocks = blocks(&["in a segment"]);
    for header in [HEADER.to_vec(), header(&[])] {
        let refused = import(&world, &alice, &car(&header, &blocks), &[], Wait::No).await;
        let Err(Error::InvalidRequest(reason)) = refused else { panic!("{refused:?}") };
        assert!(reason.contains("no root"), "{reason}");
        world.run_until_idle().await;
        world.check_idle(&[&alice]).await;
    }
    let pins = import(&world, &alice, &car(HEADER, &blocks), &[*blocks[0].cid()], Wait::No).await.unwrap();
    assert_eq!(pins[0].1.as_ref().unwrap().view.state, PinState::Queued);
    let background = world.service.run();
    import(&world, &alice, &car(HEADER, &blocks), &[*blocks[0].cid()], LONG).await.unwrap()[0]
        .1
        .as_ref()
        .unwrap();
    background.stop().await;
    // The first upload may have been stopped before its pin was recorded.
    world.restart().await;
    world.run_until_idle().await;
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn refused_car_leaves_nothing() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let blocks = blocks(&["one", "two"]);
    let good = car(&header(&[*blocks[0].cid()]), &blocks);
    let mut flipped = good.clone();
    flipped[70] ^= 4;
    for bad in [&good[..good.len() - 2], &flipped] {
        let refused = import(&world, &alice, bad, &[], Wait::No).await;
        assert!(matches!(refused, Err(Error::InvalidRequest(_))), "{refused:?}");
    }
    let large = world.cluster.publish("almost all", (1 << 30) - 5);
    world.create_pin(&alice, large).await.unwrap();
    world.run_until_idle().await;
    let refused = import(&world, &alice, &good, &[], Wait::No).await;
    assert_eq!(refused.err(), Some(Error::QuotaExceeded));
    world.run_until_idle().await;
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn operator_imports_within_the_plan_of_the_account() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let caller = world.service.accounts.caller(&alice.account.email).await.unwrap();
    assert_eq!((caller.account.id, &caller.plan.code), (alice.account.id, &alice.plan.code));
    let unknown = Email::parse("nobody@example.org").unwrap();
    assert_eq!(world.service.accounts.caller(&unknown).await.err(), Some(Error::AccountNotFound));
}
