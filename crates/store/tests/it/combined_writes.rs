//! Combined writes: requests and outcomes that share a transaction have the same results as separate ones.

use futures::future::join_all;
use pinfold_model::{
    AccountId, LifetimeError, Origin, PinKind, PinOptions, PinPhase, PinState, PlacementState, WebhookEvent,
};
use pinfold_store::{AuditFilter, Capacity, CompleteOutcome, CreatePin, CreatePinOutcome, PinRecord};

use crate::world::{World, at, cid, created, held, name, new_pin, now, times};

impl World {
    async fn create_together(&self, requests: Vec<CreatePin>) -> Vec<CreatePinOutcome> {
        let outcomes =
            join_all(requests.into_iter().map(|request| self.store.create_pin(request, now()))).await;
        outcomes.into_iter().collect::<Result<_, _>>().unwrap()
    }

    async fn used(&self, account: AccountId) -> (u64, u64) {
        let account = self.store.account(account).await.unwrap().unwrap();
        (account.used_bytes, account.pins)
    }
}

/// The phase of the pin and whether it is new; `None` if the request was over the quota.
fn outcome(outcome: &CreatePinOutcome) -> Option<(PinPhase, bool)> {
    match outcome {
        CreatePinOutcome::Done { pin, created, .. } => Some((pin.phase, *created)),
        CreatePinOutcome::OverQuota => None,
        other @ (CreatePinOutcome::TooManyInFlight | CreatePinOutcome::Refused(_)) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn combined_requests_for_stored_content_are_granted_completely() {
    let world = World::start().await;
    let (ada, ben) = (world.account("ada", 1_000).await, world.account("ben", 1_000).await);
    world.pin_all(ben, 0..3).await;
    let hook = world.hook(ada).await;
    let named = CreatePin {
        options: PinOptions {
            original_name: name("a.txt"),
            custom_name: name("mine"),
            ..times(Some(at(100)), Some(at(50)))
        },
        ..new_pin(ada, cid(0))
    };
    let outcomes =
        world.create_together(vec![named.clone(), new_pin(ada, cid(1)), new_pin(ada, cid(2))]).await;
    let pins: Vec<_> = outcomes.into_iter().map(created).collect();
    assert_eq!(pins[0].original_name, named.options.original_name);
    assert_eq!(pins[0].custom_name, named.options.custom_name);
    assert_eq!(pins[0].lifetime(), named.options.lifetime());
    let listed = world.pins(ada).await;
    assert!(listed.len() == 3 && pins.iter().all(|pin| listed.contains(pin)), "{pins:?}\n{listed:?}");
    assert_eq!(world.used(ada).await, (30, 3));
    assert_eq!(world.events(&hook).await, [WebhookEvent::Pinned; 3]);
    let filter =
        AuditFilter { account: Some(ada), action: Some("pin.create".to_owned()), ..AuditFilter::default() };
    let log = world.store.list_audit(&filter, None, 0, 10, 10).await.unwrap();
    assert_eq!(log.total, 3);
    let details = log.entries.iter().filter_map(|entry| entry.details.as_deref());
    assert_eq!(details.filter(|details| details.contains("mine")).count(), 1, "{log:?}");
}

#[tokio::test]
async fn combined_requests_are_granted_up_to_the_quota() {
    let world = World::start().await;
    let (poor, ben, rich) = (
        world.account("poor", 35).await,
        world.account("ben", 1_000).await,
        world.account("rich", 1_000).await,
    );
    world.pin_all(ben, 0..5).await;
    let requests = (0..5).flat_map(|number| [new_pin(poor, cid(number)), new_pin(rich, cid(number))]);
    let outcomes = world.create_together(requests.collect()).await;
    let active = Some((PinPhase::Active, true));
    let of = |first| outcomes.iter().skip(first).step_by(2).map(outcome).collect::<Vec<_>>();
    assert_eq!(of(0), [active, active, active, None, None]);
    assert_eq!(of(1), [active; 5]);
    assert_eq!(world.used(poor).await, (30, 3));
    assert_eq!(world.used(rich).await, (50, 5));
}

#[tokio::test]
async fn requests_that_cannot_be_combined_run_alone() {
    let world = World::start().await;
    let (ada, ben) = (world.account("ada", 1_000).await, world.account("ben", 1_000).await);
    world.pin_all(ben, 0..3).await;
    let impossible = times(Some(at(10)), Some(at(20)));
    let outcomes = world
        .create_together(vec![
            new_pin(ada, cid(0)),
            new_pin(ada, cid(0)),
            new_pin(ada, cid(9)),
            new_pin(ben, cid(1)),
            CreatePin { options: impossible, ..new_pin(ada, cid(2)) },
            new_pin(ada, cid(1)),
        ])
        .await;
    let refused = &outcomes[4];
    assert!(
        matches!(refused, CreatePinOutcome::Refused(LifetimeError::EndsBeforeLock { .. })),
        "{refused:?}"
    );
    let seen: Vec<_> =
        outcomes.iter().filter(|one| !matches!(one, CreatePinOutcome::Refused(_))).map(outcome).collect();
    let (active, again, pending) =
        ((PinPhase::Active, true), (PinPhase::Active, false), (PinPhase::Pending, true));
    assert_eq!(seen, [active, again, pending, again, active].map(Some));
    assert_eq!(world.used(ada).await, (20, 3));
    assert_eq!(world.used(ben).await, (30, 3));
    let leased = world.lease_one(now()).await;
    assert_eq!(leased.placement.cid, cid(9));
    world.complete_placement(&leased, held(10)).await;
    assert_eq!(world.used(ada).await, (30, 3));
}

#[tokio::test]
async fn combined_requests_for_new_content_queue_complete_pins() {
    let world = World::start().await;
    let (ada, ben) = (world.account("ada", 100).await, world.account("ben", 1_000).await);
    let named = CreatePin {
        options: PinOptions {
            custom_name: name("mine"),
            origins: vec![Origin::parse("/ip4/127.0.0.1/tcp/1").unwrap()],
            ..times(Some(at(100)), None)
        },
        lease_until: Some(at(60)),
        ..new_pin(ada, cid(0))
    };
    let requests = vec![
        named.clone(),
        new_pin(ada, cid(1)),
        new_pin(ben, cid(0)),
        new_pin(ada, cid(2)),
        new_pin(ben, cid(3)),
    ];
    let mut outcomes = world.create_together(requests).await;
    let CreatePinOutcome::Done { pin, created: true, work: false, lease: Some(leased) } = outcomes.remove(0)
    else {
        panic!("the placement is due")
    };
    assert_eq!((&pin.custom_name, pin.lifetime()), (&named.options.custom_name, named.options.lifetime()));
    assert_eq!(pin.state(), PinState::Pinning);
    assert_eq!((leased.wanted, leased.budget_bytes), (true, 100));
    assert_eq!(leased.origins, [named.options.origins[0].as_str()]);
    assert_eq!(leased.placement, pin.placement);
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, CreatePinOutcome::Done { created: true, lease: None, .. }))
    );
    let pins: Vec<_> = outcomes.into_iter().map(created).chain([(*pin).clone()]).collect();
    for account in [ada, ben] {
        let mut own: Vec<_> = pins.iter().filter(|pin| pin.account == account).cloned().collect();
        own.sort_by_key(|pin| std::cmp::Reverse(pin.id));
        assert_eq!(world.pins(account).await, own);
    }
    let due = world.store.lease_placements(Capacity::each(10), now(), at(60)).await.unwrap();
    let queue: Vec<_> = due.iter().map(|leased| leased.placement.cid).collect();
    assert_eq!(queue, [cid(3), cid(1), cid(2)], "the account with fewer pins in flight is first");
    world.complete_placement(&leased, held(10)).await;
    assert_eq!((world.used(ada).await, world.used(ben).await), ((10, 3), (10, 2)));
}

