//! Webhooks as their owners make, see and change them.

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::harness::{Answer, Api, HELLO};

const BOTH: &str = "webhooks:read,webhooks:write,files:write";

async fn make(api: &Api, key: &str, body: Value) -> Answer {
    api.post("/api/v3/webhooks").key(key).body(&body.to_string()).await
}

async fn made(api: &Api, key: &str) -> String {
    let answer = make(api, key, json!({"url": "https://example.org/hook"})).await;
    assert_eq!(answer.status(), 201, "{}", answer.text());
    answer.json()["id"].as_str().expect("an id").to_owned()
}

fn at(id: &str) -> String {
    format!("/api/v3/webhooks/{id}")
}

#[tokio::test]
async fn a_webhook_shows_its_secret_once() {
    let api = Api::start().await;
    let key = api.key("premium", BOTH).await;
    let body = json!({"url": "https://Example.org/hook", "events": ["pin.removed", "pin.pinned"], "description": "mine"});
    let answer = make(&api, &key, body).await;
    let mut made = answer.json();
    let id = made["id"].as_str().expect("an id").to_owned();
    let secret = made["secret"].take().as_str().expect("a secret").to_owned();
    assert!(secret.starts_with("whsec_") && secret.len() == 70, "{secret}");
    made.as_object_mut().expect("an object").retain(|name, _| name != "secret" && name != "id");
    assert_eq!(answer.status(), 201);
    assert_snapshot!(made, @r#"{"active":true,"createdAt":"2026-01-01T00:00:00.000Z","description":"mine","disabledReason":null,"droppedEvents":0,"events":["pin.pinned","pin.removed"],"failingSince":null,"pendingDeliveries":0,"updatedAt":"2026-01-01T00:00:00.000Z","url":"https://example.org/hook"}"#);

    let shown = api.get(&at(&id)).key(&key).await;
    let list = api.get("/api/v3/webhooks").key(&key).await;
    assert_eq!((shown.status(), list.status()), (200, 200));
    assert_eq!(list.json()["webhooks"][0], shown.json());
    assert!(!shown.text().contains("whsec_") && !list.text().contains("whsec_"));

    let rotated = api.post(&format!("{}/rotate-secret", at(&id))).key(&key).await.json();
    assert!(rotated["secret"].as_str().is_some_and(|new| new.starts_with("whsec_") && *new != secret));
}

#[tokio::test]
async fn a_webhook_is_changed_field_by_field_and_removed() {
    let api = Api::start().await;
    let key = api.key("premium", BOTH).await;
    let id = made(&api, &key).await;
    let change = |body: Value| api.request("PUT", &at(&id)).key(&key).body(&body.to_string());
    let all = change(json!({})).await.json();
    assert_eq!(all["events"], json!(["pin.pinned", "pin.failed", "pin.expired", "pin.removed"]));
    let off = change(json!({"active": false, "events": ["pin.failed"], "description": "a"})).await.json();
    assert_eq!(
        (&off["active"], &off["events"], &off["description"]),
        (&json!(false), &json!(["pin.failed"]), &json!("a"))
    );
    assert_eq!(off["url"], "https://example.org/hook", "what is left out stays");
    let test = api.post(&format!("{}/test", at(&id))).key(&key).await;
    assert_eq!((test.status(), test.code()), (409, "webhook_inactive".into()));
    let on = change(json!({"active": true, "description": ""})).await.json();
    assert_eq!((&on["active"], &on["description"]), (&json!(true), &Value::Null));

    let gone = api.request("DELETE", &at(&id)).key(&key).await;
    assert_eq!((gone.status(), gone.json()), (200, json!({"id": id, "removed": true})));
    assert_eq!(api.get(&at(&id)).key(&key).await.status(), 404);
    assert_eq!(api.get("/api/v3/webhooks").key(&key).await.json(), json!({"webhooks": []}));
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let api = Api::start().await;
    let key = api.key("premium", BOTH).await;
    for (body, message) in [
        (json!({}), "`url`: say where to tell"),
        (json!({"url": " "}), "`url`: say where to tell"),
        (json!({"url": "http://example.org/"}), "The URL must begin with https://"),
        (json!({"url": "https://127.0.0.1/"}), "The URL's host must be a public address"),
        (json!({"url": "https://[::ffff:10.0.0.1]/"}), "The URL's host must be a public address"),
        (json!({"url": "https://u:p@example.org/"}), "The URL may have no user name, password or fragment"),
        (json!({"url": "https://example.org/", "events": []}), "`events`: name at least one"),
        (
            json!({"url": "https://example.org/", "events": ["pin.burnt"]}),
            "`events`: there is no event \"pin.burnt\"",
        ),
        (
            json!({"url": "https://example.org/", "events": ["webhook.test"]}),
            "`events`: there is no event \"webhook.test\"",
        ),
        (
            json!({"url": "https://example.org/", "description": "x".repeat(256)}),
            "A description has at most 255 bytes and no control characters",
        ),
    ] {
        let answer = make(&api, &key, body.clone()).await;
        assert_eq!((answer.status(), answer.message()), (400, message.to_owned()), "{body}");
    }
    for _ in 0..10 {
        made(&api, &key).await;
    }
    let eleventh = make(&api, &key, json!({"url": "https://example.org/"})).await;
    assert_eq!(
        (eleventh.status(), eleventh.message()),
        (400, "An account can have 10 webhooks; remove or change one".into())
    );
    let id = api.get("/api/v3/webhooks").key(&key).await.json()["webhooks"][9]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    for (query, field) in [("limit=0", "`limit`"), ("limit=x", "`limit`"), ("cursor=x", "`cursor`")] {
        let answer = api.get(&format!("{}/deliveries?{query}", at(&id))).key(&key).await;
        assert!(answer.status() == 400 && answer.message().starts_with(field), "{}", answer.text());
    }
}

#[tokio::test]
async fn nobody_sees_the_webhooks_of_others_and_scopes_part_seeing_from_changing() {
    let api = Api::start().await;
    let (owner, other) = (api.key("premium", BOTH).await, api.key("premium", BOTH).await);
    let reader = api.key("premium", "webhooks:read").await;
    let id = made(&api, &owner).await;
    for id in [id.as_str(), "0000000000000000", "nonsense", "%ff"] {
        for (method, tail) in [
            ("GET", ""),
            ("PUT", ""),
            ("DELETE", ""),
            ("POST", "/rotate-secret"),
            ("POST", "/test"),
            ("GET", "/deliveries"),
        ] {
            let answer = api.request(method, &format!("{}{tail}", at(id))).key(&other).await;
            assert_eq!(
                (answer.status(), answer.message()),
                (404, "No such webhook".into()),
                "{method} {id}{tail}"
            );
        }
    }
    assert_eq!(api.get("/api/v3/webhooks").key(&other).await.json(), json!({"webhooks": []}));
    let refused = make(&api, &reader, json!({"url": "https://example.org/"})).await;
    assert_eq!(
        (refused.code(), refused.json()["required"].as_str()),
        ("missing_scope".into(), Some("webhooks:write"))
    );
    assert_eq!(api.get(&at(&id)).key(&owner).await.status(), 200, "it is still there");
}

#[tokio::test]
async fn what_is_to_be_told_can_be_looked_at() {
    let api = Api::start().await;
    let key = api.key("premium", BOTH).await;
    let answer = make(&api, &key, json!({"url": "https://no-such-host.invalid/hook"})).await;
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    let test = api.post(&format!("{}/test", at(&id))).key(&key).await;
    assert_eq!((test.status(), &test.json()["type"]), (202, &json!("webhook.test")));
    assert_eq!(api.post(&format!("/api/v3/files/pin/{HELLO}")).key(&key).await.status(), 201);
    let deliveries =
        async |query: &str| api.get(&format!("{}/deliveries{query}", at(&id))).key(&key).await.json();
    let first = deliveries("?limit=1").await;
    let told = &first["deliveries"][0];
    assert_eq!(
        (&told["type"], &told["cid"], &told["status"]),
        (&json!("pin.pinned"), &json!(HELLO), &json!("pending"))
    );
    let next = first["nextCursor"].as_str().expect("there is more");
    let second = deliveries(&format!("?cursor={next}")).await;
    assert_eq!((&second["deliveries"][0]["id"], &second["nextCursor"]), (&test.json()["id"], &Value::Null));
    // The name leads nowhere, which is told.
    let tried = async {
        loop {
            let page = deliveries("").await;
            let tries = page["deliveries"].as_array().into_iter().flatten();
            let mut errors = tries.filter_map(|told| told["error"].as_str().map(str::to_owned));
            if let Some(error) = errors.next() {
                return error;
            }
            tokio::task::yield_now().await;
        }
    };
    let error = tokio::time::timeout(std::time::Duration::from_secs(60), tried).await.expect("it is tried");
    assert_eq!(error, "Its host has no address");
}
