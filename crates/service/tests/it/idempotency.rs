//! Tests of idempotent requests: carried out once, replayed, and after a crash.

use std::time::Duration;

use pinfold_model::{IdempotencyKey, StoredResponse};
use pinfold_service::{Begun, Caller, Error, IdempotencyError, RequestFingerprint, Running};

use crate::world::{DEADLINE, World};

const HOUR: Duration = Duration::from_hours(1);

fn print(body: Option<&str>) -> RequestFingerprint {
    RequestFingerprint { head: "head".to_owned(), body: body.map(str::to_owned) }
}

fn answer(text: &str) -> StoredResponse {
    StoredResponse {
        code: 201,
        headers: Vec::new(),
        body: Some(text.to_owned()),
        request_body_hash: "body".to_owned(),
    }
}

impl World {
    async fn begin(&self, caller: &Caller, name: &str) -> Result<Begun, Error> {
        let key = IdempotencyKey::parse(name.as_bytes()).unwrap();
        self.service.idempotency.begin(caller, &key, print(Some("body"))).await
    }

    async fn first(&self, caller: &Caller, name: &str) -> Running {
        match self.begin(caller, name).await.unwrap() {
            Begun::First(running) => running,
            Begun::Again(answer) => panic!("the request was completed: {answer:?}"),
        }
    }

    async fn again(&self, caller: &Caller, name: &str) -> Option<String> {
        match self.begin(caller, name).await.unwrap() {
            Begun::First(_) => None,
            Begun::Again(answer) => answer.body,
        }
    }
}

fn is_running(begun: Result<Begun, Error>) -> bool {
    matches!(begun, Err(Error::Idempotency(IdempotencyError::Running { .. })))
}

#[tokio::test]
async fn stored_response_survives_a_restart_for_a_day() {
    let mut world = World::start().await;
    let alice = world.account("alice", "free").await;
    world.first(&alice, "one").await.complete(answer("{}")).await;
    world.restart().await;
    world.service.workers.take_over().await.unwrap();
    assert_eq!(world.again(&alice, "one").await.as_deref(), Some("{}"));
    world.clock.advance(23 * HOUR);
    world.run_until_idle().await;
    assert_eq!(world.again(&alice, "one").await.as_deref(), Some("{}"));
    world.clock.advance(2 * HOUR);
    assert_eq!(world.again(&alice, "one").await, None);
}

#[tokio::test]
async fn key_of_a_crashed_request_becomes_free() {
    let mut world = World::start().await;
    let alice = world.account("alice", "free").await;
    // The process is gone without releasing the key.
    std::mem::forget(world.first(&alice, "one").await);
    world.restart().await;
    assert!(is_running(world.begin(&alice, "one").await), "another process may own it");
    world.service.workers.take_over().await.unwrap();
    world.first(&alice, "one").await.complete(answer("{}")).await;
    assert_eq!(world.again(&alice, "one").await.as_deref(), Some("{}"));
    // The key also becomes free when its lease expires.
    std::mem::forget(world.first(&alice, "two").await);
    world.clock.advance(Duration::from_secs(59));
    assert!(is_running(world.begin(&alice, "two").await));
    world.clock.advance(Duration::from_secs(1));
    world.first(&alice, "two").await.release().await;
}

#[tokio::test]
async fn dropped_request_frees_its_key() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let running = world.first(&alice, "one").await;
    assert!(is_running(world.begin(&alice, "one").await));
    drop(running);
    let free = async {
        while is_running(world.begin(&alice, "one").await) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, free).await.expect("the key is free");
}

#[tokio::test]
async fn keys_are_separate_by_account_and_scopes() {
    let world = World::start().await;
    let (alice, bob) = (world.account("alice", "free").await, world.account("bob", "free").await);
    world.first(&alice, "one").await.complete(answer("{}")).await;
    world.first(&bob, "one").await.release().await;
    let key = IdempotencyKey::parse(b"one").unwrap();
    let other = world.service.idempotency.begin(&alice, &key, print(Some("other"))).await;
    assert!(matches!(other, Err(Error::Idempotency(IdempotencyError::Reused))));
    // A body that is not known yet is compared after it has been read.
    let unread = world.service.idempotency.begin(&alice, &key, print(None)).await;
    assert!(matches!(unread, Ok(Begun::Again(answer)) if answer.request_body_hash == "body"));
    let fewer = Caller { scopes: "files:read".parse().unwrap(), ..alice.clone() };
    world.first(&fewer, "one").await.release().await;
}
