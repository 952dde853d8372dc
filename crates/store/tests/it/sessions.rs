//! Sessions, login challenges, and the secret that signs session tokens.

use std::time::Duration;

use pinfold_model::{AccountId, Actor, SessionId, Timestamp};
use pinfold_store::{AttemptBucket, ChallengeAttempt, NewChallenge, NewSession, TotpCode};

use crate::world::{World, at, now};

const BUCKET: AttemptBucket = AttemptBucket { tries: 100, refill: Duration::from_secs(1) };

/// Placeholder for a password hash.
const HASH: &str = "$argon2id$";

fn code(step: i64) -> TotpCode {
    TotpCode { secret: "SECRET".to_owned(), step, bucket: BUCKET }
}

fn session(account: AccountId, expires_at: Timestamp) -> NewSession {
    NewSession { account, expires_at, sessions_max: 3 }
}

fn challenge(account: AccountId, hash: &str) -> NewChallenge {
    let (password_hash, hash) = (HASH.to_owned(), hash.to_owned());
    NewChallenge { account, password_hash, hash, expires_at: at(300), challenges_max: 2 }
}

impl World {
    /// Creates an account with a password.
    async fn account_with_password(&self, name: &str) -> AccountId {
        let account = self.account(name, 1).await;
        self.set_password(account, HASH).await;
        account
    }

    /// Creates an account with a password and a second factor whose code of step 7 is used.
    async fn account_with_second_factor(&self, name: &str) -> AccountId {
        let account = self.account_with_password(name).await;
        let secret = "SECRET".to_owned();
        assert!(self.store.set_up_second_factor(account, secret, Actor::SYSTEM, now()).await.unwrap());
        assert!(self.store.enable_second_factor(account, code(7), Actor::SYSTEM, now()).await.unwrap());
        account
    }

    async fn set_password(&self, account: AccountId, hash: &str) {
        let set = self.store.set_password(account, hash.to_owned(), None, None, Actor::SYSTEM, now());
        assert!(set.await.unwrap());
    }

    async fn open_session(&self, account: AccountId, expires_at: Timestamp) -> SessionId {
        let new = session(account, expires_at);
        self.store.create_session(new, HASH.to_owned(), Actor::SYSTEM, now()).await.unwrap().unwrap()
    }

    async fn is_open(&self, id: SessionId) -> bool {
        self.store.session(id).await.unwrap().is_some()
    }

    async fn open_challenge(&self, account: AccountId, hash: &str) {
        assert!(self.store.create_challenge(challenge(account, hash), now()).await.unwrap());
    }

    async fn try_challenge(&self, hash: &str, now: Timestamp) -> ChallengeAttempt {
        self.store.attempt_challenge(hash.to_owned(), 5, BUCKET, now).await.unwrap()
    }
}

#[tokio::test]
async fn oldest_session_is_ended_at_the_limit() {
    let world = World::start().await;
    let (ada, bob) = (world.account_with_password("ada").await, world.account_with_password("bob").await);
    let of_bob = world.open_session(bob, at(60)).await;
    let mut sessions = Vec::new();
    for _ in 0..5 {
        sessions.push(world.open_session(ada, at(60)).await);
    }
    let mut open = Vec::new();
    for id in sessions {
        open.push(world.is_open(id).await);
    }
    assert_eq!(open, [false, false, true, true, true]);
    assert!(world.is_open(of_bob).await, "each account has its own limit");
}

#[tokio::test]
async fn session_is_ended_only_by_its_account() {
    let world = World::start().await;
    let (ada, bob) = (world.account_with_password("ada").await, world.account_with_password("bob").await);
    let id = world.open_session(ada, at(60)).await;
    assert!(!world.store.delete_session(bob, id, Actor::SYSTEM, now()).await.unwrap());
    assert_eq!(world.store.session(id).await.unwrap().unwrap().0.id, ada);
    assert!(world.store.delete_session(ada, id, Actor::SYSTEM, now()).await.unwrap());
    assert!(!world.is_open(id).await);
}

