//! Tests of timelocks and of changes to the clock.

use std::time::Duration;

use cid::Cid;
use pinfold_cluster::{ClusterError, Fate, Gate};
use pinfold_model::{PinOptions, PinState};
use pinfold_service::{Caller, PinRequest, UploadRequest};

use crate::world::{DEADLINE, MIB, World};

const HOUR: Duration = Duration::from_hours(1);
const A_MOMENT: Duration = Duration::from_millis(1);

impl World {
    /// Pins for one hour and works until the placement completes.
    async fn pin_for_an_hour(&self, caller: &Caller, cid: Cid) {
        let timelock = Some(self.in_an_hour());
        self.pin(caller, PinRequest::new(cid).with(PinOptions { timelock, ..PinOptions::default() }))
            .await
            .unwrap();
    }

    /// Waits until the account has this number of pins while the service runs.
    async fn wait_for_pin_count(&self, caller: &Caller, pins: u64) {
        let left = async {
            while self.fresh(caller.account.id).await.pins != pins {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, left).await.expect("the other pins end");
    }
}

fn down() -> Fate {
    Fate::Fails(ClusterError::Unavailable("connection refused".to_owned()))
}

#[tokio::test]
async fn clock_jump_is_noticed_without_a_wake_up() {
    let world = World::start().await;
    let alice = world.account("alice", "premium").await;
    let cid = world.cluster.publish("for an hour", MIB);
    world.pin_for_an_hour(&alice, cid).await;
    let background = world.service.run();
    // The machine was suspended, or the time was synchronised: a timer does not notice either.
    world.clock.advance(HOUR);
    world.wait_for_pin_count(&alice, 0).await;
    background.stop().await;
    world.run_until_idle().await;
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn pins_that_expired_while_stopped_end_at_the_start() {
    let mut world = World::start().await;
    let alice = world.account("alice", "premium").await;
    let later = world.cluster.publish("for two hours", 1);
    world.clock.advance(HOUR);
    world.pin_for_an_hour(&alice, later).await;
    world.clock.set(world.clock_at_start());
    // More pins than one transaction ends, at different times.
    for i in 0..250 {
        let cid = world.cluster.publish(&format!("{i}"), 1);
        world.pin_for_an_hour(&alice, cid).await;
        world.clock.advance(A_MOMENT);
    }
    world.clock.advance(HOUR);
    world.restart().await;
    assert!(world.service.workers.turn().await.unwrap() >= 250);
    let left: Vec<Cid> = world.uploads(&alice).await.iter().map(|pin| pin.cid).collect();
    assert_eq!(left, [later]);
    world.run_until_idle().await;
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn clock_set_back_ends_no_pin_early() {
    let mut world = World::start().await;
    let alice = world.account("alice", "premium").await;
    let cid = world.cluster.publish("for an hour", MIB);
    world.pin_for_an_hour(&alice, cid).await;
    let start = world.clock_at_start();
    for after in [HOUR - A_MOMENT, Duration::ZERO, HOUR / 2, Duration::ZERO, HOUR - A_MOMENT] {
        world.clock.set(start.after(after));
        world.run_until_idle().await;
        world.restart().await;
        world.run_until_idle().await;
        assert_eq!(world.state(&alice, &cid).await, Some(PinState::Pinned), "{after:?}");
    }
    world.clock.advance(A_MOMENT);
    world.run_until_idle().await;
    assert_eq!(world.state(&alice, &cid).await, None);
    // The pin stays ended when the clock passes the same hour again.
    world.clock.set(start);
    world.run_until_idle().await;
    assert_eq!(world.state(&alice, &cid).await, None);
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn clock_set_back_does_not_delay_work() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let tried = world.cluster.publish("tried", MIB);
    world.cluster.script_hold(&tried, [down()]);
    world.create_pin(&alice, tried).await.unwrap();
    world.service.workers.turn().await.unwrap();
    let waiting = world.cluster.publish("waiting", MIB);
    world.create_pin(&alice, waiting).await.unwrap();
    let dropped = world.service.uploads.receive(&alice, &UploadRequest::default(), &b"x"[..]).await.unwrap();

    world.clock.set(world.clock_at_start().after(Duration::ZERO));
    let background = world.service.run();
    let day_before = world.clock_at_start().as_ms() - 86_400_000;
    world.clock.set(pinfold_model::Timestamp::from_ms(day_before));
    drop(dropped);
    let completed = async {
        for cid in [tried, waiting] {
            while world.state(&alice, &cid).await != Some(PinState::Pinned) {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(DEADLINE, completed).await.expect("the work is not delayed by a day");
    background.stop().await;
    world.run_until_idle().await;
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn clock_set_back_between_runs_does_not_delay_work() {
    let mut world = World::start().await;
    let alice = world.account("alice", "free").await;
    let [tried, worked_on] = ["tried", "worked on"].map(|name| world.cluster.publish(name, MIB));
    let gate = Gate::default();
    world.cluster.script_hold(&tried, [down()]);
    world.cluster.script_hold(&worked_on, [Fate::Waits(gate.clone())]);
    world.create_pin(&alice, tried).await.unwrap();
    world.create_pin(&alice, worked_on).await.unwrap();
    tokio::select! {
        () = world.run_until_idle() => panic!("the gate is closed"),
        () = gate.reached() => {}
    }
    let day_before = world.clock_at_start().as_ms() - 86_400_000;
    world.clock.set(pinfold_model::Timestamp::from_ms(day_before));
    world.restart().await;
    let newest = world.cluster.publish("newest", MIB);
    world.create_pin(&alice, newest).await.unwrap();
    assert_eq!(
        world.uploads(&alice).await[0].cid,
        newest,
        "the newest pin is first, whatever the clock says"
    );
    world.service.workers.take_over().await.unwrap();
    world.run_until_idle().await;
    for cid in [tried, worked_on, newest] {
        assert_eq!(world.state(&alice, &cid).await, Some(PinState::Pinned));
    }
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn pin_renewed_at_its_expiry_is_not_lost() {
    let world = World::start().await;
    let alice = world.account("alice", "premium").await;
    let [longer, for_ever, as_it_is] =
        ["longer", "for ever", "as it is"].map(|name| world.cluster.publish(name, MIB));
    for cid in [longer, for_ever, as_it_is] {
        world.pin_for_an_hour(&alice, cid).await;
        // From now on the content has no other source.
        world.cluster.unpublish(&cid);
    }
    world.clock.advance(HOUR - A_MOMENT);
    world.create_pin(&alice, as_it_is).await.unwrap();
    // The pins have expired but are not ended yet.
    world.clock.advance(A_MOMENT);
    let timelock = Some(world.in_an_hour());
    let request = PinRequest::new(longer).with(PinOptions { timelock, ..PinOptions::default() });
    let renewed = world.service.pins.pin(&alice, request, pinfold_service::Wait::No).await.unwrap();
    assert_eq!(renewed.view.state, PinState::Pinned);
    let renewed = world.create_pin(&alice, for_ever).await.unwrap();
    assert_eq!((renewed.view.state, renewed.view.expires_at), (PinState::Pinned, None));

    world.run_until_idle().await;
    assert_eq!(world.state(&alice, &longer).await, Some(PinState::Pinned));
    assert_eq!(world.state(&alice, &as_it_is).await, None, "the timelock is unchanged and in the future");
    world.clock.advance(HOUR);
    world.run_until_idle().await;
    assert_eq!(world.state(&alice, &longer).await, None);
    assert_eq!(world.state(&alice, &for_ever).await, Some(PinState::Pinned));
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn retried_pin_does_not_keep_an_expired_timelock() {
    let world = World::start().await;
    let alice = world.account("alice", "premium").await;
    let cid = world.cluster.publish("hello", MIB);
    world.cluster.script_hold(&cid, [Fate::Fails(ClusterError::NotFound)]);
    let request =
        PinRequest::new(cid).with(PinOptions { timelock: Some(world.in_an_hour()), ..PinOptions::default() });
    world.service.pins.pin(&alice, request, pinfold_service::Wait::No).await.unwrap();
    world.run_until_idle().await;
    assert_eq!(world.state(&alice, &cid).await, Some(PinState::Failed));
    world.clock.advance(HOUR);
    world.create_pin(&alice, cid).await.unwrap();
    world.run_until_idle().await;
    assert_eq!(world.state(&alice, &cid).await, Some(PinState::Pinned));
}

#[tokio::test]
async fn hanging_cluster_does_not_delay_expiry() {
    let world = World::start().await;
    let alice = world.account("alice", "premium").await;
    let cid = world.cluster.publish("for an hour", MIB);
    world.pin_for_an_hour(&alice, cid).await;
    let received = world.service.uploads.receive(&alice, &UploadRequest::default(), &b"x"[..]).await.unwrap();
    let gate = Gate::default();
    world.cluster.script_release([Fate::Waits(gate.clone())]);
    let background = world.service.run();
    drop(received);
    gate.reached().await;
    world.clock.advance(HOUR);
    world.wait_for_pin_count(&alice, 0).await;
    gate.open();
    background.stop().await;
    world.run_until_idle().await;
    world.check_idle(&[&alice]).await;
}
