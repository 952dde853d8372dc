//! Batches are atomic: either every item is applied or none.

use pinfold_model::{AccountId, Actor, ClusterId, LifetimeError, PinPhase};
use pinfold_store::{
    CreatePin, CreatePinsOutcome, CreatedPin, RemovePinError, RemovePinOutcome, RemovePinsOutcome,
};

use crate::world::{LEASE, World, at, cid, created, held, new_pin, now, times};

impl World {
    /// Pins these DAGs for an account, ten bytes each.
    pub(crate) async fn pin_all(&self, account: AccountId, cids: std::ops::Range<u32>) {
        for number in cids {
            created(self.create_pin(account, cid(number)).await);
            let leased = self.lease_one(now()).await;
            self.complete_placement(&leased, held(10)).await;
        }
    }

    async fn create_pins(&self, requests: Vec<CreatePin>) -> CreatePinsOutcome {
        self.store.create_pins(requests, now()).await.unwrap()
    }
}

fn new_pins(account: AccountId, cids: std::ops::Range<u32>) -> Vec<CreatePin> {
    cids.map(|number| new_pin(account, cid(number))).collect()
}

fn done(outcome: CreatePinsOutcome) -> Vec<CreatedPin> {
    match outcome {
        CreatePinsOutcome::Done(granted) => granted,
        other @ (CreatePinsOutcome::OverQuota
        | CreatePinsOutcome::TooManyInFlight
        | CreatePinsOutcome::Refused(_)) => {
            panic!("{other:?}")
        }
    }
}

#[tokio::test]
async fn batch_has_the_same_effect_as_single_requests() {
    let world = World::start().await;
    let (ada, ben) = (world.account("ada", 1_000).await, world.account("ben", 1_000).await);
    world.pin_all(ben, 0..2).await;
    created(world.create_pin(ada, cid(0)).await);
    let mut batch = new_pins(ada, 0..4);
    batch[3].lease_until = Some(now().after(LEASE));
    let granted = done(world.create_pins(batch).await);
    let seen: Vec<_> =
        granted.iter().map(|one| (one.pin.phase, one.created, one.work, one.lease.is_some())).collect();
    let (active, pending) = (PinPhase::Active, PinPhase::Pending);
    let expected = [
        (active, false, false, false),
        (active, true, false, false),
        (pending, true, true, false),
        (pending, true, false, true),
    ];
    assert_eq!(seen, expected);
    let cids: Vec<_> = granted.iter().map(|one| one.pin.placement.cid).collect();
    assert_eq!(cids, [0, 1, 2, 3].map(cid));
    assert_eq!(world.store.account(ada).await.unwrap().unwrap().used_bytes, 20);
    assert_eq!(world.pins(ada).await.len(), 4);
}

#[tokio::test]
async fn pending_pins_in_a_batch_reserve_no_storage() {
    let world = World::start().await;
    let (ada, ben) = (world.account("ada", 20).await, world.account("ben", 1_000).await);
    world.pin_all(ben, 0..2).await;
    let granted = done(world.create_pins(new_pins(ada, 0..4)).await);
    let phases: Vec<_> = granted.iter().map(|one| one.pin.phase).collect();
    assert_eq!(phases, [PinPhase::Active, PinPhase::Active, PinPhase::Pending, PinPhase::Pending]);
    assert_eq!(world.store.account(ada).await.unwrap().unwrap().used_bytes, 20);
}

#[tokio::test]
async fn batch_over_the_quota_writes_nothing() {
    let world = World::start().await;
    let (ada, ben) = (world.account("ada", 25).await, world.account("ben", 1_000).await);
    world.pin_all(ben, 0..3).await;
    // Two of the three would fit.
    assert!(matches!(world.create_pins(new_pins(ada, 0..3)).await, CreatePinsOutcome::OverQuota));
    assert!(world.pins(ada).await.is_empty());
    assert_eq!(world.store.account(ada).await.unwrap().unwrap().used_bytes, 0);
    assert_eq!(done(world.create_pins(new_pins(ada, 0..2)).await).len(), 2);
}

#[tokio::test]
async fn batch_over_the_in_flight_limit_writes_nothing() {
    let world = World::start().await;
    let ada = world.account("ada", 1_000).await;
    let bounded = |cids| {
        let requests: Vec<CreatePin> = new_pins(ada, cids);
        requests.into_iter().map(|request| CreatePin { in_flight_max: 3, ..request }).collect::<Vec<_>>()
    };
    done(world.create_pins(bounded(0..1)).await);
    assert!(matches!(world.create_pins(bounded(1..4)).await, CreatePinsOutcome::TooManyInFlight));
    assert_eq!(world.pins(ada).await.len(), 1);
    assert_eq!(world.store.placements(None, 10).await.unwrap().len(), 1, "no placement without a pin");
    done(world.create_pins(bounded(0..3)).await);
    assert_eq!(world.pins(ada).await.len(), 3);
}

