//! Errors: their status, code, message and headers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use data_encoding::BASE32_NOPAD;
use pinfold_http::{Rate, Settings};
use pinfold_model::{Clock, ClusterId, Plan, PlanLimits, Plans, Timestamp};
use serde_json::{Value, json};
use totp_rs::{Builder, Secret};

use crate::harness::{Answer, Api, HELLO, WORLD, form, unlimited_rates};

const PASSWORD: &str = "correct horse";

/// An API whose free plan has these limits.
async fn limited(limits: PlanLimits, settings: Settings) -> Api {
    let plans = Plans::new(vec![Plan { limits, ..Plan::free() }, Plan::premium()]);
    let watches_per_account_max = 1;
    let service = pinfold_service::Settings { plans, watches_per_account_max, ..Default::default() };
    Api::start_on(settings, service).await
}

/// Checks the body and the headers of a 429.
fn is_over_limit(answer: &Answer, limit: u32) {
    assert_eq!((answer.status(), answer.code().as_str()), (429, "RATE_LIMIT"), "{}", answer.text());
    let json = answer.json();
    assert_eq!((&json["error"], &json["remaining"]), (&json!("Too Many Requests"), &json!(0)));
    assert_eq!(json["limit"], limit, "{json}");
    let reset_ms = json["resetTime"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let reset_s = (reset_ms.expect("a time").as_ms() + 999).div_euclid(1000);
    let wait = json["retryAfter"].as_u64().expect("seconds");
    assert!(wait > 0 && !answer.message().is_empty());
    assert_eq!(answer.header("retry-after"), wait.to_string());
    assert_eq!(answer.header("x-ratelimit-limit"), limit.to_string());
    assert_eq!(answer.header("x-ratelimit-remaining"), "0");
    assert_eq!(answer.header("x-ratelimit-reset"), reset_s.to_string());
}

/// Checks an error answer, and the headers that every answer has.
fn is(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status(), answer.code().as_str()), (status, code), "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json");
    assert!(answer.json()["error"].is_string() && !answer.message().is_empty(), "{}", answer.text());
    for name in ["x-request-id", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"] {
        assert!(!answer.header(name).is_empty(), "{name} of {}", answer.text());
    }
}

/// Checks the answer about an unreachable cluster: it has a retry time, and nothing of the driver's error text.
fn is_out_of_reach(answer: &Answer) {
    is(answer, 503, "");
    let wait = answer.json()["retryAfter"].as_u64().expect("seconds");
    assert!(wait > 0 && answer.header("retry-after") == wait.to_string());
    assert!(!answer.text().contains("secret"), "{}", answer.text());
}

async fn log_in(api: &Api, email: &str) -> Answer {
    api.post("/api/v3/auth/login").json(&json!({"email": email, "password": PASSWORD})).await
}

#[tokio::test]
async fn every_429_says_what_is_exceeded_and_when_to_retry() {
    let limits = PlanLimits { in_flight_pins_max: 1, ..Plan::free().limits };
    let mut settings = unlimited_rates();
    settings.rates.account_logins = Rate::new(2, 2);
    let api = limited(limits, settings).await;

    // Too many pins in flight.
    let key = api.key("free", "files:write,cluster:read").await;
    let gate = api.block_fetch(HELLO);
    let pin = |cid: &str| api.post(&format!("/api/v3/files/pin/{cid}")).key(&key);
    assert_eq!(pin(HELLO).header("prefer", "respond-async").await.status(), 202);
    is_over_limit(&pin(WORLD).await, 1);
    let batch = json!({"items": [{"cid": WORLD}]});
    is_over_limit(&api.post("/api/v3/files/pin-batch").key(&key).json(&batch).await, 1);
    let dry = api.post(&format!("/api/v3/files/pin/{WORLD}?dryRun=true")).key(&key);
    is_over_limit(&dry.await, 1);

    // Too many event streams.
    let events = format!("/api/v3/status/{HELLO}/events");
    let watching = api.get(&events).key(&key).open().await;
    is_over_limit(&api.get(&events).key(&key).await, 1);
    drop(watching);
    gate.open();

    // Too many attempts on a password, and on codes.
    for _ in 0..2 {
        assert_eq!(log_in(&api, "nobody@example.org").await.status(), 401);
    }
    is_over_limit(&log_in(&api, "nobody@example.org").await, 2);
    let signup = json!({"name": "Ada", "email": "ada@example.org", "password": PASSWORD});
    let session = api.post("/api/v3/auth/signup").json(&signup).await.json();
    let bearer = format!("Bearer {}", session["token"].as_str().expect("a token"));
    let send = |path: &str, body: &Value| api.post(path).header("authorization", &bearer).json(body);
    assert_eq!(send("/api/v3/auth/2fa/setup", &Value::Null).await.status(), 200);
    let wrong = json!({"code": "nonsense"});
    for _ in 0..10 {
        assert_eq!(send("/api/v3/auth/2fa/enable", &wrong).await.code(), "2fa_invalid");
    }
    is_over_limit(&send("/api/v3/auth/2fa/enable", &wrong).await, 10);
}

