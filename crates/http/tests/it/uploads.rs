//! The list of an account's pins.

use insta::assert_snapshot;

use crate::harness::{Api, HELLO, WORLD};

#[tokio::test]
async fn page_has_the_fields_that_clients_read() {
    let api = Api::start().await;
    let key = api.key("free", "files:write,files:read").await;
    assert_snapshot!(api.get("/api/v3/users/me/uploads").key(&key).await.text(), @r#"{"uploads":[],"total":0,"pagination":{"page":1,"limit":20,"total":0,"totalPages":0},"nextCursor":null}"#);
    api.post(&format!("/api/v3/files/pin/{HELLO}")).key(&key).body(r#"{"originalName":"hello.txt"}"#).await;
    assert_snapshot!(api.get("/api/v3/users/me/uploads").key(&key).await.masked(), @r#"{"uploads":[{"uploadId":"[id]","_id":"[id]","cid":"bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq","name":"hello.txt","originalName":"hello.txt","customName":null,"size":5,"type":"file","clusterId":"cl0-global","status":"pinned","createdAt":"2026-01-01T00:00:00.000Z","uploadedAt":"2026-01-01T00:00:00.000Z","expiresAt":null,"retainUntil":null}],"total":1,"pagination":{"page":1,"limit":20,"total":1,"totalPages":1},"nextCursor":null}"#);
}

#[tokio::test]
async fn pages_and_cursors_visit_all_pins() {
    let api = Api::start().await;
    let key = api.key("free", "files:write,files:read").await;
    for cid in [HELLO, WORLD] {
        api.post(&format!("/api/v3/files/pin/{cid}")).key(&key).await;
    }
    let first = api.get("/api/v3/users/me/uploads?limit=1&page=1").key(&key).await.json();
    assert_eq!(first["pagination"], serde_json::json!({"page": 1, "limit": 1, "total": 2, "totalPages": 2}));
    assert_eq!(first["uploads"][0]["cid"], WORLD, "newest first");

    let cursor = first["nextCursor"].as_str().expect("there is more");
    let next = api.get(&format!("/api/v3/users/me/uploads?limit=1&cursor={cursor}")).key(&key).await.json();
    assert_eq!(next["uploads"][0]["cid"], HELLO);
    assert_eq!(next["nextCursor"], serde_json::Value::Null);
    let by_page = api.get("/api/v3/users/me/uploads?limit=1&page=2").key(&key).await.json();
    assert_eq!(by_page["uploads"], next["uploads"]);
}

#[tokio::test]
async fn filters_select_pins() {
    let api = Api::start().await;
    let key = api.key("free", "files:write,files:read").await;
    for (cid, name) in [(HELLO, "hello.txt"), (WORLD, "world.txt")] {
        let body = format!(r#"{{"customName":"{name}"}}"#);
        api.post(&format!("/api/v3/files/pin/{cid}")).key(&key).body(&body).await;
    }
    for (query, total) in [
        (format!("cid={HELLO}"), 1),
        ("search=WORLD".into(), 1),
        ("status=pinned".into(), 2),
        ("status=failed".into(), 0),
        ("cl=cl0-global".into(), 2),
        ("hasExpiration=true".into(), 0),
        ("unknown=1&page=".into(), 2),
    ] {
        let answer = api.get(&format!("/api/v3/users/me/uploads?{query}")).key(&key).await;
        assert_eq!(answer.json()["total"], total, "{query}: {}", answer.text());
    }
    let answer = api.get("/api/v3/users/me/uploads?limit=abc").key(&key).await;
    assert_eq!(answer.message(), "`limit` must be a whole number from 1");
}

#[tokio::test]
async fn status_of_a_pin_is_complete() {
    let api = Api::start().await;
    let key = api.key("free", "files:write,cluster:read").await;
    api.post(&format!("/api/v3/files/pin/{HELLO}")).key(&key).await;
    assert_snapshot!(api.get(&format!("/api/v3/status/{HELLO}")).key(&key).await.masked(), @r#"{"cid":"bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq","status":"pinned","clusterId":"cl0-global","uploadId":"[id]","progress":{"blocks":1,"bytes":5,"totalBytes":5,"peers":0},"attempts":0,"peer_map":{"scripted":{"status":"pinned","timestamp":"2026-01-01T00:00:00.000Z"}},"allocations":["scripted"],"replicationFactor":1,"createdAt":"2026-01-01T00:00:00.000Z","updatedAt":"2026-01-01T00:00:00.000Z","expiresAt":null,"retainUntil":null}"#);
    let unknown = api.get(&format!("/api/v3/status/{WORLD}")).key(&key).await;
    assert_eq!((unknown.status(), unknown.message()), (404, "Pin not found for this CID".into()));
}
