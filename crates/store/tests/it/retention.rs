//! Locked pins: only an administrator can remove them before the lock ends.

use pinfold_model::{AccountId, Actor, AuditEntry, LifetimeError, PinOptions, PinPhase, Timestamp};
use pinfold_store::{
    AuditFilter, BeginRemovalOutcome, CreatePin, CreatePinOutcome, RemovalStep, RemovePinError,
    RemovePinOutcome, RemovePinsOutcome,
};

use crate::world::{World, at, cid, created, failed_outcome, held, name, new_pin, now, times};

/// A request for the first DAG with these times in seconds.
fn timed(account: AccountId, expires: Option<i64>, retain: Option<i64>) -> CreatePin {
    let options = times(expires.map(at), retain.map(at));
    CreatePin { options, ..new_pin(account, cid(1)) }
}

impl World {
    /// Pins the first DAG and locks it until this time.
    async fn lock(&self, account: AccountId, until: i64) {
        created(self.store.create_pin(timed(account, None, Some(until)), now()).await.unwrap());
        let leased = self.lease_one(now()).await;
        self.complete_placement(&leased, held(10)).await;
    }

    /// Entries with this action in the audit log of an account.
    async fn entries_of(&self, account: AccountId, action: &str) -> Vec<AuditEntry> {
        let action = Some(action.to_owned());
        let filter = AuditFilter { account: Some(account), action, ..AuditFilter::default() };
        self.store.list_audit(&filter, None, 0, 10, 10).await.unwrap().entries
    }

    async fn remove_at(&self, account: AccountId, now: Timestamp) -> RemovePinOutcome {
        self.store.remove_pin(account, &cid(1), None, Actor::account(account), now).await.unwrap()
    }
}

#[tokio::test]
async fn locked_pin_stays_until_the_lock_ends() {
    let world = World::start().await;
    let ada = world.account("ada", 100).await;
    world.lock(ada, 100).await;
    let locked = RemovePinOutcome::Locked { until: at(100) };
    assert_eq!(world.remove_at(ada, now()).await, locked);
    // Setting the clock back does not end a lock early.
    assert_eq!(world.remove_at(ada, at(-1_000_000)).await, locked);
    let refused = world.store.remove_pins(ada, &[(cid(1), None)], Actor::account(ada), at(99)).await.unwrap();
    assert_eq!(refused, RemovePinsOutcome::Refused(vec![(0, RemovePinError::Locked { until: at(100) })]));
    let pin = world.pins(ada).await.remove(0);
    assert_eq!((pin.phase, pin.retain_until), (PinPhase::Active, Some(at(100))));
    assert!(matches!(world.remove_at(ada, at(100)).await, RemovePinOutcome::Done(_)));
}

#[tokio::test]
async fn pending_pin_is_locked_and_failed_pin_is_not() {
    let world = World::start().await;
    let ada = world.account("ada", 100).await;
    let pin = created(world.store.create_pin(timed(ada, None, Some(100)), now()).await.unwrap());
    assert_eq!(world.remove_at(ada, now()).await, RemovePinOutcome::Locked { until: at(100) });
    assert_eq!(world.store.cancel_pin(pin.id, pin.request_count, now()).await.unwrap(), None);
    let leased = world.lease_one(now()).await;
    world.complete_placement(&leased, failed_outcome()).await;
    assert!(
        matches!(world.remove_at(ada, now()).await, RemovePinOutcome::Done(_)),
        "a failed pin is not locked"
    );
}

#[tokio::test]
async fn request_that_would_shorten_a_lock_changes_nothing() {
    let world = World::start().await;
    let ada = world.account("ada", 100).await;
    world.lock(ada, 100).await;
    for (expires, retain, error) in [
        (None, Some(99), LifetimeError::Shortened { until: at(100) }),
        (Some(99), None, LifetimeError::EndsBeforeLock { until: at(100) }),
        (Some(150), Some(200), LifetimeError::EndsBeforeLock { until: at(200) }),
    ] {
        let timed = timed(ada, expires, retain);
        let options = PinOptions { custom_name: name("new"), ..timed.options.clone() };
        let request = CreatePin { options, ..timed };
        let refused = world.store.create_pin(request, now()).await.unwrap();
        assert!(matches!(refused, CreatePinOutcome::Refused(why) if why == error), "{refused:?}");
    }
    let pin = world.pins(ada).await.remove(0);
    assert_eq!((pin.custom_name, pin.expires_at, pin.retain_until), (None, None, Some(at(100))));

    for (expires, retain) in [(Some(100), None), (None, None), (Some(300), Some(300)), (None, Some(300))] {
        let done = world.store.create_pin(timed(ada, expires, retain), now()).await.unwrap();
        assert!(matches!(done, CreatePinOutcome::Done { created: false, .. }), "{done:?}");
    }
    let beyond = world.store.create_pin(timed(ada, None, Some(301)), now()).await.unwrap();
    assert!(matches!(beyond, CreatePinOutcome::Refused(LifetimeError::LockBeyondEnd { .. })), "{beyond:?}");
    let pin = world.pins(ada).await.remove(0);
    assert_eq!((pin.expires_at, pin.retain_until), (Some(at(300)), Some(at(300))));
}

