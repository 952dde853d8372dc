//! Tests of batches and of dry runs.

use std::time::Duration;

use cid::Cid;
use pinfold_cluster::{Fate, Gate};
use pinfold_model::{Clock, ClusterId, LifetimeError, PinOptions, PinState, Retention};
use pinfold_service::{BATCH_ITEMS_MAX, BatchError, Caller, Error, ItemFault, PinReceipt, PinRequest, Reach};

use crate::world::{GIB, MIB, World};

const A_MOMENT: Duration = Duration::from_millis(20);

impl World {
    fn publish_many(&self, seed: &str, count: usize, bytes: u64) -> Vec<Cid> {
        (0..count).map(|number| self.cluster.publish(&format!("{seed} {number}"), bytes)).collect()
    }

    async fn pin_all(&self, caller: &Caller, cids: &[Cid]) -> Result<Vec<PinReceipt>, BatchError> {
        self.service.pins.pin_all(caller, cids.iter().copied().map(PinRequest::new).collect()).await
    }

    async fn remove_all(&self, caller: &Caller, cids: &[Cid]) -> Result<usize, BatchError> {
        let pins = cids.iter().map(|cid| (*cid, None)).collect();
        self.service.pins.remove_all(caller, pins).await.map(|removed| removed.len())
    }
}