#[tokio::test]
async fn batch_refused_by_locks_reports_each_item_and_writes_nothing() {
    let world = World::start().await;
    let ada = world.account("ada", 1_000).await;
    let until = |seconds| times(None, Some(at(seconds)));
    let locked = |number, seconds| CreatePin { options: until(seconds), ..new_pin(ada, cid(number)) };
    done(world.create_pins(vec![locked(0, 100), locked(2, 100)]).await);
    let refused = world.create_pins(vec![locked(0, 50), new_pin(ada, cid(1)), locked(2, 50)]).await;
    let CreatePinsOutcome::Refused(refused) = refused else { panic!("{refused:?}") };
    let shortened = LifetimeError::Shortened { until: at(100) };
    assert_eq!(refused, [(0, shortened), (2, shortened)]);
    assert_eq!(world.pins(ada).await.len(), 2);
}

#[tokio::test]
async fn concurrent_batches_never_exceed_the_quota() {
    let world = World::start().await;
    let ben = world.account("ben", 10_000).await;
    world.pin_all(ben, 0..40).await;
    for round in 0..10 {
        // The quota has room for one of the two batches and for single pins.
        let ada = world.account(&format!("ada{round}"), 250).await;
        let (one, two) = (world.create_pins(new_pins(ada, 0..20)), world.create_pins(new_pins(ada, 20..40)));
        let singles = futures::future::join_all((0..40).map(|number| world.create_pin(ada, cid(number))));
        let (one, two, _) = tokio::join!(one, two, singles);
        let granted = [one, two].into_iter().filter(|all| matches!(all, CreatePinsOutcome::Done(_))).count();
        assert!(granted <= 1, "two batches of 200 bytes exceed 250 bytes");
        let (account, pins) = (world.store.account(ada).await.unwrap().unwrap(), world.pins(ada).await);
        assert_eq!(account.used_bytes, 10 * pins.len() as u64);
        assert_eq!(account.used_bytes, 250, "the quota is used completely");
    }
}

#[tokio::test]
async fn batch_removal_removes_all_or_reports_every_error() {
    let world = World::start().await;
    let ada = world.account("ada", 1_000).await;
    world.pin_all(ada, 0..3).await;
    let elsewhere = ClusterId::parse("elsewhere").unwrap();
    created(
        world
            .store
            .create_pin(CreatePin { cluster: elsewhere.clone(), ..new_pin(ada, cid(0)) }, now())
            .await
            .unwrap(),
    );
    let options = times(None, Some(at(100)));
    world.store.create_pin(CreatePin { options, ..new_pin(ada, cid(2)) }, now()).await.unwrap();

    let here = Some(ClusterId::default());
    let batch = [
        (cid(0), None),
        (cid(1), None),
        (cid(1), here.clone()),
        (cid(2), None),
        (cid(9), None),
        (cid(1), Some(elsewhere.clone())),
    ];
    let refused = world.store.remove_pins(ada, &batch, Actor::account(ada), now()).await.unwrap();
    let expected = vec![
        (0, RemovePinError::Ambiguous),
        (2, RemovePinError::Twice { first: 1 }),
        (3, RemovePinError::Locked { until: at(100) }),
        (4, RemovePinError::NotFound),
        (5, RemovePinError::NotFound),
    ];
    assert_eq!(refused, RemovePinsOutcome::Refused(expected));
    assert_eq!(world.pins(ada).await.len(), 4);

    let batch = [(cid(0), Some(elsewhere.clone())), (cid(0), here), (cid(1), None)];
    let RemovePinsOutcome::Done(ended) =
        world.store.remove_pins(ada, &batch, Actor::account(ada), now()).await.unwrap()
    else {
        panic!("the batch removal was refused")
    };
    let clusters: Vec<_> = ended.iter().map(|(cluster, _)| cluster.clone()).collect();
    assert_eq!(clusters, [elsewhere, ClusterId::default(), ClusterId::default()]);
    assert_eq!(world.store.account(ada).await.unwrap().unwrap().used_bytes, 10);
    assert_eq!(world.remove(ada, &cid(2)).await, RemovePinOutcome::Locked { until: at(100) });
}
