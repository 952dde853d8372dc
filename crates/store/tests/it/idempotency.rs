//! Idempotent requests: reserved, completed, compared, deleted.

use pinfold_model::{AccountId, StoredResponse, Timestamp};
use pinfold_store::{IdempotentRequest, RequestBounds, Reservation, ReserveOutcome, Store};

use crate::world::{LEASE, World, at, now};

fn request(account: AccountId, name: &str) -> IdempotentRequest {
    IdempotentRequest { account, name_hash: name.to_owned(), head_hash: "head".to_owned(), body_hash: None }
}

fn answer(body: &str) -> StoredResponse {
    StoredResponse {
        code: 201,
        headers: vec![("location".to_owned(), "/api/v3/status/x?a: b".to_owned())],
        body: Some(body.to_owned()),
        request_body_hash: "body".to_owned(),
    }
}

async fn reserve(store: &Store, request: IdempotentRequest, now: Timestamp) -> ReserveOutcome {
    let bounds = RequestBounds { requests_max: 3, bytes_max: 1_000, made_after: now.before(LEASE * 10) };
    store.reserve(request, bounds, now.after(LEASE), now).await.unwrap()
}

async fn first(store: &Store, request: IdempotentRequest, now: Timestamp) -> Reservation {
    match reserve(store, request, now).await {
        ReserveOutcome::Acquired(reservation) => reservation,
        other @ (ReserveOutcome::InProgress | ReserveOutcome::Mismatch | ReserveOutcome::Completed(_)) => {
            panic!("{other:?}")
        }
    }
}

#[tokio::test]
async fn idempotency_key_is_bound_to_one_request_and_its_response() {
    let world = World::start().await;
    let (ada, bea) = (world.account("ada", 1).await, world.account("bea", 1).await);
    let store = &world.store;
    let running = first(store, request(ada, "a"), now()).await;
    assert_eq!(reserve(store, request(ada, "a"), now()).await, ReserveOutcome::InProgress);
    let other = IdempotentRequest { head_hash: "other".to_owned(), ..request(ada, "a") };
    assert_eq!(reserve(store, other.clone(), now()).await, ReserveOutcome::Mismatch);
    first(store, request(bea, "a"), now()).await;

    assert!(store.store_response(running, answer("{}")).await.unwrap());
    assert!(!store.store_response(running, answer("{1}")).await.unwrap(), "a response is stored once");
    let store = world.open().await;
    assert_eq!(reserve(&store, request(ada, "a"), at(1)).await, ReserveOutcome::Completed(answer("{}")));
    assert_eq!(reserve(&store, other, at(1)).await, ReserveOutcome::Mismatch);
    for (hash, expected) in
        [("body", ReserveOutcome::Completed(answer("{}"))), ("another", ReserveOutcome::Mismatch)]
    {
        let with_body = IdempotentRequest { body_hash: Some(hash.to_owned()), ..request(ada, "a") };
        assert_eq!(reserve(&store, with_body, at(1)).await, expected);
    }
    store.release_reservation(running).await.unwrap();
    assert_eq!(
        reserve(&store, request(ada, "a"), at(1)).await,
        ReserveOutcome::Completed(answer("{}")),
        "a completed reservation is not released"
    );
}

#[tokio::test]
async fn one_of_many_concurrent_reservations_is_acquired() {
    let world = World::start().await;
    let ada = world.account("ada", 1).await;
    let other = world.open().await;
    let tries =
        (0..20).map(|i| reserve(if i % 2 == 0 { &world.store } else { &other }, request(ada, "a"), now()));
    let tries = futures::future::join_all(tries).await;
    assert_eq!(tries.iter().filter(|tried| matches!(tried, ReserveOutcome::Acquired(_))).count(), 1);
    assert_eq!(tries.iter().filter(|tried| **tried == ReserveOutcome::InProgress).count(), 19);
}

#[tokio::test]
async fn reservation_becomes_free_when_released_or_expired() {
    let world = World::start().await;
    let ada = world.account("ada", 1).await;
    let store = &world.store;
    let released = first(store, request(ada, "a"), now()).await;
    store.release_reservation(released).await.unwrap();
    let dead = first(store, request(ada, "a"), now()).await;
    assert!(store.renew_reservation(dead, at(50).after(LEASE)).await.unwrap());
    assert_eq!(reserve(store, request(ada, "a"), now().after(LEASE)).await, ReserveOutcome::InProgress);
    let next = first(store, request(ada, "a"), at(50).after(LEASE)).await;
    assert!(!store.renew_reservation(dead, at(500)).await.unwrap());
    assert!(!store.store_response(dead, answer("late")).await.unwrap());
    store.release_reservation(dead).await.unwrap();
    assert_eq!(store.reset_reservations().await.unwrap(), 1);
    let last = first(store, request(ada, "a"), at(51)).await;
    assert!(!store.store_response(next, answer("late")).await.unwrap());
    assert!(store.store_response(last, answer("{}")).await.unwrap());
}

#[tokio::test]
async fn requests_are_deleted_when_too_old_or_too_many() {
    let world = World::start().await;
    let ada = world.account("ada", 1).await;
    let store = &world.store;
    for (second, name) in ["a", "b", "c"].into_iter().enumerate() {
        let running = first(store, request(ada, name), at(second as i64)).await;
        store.store_response(running, answer(name)).await.unwrap();
    }
    // The limit is reached: the oldest request is deleted.
    let fourth = first(store, request(ada, "d"), at(4)).await;
    first(store, request(ada, "a"), at(5)).await;
    assert_eq!(
        reserve(store, request(ada, "d"), at(5)).await,
        ReserveOutcome::InProgress,
        "a running request is never deleted"
    );
    store.store_response(fourth, answer(&"x".repeat(2_000))).await.unwrap();
    first(store, request(ada, "e"), at(6)).await;
    first(store, request(ada, "d"), at(7)).await;

    let running = first(store, request(ada, "old"), at(8)).await;
    store.store_response(running, answer("old")).await.unwrap();
    first(store, request(ada, "old"), at(9).after(LEASE * 10)).await;
    assert!(store.delete_expired_requests(at(9), 2).await.unwrap() <= 2);
    while store.delete_expired_requests(at(100_000), 2).await.unwrap() > 0 {}
    assert_eq!(store.delete_expired_requests(at(100_000), 2).await.unwrap(), 0);
    first(store, request(ada, "a"), at(100_000)).await;
}