fn faults<T: std::fmt::Debug>(refused: Result<T, BatchError>) -> Vec<(usize, Error)> {
    match refused {
        Err(BatchError::Items(faults)) => {
            faults.into_iter().map(|ItemFault { index, error, .. }| (index, error)).collect()
        }
        other @ (Ok(_) | Err(BatchError::Whole(_))) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn full_batch_is_pinned_and_removed() {
    let world = World::start().await;
    let alice = world.account("alice", "premium").await;
    let cids = world.publish_many("of a thousand", BATCH_ITEMS_MAX, 1);
    let receipts = world.pin_all(&alice, &cids).await.unwrap();
    assert!(receipts.iter().all(|receipt| receipt.created && receipt.view.state == PinState::Queued));
    assert_eq!(receipts.iter().map(|receipt| receipt.view.cid).collect::<Vec<_>>(), cids);
    world.run_until_idle().await;
    assert_eq!(world.fresh(alice.account.id).await.used_bytes, 1_000);

    // Content that is pinned already is pinned at once for another account.
    let bob = world.account("bob", "premium").await;
    let receipts = world.pin_all(&bob, &cids).await.unwrap();
    assert!(receipts.iter().all(|receipt| receipt.created && receipt.view.state == PinState::Pinned));

    assert_eq!(world.remove_all(&alice, &cids).await, Ok(1_000));
    assert_eq!(world.fresh(alice.account.id).await.pins, 0);
    assert_eq!(world.remove_all(&bob, &cids).await, Ok(1_000));
    world.run_until_idle().await;
    world.check_idle(&[&alice, &bob]).await;
}

#[tokio::test]
async fn invalid_batch_reports_all_errors_and_pins_nothing() {
    let world = World::start().await;
    let bob = world.account("bob", "free").await;
    let cids = world.publish_many("", 3, 1);
    let now = world.clock.now();
    let retention = Retention::parse(&now.after(Duration::from_hours(1)).to_string(), now).ok();
    let request = |at: usize| PinRequest::new(cids[at]);
    let requests = vec![
        request(0),
        PinRequest { cluster: ClusterId::parse("nowhere").ok(), ..request(1) },
        request(1).with(PinOptions { timelock: Some(world.in_an_hour()), ..PinOptions::default() }),
        request(1).with(PinOptions { retention, ..PinOptions::default() }),
        PinRequest { cluster: Some(ClusterId::default()), ..request(0) },
    ];
    let expected = [
        (1, Error::UnknownCluster),
        (2, Error::TimelockNotAllowed),
        (3, Error::RetentionNotAllowed),
        (4, Error::Twice { first: 0 }),
    ];
    assert_eq!(faults(world.service.pins.pin_all(&bob, requests).await), expected);
    let too_many = world.publish_many("x", BATCH_ITEMS_MAX + 1, 1);
    for cids in [&[][..], &too_many] {
        let refused = world.pin_all(&bob, cids).await;
        assert!(matches!(refused, Err(BatchError::Whole(Error::InvalidRequest(_)))), "{refused:?}");
        let refused = world.remove_all(&bob, cids).await;
        assert!(matches!(refused, Err(BatchError::Whole(Error::InvalidRequest(_)))), "{refused:?}");
    }
    assert_eq!(world.uploads(&bob).await, []);
}

#[tokio::test]
async fn batch_that_does_not_fit_is_refused_completely() {
    let world = World::start().await;
    let (alice, bob) = (world.account("alice", "premium").await, world.account("bob", "free").await);
    let cids = world.publish_many("large", 3, GIB / 2);
    world.pin_all(&alice, &cids).await.unwrap();
    world.run_until_idle().await;
    assert_eq!(world.pin_all(&bob, &cids).await, Err(BatchError::Whole(Error::QuotaExceeded)));
    assert_eq!(world.uploads(&bob).await, []);
    let many = world.publish_many("many", 101, 1);
    assert_eq!(
        world.pin_all(&bob, &many).await,
        Err(BatchError::Whole(Error::TooManyInFlight { limit: 100, at: world.clock.now() }))
    );
    assert_eq!(world.pin_all(&bob, &cids[..2]).await.unwrap().len(), 2);
    world.check(&[&alice, &bob]).await;
}

#[tokio::test]
async fn batch_removal_reports_locked_and_missing_pins_and_removes_nothing() {
    let world = World::start().await;
    let alice = world.account("alice", "premium").await;
    let cids = world.publish_many("", 3, 1);
    let now = world.clock.now();
    let until = now.after(Duration::from_hours(1));
    let retention = Retention::parse(&until.to_string(), now).ok();
    world.pin_all(&alice, &cids[..1]).await.unwrap();
    let locked = PinRequest::new(cids[1]).with(PinOptions { retention, ..PinOptions::default() });
    world.service.pins.pin_all(&alice, vec![locked]).await.unwrap();
    world.run_until_idle().await;
    let expected = [(1, Error::RetentionLocked { until }), (2, Error::PinNotFound)];
    assert_eq!(faults(world.remove_all(&alice, &cids).await), expected);
    assert_eq!(world.uploads(&alice).await.len(), 2);

    let sooner = Retention::parse(&now.after(Duration::from_mins(1)).to_string(), now).ok();
    let requests = vec![
        PinRequest::new(cids[2]),
        PinRequest::new(cids[1]).with(PinOptions { retention: sooner, ..PinOptions::default() }),
    ];
    let shortened = Error::Lifetime(LifetimeError::Shortened { until });
    assert_eq!(faults(world.service.pins.pin_all(&alice, requests).await), [(1, shortened)]);
    assert_eq!(world.uploads(&alice).await.len(), 2, "the other item was not pinned either");
}

#[tokio::test]
async fn concurrent_batches_never_exceed_the_quota() {
    let world = World::start().await;
    let (alice, bob) = (world.account("alice", "premium").await, world.account("bob", "free").await);
    let cids = world.publish_many("large", 8, GIB / 6);
    world.pin_all(&alice, &cids).await.unwrap();
    world.run_until_idle().await;
    let (left, right) = tokio::join!(world.pin_all(&bob, &cids[..4]), world.pin_all(&bob, &cids[4..]));
    let granted = [left, right].into_iter().filter(Result::is_ok).count();
    assert_eq!(granted, 1, "each batch fits alone, but not both");
    assert_eq!(world.fresh(bob.account.id).await.pins, 4);
    world.check_idle(&[&alice, &bob]).await;
}

#[tokio::test]
async fn dry_run_counts_local_blocks_and_writes_nothing() {
    let world = World::start().await;
    let (alice, bob) = (world.account("alice", "premium").await, world.account("bob", "free").await);
    let cid = world.cluster.publish("large", 3 * MIB);
    let run = async |caller, cid| {
        world.service.pins.dry_run(caller, &PinRequest::new(cid), A_MOMENT).await.unwrap()
    };
    let there = run(&bob, cid).await;
    assert_eq!((there.dag.reach, there.dag.missing, there.pin), (Reach::Delivered, 1, None));
    assert_eq!((there.quota.charge_bytes, there.quota.is_exact, there.quota.fits), (0, false, None));
    world.cluster.unpublish(&cid);
    assert_eq!(run(&bob, cid).await.dag.reach, Reach::Nowhere);
    assert_eq!(world.uploads(&bob).await, []);
    assert_eq!(world.cluster.all_names(), [""; 0]);

    let cid = world.cluster.publish("here", 3 * MIB);
    world.pin(&alice, PinRequest::new(cid)).await.unwrap();
    let here = run(&bob, cid).await;
    assert!(here.dag.is_whole());
    assert_eq!((here.quota.charge_bytes, here.quota.is_exact, here.quota.fits), (3 * MIB, true, Some(true)));
    assert_eq!((here.quota.left_bytes, here.quota.limit_bytes), (GIB, GIB));
    let mine = run(&alice, cid).await;
    assert_eq!((mine.quota.charge_bytes, mine.quota.fits), (0, Some(true)));
    assert_eq!(mine.pin.unwrap().state, PinState::Pinned);
    assert_eq!(world.uploads(&bob).await, []);

    let large = world.cluster.publish("too large", 2 * GIB);
    world.pin(&alice, PinRequest::new(large)).await.unwrap();
    assert_eq!(run(&bob, large).await.quota.fits, Some(false));
}

#[tokio::test]
async fn dry_run_is_refused_like_the_pin() {
    let world = World::start().await;
    let bob = world.account("bob", "free").await;
    let cids = world.publish_many("", 101, 1);
    let run = async |request| world.service.pins.dry_run(&bob, &request, A_MOMENT).await.map(drop);
    let request = PinRequest::new(cids[0]);
    let elsewhere = PinRequest { cluster: ClusterId::parse("nowhere").ok(), ..request.clone() };
    assert_eq!(run(elsewhere).await, Err(Error::UnknownCluster));
    let timed =
        request.clone().with(PinOptions { timelock: Some(world.in_an_hour()), ..PinOptions::default() });
    assert_eq!(run(timed).await, Err(Error::TimelockNotAllowed));
    world.pin_all(&bob, &cids[..100]).await.unwrap();
    assert_eq!(
        run(PinRequest::new(cids[100])).await,
        Err(Error::TooManyInFlight { limit: 100, at: world.clock.now() })
    );
    assert_eq!(run(request).await, Ok(()), "this pin is in flight");
}

#[tokio::test]
async fn dry_run_ends_at_its_time_limit() {
    let world = World::start().await;
    let bob = world.account("bob", "free").await;
    let cid = world.cluster.publish("slow", 1);
    world.cluster.script_survey(&cid, [Fate::Waits(Gate::default())]);
    let run = world.service.pins.dry_run(&bob, &PinRequest::new(cid), A_MOMENT).await.unwrap();
    assert_eq!(run.dag.reach, Reach::Nowhere);
}
