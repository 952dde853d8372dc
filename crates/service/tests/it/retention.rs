//! Tests of pins that are locked against removal.

use std::time::Duration;

use pinfold_model::{Actor, Clock, LifetimeError, PinOptions, PinState, PlanCode, Retention, Timestamp};
use pinfold_service::{Caller, Error, PinRequest, UploadRequest, Wait};

use crate::world::{MIB, World};

const DAY: Duration = Duration::from_hours(24);

impl World {
    fn locked_for(&self, time: Duration) -> Option<Retention> {
        let now = self.clock.now();
        Some(Retention::parse(&now.after(time).to_string(), now).unwrap())
    }

    /// Pins new content, locked for a day. Returns its CID and the end of the lock.
    async fn lock(&self, caller: &Caller, seed: &str) -> (cid::Cid, Timestamp) {
        let cid = self.cluster.publish(seed, MIB);
        let request = PinRequest::new(cid)
            .with(PinOptions { retention: self.locked_for(DAY), ..PinOptions::default() });
        let receipt = self.pin(caller, request).await.unwrap();
        (cid, receipt.view.retain_until.unwrap())
    }
}

#[tokio::test]
async fn locked_pin_can_not_be_removed_by_its_owner() {
    let mut world = World::start().await;
    let alice = world.account("alice", "premium").await;
    let (cid, until) = world.lock(&alice, "evidence").await;
    let locked = Err(Error::RetentionLocked { until });
    assert_eq!(world.remove(&alice, &cid).await, locked);
    let sooner =
        PinRequest::new(cid).with(PinOptions { timelock: Some(world.in_an_hour()), ..PinOptions::default() });
    let refused = world.service.pins.pin(&alice, sooner, Wait::No).await;
    assert_eq!(refused, Err(Error::Lifetime(LifetimeError::EndsBeforeLock { until })));

    for at in [DAY / 2, Duration::ZERO, DAY - Duration::from_millis(1)] {
        world.clock.set(world.clock_at_start().after(at));
        world.run_until_idle().await;
        world.restart().await;
        world.run_until_idle().await;
        assert_eq!(world.remove(&alice, &cid).await, locked, "{at:?}");
        assert_eq!(world.state(&alice, &cid).await, Some(PinState::Pinned));
    }
    world.clock.set(until);
    world.remove(&alice, &cid).await.unwrap();
    world.run_until_idle().await;
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn lock_requires_a_plan_and_outlives_it() {
    let world = World::start().await;
    let (alice, bob) = (world.account("alice", "premium").await, world.account("bob", "free").await);
    let cid = world.cluster.publish("mine", MIB);
    let request =
        PinRequest::new(cid).with(PinOptions { retention: world.locked_for(DAY), ..PinOptions::default() });
    let refused = world.service.pins.pin(&bob, request, Wait::No).await;
    assert_eq!(refused, Err(Error::RetentionNotAllowed));
    let early = UploadRequest {
        options: PinOptions { retention: world.locked_for(DAY), ..PinOptions::default() },
        cluster: None,
    };
    let refused = world.service.uploads.receive(&bob, &early, &b"x"[..]).await.map(drop);
    assert_eq!(refused, Err(Error::RetentionNotAllowed));

    let (cid, until) = world.lock(&alice, "evidence").await;
    let mut downgraded = alice.clone();
    downgraded.plan = std::sync::Arc::new(pinfold_model::Plan::free());
    downgraded.account.plan = PlanCode::new("free");
    assert_eq!(world.remove(&downgraded, &cid).await, Err(Error::RetentionLocked { until }));
    let again = world.create_pin(&downgraded, cid).await.unwrap();
    assert_eq!(again.view.retain_until, Some(until), "the lock stays");
}

#[tokio::test]
async fn upload_is_locked_from_the_start() {
    let world = World::start().await;
    let alice = world.account("alice", "premium").await;
    let terms = UploadRequest {
        options: PinOptions { retention: world.locked_for(DAY), ..PinOptions::default() },
        cluster: None,
    };
    let received = world.service.uploads.receive(&alice, &terms, &b"x"[..]).await.unwrap();
    let background = world.service.run();
    let view = world.service.uploads.keep(&alice, received, terms).await.unwrap().view;
    background.stop().await;
    let until = view.retain_until.unwrap();
    assert_eq!(world.remove(&alice, &view.cid).await, Err(Error::RetentionLocked { until }));
}

#[tokio::test]
async fn only_an_administrator_removes_a_locked_pin() {
    let world = World::start().await;
    let alice = world.account("alice", "premium").await;
    let (cid, _) = world.lock(&alice, "evidence").await;
    let admin = Actor::account(world.account("root", "premium").await.account.id);
    let pin = world.uploads(&alice).await[0].upload_id;
    assert!(matches!(world.remove(&alice, &cid).await, Err(Error::RetentionLocked { .. })));
    assert_eq!(world.service.admin.remove_pin(admin, pin).await, Ok(()));
    assert_eq!(world.service.admin.remove_pin(admin, pin).await, Err(Error::PinNotFound));
    world.run_until_idle().await;
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn failed_pin_is_not_locked() {
    let world = World::start().await;
    let alice = world.account("alice", "premium").await;
    let cid = world.cluster.publish("gone", MIB);
    world.cluster.unpublish(&cid);
    let request =
        PinRequest::new(cid).with(PinOptions { retention: world.locked_for(DAY), ..PinOptions::default() });
    assert_eq!(world.pin(&alice, request.clone()).await, Err(Error::CidNotFound));
    assert_eq!(world.uploads(&alice).await, [], "nothing remains");

    world.service.pins.pin(&alice, request, Wait::No).await.unwrap();
    assert!(matches!(world.remove(&alice, &cid).await, Err(Error::RetentionLocked { .. })));
    world.run_until_idle().await;
    assert_eq!(world.state(&alice, &cid).await, Some(PinState::Failed));
    world.remove(&alice, &cid).await.unwrap();
    world.check_idle(&[&alice]).await;
}