#[tokio::test]
async fn rate_limited_key_gets_the_same_429() {
    let limits = PlanLimits { requests_per_minute: 2, requests_per_second: 2, ..Plan::free().limits };
    let plans = Plans::new(vec![Plan { limits, ..Plan::free() }]);
    let service = pinfold_service::Settings { plans, ..Default::default() };
    let api = Api::start_on(Settings::default(), service).await;
    let key = api.key("free", "user:read").await;
    for _ in 0..2 {
        assert_eq!(api.get("/api/v3/users/me").key(&key).await.status(), 200);
    }
    is_over_limit(&api.get("/api/v3/users/me").key(&key).await, 2);
}

#[tokio::test]
async fn cluster_outside_the_plan_is_refused_on_every_route() {
    let limits = PlanLimits { clusters: Some(vec![ClusterId::default()]), ..Plan::free().limits };
    let api = limited(limits, unlimited_rates()).await;
    let key = api.key("free", "files:write,files:read").await;
    let elsewhere = json!({"cl": "cl1-eu"});
    let pin = format!("/api/v3/files/pin/{HELLO}");
    let file = [("file\"; filename=\"a", "hello"), ("cl", "cl1-eu")];
    let files = [("files\"; filename=\"a/b", "hello"), ("cl", "cl1-eu")];
    for sending in [
        api.post(&pin).json(&elsewhere),
        api.post(&pin).header("x-cluster", "cl1-eu"),
        api.post(&format!("{pin}?dryRun=true&cl=cl1-eu")),
        api.post("/api/v3/files/pin-batch").json(&json!({"items": [{"cid": HELLO}], "cl": "cl1-eu"})),
        api.post("/api/v3/files").form(form(&file)),
        api.post("/api/v3/files/directory-dag").form(form(&files)),
    ] {
        is(&sending.key(&key).await, 403, "cluster_not_allowed");
    }
    assert_eq!(api.get("/api/v3/users/me/uploads").key(&key).await.json()["total"], 0);
    assert_eq!(api.post(&pin).key(&key).await.status(), 201, "the other cluster is in it");
}

#[tokio::test]
async fn unreachable_cluster_is_retried() {
    let api = Api::start_with(unlimited_rates()).await;
    let key = api.key("free", "files:write,cluster:read").await;
    let pin = format!("/api/v3/files/pin/{HELLO}");
    api.make_unreachable(HELLO, 2);
    is_out_of_reach(&api.post(&format!("{pin}?dryRun=true")).key(&key).await);
    let answer = api.post(&pin).key(&key).header("prefer", "wait=0").await;
    assert_eq!((answer.status(), &answer.json()["pinned"]), (202, &json!(false)), "{}", answer.text());
    let tried = api.until_status(&key, HELLO, |status| status["errorCode"].is_string()).await;
    assert_eq!((&tried["status"], &tried["errorCode"]), (&json!("queued"), &json!("unavailable")), "{tried}");
    assert!(tried["nextTryAt"].is_string() && tried["attempts"] == 1, "{tried}");
    let is_pinned = |status: &Value| {
        api.advance(60);
        status["status"] == "pinned"
    };
    let pinned = api.until_status(&key, HELLO, is_pinned).await;
    assert_eq!(pinned["error"], json!(null), "{pinned}");
}

#[tokio::test]
async fn waiting_for_an_unreachable_cluster_ends_with_retry_after() {
    let service = pinfold_service::Settings { attempts_max: 1, ..Default::default() };
    let api = Api::start_on(unlimited_rates(), service).await;
    let key = api.key("free", "files:write,files:read").await;
    api.make_unreachable(HELLO, 1);
    let pin = format!("/api/v3/files/pin/{HELLO}");
    is_out_of_reach(&api.post(&pin).key(&key).await);
    assert_eq!(api.get("/api/v3/users/me/uploads").key(&key).await.json()["total"], 0, "nothing is left");
    assert_eq!(api.post(&pin).key(&key).await.status(), 201);
}