#[tokio::test]
async fn expired_sessions_and_challenges_are_deleted_in_steps() {
    let world = World::start().await;
    let ada = world.account_with_password("ada").await;
    let short = [world.open_session(ada, at(10)).await, world.open_session(ada, at(10)).await];
    let long = world.open_session(ada, at(1_000)).await;
    let bob = world.account_with_second_factor("bob").await;
    world.open_challenge(bob, "a").await;
    assert_eq!(world.store.delete_expired_sessions(at(9), 1).await.unwrap(), 0);
    assert_eq!(
        world.store.delete_expired_sessions(at(300), 1).await.unwrap(),
        2,
        "one session and one challenge"
    );
    assert_eq!(world.store.delete_expired_sessions(at(300), 1).await.unwrap(), 1);
    assert_eq!(world.store.delete_expired_sessions(at(300), 1).await.unwrap(), 0);
    assert!(!world.is_open(short[0]).await && !world.is_open(short[1]).await && world.is_open(long).await);
}

#[tokio::test]
async fn oldest_challenge_is_ended_at_the_limit() {
    let world = World::start().await;
    let ada = world.account_with_second_factor("ada").await;
    for hash in ["a", "b", "c"] {
        world.open_challenge(ada, hash).await;
    }
    assert_eq!(world.try_challenge("a", now()).await, ChallengeAttempt::NotFound);
    assert_eq!(world.try_challenge("b", now()).await, ChallengeAttempt::Allowed(ada));
    assert_eq!(
        world.try_challenge("b", at(300)).await,
        ChallengeAttempt::NotFound,
        "the challenge has expired"
    );
}

#[tokio::test]
async fn concurrent_challenge_attempts_are_counted_exactly() {
    let world = World::start().await;
    let ada = world.account_with_second_factor("ada").await;
    world.open_challenge(ada, "a").await;
    let tries = futures::future::join_all((0..50).map(|_| world.try_challenge("a", now()))).await;
    assert_eq!(tries.iter().filter(|tried| **tried == ChallengeAttempt::Allowed(ada)).count(), 5);
}

#[tokio::test]
async fn used_code_opens_no_session() {
    let world = World::start().await;
    let ada = world.account_with_second_factor("ada").await;
    world.open_challenge(ada, "a").await;
    let pass = async |step| {
        let passed = world
            .store
            .complete_challenge("a".to_owned(), code(step), session(ada, at(60)), Actor::SYSTEM, now())
            .await;
        passed.unwrap().is_some()
    };
    assert!(!pass(7).await, "the code was used");
    let other = TotpCode { secret: "OTHER".to_owned(), ..code(9) };
    assert!(!world.store.consume_code(ada, other).await.unwrap(), "the secret is not the current one");
    assert!(pass(8).await);
    assert!(!pass(9).await, "the challenge is completed");
    assert!(world.store.consume_code(ada, code(9)).await.unwrap(), "a refused code is not used up");
}

#[tokio::test]
async fn all_processes_share_one_secret() {
    let world = World::start().await;
    let other = world.open().await;
    let (one, two) =
        tokio::join!(world.store.secret("tokens", "11".to_owned()), other.secret("tokens", "22".to_owned()));
    let secret = one.unwrap();
    assert_eq!(two.unwrap(), secret);
    assert_eq!(other.secret("tokens", "33".to_owned()).await.unwrap(), secret);
    assert_eq!(other.secret("another", "44".to_owned()).await.unwrap(), "44");
}

#[tokio::test]
async fn password_changed_during_verification_opens_no_session() {
    let world = World::start().await;
    let (ada, bob) =
        (world.account_with_password("ada").await, world.account_with_second_factor("bob").await);
    let open = async |account, hash: &str| {
        let new = session(account, at(60));
        world.store.create_session(new, hash.to_owned(), Actor::SYSTEM, now()).await.unwrap().is_some()
    };
    assert!(open(ada, HASH).await);
    assert!(!open(bob, HASH).await, "a second factor that was enabled meanwhile is required");
    assert!(
        !world.store.create_challenge(challenge(ada, "a"), now()).await.unwrap(),
        "no challenge for an account without a second factor"
    );
    world.open_challenge(bob, "b").await;
    for account in [ada, bob] {
        world.set_password(account, "another").await;
    }
    assert!(!open(ada, HASH).await && open(ada, "another").await);
    assert!(!world.store.create_challenge(challenge(bob, "c"), now()).await.unwrap());
    assert_eq!(
        world.try_challenge("b", now()).await,
        ChallengeAttempt::NotFound,
        "login challenges end as well"
    );
}
