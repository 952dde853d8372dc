//! `Idempotency-Key`: a request with a key runs once.

use std::future::IntoFuture;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use serde_json::json;

use crate::harness::{Answer, Api, HELLO, WORLD, form};

fn pin(cid: &str) -> String {
    format!("/api/v3/files/pin/{cid}")
}

fn is_replayed(answer: &Answer) -> bool {
    answer.header("idempotent-replayed") == "true"
}

#[tokio::test]
async fn repeated_request_gets_the_stored_answer() {
    let api = Api::start().await;
    let key = api.key("free", "files:write,files:delete").await;
    let send =
        || api.post(&pin(HELLO)).key(&key).header("idempotency-key", "one").body(r#"{"customName":"a"}"#);
    let first = send().await;
    assert_eq!((first.status(), is_replayed(&first)), (201, false));
    let removed = api.request("DELETE", &format!("/api/v3/files/remove/{HELLO}")).key(&key).await;
    assert_eq!(removed.status(), 200);
    let again = send().await;
    assert_eq!((again.status(), again.text(), is_replayed(&again)), (201, first.text(), true));
    assert_eq!(again.header("content-type"), "application/json");
    assert_eq!(api.pins_of(&key).await, 0, "it was not done again");

    api.advance(24 * 3_600 - 1);
    assert!(is_replayed(&send().await));
    api.advance(2);
    let later = send().await;
    assert_eq!((later.status(), is_replayed(&later)), (201, false), "a day is over");
}

#[tokio::test]
async fn different_request_with_the_same_key_is_refused() {
    let api = Api::start().await;
    let key = api.key("free", "files:write").await;
    let send = |path: &str, body: &str| api.post(path).key(&key).header("idempotency-key", "one").body(body);
    assert_eq!(send(&pin(HELLO), r#"{"customName":"a"}"#).await.status(), 201);
    for (path, body) in [
        (pin(HELLO), r#"{"customName":"b"}"#),
        (pin(HELLO), ""),
        (pin(WORLD), r#"{"customName":"a"}"#),
        (format!("{}?cl=cl0-global", pin(HELLO)), r#"{"customName":"a"}"#),
    ] {
        let answer = send(&path, body).await;
        assert_eq!((answer.status(), answer.code()), (422, "idempotency_key_reused".into()), "{path} {body}");
    }
    let elsewhere = send(&pin(HELLO), r#"{"customName":"a"}"#).header("x-cluster", "cl1-eu").await;
    assert_eq!(elsewhere.status(), 422);
}

#[tokio::test]
async fn keys_are_scoped_to_account_and_permissions() {
    let api = Api::start().await;
    let (alice, bob) = (api.key("free", "files:write").await, api.key("free", "files:write").await);
    let send = |key: &str| api.post(&pin(HELLO)).key(key).header("idempotency-key", "one");
    let first = send(&alice).await;
    let other = send(&bob).await;
    assert_eq!((other.status(), is_replayed(&other)), (201, false));
    assert_ne!(first.json()["uploadId"], other.json()["uploadId"]);
    let weaker = api.another_key(&alice, "files:read").await;
    assert_eq!(send(&weaker).await.code(), "missing_scope", "it is not told what others were answered");
    let twin = api.another_key(&alice, "files:write").await;
    assert!(is_replayed(&send(&twin).await));
}

#[tokio::test]
async fn key_must_be_visible_ascii() {
    let api = Api::start().await;
    let key = api.key("free", "files:write").await;
    for bad in ["", "two words", "é", &"x".repeat(256)] {
        let answer = api.post(&pin(HELLO)).key(&key).header("idempotency-key", bad).await;
        assert_eq!((answer.status(), answer.code()), (400, "invalid_idempotency_key".into()), "{bad:?}");
    }
    let twice = api.post(&pin(HELLO)).key(&key).header("idempotency-key", "a").header("idempotency-key", "b");
    assert_eq!(twice.await.status(), 400);
    let unknown = api.post(&pin(HELLO)).header("idempotency-key", "é").await;
    assert_eq!(unknown.status(), 401, "who is nobody has no names");
    let read = api.get("/api/v3/users/me/uploads").key(&api.key("free", "files:read").await);
    assert_eq!(read.header("idempotency-key", "é").await.status(), 200, "nor has what changes nothing");
}

#[tokio::test]
async fn concurrent_repetition_is_told_to_retry() {
    let api = Api::start().await;
    let key = api.key("free", "files:write").await;
    let gate = api.block_fetch(HELLO);
    let send = || api.post(&pin(HELLO)).key(&key).header("idempotency-key", "one");
    let second = async {
        gate.reached().await;
        let answer = send().await;
        gate.open();
        answer
    };
    let (first, second) = tokio::join!(send().into_future(), second);
    assert_eq!(first.status(), 201);
    assert_eq!((second.status(), second.code()), (409, "idempotency_in_progress".into()));
    assert_eq!(second.header("retry-after"), "2");
    assert!(is_replayed(&send().await));
}

#[tokio::test]
async fn disconnected_client_gets_the_outcome_on_retry() {
    let api = Api::start().await;
    let key = api.key("free", "files:write").await;
    let gate = api.block_fetch(HELLO);
    let send = || api.post(&pin(HELLO)).key(&key).header("idempotency-key", "one");
    tokio::select! {
        _ = send().into_future() => panic!("it waits"),
        () = gate.reached() => {}
    }
    gate.open();
    let answered = async {
        loop {
            let answer = send().await;
            // The first request continues.
            if answer.status() != 409 {
                return answer;
            }
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(60), answered).await.expect("it ends");
    assert_eq!((answer.status(), is_replayed(&answer)), (201, true));
}

#[tokio::test]
async fn transient_failures_are_not_stored() {
    let api = Api::start().await;
    let key = api.key("free", "files:write").await;
    api.unpublish(HELLO);
    let send = |cid: &str, name: &str| api.post(&pin(cid)).key(&key).header("idempotency-key", name);
    assert_eq!(send(HELLO, "missing").await.status(), 404);
    assert!(is_replayed(&send(HELLO, "missing").await), "a refusal is an answer");
    api.fail(WORLD);
    let failed = send(WORLD, "fails").await;
    assert!(failed.status() >= 500, "{}", failed.text());
    let again = send(WORLD, "fails").await;
    assert_eq!((again.status(), is_replayed(&again)), (201, false));
}

#[tokio::test]
async fn upload_runs_once_with_any_boundary() {
    let api = Api::start().await;
    let key = api.key("free", "files:write").await;
    let body = |content: &str, boundary: &str| {
        let text = form(&[("customName", "a"), ("file\"; filename=\"a.txt", content)]);
        String::from_utf8(text).expect("text").replace("frontier", boundary).into_bytes()
    };
    let send = |content: &str, boundary: &str| {
        // In chunks, as from a network.
        let chunks: Vec<_> = body(content, boundary)
            .chunks(7)
            .map(|c| Ok::<_, std::io::Error>(Bytes::copy_from_slice(c)))
            .collect();
        api.post("/api/v3/files")
            .key(&key)
            .header("idempotency-key", "one")
            .header("content-type", &format!("multipart/form-data; boundary={boundary}"))
            .stream(Body::from_stream(futures::stream::iter(chunks)))
    };
    let first = send("hello, hello", "first").await;
    assert_eq!(first.status(), 201, "{}", first.text());
    let again = send("hello, hello", "another-one").await;
    assert_eq!((again.status(), again.text(), is_replayed(&again)), (201, first.text(), true));
    let other = send("hello, world", "first").await;
    assert_eq!((other.status(), other.code()), (422, "idempotency_key_reused".into()));
    let cut_off = api
        .post("/api/v3/files")
        .key(&key)
        .header("idempotency-key", "one")
        .header("content-type", "multipart/form-data; boundary=first")
        .stream(Body::from(body("hello, hello", "first")[..40].to_vec()));
    assert_eq!(cut_off.await.status(), 422);
    assert_eq!(api.pins_of(&key).await, 1);
}

#[tokio::test]
async fn upload_refused_early_releases_its_key() {
    let api = Api::start().await;
    let key = api.key("free", "files:write").await;
    let send = |timelock: &str| {
        let body = form(&[("timelock", timelock), ("file\"; filename=\"a.txt", "hello, hello")]);
        let chunks = body.chunks(16).map(|chunk| Ok::<_, std::io::Error>(Bytes::copy_from_slice(chunk)));
        let body = Body::from_stream(futures::stream::iter(chunks.collect::<Vec<_>>()));
        let request = api.post("/api/v3/files").key(&key).header("idempotency-key", "one");
        request.header("content-type", "multipart/form-data; boundary=frontier").stream(body)
    };
    assert_eq!(send("2030-01-01T00:00:00Z").await.code(), "timelock_not_allowed");
    assert_eq!(send("").await.status(), 201, "the name was free");
}

#[tokio::test]
async fn secret_is_created_and_returned_once() {
    let api = Api::start().await;
    let key = api.key("free", "webhooks:read,webhooks:write").await;
    let body = json!({"url": "https://example.org/pinfold"}).to_string();
    let send = || api.post("/api/v3/webhooks").key(&key).header("idempotency-key", "one").body(&body);
    let first = send().await;
    let secret = first.json()["secret"].as_str().expect("a secret").to_owned();
    let again = send().await;
    assert_eq!((again.status(), again.code(), is_replayed(&again)), (409, "answer_not_kept".into(), true));
    assert!(!again.text().contains(&secret));
    let hooks = api.get("/api/v3/webhooks").key(&key).await.json();
    assert_eq!(hooks["webhooks"].as_array().map(Vec::len), Some(1));
    assert!(api.database_has(&secret), "the webhook has it, to sign");
    assert!(!api.database_has(&format!("\"secret\":\"{secret}")), "the answer is nowhere");

    let refused = || api.post("/api/v3/webhooks").key(&key).header("idempotency-key", "two").body("{}");
    assert_eq!(
        (refused().await.status(), is_replayed(&refused().await)),
        (400, true),
        "a refusal has no secret"
    );
}

#[tokio::test]
async fn api_key_is_created_once_and_its_secret_is_not_stored() {
    let api = Api::start().await;
    let key = api.key("free", "tokens:read,tokens:write,user:read,files:read").await;
    let send = || {
        let request = api.post("/api/v3/tokens/generate").key(&key).header("idempotency-key", "one");
        request.body(r#"{"name":"laptop"}"#)
    };
    let first = send().await;
    let secret = first.json()["token"].as_str().expect("a secret").to_owned();
    let again = send().await;
    assert_eq!((again.status(), again.code()), (409, "answer_not_kept".into()));
    assert!(!again.text().contains(&secret) && !api.database_has(&secret));
    assert_eq!(api.get("/api/v3/users/me/uploads").key(&secret).await.status(), 200, "it is a good key");
}

#[tokio::test]
async fn buffered_body_is_bounded() {
    let api = Api::start().await;
    let key = api.key("free", "files:write").await;
    let large = "x".repeat(3 << 20);
    let answer = api.post(&pin(HELLO)).key(&key).header("idempotency-key", "one").body(&large).await;
    assert_eq!((answer.status(), answer.code()), (413, "FILE_TOO_LARGE".into()));
    let answer = api.post(&pin(HELLO)).key(&key).header("idempotency-key", "one").await;
    assert_eq!(answer.status(), 201, "it took no name");
}
