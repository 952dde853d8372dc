//! Sessions, half-done logins, and the secret that session tokens are signed with.

use std::time::Duration;

use pinfold_model::{AccountId, By, SessionId, Timestamp};
use pinfold_store::{ChallengeTry, NewChallenge, NewSession, TriesBucket, UsedCode};

use crate::world::{World, at, now};

const BUCKET: TriesBucket = TriesBucket { tries: 100, refill: Duration::from_secs(1) };

fn session(account: AccountId, expires_at: Timestamp) -> NewSession {
    NewSession { account, expires_at, sessions_max: 3 }
}

impl World {
    async fn open_session(&self, account: AccountId, expires_at: Timestamp) -> SessionId {
        self.store.open_session(session(account, expires_at), By::SYSTEM, now()).await.unwrap()
    }

    async fn is_open(&self, id: SessionId) -> bool {
        self.store.session(id).await.unwrap().is_some()
    }

    async fn open_challenge(&self, account: AccountId, hash: &str) {
        let new = NewChallenge { account, hash: hash.to_owned(), expires_at: at(300), challenges_max: 2 };
        self.store.open_challenge(new, now()).await.unwrap();
    }

    async fn try_challenge(&self, hash: &str, now: Timestamp) -> ChallengeTry {
        self.store.try_challenge(hash.to_owned(), 5, BUCKET, now).await.unwrap()
    }
}

#[tokio::test]
async fn the_oldest_session_makes_room_for_a_new_one() {
    let world = World::start().await;
    let (ada, bob) = (world.account("ada", 1).await, world.account("bob", 1).await);
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
    assert!(world.is_open(of_bob).await, "each account has its own room");
}

#[tokio::test]
async fn nobody_ends_the_session_of_another() {
    let world = World::start().await;
    let (ada, bob) = (world.account("ada", 1).await, world.account("bob", 1).await);
    let id = world.open_session(ada, at(60)).await;
    assert!(!world.store.close_session(bob, id, By::SYSTEM, now()).await.unwrap());
    assert_eq!(world.store.session(id).await.unwrap().unwrap().0.id, ada);
    assert!(world.store.close_session(ada, id, By::SYSTEM, now()).await.unwrap());
    assert!(!world.is_open(id).await);
}

#[tokio::test]
async fn what_is_over_is_swept_in_steps() {
    let world = World::start().await;
    let ada = world.account("ada", 1).await;
    let short = [world.open_session(ada, at(10)).await, world.open_session(ada, at(10)).await];
    let long = world.open_session(ada, at(1_000)).await;
    world.open_challenge(ada, "a").await;
    assert_eq!(world.store.sweep_sessions(at(9), 1).await.unwrap(), 0);
    assert_eq!(world.store.sweep_sessions(at(300), 1).await.unwrap(), 2, "one of each");
    assert_eq!(world.store.sweep_sessions(at(300), 1).await.unwrap(), 1);
    assert_eq!(world.store.sweep_sessions(at(300), 1).await.unwrap(), 0);
    assert!(!world.is_open(short[0]).await && !world.is_open(short[1]).await && world.is_open(long).await);
}

#[tokio::test]
async fn the_oldest_half_done_login_makes_room_for_a_new_one() {
    let world = World::start().await;
    let ada = world.account("ada", 1).await;
    for hash in ["a", "b", "c"] {
        world.open_challenge(ada, hash).await;
    }
    assert_eq!(world.try_challenge("a", now()).await, ChallengeTry::Gone);
    assert_eq!(world.try_challenge("b", now()).await, ChallengeTry::Counted(ada));
    assert_eq!(world.try_challenge("b", at(300)).await, ChallengeTry::Gone, "its time is over");
}

#[tokio::test]
async fn tries_are_counted_one_by_one_however_many_come_at_once() {
    let world = World::start().await;
    let ada = world.account("ada", 1).await;
    world.open_challenge(ada, "a").await;
    let tries = futures::future::join_all((0..50).map(|_| world.try_challenge("a", now()))).await;
    assert_eq!(tries.iter().filter(|tried| **tried == ChallengeTry::Counted(ada)).count(), 5);
}

#[tokio::test]
async fn a_code_that_was_used_up_meanwhile_opens_nothing() {
    let world = World::start().await;
    let ada = world.account("ada", 1).await;
    let code = |step| UsedCode { secret: "SECRET".to_owned(), step, bucket: BUCKET };
    assert!(world.store.set_up_second_factor(ada, "SECRET".to_owned(), By::SYSTEM, now()).await.unwrap());
    assert!(world.store.turn_second_factor_on(ada, code(7), By::SYSTEM, now()).await.unwrap());
    world.open_challenge(ada, "a").await;
    let pass = async |step| {
        let passed = world
            .store
            .pass_challenge("a".to_owned(), code(step), session(ada, at(60)), By::SYSTEM, now())
            .await;
        passed.unwrap().is_some()
    };
    assert!(!pass(7).await, "it was used");
    let other = UsedCode { secret: "OTHER".to_owned(), ..code(9) };
    assert!(!world.store.use_code(ada, other).await.unwrap(), "of a secret that is not in force");
    assert!(pass(8).await);
    assert!(!pass(9).await, "the half-done login is done");
    assert!(world.store.use_code(ada, code(9)).await.unwrap(), "and what was refused used no code up");
}

#[tokio::test]
async fn all_processes_have_one_secret() {
    let world = World::start().await;
    let other = world.open().await;
    let (one, two) =
        tokio::join!(world.store.secret("tokens", "11".to_owned()), other.secret("tokens", "22".to_owned()));
    let secret = one.unwrap();
    assert_eq!(two.unwrap(), secret);
    assert_eq!(other.secret("tokens", "33".to_owned()).await.unwrap(), secret);
    assert_eq!(other.secret("another", "44".to_owned()).await.unwrap(), "44");
}
