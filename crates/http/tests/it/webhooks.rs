//! The routes of webhooks.

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::harness::{Answer, Api, HELLO};

const BOTH: &str = "webhooks:read,webhooks:write,files:write";

async fn create(api: &Api, key: &str, body: Value) -> Answer {
    api.post("/api/v3/webhooks").key(key).body(&body.to_string()).await
}

async fn created(api: &Api, key: &str) -> String {
    let answer = create(api, key, json!({"url": "https://example.org/pinfold"})).await;
    assert_eq!(answer.status(), 201, "{}", answer.text());
    answer.json()["id"].as_str().expect("an id").to_owned()
}

fn path(id: &str) -> String {
    format!("/api/v3/webhooks/{id}")
}

#[tokio::test]
async fn secret_of_a_webhook_is_shown_once() {
    let api = Api::start().await;
    let key = api.key("premium", BOTH).await;
    let body = json!({"url": "https://Example.org/pinfold", "events": ["pin.removed", "pin.pinned"], "description": "mine"});
    let answer = create(&api, &key, body).await;
    let mut created = answer.json();
    let id = created["id"].as_str().expect("an id").to_owned();
    let secret = created["secret"].take().as_str().expect("a secret").to_owned();
    assert!(secret.starts_with("whsec_") && secret.len() == 50, "{secret}");
    created.as_object_mut().expect("an object").retain(|name, _| name != "secret" && name != "id");
    assert_eq!(answer.status(), 201);
    assert_snapshot!(created, @r#"{"active":true,"createdAt":"2026-01-01T00:00:00.000Z","description":"mine","disabledReason":null,"droppedEvents":0,"events":["pin.pinned","pin.removed"],"failingSince":null,"pendingDeliveries":0,"previousSecretExpiresAt":null,"updatedAt":"2026-01-01T00:00:00.000Z","url":"https://example.org/pinfold"}"#);

    let shown = api.get(&path(&id)).key(&key).await;
    let list = api.get("/api/v3/webhooks").key(&key).await;
    assert_eq!((shown.status(), list.status()), (200, 200));
    assert_eq!(list.json()["webhooks"][0], shown.json());
    assert!(!shown.text().contains("whsec_") && !list.text().contains("whsec_"));

    let rotated = api.post(&format!("{}/rotate-secret", path(&id))).key(&key).await.json();
    assert!(rotated["secret"].as_str().is_some_and(|new| new.starts_with("whsec_") && *new != secret));
    assert_eq!(rotated["previousSecretExpiresAt"], "2026-01-02T00:00:00.000Z");
}

#[tokio::test]
async fn webhook_is_changed_field_by_field_and_removed() {
    let api = Api::start().await;
    let key = api.key("premium", BOTH).await;
    let id = created(&api, &key).await;
    let change = |body: Value| api.request("PUT", &path(&id)).key(&key).body(&body.to_string());
    let all = change(json!({})).await.json();
    assert_eq!(all["events"], json!(["pin.pinned", "pin.failed", "pin.expired", "pin.removed"]));
    let inactive =
        change(json!({"active": false, "events": ["pin.failed"], "description": "a"})).await.json();
    assert_eq!(
        (&inactive["active"], &inactive["events"], &inactive["description"]),
        (&json!(false), &json!(["pin.failed"]), &json!("a"))
    );
    assert_eq!(inactive["url"], "https://example.org/pinfold", "fields that are left out stay unchanged");
    let test = api.post(&format!("{}/test", path(&id))).key(&key).await;
    assert_eq!((test.status(), test.code()), (409, "webhook_inactive".into()));
    let active = change(json!({"active": true, "description": ""})).await.json();
    assert_eq!((&active["active"], &active["description"]), (&json!(true), &Value::Null));

    let gone = api.request("DELETE", &path(&id)).key(&key).await;
    assert_eq!((gone.status(), gone.json()), (200, json!({"id": id, "removed": true})));
    assert_eq!(api.get(&path(&id)).key(&key).await.status(), 404);
    assert_eq!(api.get("/api/v3/webhooks").key(&key).await.json(), json!({"webhooks": []}));
}

#[tokio::test]
async fn invalid_requests_are_rejected_with_the_field() {
    let api = Api::start().await;
    let key = api.key("premium", BOTH).await;
    for (body, message) in [
        (json!({}), "`url` is required"),
        (json!({"url": " "}), "`url` is required"),
        (json!({"url": "http://example.org/"}), "The URL must begin with https://"),
        (json!({"url": "https://127.0.0.1/"}), "The URL's host must be a public address"),
        (json!({"url": "https://[::ffff:10.0.0.1]/"}), "The URL's host must be a public address"),
        (
            json!({"url": "https://u:p@example.org/"}),
            "The URL must not have a user name, password or fragment",
        ),
        (json!({"url": "https://example.org/", "events": []}), "`events`: at least one is required"),
        (
            json!({"url": "https://example.org/", "events": ["pin.burnt"]}),
            "`events`: unknown event type \"pin.burnt\"",
        ),
        (
            json!({"url": "https://example.org/", "events": ["webhook.test"]}),
            "`events`: unknown event type \"webhook.test\"",
        ),
        (
            json!({"url": "https://example.org/", "description": "x".repeat(256)}),
            "A description can have at most 255 bytes and no control characters",
        ),
    ] {
        let answer = create(&api, &key, body.clone()).await;
        assert_eq!((answer.status(), answer.message()), (400, message.to_owned()), "{body}");
    }
    for _ in 0..10 {
        created(&api, &key).await;
    }
    let eleventh = create(&api, &key, json!({"url": "https://example.org/"})).await;
    assert_eq!(
        (eleventh.status(), eleventh.message()),
        (400, "An account can have at most 10 webhooks".into())
    );
    let id = api.get("/api/v3/webhooks").key(&key).await.json()["webhooks"][9]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    for (query, field) in [("limit=0", "`limit`"), ("limit=x", "`limit`"), ("cursor=x", "`cursor`")] {
        let answer = api.get(&format!("{}/deliveries?{query}", path(&id))).key(&key).await;
        assert!(answer.status() == 400 && answer.message().starts_with(field), "{}", answer.text());
    }
}

#[tokio::test]
async fn webhooks_are_private_to_their_account_and_scopes_separate_reading_from_writing() {
    let api = Api::start().await;
    let (owner, other) = (api.key("premium", BOTH).await, api.key("premium", BOTH).await);
    let reader = api.key("premium", "webhooks:read").await;
    let id = created(&api, &owner).await;
    for id in [id.as_str(), "0000000000000000", "nonsense", "%ff"] {
        for (method, tail) in [
            ("GET", ""),
            ("PUT", ""),
            ("DELETE", ""),
            ("POST", "/rotate-secret"),
            ("POST", "/test"),
            ("GET", "/deliveries"),
        ] {
            let answer = api.request(method, &format!("{}{tail}", path(id))).key(&other).await;
            assert_eq!(
                (answer.status(), answer.message()),
                (404, "Webhook not found".into()),
                "{method} {id}{tail}"
            );
        }
    }
    assert_eq!(api.get("/api/v3/webhooks").key(&other).await.json(), json!({"webhooks": []}));
    let refused = create(&api, &reader, json!({"url": "https://example.org/"})).await;
    assert_eq!(
        (refused.code(), refused.json()["required"].as_str()),
        ("missing_scope".into(), Some("webhooks:write"))
    );
    assert_eq!(api.get(&path(&id)).key(&owner).await.status(), 200, "the webhook still exists");
}

#[tokio::test]
async fn deliveries_are_listed_with_their_errors() {
    let api = Api::start().await;
    let key = api.key("premium", BOTH).await;
    let answer = create(&api, &key, json!({"url": "https://no-such-host.invalid/hook"})).await;
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    let test = api.post(&format!("{}/test", path(&id))).key(&key).await;
    assert_eq!((test.status(), &test.json()["type"]), (202, &json!("webhook.test")));
    assert_eq!(api.post(&format!("/api/v3/files/pin/{HELLO}")).key(&key).await.status(), 201);
    let deliveries =
        async |query: &str| api.get(&format!("{}/deliveries{query}", path(&id))).key(&key).await.json();
    let first = deliveries("?limit=1").await;
    let delivery = &first["deliveries"][0];
    assert_eq!(
        (&delivery["type"], &delivery["cid"], &delivery["status"]),
        (&json!("pin.pinned"), &json!(HELLO), &json!("pending"))
    );
    let next = first["nextCursor"].as_str().expect("there is a next page");
    let second = deliveries(&format!("?cursor={next}")).await;
    assert_eq!((&second["deliveries"][0]["id"], &second["nextCursor"]), (&test.json()["id"], &Value::Null));
    // The host name does not resolve.
    let failed = async {
        loop {
            let page = deliveries("").await;
            let deliveries = page["deliveries"].as_array().into_iter().flatten();
            let mut errors = deliveries.filter_map(|delivery| delivery["error"].as_str().map(str::to_owned));
            if let Some(error) = errors.next() {
                return error;
            }
            tokio::task::yield_now().await;
        }
    };
    let error = tokio::time::timeout(std::time::Duration::from_secs(60), failed)
        .await
        .expect("the delivery is attempted");
    assert_eq!(error, "The host name does not resolve");
}
