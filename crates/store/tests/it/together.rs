//! Wishes that come at one time: each is granted or refused as it would be alone.

use futures::future::join_all;
use pinfold_model::{AccountId, HookEvent, Lifetime, LifetimeError, Standing};
use pinfold_store::{AuditFilter, Wish, Wished};

use crate::world::{World, at, cid, created, held, name, now, wish};

impl World {
    async fn wish_together(&self, wishes: Vec<Wish>) -> Vec<Wished> {
        let wished = join_all(wishes.into_iter().map(|wish| self.store.wish(wish, now()))).await;
        wished.into_iter().collect::<Result<_, _>>().unwrap()
    }

    async fn used(&self, account: AccountId) -> (u64, u64) {
        let account = self.store.account(account).await.unwrap().unwrap();
        (account.used_bytes, account.pins)
    }
}

/// What came of it: the standing and whether it is new; `None` if there was no room.
fn outcome(wished: &Wished) -> Option<(Standing, bool)> {
    match wished {
        Wished::Done { pin, created, .. } => Some((pin.standing, *created)),
        Wished::OverQuota => None,
        other @ (Wished::TooManyInFlight | Wished::Refused(_)) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn those_for_what_is_here_are_granted_with_all_that_belongs_to_them() {
    let world = World::start().await;
    let (ada, ben) = (world.account("ada", 1_000).await, world.account("ben", 1_000).await);
    world.settled(ben, 0..3).await;
    let hook = world.hook(ada).await;
    let named = Wish {
        original_name: name("a.txt"),
        custom_name: name("mine"),
        lifetime: Lifetime { expires_at: Some(at(100)), retain_until: Some(at(50)) },
        ..wish(ada, cid(0))
    };
    let wished = world.wish_together(vec![named.clone(), wish(ada, cid(1)), wish(ada, cid(2))]).await;
    let pins: Vec<_> = wished.into_iter().map(created).collect();
    assert_eq!(pins[0].original_name, named.original_name);
    assert_eq!(pins[0].custom_name, named.custom_name);
    assert_eq!(pins[0].lifetime(), named.lifetime);
    let listed = world.pins(ada).await;
    assert!(listed.len() == 3 && pins.iter().all(|pin| listed.contains(pin)), "{pins:?}\n{listed:?}");
    assert_eq!(world.used(ada).await, (30, 3));
    assert_eq!(world.events(&hook).await, [HookEvent::Pinned; 3]);
    let filter =
        AuditFilter { account: Some(ada), action: Some("pin.create".to_owned()), ..AuditFilter::default() };
    let log = world.store.audit(&filter, None, 0, 10, 10).await.unwrap();
    assert_eq!(log.total, 3);
    let details = log.entries.iter().filter_map(|entry| entry.details.as_deref());
    assert_eq!(details.filter(|details| details.contains("mine")).count(), 1, "{log:?}");
}

#[tokio::test]
async fn as_many_are_granted_as_there_is_room_for() {
    let world = World::start().await;
    let (poor, ben, rich) = (
        world.account("poor", 35).await,
        world.account("ben", 1_000).await,
        world.account("rich", 1_000).await,
    );
    world.settled(ben, 0..5).await;
    let wishes = (0..5).flat_map(|number| [wish(poor, cid(number)), wish(rich, cid(number))]);
    let wished = world.wish_together(wishes.collect()).await;
    let kept = Some((Standing::Kept, true));
    let of = |first| wished.iter().skip(first).step_by(2).map(outcome).collect::<Vec<_>>();
    assert_eq!(of(0), [kept, kept, kept, None, None]);
    assert_eq!(of(1), [kept; 5]);
    assert_eq!(world.used(poor).await, (30, 3));
    assert_eq!(world.used(rich).await, (50, 5));
}

#[tokio::test]
async fn those_that_are_not_as_simple_go_their_own_way() {
    let world = World::start().await;
    let (ada, ben) = (world.account("ada", 1_000).await, world.account("ben", 1_000).await);
    world.settled(ben, 0..3).await;
    let impossible = Lifetime { expires_at: Some(at(10)), retain_until: Some(at(20)) };
    let wished = world
        .wish_together(vec![
            wish(ada, cid(0)),
            wish(ada, cid(0)),
            wish(ada, cid(9)),
            wish(ben, cid(1)),
            Wish { lifetime: impossible, ..wish(ada, cid(2)) },
            wish(ada, cid(1)),
        ])
        .await;
    let refused = &wished[4];
    assert!(matches!(refused, Wished::Refused(LifetimeError::EndsBeforeLock { .. })), "{refused:?}");
    let seen: Vec<_> = wished.iter().filter(|one| !matches!(one, Wished::Refused(_))).map(outcome).collect();
    let (kept, again, waiting) = ((Standing::Kept, true), (Standing::Kept, false), (Standing::Waiting, true));
    assert_eq!(seen, [kept, again, waiting, again, kept].map(Some));
    assert_eq!(world.used(ada).await, (20, 3));
    assert_eq!(world.used(ben).await, (30, 3));
    let claim = world.claim(now()).await;
    assert_eq!(claim.placement.cid, cid(9));
    world.settle(&claim, held(10)).await;
    assert_eq!(world.used(ada).await, (30, 3));
}