#[tokio::test]
async fn fetch_stops_at_the_quota() {
    let limits = PlanLimits { storage_bytes: 8, ..Plan::free().limits };
    let api = limited(limits, unlimited_rates()).await;
    let key = api.key("free", "files:write,files:read,files:delete,cluster:read").await;
    let pin = |cid: &str| api.post(&format!("/api/v3/files/pin/{cid}")).key(&key);
    let held = api.block_fetch(HELLO);
    // It would fit, but another pin uses the space while it is fetched.
    let waiting = async { pin(HELLO).await };
    let other = async {
        held.reached().await;
        assert_eq!(pin(WORLD).await.status(), 201);
        held.open();
    };
    let (refused, ()) = tokio::join!(waiting, other);
    is(&refused, 403, "quota_exceeded");
    assert_eq!(api.pins_of(&key).await, 1, "nothing is left of it");

    // Too little space is left from the start, which is noticed during the fetch.
    is(&pin(HELLO).await, 403, "quota_exceeded");
    assert_eq!(pin(HELLO).header("prefer", "respond-async").await.status(), 202);
    let failed = api.until_status(&key, HELLO, |status| status["status"] == "failed").await;
    assert_eq!(failed["errorCode"], "quota_exceeded", "{failed}");
    for cid in [HELLO, WORLD] {
        let removed = api.request("DELETE", &format!("/api/v3/files/remove/{cid}")).key(&key).await;
        assert_eq!(removed.status(), 200);
    }
    api.until_nothing_is_held().await;
}

/// A clock whose next caller panics.
struct Broken(AtomicBool);

impl Clock for Broken {
    fn now(&self) -> Timestamp {
        assert!(!self.0.swap(false, Ordering::SeqCst), "secret");
        Timestamp::from_ms(1_767_225_600_000)
    }
}

#[tokio::test]
async fn panic_in_a_handler_answers_500() {
    let api = Api::start().await;
    let key = api.key("free", "files:write").await;
    let router = api.with_clock(Arc::new(Broken(AtomicBool::new(true))));
    let pin = || api.post(&format!("/api/v3/files/pin/{HELLO}")).key(&key).to(router.clone());
    let answer = pin().header("x-request-id", "mine").await;
    is(&answer, 500, "");
    assert_eq!(
        (&answer.json()["error"], answer.header("x-request-id")),
        (&json!("Internal Server Error"), "mine")
    );
    assert!(!answer.text().contains("secret"), "{}", answer.text());
    assert_eq!(pin().await.status(), 201, "the server goes on");
}

#[tokio::test]
async fn second_factor_code_is_required_to_manage_keys() {
    let api = Api::start_with(unlimited_rates()).await;
    let signup = json!({"name": "Ada", "email": "ada@example.org", "password": PASSWORD});
    let session = api.post("/api/v3/auth/signup").json(&signup).await.json();
    let bearer = format!("Bearer {}", session["token"].as_str().expect("a token"));
    let send = |method: &str, path: &str, body: Value| {
        api.request(method, &format!("/api/v3{path}")).header("authorization", &bearer).json(&body)
    };
    let setup = send("POST", "/auth/2fa/setup", json!({})).await.json();
    let secret = BASE32_NOPAD.decode(setup["secret"].as_str().expect("a secret").as_bytes()).expect("base32");
    let secret = Secret::new_stack(secret.try_into().expect("160 bits"));
    let totp = Builder::new().with_secret(secret).build().expect("a good secret");
    // A code is valid once; the next one follows after 30 s.
    let code = || {
        api.advance(30);
        totp.generate(u64::try_from(api.now_s()).expect("after 1970")).to_string()
    };
    assert_eq!(send("POST", "/auth/2fa/enable", json!({"code": code()})).await.status(), 200);

    let generate = |factor: Value| {
        let mut body = json!({"name": "laptop", "scopes": ["files:read"]});
        body["totpCode"] = factor;
        send("POST", "/tokens/generate", body)
    };
    is(&generate(json!(null)).await, 400, "2fa_required");
    is(&generate(json!("nonsense")).await, 400, "2fa_invalid");
    assert_eq!(generate(json!(code())).await.status(), 201);
    for (method, path) in [("POST", "/tokens/revoke"), ("DELETE", "/tokens/revoke/laptop")] {
        is(&send(method, path, json!({"name": "laptop"})).await, 400, "2fa_required");
        is(&send(method, path, json!({"name": "laptop", "totpCode": "nonsense"})).await, 400, "2fa_invalid");
    }
    let revoke = json!({"name": "laptop", "twoFactorCode": code()});
    assert_eq!(send("POST", "/tokens/revoke", revoke).await.status(), 200);
}