#[tokio::test]
async fn combined_requests_respect_the_in_flight_limit() {
    let world = World::start().await;
    let (ada, full) = (world.account("ada", 100).await, world.account("full", 0).await);
    let request = |account, number| CreatePin { in_flight_max: 3, ..new_pin(account, cid(number)) };
    let outcomes =
        world.create_together((0..5).flat_map(|n| [request(ada, n), request(full, n)]).collect()).await;
    let (granted, refused): (Vec<_>, Vec<_>) =
        outcomes.iter().step_by(2).enumerate().partition(|(n, _)| *n < 3);
    assert!(
        granted.iter().all(|(_, one)| matches!(one, CreatePinOutcome::Done { created: true, .. })),
        "{granted:?}"
    );
    assert!(refused.iter().all(|(_, one)| matches!(one, CreatePinOutcome::TooManyInFlight)), "{refused:?}");
    assert!(outcomes.iter().skip(1).step_by(2).all(|one| outcome(one).is_none()), "{outcomes:?}");
    assert_eq!((world.used(ada).await, world.used(full).await), ((0, 3), (0, 0)));
}

#[tokio::test]
async fn combined_outcomes_have_the_same_effect_as_single_ones() {
    let world = World::start().await;
    let (ada, ben, poor) = (
        world.account("ada", 1_000).await,
        world.account("ben", 1_000).await,
        world.account("poor", 25).await,
    );
    let hook = world.hook(ada).await;
    let poor_hook = world.hook(poor).await;
    for (account, numbers) in [(ada, 0..3), (poor, 3..6), (ben, 6..8), (ada, 7..8), (ben, 8..9)] {
        for number in numbers {
            world.create_pin(account, cid(number)).await;
        }
    }
    let leases = world.store.lease_placements(Capacity::each(20), now(), at(60)).await.unwrap();
    assert_eq!(leases.len(), 9);
    let unwanted = cid(8);
    world.remove(ben, &unwanted).await;
    let completions =
        leases.iter().map(|leased| world.store.complete_placement(leased.lease, held(10), at(1)));
    // One outcome is sent twice, as after a stop.
    let twice = world.store.complete_placement(leases[0].lease, held(10), at(1));
    let (completed, twice) = futures::future::join(join_all(completions), twice).await;
    for (leased, completed) in leases.iter().zip(completed) {
        let is_unwanted = leased.placement.cid == unwanted;
        let (state, work) = match is_unwanted {
            true => (PlacementState::Releasing, true),
            false => (PlacementState::Pinned, false),
        };
        // The quota of the account `poor` fits all of its pins but one, and no other account has that one pinned.
        let completed = completed.unwrap();
        let over_quota = completed == CompleteOutcome::Now { state: PlacementState::Releasing, work: true };
        assert!(over_quota || completed == CompleteOutcome::Now { state, work }, "{completed:?}");
    }
    assert_eq!(twice.unwrap(), CompleteOutcome::LeaseLost);
    assert_eq!((world.used(ada).await, world.used(ben).await), ((40, 4), (20, 2)));
    assert_eq!(world.used(poor).await, (20, 3));
    let phase = |pins: &[PinRecord], phase| pins.iter().filter(|pin| pin.phase == phase).count();
    let pins = world.pins(poor).await;
    assert_eq!((phase(&pins, PinPhase::Active), phase(&pins, PinPhase::Failed)), (2, 1));
    for pin in world.pins(ada).await {
        let placement = &pin.placement;
        assert_eq!((pin.phase, pin.charged_bytes), (PinPhase::Active, 10));
        assert_eq!((placement.bytes, placement.blocks, placement.kind), (10, 1, PinKind::File));
        assert_eq!((placement.due_at, placement.leased, placement.updated_at), (None, false, at(1)));
    }
    assert_eq!(world.events(&hook).await, [WebhookEvent::Pinned; 4]);
    let events = world.events(&poor_hook).await;
    assert_eq!(events.iter().filter(|event| **event == WebhookEvent::Pinned).count(), 2, "{events:?}");
    assert_eq!(events.iter().filter(|event| **event == WebhookEvent::Failed).count(), 1, "{events:?}");
}
