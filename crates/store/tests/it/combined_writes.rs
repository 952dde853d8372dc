//! Combined writes: requests and outcomes that share a transaction have the same results as separate ones.

use futures::future::join_all;
use pinfold_model::{
    AccountId, LifetimeError, Origin, PinKind, PinOptions, PinPhase, PinState, PlacementState, WebhookEvent,
};
use pinfold_store::{AuditFilter, Capacity, CompleteOutcome, CreatePin, CreatePinOutcome, PinRecord};

use crate::world::{World, at, cid, created, held, name, now, times, wish};

impl World {
    async fn wish_together(&self, wishes: Vec<CreatePin>) -> Vec<CreatePinOutcome> {
        let wished = join_all(wishes.into_iter().map(|wish| self.store.create_pin(wish, now()))).await;
        wished.into_iter().collect::<Result<_, _>>().unwrap()
    }

    async fn used(&self, account: AccountId) -> (u64, u64) {
        let account = self.store.account(account).await.unwrap().unwrap();
        (account.used_bytes, account.pins)
    }
}

/// The phase of the pin and whether it is new; `None` if the request was over the quota.
fn outcome(wished: &CreatePinOutcome) -> Option<(PinPhase, bool)> {
    match wished {
        CreatePinOutcome::Done { pin, created, .. } => Some((pin.phase, *created)),
        CreatePinOutcome::OverQuota => None,
        other @ (CreatePinOutcome::TooManyInFlight | CreatePinOutcome::Refused(_)) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn combined_requests_for_stored_content_are_granted_completely() {
    let world = World::start().await;
    let (ada, ben) = (world.account("ada", 1_000).await, world.account("ben", 1_000).await);
    world.settled(ben, 0..3).await;
    let hook = world.hook(ada).await;
    let named = CreatePin {
        options: PinOptions {
            original_name: name("a.txt"),
            custom_name: name("mine"),
            ..times(Some(at(100)), Some(at(50)))
        },
        ..wish(ada, cid(0))
    };
    let wished = world.wish_together(vec![named.clone(), wish(ada, cid(1)), wish(ada, cid(2))]).await;
    let pins: Vec<_> = wished.into_iter().map(created).collect();
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
    world.settled(ben, 0..5).await;
    let wishes = (0..5).flat_map(|number| [wish(poor, cid(number)), wish(rich, cid(number))]);
    let wished = world.wish_together(wishes.collect()).await;
    let kept = Some((PinPhase::Active, true));
    let of = |first| wished.iter().skip(first).step_by(2).map(outcome).collect::<Vec<_>>();
    assert_eq!(of(0), [kept, kept, kept, None, None]);
    assert_eq!(of(1), [kept; 5]);
    assert_eq!(world.used(poor).await, (30, 3));
    assert_eq!(world.used(rich).await, (50, 5));
}

#[tokio::test]
async fn requests_that_cannot_be_combined_run_alone() {
    let world = World::start().await;
    let (ada, ben) = (world.account("ada", 1_000).await, world.account("ben", 1_000).await);
    world.settled(ben, 0..3).await;
    let impossible = times(Some(at(10)), Some(at(20)));
    let wished = world
        .wish_together(vec![
            wish(ada, cid(0)),
            wish(ada, cid(0)),
            wish(ada, cid(9)),
            wish(ben, cid(1)),
            CreatePin { options: impossible, ..wish(ada, cid(2)) },
            wish(ada, cid(1)),
        ])
        .await;
    let refused = &wished[4];
    assert!(
        matches!(refused, CreatePinOutcome::Refused(LifetimeError::EndsBeforeLock { .. })),
        "{refused:?}"
    );
    let seen: Vec<_> =
        wished.iter().filter(|one| !matches!(one, CreatePinOutcome::Refused(_))).map(outcome).collect();
    let (kept, again, waiting) =
        ((PinPhase::Active, true), (PinPhase::Active, false), (PinPhase::Pending, true));
    assert_eq!(seen, [kept, again, waiting, again, kept].map(Some));
    assert_eq!(world.used(ada).await, (20, 3));
    assert_eq!(world.used(ben).await, (30, 3));
    let claim = world.claim(now()).await;
    assert_eq!(claim.placement.cid, cid(9));
    world.complete_placement(&claim, held(10)).await;
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
        ..wish(ada, cid(0))
    };
    let wishes =
        vec![named.clone(), wish(ada, cid(1)), wish(ben, cid(0)), wish(ada, cid(2)), wish(ben, cid(3))];
    let mut wished = world.wish_together(wishes).await;
    let CreatePinOutcome::Done { pin, created: true, work: false, lease: Some(claim) } = wished.remove(0)
    else {
        panic!("the placement is due")
    };
    assert_eq!((&pin.custom_name, pin.lifetime()), (&named.options.custom_name, named.options.lifetime()));
    assert_eq!(pin.state(), PinState::Pinning);
    assert_eq!((claim.wanted, claim.budget_bytes), (true, 100));
    assert_eq!(claim.origins, [named.options.origins[0].as_str()]);
    assert_eq!(claim.placement, pin.placement);
    assert!(
        wished
            .iter()
            .all(|wished| matches!(wished, CreatePinOutcome::Done { created: true, lease: None, .. }))
    );
    let pins: Vec<_> = wished.into_iter().map(created).chain([(*pin).clone()]).collect();
    for account in [ada, ben] {
        let mut own: Vec<_> = pins.iter().filter(|pin| pin.account == account).cloned().collect();
        own.sort_by_key(|pin| std::cmp::Reverse(pin.id));
        assert_eq!(world.pins(account).await, own);
    }
    let due = world.store.lease_placements(Capacity::each(10), now(), at(60)).await.unwrap();
    let queue: Vec<_> = due.iter().map(|claim| claim.placement.cid).collect();
    assert_eq!(queue, [cid(3), cid(1), cid(2)], "the account with fewer pins in flight is first");
    world.complete_placement(&claim, held(10)).await;
    assert_eq!((world.used(ada).await, world.used(ben).await), ((10, 3), (10, 2)));
}

#[tokio::test]
async fn combined_requests_respect_the_in_flight_limit() {
    let world = World::start().await;
    let (ada, full) = (world.account("ada", 100).await, world.account("full", 0).await);
    let wish = |account, number| CreatePin { in_flight_max: 3, ..wish(account, cid(number)) };
    let wished = world.wish_together((0..5).flat_map(|n| [wish(ada, n), wish(full, n)]).collect()).await;
    let (granted, refused): (Vec<_>, Vec<_>) =
        wished.iter().step_by(2).enumerate().partition(|(n, _)| *n < 3);
    assert!(
        granted.iter().all(|(_, one)| matches!(one, CreatePinOutcome::Done { created: true, .. })),
        "{granted:?}"
    );
    assert!(refused.iter().all(|(_, one)| matches!(one, CreatePinOutcome::TooManyInFlight)), "{refused:?}");
    assert!(wished.iter().skip(1).step_by(2).all(|one| outcome(one).is_none()), "{wished:?}");
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
            world.wish(account, cid(number)).await;
        }
    }
    let claims = world.store.lease_placements(Capacity::each(20), now(), at(60)).await.unwrap();
    assert_eq!(claims.len(), 9);
    let unwanted = cid(8);
    world.remove(ben, &unwanted).await;
    let settles = claims.iter().map(|claim| world.store.complete_placement(claim.lease, held(10), at(1)));
    // One outcome is sent twice, as after a stop.
    let twice = world.store.complete_placement(claims[0].lease, held(10), at(1));
    let (settled, twice) = futures::future::join(join_all(settles), twice).await;
    for (claim, settled) in claims.iter().zip(settled) {
        let is_unwanted = claim.placement.cid == unwanted;
        let (state, work) = match is_unwanted {
            true => (PlacementState::Releasing, true),
            false => (PlacementState::Pinned, false),
        };
        // The quota of the account `poor` fits all of its pins but one, and no other account has that one pinned.
        let settled = settled.unwrap();
        let no_room = settled == CompleteOutcome::Now { state: PlacementState::Releasing, work: true };
        assert!(no_room || settled == CompleteOutcome::Now { state, work }, "{settled:?}");
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
    let told = world.events(&poor_hook).await;
    assert_eq!(told.iter().filter(|event| **event == WebhookEvent::Pinned).count(), 2, "{told:?}");
    assert_eq!(told.iter().filter(|event| **event == WebhookEvent::Failed).count(), 1, "{told:?}");
}
