//! What every refusal says: its status, its words, and what comes with it.

use pinfold_http::{Rate, Settings};
use pinfold_model::{Plan, PlanLimits, Plans};
use serde_json::{Value, json};

use crate::harness::{Answer, Api, HELLO, WORLD, unhurried};

const PASSWORD: &str = "correct horse";

/// An API whose free plan has these limits.
async fn limited(limits: PlanLimits, settings: Settings) -> Api {
    let plans = Plans::new(vec![Plan { limits, ..Plan::free() }, Plan::premium()]);
    let watches_per_account_max = 1;
    let service = pinfold_service::Settings { plans, watches_per_account_max, ..Default::default() };
    Api::start_on(settings, service).await
}

/// Everything that a 429 says, in the body and in the headers.
fn is_over_limit(answer: &Answer, limit: u32) {
    assert_eq!((answer.status(), answer.code().as_str()), (429, "RATE_LIMIT"), "{}", answer.text());
    let json = answer.json();
    assert_eq!((&json["error"], &json["remaining"]), (&json!("Too Many Requests"), &json!(0)));
    assert_eq!(json["limit"], limit, "{json}");
    let reset_ms = json["resetTime"].as_str().and_then(|text| text.parse::<pinfold_model::Timestamp>().ok());
    let reset_s = (reset_ms.expect("a time").as_ms() + 999).div_euclid(1000);
    let wait = json["retryAfter"].as_u64().expect("seconds");
    assert!(wait > 0 && !answer.message().is_empty());
    assert_eq!(answer.header("retry-after"), wait.to_string());
    assert_eq!(answer.header("x-ratelimit-limit"), limit.to_string());
    assert_eq!(answer.header("x-ratelimit-remaining"), "0");
    assert_eq!(answer.header("x-ratelimit-reset"), reset_s.to_string());
}

async fn log_in(api: &Api, email: &str) -> Answer {
    api.post("/api/v3/auth/login").json(&json!({"email": email, "password": PASSWORD})).await
}

#[tokio::test]
async fn whoever_is_told_to_wait_is_told_of_what_and_for_how_long() {
    let limits = PlanLimits { in_flight_pins_max: 1, ..Plan::free().limits };
    let mut settings = unhurried();
    settings.rates.account_logins = Rate::new(2, 2);
    let api = limited(limits, settings).await;

    // Too many pins on their way.
    let key = api.key("free", "files:write,cluster:read").await;
    let gate = api.hold_back(HELLO);
    let pin = |cid: &str| api.post(&format!("/api/v3/files/pin/{cid}")).key(&key);
    assert_eq!(pin(HELLO).header("prefer", "respond-async").await.status(), 202);
    is_over_limit(&pin(WORLD).await, 1);
    let batch = json!({"items": [{"cid": WORLD}]});
    is_over_limit(&api.post("/api/v3/files/pin-batch").key(&key).json(&batch).await, 1);
    let dry = api.post(&format!("/api/v3/files/pin/{WORLD}?dryRun=true")).key(&key);
    is_over_limit(&dry.await, 1);

    // Too many watches.
    let events = format!("/api/v3/status/{HELLO}/events");
    let watching = api.get(&events).key(&key).open().await;
    is_over_limit(&api.get(&events).key(&key).await, 1);
    drop(watching);
    gate.open();

    // Too many tries of a password, and of codes.
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
async fn a_key_that_asks_too_often_is_told_the_same_way() {
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
