//! Credentials, scopes and rate limits, and the order in which they are checked.

use insta::assert_snapshot;
use pinfold_http::{Rate, Settings};

use crate::harness::{Api, HELLO};

#[tokio::test]
async fn request_without_credential_reveals_nothing() {
    let api = Api::start().await;
    let answer = api.post(&format!("/api/v3/files/pin/{HELLO}")).await;
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.header("www-authenticate"), "Bearer");
    assert_snapshot!(answer.text(), @r#"{"error":"Unauthorized","message":"Missing credential; send an API key as X-API-Key or Authorization: Bearer","code":"UNAUTHORIZED"}"#);
}

#[tokio::test]
async fn wrong_key_and_missing_key_have_different_codes() {
    let api = Api::start().await;
    let answer = api.get("/api/v3/users/me/uploads").header("x-api-key", "nonsense").await;
    assert_eq!(answer.status(), 401);
    assert_snapshot!(answer.text(), @r#"{"error":"Unauthorized","message":"The API key or session token is not valid","code":"INVALID_API_KEY"}"#);
}

#[tokio::test]
async fn one_valid_credential_in_either_header_is_enough() {
    let api = Api::start().await;
    let key = api.key("free", "files:read").await;
    let list = || api.get("/api/v3/users/me/uploads");
    assert_eq!(list().header("x-api-key", &key).await.status(), 200);
    assert_eq!(list().header("authorization", &format!("Bearer {key}")).await.status(), 200);
    let both = list().header("authorization", "Bearer nonsense").header("x-api-key", &key).await;
    assert_eq!(both.status(), 200);
}

#[tokio::test]
async fn revoked_key_is_refused_at_once() {
    let api = Api::start().await;
    let key = api.key("free", "files:read").await;
    assert_eq!(api.get("/api/v3/users/me/uploads").key(&key).await.status(), 200);
    api.revoke(&key).await;
    assert_eq!(api.get("/api/v3/users/me/uploads").key(&key).await.code(), "INVALID_API_KEY");
}

#[tokio::test]
async fn every_route_requires_its_scope() {
    let api = Api::start().await;
    let key = api.key("free", "user:read").await;
    let pin = format!("/api/v3/files/pin/{HELLO}");
    let remove = format!("/api/v3/files/remove/{HELLO}");
    let delete = format!("/api/v3/users/me/uploads/{HELLO}");
    let status = format!("/api/v3/status/{HELLO}");
    for (method, path, scope) in [
        ("POST", pin.as_str(), "files:write"),
        ("POST", "/api/v3/files", "files:write"),
        ("POST", "/api/v3/files/directory-dag", "files:write"),
        ("DELETE", &remove, "files:delete"),
        ("DELETE", &delete, "files:delete"),
        ("GET", "/api/v3/users/me/uploads", "files:read"),
        ("GET", "/api/v3/users/me/clusters", "cluster:read"),
        ("GET", &status, "cluster:read"),
    ] {
        let answer = api.request(method, path).key(&key).await;
        assert_eq!((answer.status(), answer.code()), (403, "missing_scope".into()), "{method} {path}");
        assert_eq!(answer.json()["required"], scope, "{method} {path}");
        let answer = api.request(method, path).await;
        assert_eq!((answer.status(), answer.code()), (401, "UNAUTHORIZED".into()), "{method} {path}");
    }
}

#[tokio::test]
async fn checks_run_in_the_documented_order() {
    let api = Api::start().await;
    let (reader, writer) = (api.key("free", "files:read").await, api.key("free", "files:write").await);
    let pin = |path: &str, key: &str| api.post(path).key(key).body(r#"{"timelock":"2030-01-01T00:00:00Z"}"#);
    // The scope before the CID, the CID before the plan, the body before the plan.
    assert_eq!(pin("/api/v3/files/pin/nonsense", &reader).await.code(), "missing_scope");
    assert_eq!(pin("/api/v3/files/pin/nonsense", &writer).await.message(), "Invalid CID");
    let bad_body = api.post(&format!("/api/v3/files/pin/{HELLO}")).key(&writer).body("{");
    assert_eq!(bad_body.await.status(), 400);
    assert_eq!(pin(&format!("/api/v3/files/pin/{HELLO}"), &writer).await.code(), "timelock_not_allowed");
}

#[tokio::test]
async fn every_answer_has_rate_limit_and_request_id_headers() {
    let api = Api::start().await;
    let key = api.key("free", "files:read").await;
    let answer = api.get("/api/v3/nowhere").key(&key).header("x-request-id", "my-request").await;
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.header("x-request-id"), "my-request");
    assert_eq!((answer.header("x-ratelimit-limit"), answer.header("x-ratelimit-remaining")), ("300", "299"));
    let reset: i64 = answer.header("x-ratelimit-reset").parse().expect("Unix seconds");
    assert_eq!(reset, api.now_s() + 1);
    assert_eq!(api.get("/").await.header("x-request-id").len(), 16, "a new one");
}

#[tokio::test]
async fn rate_limit_is_checked_before_anything_else() {
    let mut settings = Settings::default();
    settings.rates.anonymous = Rate::new(2, 2);
    let api = Api::start_with(settings).await;
    api.get("/api/v3").await;
    api.get("/api/v3").await;
    let answer = api.post("/api/v3/files/pin/nonsense").header("x-api-key", "nonsense").await;
    assert_eq!((answer.status(), answer.code()), (429, "RATE_LIMIT".into()));
    let body = answer.json();
    assert!(body["retryAfter"].as_u64().is_some_and(|seconds| seconds >= 1), "{body}");
    assert_eq!(answer.header("retry-after"), body["retryAfter"].to_string());
    assert_eq!((&body["limit"], &body["remaining"]), (&2.into(), &0.into()));
    assert!(body["resetTime"].as_str().is_some_and(|time| time.ends_with('Z')), "{body}");
    assert_eq!(answer.header("x-ratelimit-remaining"), "0");

    let key = api.key("free", "files:read").await;
    assert_eq!(api.get("/api/v3").key(&key).await.status(), 200, "a good key has a budget of its own");
}

#[tokio::test]
async fn polls_do_not_use_the_budget_of_calls() {
    let api = Api::start().await;
    let key = api.key("free", "files:read,cluster:read").await;
    for _ in 0..5 {
        api.get(&format!("/api/v3/status/{HELLO}")).key(&key).await;
        api.get("/api/v3/users/me/uploads/").key(&key).await;
    }
    let answer = api.get("/api/v3/users/me/clusters").key(&key).await;
    assert_eq!(answer.header("x-ratelimit-remaining"), "299");
}
