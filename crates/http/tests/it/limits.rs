//! Rate limits of keys, accounts and addresses, and their headers.

use std::num::NonZeroU32;

use axum::http::HeaderValue;
use pinfold_http::{Rate, Rates, Settings};
use serde_json::json;

use crate::harness::{Answer, Api, HELLO};

fn factor(factor: u32) -> NonZeroU32 {
    NonZeroU32::new(factor).expect("not zero")
}

fn with(rates: Rates) -> Settings {
    Settings { rates, ..Settings::default() }
}

fn remaining(answer: &Answer) -> u32 {
    answer.header("x-ratelimit-remaining").parse().expect("a number")
}

/// Sends so many requests with a key, none of which is refused.
async fn spend(api: &Api, key: &str, from: &str, count: u32) {
    for _ in 0..count {
        assert_eq!(api.get("/api/v3/users/me/clusters").key(key).from(from).await.status(), 200);
    }
}

#[tokio::test]
async fn keys_of_an_account_share_its_budget() {
    // The free plan lets a key ask 20 times a second; the account has as much in all.
    let one = Rates { account_factor: factor(1), ..Rates::default() };
    let api = Api::start_timeless(with(one)).await;
    let scopes = "cluster:read,tokens:write";
    let first = api.key("free", scopes).await;
    let body = json!({"name": "second", "scopes": scopes});
    let made = api.post("/api/v3/tokens/generate").key(&first).json(&body).await.json();
    let second = made["token"].as_str().expect("the key").to_owned();
    spend(&api, &first, "192.0.2.1", 10).await;
    spend(&api, &second, "192.0.2.2", 9).await;
    for key in [&first, &second] {
        let refused = api.get("/api/v3/users/me/clusters").key(key).await;
        assert_eq!((refused.status(), refused.code()), (429, "RATE_LIMIT".into()));
        assert!(refused.header("retry-after") != "0" && !refused.header("retry-after").is_empty());
    }
    let stranger = api.key("free", scopes).await;
    spend(&api, &stranger, "192.0.2.1", 5).await;
}

#[tokio::test]
async fn budget_of_an_address_is_for_each_plan_and_ipv6_network() {
    let one = Rates { address_factor: factor(1), ..Rates::default() };
    let api = Api::start_timeless(with(one)).await;
    let alice = api.key("free", "cluster:read").await;
    let bob = api.key("free", "cluster:read").await;
    let carol = api.key("premium", "cluster:read").await;
    spend(&api, &alice, "2001:db8::1", 12).await;
    spend(&api, &bob, "2001:db8::2", 8).await;
    let refused = api.get("/api/v3/users/me/clusters").key(&bob).from("2001:db8::3").await;
    assert_eq!(refused.status(), 429);
    spend(&api, &bob, "2001:db8:0:1::3", 8).await;
    spend(&api, &carol, "2001:db8::1", 30).await;
}

#[tokio::test]
async fn request_refused_by_one_bucket_takes_from_none() {
    let api = Api::start_timeless(with(Rates { address_factor: factor(1), ..Rates::default() })).await;
    let (alice, bob) = (api.key("free", "cluster:read").await, api.key("free", "cluster:read").await);
    spend(&api, &alice, "192.0.2.1", 20).await;
    for _ in 0..50 {
        assert_eq!(api.get("/api/v3/users/me/clusters").key(&bob).from("192.0.2.1").await.status(), 429);
    }
    let elsewhere = api.get("/api/v3/users/me/clusters").key(&bob).from("192.0.2.2").await;
    assert_eq!((elsewhere.status(), remaining(&elsewhere)), (200, 299));
}

#[tokio::test]
async fn too_many_wrong_keys_are_refused_without_lookup() {
    let guesses = Rate::new(5, 5);
    let api = Api::start_timeless(with(Rates { guesses, ..Rates::default() })).await;
    let good = api.key("free", "cluster:read").await;
    let foreign = Api::start().await.key("free", "cluster:read").await;
    let ask = |key: &str, from: &str| api.get("/api/v3/users/me/clusters").key(key).from(from);
    for _ in 0..5 {
        assert_eq!(ask(&foreign, "192.0.2.66").await.code(), "INVALID_API_KEY");
    }
    assert_eq!(ask(&foreign, "192.0.2.66").await.status(), 429);
    assert_eq!(ask(&good, "192.0.2.66").await.status(), 429, "a lucky guess is not answered either");
    assert_eq!(
        api.get("/api/v3").from("192.0.2.66").await.status(),
        200,
        "without a credential there is no guess"
    );
    assert_eq!(ask(&good, "192.0.2.67").await.status(), 200);
}

#[tokio::test]
async fn polling_for_a_pin_never_uses_the_budget_of_calls() {
    let api = Api::start_timeless(Settings::default()).await;
    let key = api.key("free", "cluster:read,files:read").await;
    let poll = |n: usize| {
        let path = ["/api/v3/users/me/uploads".to_owned(), format!("/api/v3/status/{HELLO}")][n % 2].clone();
        api.get(&path).key(&key)
    };
    for n in 0..40 {
        assert_ne!(poll(n).await.status(), 429);
    }
    assert_eq!(poll(0).await.status(), 429, "polls have a bound as well");
    let call = api.get("/api/v3/users/me/clusters").key(&key).await;
    assert_eq!((call.status(), remaining(&call)), (200, 299));
}

#[tokio::test]
async fn every_kind_of_answer_has_rate_limit_headers() {
    let origin = "https://app.example.org";
    let settings = Settings { cors_origins: vec![HeaderValue::from_static(origin)], ..Settings::default() };
    let api = Api::start_with(settings).await;
    let key = api.key("free", "files:write").await;
    let pin = format!("/api/v3/files/pin/{HELLO}");
    let preflight = api
        .request("OPTIONS", "/api/v3/users/me")
        .header("origin", origin)
        .header("access-control-request-method", "GET")
        .await;
    let large = "x".repeat(100_000);
    let answers = [
        ("preflight", 200, preflight),
        ("none", 401, api.post(&pin).await),
        ("scope", 403, api.get("/api/v3/users/me/uploads").key(&key).await),
        ("path", 404, api.get("/api/v3/nowhere").key(&key).await),
        ("method", 405, api.request("PATCH", &pin).key(&key).await),
        ("old", 410, api.get("/api/v1/x").await),
        ("large", 413, api.post(&pin).key(&key).body(&large).await),
        ("pay", 503, api.get("/api/v3/payments").await),
        ("slash", 200, api.get("/").await),
    ];
    for (what, status, answer) in answers {
        assert_eq!(answer.status(), status, "{what}");
        for name in ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"] {
            assert!(
                answer.header(name).parse::<u64>().is_ok(),
                "{what}: {name} is {:?}",
                answer.header(name)
            );
        }
    }
}

#[tokio::test]
async fn cors_exposes_refusals() {
    let origin = "https://app.example.org";
    let rates = Rates { anonymous: Rate::new(1, 1), ..Rates::default() };
    let settings =
        Settings { cors_origins: vec![HeaderValue::from_static(origin)], rates, ..Settings::default() };
    let api = Api::start_timeless(settings).await;
    let ask = || api.get("/api/v3").header("origin", origin);
    assert_eq!(ask().await.status(), 200);
    let refused = ask().await;
    assert_eq!((refused.status(), refused.header("access-control-allow-origin")), (429, origin));
    assert_eq!(refused.header("x-ratelimit-remaining"), "0");
}