#[tokio::test]
async fn lock_survives_a_restart() {
    let mut world = World::start().await;
    let ada = world.account("ada", 100).await;
    world.lock(ada, 100).await;
    world.store.close().await;
    world.store = world.open().await;
    assert_eq!(world.remove_at(ada, at(99)).await, RemovePinOutcome::Locked { until: at(100) });
}

#[tokio::test]
async fn locked_pin_never_expires_even_with_an_inconsistent_row() {
    let world = World::start().await;
    let ada = world.account("ada", 100).await;
    world.lock(ada, 100).await;
    // No request can produce this row.
    let file = sqlx::sqlite::SqliteConnectOptions::new().filename(world.path());
    let pool = sqlx::SqlitePool::connect_with(file).await.unwrap();
    sqlx::query("UPDATE pins SET expires_at_ms = $1").bind(at(50).as_ms()).execute(&pool).await.unwrap();
    for seconds in [50, 99] {
        assert_eq!(world.store.expire_pins(at(seconds), 10).await.unwrap(), []);
        assert_eq!(
            world.store.next_expiry().await.unwrap(),
            Some(at(100)),
            "the next expiry is not before the lock ends"
        );
    }
    assert_eq!(world.store.expire_pins(at(100), 10).await.unwrap().len(), 1);
    assert_eq!(world.store.next_expiry().await.unwrap(), None);
}

#[tokio::test]
async fn concurrent_extension_and_removal_have_one_winner() {
    for _ in 0..20 {
        let world = World::start().await;
        let ada = world.account("ada", 100).await;
        world.lock(ada, 100).await;
        // The lock has just ended; one request extends it while others remove the pin.
        let (extend, remove) = (timed(ada, None, Some(500)), || world.remove_at(ada, at(100)));
        let (before, extended, after) =
            tokio::join!(remove(), world.store.create_pin(extend, at(100)), remove());
        let extended = extended.unwrap();
        let is_new = matches!(extended, CreatePinOutcome::Done { created: true, .. });
        match (before, after) {
            (RemovePinOutcome::Done(_), RemovePinOutcome::Locked { until })
            | (RemovePinOutcome::Locked { until }, RemovePinOutcome::Done(_)) => {
                assert_eq!(until, at(500));
                assert!(is_new, "the pin was removed and created again");
            }
            (RemovePinOutcome::Locked { .. }, RemovePinOutcome::Locked { .. }) => assert!(!is_new),
            other => {
                assert!(matches!(other, (RemovePinOutcome::Done(_), RemovePinOutcome::NotFound)), "{other:?}")
            }
        }
        let left = world.pins(ada).await;
        assert!(left.iter().all(|pin| pin.retain_until == Some(at(500))), "{left:?}");
    }
}

#[tokio::test]
async fn removal_of_a_locked_pin_by_an_administrator_is_in_both_logs() {
    let world = World::start().await;
    let (ada, root) = (world.account("ada", 100).await, world.account("root", 100).await);
    world.lock(ada, 100).await;
    let pin = world.pins(ada).await.remove(0).id;
    let remove = async || world.store.admin_remove_pin(pin, Actor::account(root), now()).await.unwrap();
    assert!(remove().await.is_some());
    assert!(world.pins(ada).await.is_empty());
    assert_eq!(remove().await, None);
    for account in [ada, root] {
        let log = world.entries_of(account, "pin.remove_locked").await;
        assert_eq!((log.len(), log[0].by.actor, &log[0].subject), (1, Some(root), &cid(1).to_string()));
        assert!(log[0].details.as_ref().unwrap().contains("retainUntil"), "{log:?}");
    }
}

#[tokio::test]
async fn removal_of_an_account_with_locked_pins_is_in_both_logs() {
    let world = World::start().await;
    let (ada, root) = (world.account("ada", 100).await, world.account("root", 100).await);
    world.lock(ada, 100).await;
    created(world.create_pin(ada, cid(2)).await);
    let by = Actor::account(root);
    let begun = world.store.begin_account_removal(ada, true, by, now()).await.unwrap();
    assert_eq!(begun, BeginRemovalOutcome::Begun { pins: 2 });
    for account in [ada, root] {
        let log = world.entries_of(account, "account.remove").await;
        assert_eq!((log.len(), log[0].by), (1, by));
        let details = log[0].details.as_ref().unwrap();
        let until = format!(r#""retainUntil":"{}""#, at(100));
        for part in [r#""pins":"2""#, r#""locked":"1""#, until.as_str()] {
            assert!(details.contains(part), "{details}");
        }
    }
    assert!(matches!(world.store.continue_account_removal(10, now()).await.unwrap(), RemovalStep::Pins(_)));
    for (action, number) in [("pin.remove_locked", 1), ("pin.remove", 2)] {
        let log = world.entries_of(ada, action).await;
        assert_eq!((log.len(), &log[0].subject), (1, &cid(number).to_string()), "{action}");
    }
}
