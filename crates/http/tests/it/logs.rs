//! The audit log and referrals.

use insta::assert_snapshot;
use serde_json::json;

use crate::harness::{Api, HELLO, Sending};

const SCOPES: &str = "files:write,files:delete,files:read,logs:read,referrals:read,tokens:write";

fn logs(api: &Api, key: &str, query: &str) -> Sending {
    api.get(&format!("/api/v3/users/me/logs{query}")).key(key)
}

async fn actions(api: &Api, key: &str, query: &str) -> Vec<String> {
    let answer = logs(api, key, query).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let json = answer.json();
    let entries = json["logs"].as_array().expect("a list");
    entries.iter().map(|entry| entry["action"].as_str().expect("a word").to_owned()).collect()
}

#[tokio::test]
async fn log_records_pin_and_removal_with_actor_and_address() {
    let api = Api::start().await;
    let key = api.key("premium", SCOPES).await;
    let pin = api.post(&format!("/api/v3/files/pin/{HELLO}")).key(&key).from("192.0.2.7");
    assert_eq!(pin.body(r#"{"customName":"hi"}"#).await.status(), 201);
    let remove = api.request("DELETE", &format!("/api/v3/files/remove/{HELLO}")).key(&key);
    assert_eq!(remove.from("2001:db8::7").await.status(), 200);

    assert_eq!(actions(&api, &key, "").await, ["pin.remove", "pin.create", "token.create", "account.create"]);
    let json = logs(&api, &key, "?action=pin.create").await.json();
    let entry = &json["logs"][0];
    let masked = entry.to_string().replace(entry["id"].as_str().expect("an id"), "[id]");
    assert_snapshot!(masked, @r#"{"action":"pin.create","actor":"you","cid":"bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq","createdAt":"2026-01-01T00:00:00.000Z","details":{"cluster":"cl0-global","name":"hi"},"id":"[id]","ip":"192.0.2.7","source":"API","status":"success","subject":"bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq"}"#);
    let operator = &logs(&api, &key, "?action=account.create").await.json()["logs"][0];
    assert_eq!((&operator["actor"], &operator["source"]), (&json!("operator"), &json!("OPERATOR")));
    assert_eq!((&operator["ip"], &operator["cid"]), (&json!(null), &json!(null)));
}

#[tokio::test]
async fn log_has_pages_cursors_and_filters() {
    let api = Api::start().await;
    let key = api.key("premium", SCOPES).await;
    for n in 0..5 {
        api.advance(60);
        let body = json!({"name": format!("key {n}"), "scopes": "files:read"});
        assert_eq!(api.post("/api/v3/tokens/generate").key(&key).json(&body).await.status(), 201);
    }
    let first = logs(&api, &key, "?limit=3").await.json();
    assert_eq!(first["pagination"], json!({"page": 1, "limit": 3, "total": 7, "totalPages": 3}));
    assert_eq!((&first["total"], &first["totalIsExact"]), (&json!(7), &json!(true)));
    let mut seen: Vec<_> = first["logs"].as_array().expect("a list").clone();
    let mut next = first["nextCursor"].clone();
    while let Some(cursor) = next.as_str() {
        let page = logs(&api, &key, &format!("?limit=3&cursor={cursor}")).await.json();
        seen.extend(page["logs"].as_array().expect("a list").iter().cloned());
        next = page["nextCursor"].clone();
    }
    assert_eq!(seen.len(), 7);
    let second = logs(&api, &key, "?limit=3&page=2").await.json();
    assert_eq!(second["logs"].as_array().expect("a list"), &seen[3..6]);

    assert_eq!(actions(&api, &key, "?action=account.create").await, ["account.create"]);
    assert_eq!(actions(&api, &key, "?from=2026-01-01T00:04:00Z").await.len(), 2);
    assert_eq!(actions(&api, &key, "?to=2026-01-01T00:01:00Z").await, ["token.create", "account.create"]);
    assert_eq!(actions(&api, &key, "?from=2026-01-02").await, [""; 0]);
    for bad in [
        "?from=soon",
        "?cursor=x",
        "?page=0",
        "?limit=x",
        "?action=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    ] {
        assert_eq!(logs(&api, &key, bad).await.status(), 400, "{bad}");
    }
}

#[tokio::test]
async fn log_of_another_account_is_not_readable() {
    let api = Api::start().await;
    let (alice, bob) = (api.key("free", SCOPES).await, api.key("free", SCOPES).await);
    let first = logs(&api, &alice, "?limit=1").await.json();
    let cursor = first["nextCursor"].as_str().expect("there is more").to_owned();
    let of_bob = logs(&api, &bob, &format!("?cursor={cursor}")).await.json();
    let ids = |json: &serde_json::Value| {
        json["logs"].as_array().expect("a list").iter().map(|entry| entry["id"].clone()).collect::<Vec<_>>()
    };
    let all_of_alice = ids(&logs(&api, &alice, "").await.json());
    assert!(ids(&of_bob).iter().all(|id| !all_of_alice.contains(id)));
}

#[tokio::test]
async fn referral_code_is_shown_without_names() {
    let api = Api::start().await;
    let key = api.key("free", SCOPES).await;
    let answer = api.get("/api/v3/users/me/referrals").key(&key).await.json();
    let code = answer["referralCode"].as_str().expect("a word").to_owned();
    assert_eq!(
        answer,
        json!({"referralCode": code, "referrals": [], "total": 0,
        "pagination": {"page": 1, "limit": 20, "total": 0, "totalPages": 0}})
    );
    let again = api.get("/api/v3/users/me/referrals?page=2&limit=5").key(&key).await.json();
    assert_eq!(again["referralCode"], code);
    assert_eq!(api.get("/api/v3/users/me/referrals?page=x").key(&key).await.status(), 400);
}
