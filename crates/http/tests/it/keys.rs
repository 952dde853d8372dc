//! API keys, their allowed addresses, and the lists of languages and countries.

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::harness::{Answer, Api, Sending};

/// Scopes of a key that manages keys.
const RULER: &str = "files:read,tokens:read,tokens:write,tokens:delete,user:read";

fn generate(api: &Api, key: &str, body: &Value) -> Sending {
    api.post("/api/v3/tokens/generate").key(key).json(body)
}

async fn made(api: &Api, key: &str, body: &Value) -> String {
    let answer = generate(api, key, body).await;
    assert_eq!(answer.status(), 201, "{}", answer.text());
    answer.json()["token"].as_str().expect("the key").to_owned()
}

/// The names of the account's keys.
async fn names(api: &Api, key: &str) -> Vec<String> {
    let list = api.get("/api/v3/tokens/list").key(key).await.json();
    let tokens = list["tokens"].as_array().expect("a list");
    assert_eq!(list["total"], tokens.len());
    tokens.iter().map(|token| token["name"].as_str().expect("a name").to_owned()).collect()
}

fn is(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status(), answer.code().as_str()), (status, code), "{}", answer.text());
}

#[tokio::test]
async fn key_is_shown_once_and_listed_without_its_secret() {
    let api = Api::start().await;
    let ruler = api.key("free", RULER).await;
    let body = json!({"name": "ci", "expiresInDays": 30, "ipAllowlist": ["192.0.2.7", "2001:db8::/32"]});
    let answer = generate(&api, &ruler, &body).await;
    let secret = answer.json()["token"].as_str().expect("the key").to_owned();
    assert!(secret.starts_with("pnf_") && secret.len() == 62);
    let masked = |answer: &Answer| {
        let json = answer.json();
        let token = json["tokens"].get(1).unwrap_or(&json).clone();
        let (id, prefix) =
            (token["id"].as_str().expect("an id"), token["prefix"].as_str().expect("a prefix"));
        let text = token.to_string().replace(&secret, "[key]");
        text.replace(id, "[id]").replace(prefix, "[prefix]")
    };
    assert_snapshot!(masked(&answer), @r#"{"createdAt":"2026-01-01T00:00:00.000Z","expiresAt":"2026-01-31T00:00:00.000Z","id":"[id]","ipAllowlist":["192.0.2.7","2001:db8::/32"],"label":"cli-access","lastUsedAt":null,"name":"ci","prefix":"[prefix]","scopes":["files:read","user:read"],"token":"[key]"}"#);
    let list = api.get("/api/v3/tokens/list").key(&ruler).await;
    assert_snapshot!(masked(&list), @r#"{"createdAt":"2026-01-01T00:00:00.000Z","expiresAt":"2026-01-31T00:00:00.000Z","id":"[id]","ipAllowlist":["192.0.2.7","2001:db8::/32"],"label":"cli-access","lastUsedAt":null,"name":"ci","prefix":"[prefix]","scopes":["files:read","user:read"]}"#);
    assert!(!list.text().contains(&secret) && !list.text().contains("hash"));
}

#[tokio::test]
async fn name_in_use_is_a_conflict_and_invalid_fields_are_named() {
    let api = Api::start().await;
    let ruler = api.key("free", RULER).await;
    made(&api, &ruler, &json!({"name": "ci"})).await;
    let again = generate(&api, &ruler, &json!({"name": " ci "})).await;
    assert_eq!((again.status(), again.json()["error"].as_str()), (409, Some("Conflict")));
    for (body, named) in [
        (json!({}), "`name`"),
        (json!({"name": "x", "expiresInDays": 0}), "`expiresInDays`"),
        (json!({"name": "x", "ipAllowlist": "nowhere"}), "`ipAllowlist`"),
        (json!({"name": "x", "scopes": "files:burn"}), "files:burn"),
        (json!({"name": "x", "label": "l".repeat(256)}), "label"),
    ] {
        let answer = generate(&api, &ruler, &body).await;
        assert_eq!(answer.status(), 400, "{body}");
        assert!(answer.message().contains(named), "{body}: {}", answer.message());
    }
    assert_eq!(names(&api, &ruler).await, ["test", "ci"]);
}

#[tokio::test]
async fn key_creates_no_key_with_more_rights() {
    let api = Api::start().await;
    let ruler = api.key("free", RULER).await;
    let bound = json!({"name": "bound", "scopes": RULER, "expiresInDays": 10, "ipAllowlist": "192.0.2.0/24"});
    let bound = made(&api, &ruler, &bound).await;
    let tries = [
        (json!({"name": "x", "scopes": ["files:write"]}), "scope_not_held"),
        (json!({"name": "x", "permissions": "user:read,logs:read"}), "scope_not_held"),
        (json!({"name": "x", "expiresInDays": 11}), "expiry_not_held"),
        (json!({"name": "x", "ipAllowlist": ["192.0.2.1", "198.51.100.1"]}), "ip_allowlist_not_held"),
        (json!({"name": "x", "ipAllowlist": "0.0.0.0/0"}), "ip_allowlist_not_held"),
    ];
    for (body, code) in tries {
        is(&generate(&api, &bound, &body).from("192.0.2.1").await, 403, code);
    }
    let heir = generate(&api, &bound, &json!({"name": "heir"})).from("192.0.2.1").await.json();
    assert_eq!(
        (&heir["expiresAt"], &heir["ipAllowlist"]),
        (&"2026-01-11T00:00:00.000Z".into(), &json!(["192.0.2.0/24"]))
    );
}

#[tokio::test]
async fn key_is_valid_from_its_allowed_addresses_only() {
    let api = Api::start().await;
    let ruler = api.key("free", RULER).await;
    let body = json!({"name": "home", "ipAllowlist": ["192.0.2.7", "2001:db8::/64"]});
    let home = made(&api, &ruler, &body).await;
    let list = |from: &str| api.get("/api/v3/users/me/uploads").key(&home).from(from);
    for inside in ["192.0.2.7", "::ffff:192.0.2.7", "2001:db8::9"] {
        assert_eq!(list(inside).await.status(), 200, "{inside}");
    }
    for outside in ["192.0.2.8", "2001:db8:0:1::9", "::"] {
        is(&list(outside).await, 403, "ip_not_allowed");
    }
    let claimed = list("192.0.2.8").header("x-forwarded-for", "192.0.2.7").await;
    is(&claimed, 403, "ip_not_allowed");
}

#[tokio::test]
async fn key_is_found_by_encoded_and_plain_name() {
    let api = Api::start().await;
    let ruler = api.key("premium", RULER).await;
    for (name, path) in [
        ("ci", "ci"),
        ("a b/c", "a%20b%2Fc"),
        ("dir/key", "dir/key"),
        ("50%", "50%"),
        ("60%", "60%25"),
        ("schlüssel", "schl%C3%BCssel"),
        ("ключ", "%D0%BA%D0%BB%D1%8E%D1%87"),
        ("a%20b", "a%20b"),
        ("revoke/", "revoke%2F"),
        ("q?x#y", "q%3Fx%23y"),
    ] {
        let key = made(&api, &ruler, &json!({"name": name})).await;
        let answer = api.request("DELETE", &format!("/api/v3/tokens/revoke/{path}")).key(&ruler).await;
        assert_eq!((answer.status(), answer.json()["revoked"].as_bool()), (200, Some(true)), "{name}");
        assert_eq!(answer.json()["name"], name);
        is(&api.get("/api/v3/users/me/uploads").key(&key).await, 401, "INVALID_API_KEY");
    }
    assert_eq!(names(&api, &ruler).await, ["test"]);
}

#[tokio::test]
async fn decoded_name_is_preferred() {
    let api = Api::start().await;
    let ruler = api.key("free", RULER).await;
    for name in ["a b", "a%20b"] {
        made(&api, &ruler, &json!({"name": name})).await;
    }
    let revoke = || api.request("DELETE", "/api/v3/tokens/revoke/a%20b").key(&ruler);
    assert_eq!(revoke().await.json()["name"], "a b");
    assert_eq!(revoke().await.json()["name"], "a%20b");
    assert_eq!(revoke().await.status(), 404);
}

#[tokio::test]
async fn key_is_revoked_by_name_in_the_body() {
    let api = Api::start().await;
    let ruler = api.key("free", RULER).await;
    made(&api, &ruler, &json!({"name": "ci"})).await;
    let revoke = |body: Value| api.post("/api/v3/tokens/revoke").key(&ruler).json(&body);
    assert_eq!(revoke(json!({})).await.status(), 400);
    assert_eq!(revoke(json!({"name": "ci", "totpCode": "123456"})).await.status(), 200);
    let gone = revoke(json!({"name": "ci"})).await;
    assert_eq!((gone.status(), gone.message().as_str()), (404, "No API key with this name"));
    let stranger = api.key("free", RULER).await;
    made(&api, &stranger, &json!({"name": "theirs"})).await;
    assert_eq!(revoke(json!({"name": "theirs"})).await.status(), 404, "it is another's");
    let with_body = api.request("DELETE", "/api/v3/tokens/revoke/theirs").key(&stranger);
    assert_eq!(with_body.json(&json!({"twoFactorCode": "123456"})).await.status(), 200);
}

#[tokio::test]
async fn key_can_revoke_itself() {
    let api = Api::start().await;
    let ruler = api.key("free", RULER).await;
    assert_eq!(api.request("DELETE", "/api/v3/tokens/revoke/test").key(&ruler).await.status(), 200);
    is(&api.get("/api/v3/tokens/list").key(&ruler).await, 401, "INVALID_API_KEY");
}

#[tokio::test]
async fn locales_need_no_credential() {
    let api = Api::start().await;
    let languages = api.get("/api/v3/locales/languages/").await.json();
    let languages = languages["languages"].as_array().expect("a list");
    assert!(languages.contains(&json!({"code": "is", "name": "Icelandic"})));
    let countries = api.get("/api/v3/locales/countries").await.json();
    assert!(
        countries["countries"]
            .as_array()
            .expect("a list")
            .contains(&json!({"code": "AX", "name": "Åland Islands"}))
    );
}

#[tokio::test]
async fn payments_are_disabled() {
    let api = Api::start().await;
    for path in ["/api/v3/payments", "/api/v3/payments/", "/api/v3/payments/checkout/session"] {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let answer = api.request(method, path).body(r#"{"plan":"premium"}"#).await;
            is(&answer, 503, "payments_disabled");
        }
    }
    assert_eq!(api.get("/api/v3/paymentsx").await.status(), 404);
}
