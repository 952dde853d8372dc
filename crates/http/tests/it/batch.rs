//! Batches of pins, locked pins, and dry runs.

use insta::assert_snapshot;
use pinfold_http::Settings;
use serde_json::{Value, json};

use crate::harness::{Answer, Api, HELLO, HELLO_FORMS, WORLD, form};

const BATCH: &str = "/api/v3/files/pin-batch";
const ALL: &str = "files:read,files:write,files:delete,cluster:read";

async fn pin_all(api: &Api, key: &str, body: Value) -> Answer {
    api.post(BATCH).key(key).body(&body.to_string()).await
}

async fn remove_all(api: &Api, key: &str, body: Value) -> Answer {
    api.request("DELETE", BATCH).key(key).body(&body.to_string()).await
}

async fn total(api: &Api, key: &str) -> Value {
    api.get("/api/v3/users/me/uploads").key(key).await.json()["total"].clone()
}

#[tokio::test]
async fn batch_reports_the_status_of_each_pin() {
    let api = Api::start().await;
    let key = api.key("premium", ALL).await;
    let gate = api.block_fetch(HELLO);
    let body = json!({"items": [{"cid": HELLO_FORMS[1], "customName": "a"}, {"cid": WORLD, "cl": "cl1-eu"}], "cl": "cl0-global"});
    let answer = pin_all(&api, &key, body).await;
    assert_eq!(answer.status(), 202, "{}", answer.text());
    assert_snapshot!(answer.masked(), @r#"{"results":[{"index":0,"created":true,"cid":"bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq","clusterId":"cl0-global","expiresAt":null,"retainUntil":null,"pinned":false,"status":"queued","uploadId":"[id]","name":"a","originalName":null,"customName":"a","size":0,"type":"unknown","createdAt":"2026-01-01T00:00:00.000Z"},{"index":1,"created":true,"cid":"bafkreicin2sgejgrxnh3nahtj56jvwlkr4sozcf6opvi4wtmmuta5hfyu4","clusterId":"cl1-eu","expiresAt":null,"retainUntil":null,"pinned":false,"status":"queued","uploadId":"[id]","name":null,"originalName":null,"customName":null,"size":0,"type":"unknown","createdAt":"2026-01-01T00:00:00.000Z"}],"total":2,"byStatus":{"queued":2}}"#);
    gate.open();
    // The single request waits until the content is fetched.
    for (cid, cl) in [(HELLO, "cl0-global"), (WORLD, "cl1-eu")] {
        let pinned = api.post(&format!("/api/v3/files/pin/{cid}?cl={cl}")).key(&key).await;
        assert_eq!(pinned.status(), 200);
    }
    let again = pin_all(&api, &key, json!({"items": [{"cid": HELLO}]})).await;
    assert_eq!(again.status(), 200, "all of them are pinned");
    assert_eq!(
        (&again.json()["results"][0]["created"], &again.json()["byStatus"]["pinned"]),
        (&json!(false), &json!(1))
    );
}

#[tokio::test]
async fn all_errors_of_a_batch_are_reported_together() {
    let api = Api::start().await;
    let key = api.key("free", ALL).await;
    let items = json!([
        {"cid": HELLO},
        {"cid": "nonsense", "timelock": "yesterday"},
        {"cid": 5},
        {},
        "text",
        {"cid": WORLD, "cl": "nowhere"},
        {"cid": WORLD, "retainUntil": "2026-06-01T00:00:00Z"},
        {"cid": HELLO, "customName": "a\u{0}"},
        {"cid": HELLO_FORMS[0]},
    ]);
    let answer = pin_all(&api, &key, json!({"items": items})).await;
    assert_eq!((answer.status(), answer.code()), (400, "batch_refused".into()), "{}", answer.text());
    let json = answer.json();
    let seen: Vec<(u64, &str)> = json["errors"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|error| (error["index"].as_u64().expect("a number"), error["code"].as_str().expect("a word")))
        .collect();
    let expected = [
        (1, "invalid_cid"),
        (1, "invalid"),
        (2, "invalid"),
        (3, "invalid_cid"),
        (4, "invalid"),
        (4, "invalid"),
        (5, "invalid"),
        (6, "retention_not_allowed"),
        (7, "invalid"),
        (8, "duplicate_item"),
    ];
    assert_eq!(seen, expected, "{}", answer.text());
    assert_eq!(json["errorCount"], expected.len());
    assert_eq!(json["errors"][0]["cid"], "nonsense");
    assert_eq!(total(&api, &key).await, 0);

    for (body, word) in [
        (json!({}), "no items"),
        (json!({"items": []}), "no items"),
        (json!({"items": {}}), "array"),
        (json!({"items": vec![json!({"cid": HELLO}); 1_001]}), "at most 1000"),
    ] {
        let answer = pin_all(&api, &key, body).await;
        assert_eq!(answer.status(), 400, "{}", answer.text());
        assert!(answer.message().contains(word), "{}", answer.text());
    }
    let plan =
        pin_all(&api, &key, json!({"items": [{"cid": HELLO, "timelock": "2026-06-01T00:00:00Z"}]})).await;
    assert_eq!((plan.status(), plan.code()), (403, "timelock_not_allowed".into()));
}

#[tokio::test]
async fn batch_has_its_own_limits() {
    let mut settings = Settings::default();
    settings.bodies.json_bytes_max = 100;
    settings.bodies.batch_bytes_max = 1_000;
    let api = Api::start_with(settings).await;
    let key = api.key("free", ALL).await;
    let body = json!({"items": [{"cid": HELLO, "customName": "x".repeat(200)}]});
    assert_eq!(pin_all(&api, &key, body).await.status(), 202);
    let body = json!({"items": [{"cid": HELLO, "customName": "x".repeat(1_000)}]});
    let answer = pin_all(&api, &key, body).await;
    assert_eq!((answer.status(), answer.code()), (413, "FILE_TOO_LARGE".into()));
}

#[tokio::test]
async fn batch_requires_its_scope() {
    let api = Api::start().await;
    let key = api.key("free", "files:read").await;
    assert_eq!(
        pin_all(&api, &key, json!({"items": [{"cid": HELLO}]})).await.json()["required"],
        "files:write"
    );
    assert_eq!(remove_all(&api, &key, json!({"cids": [HELLO]})).await.json()["required"], "files:delete");
    assert_eq!(api.post(BATCH).body("{}").await.status(), 401);
}

#[tokio::test]
async fn batch_removal_is_all_or_nothing() {
    let api = Api::start().await;
    let key = api.key("premium", ALL).await;
    for cid in [HELLO, WORLD] {
        assert_eq!(api.post(&format!("/api/v3/files/pin/{cid}")).key(&key).await.status(), 201);
    }
    let nobody = "bafkqabtimvwgy3yk";
    let answer = remove_all(&api, &key, json!({"cids": [HELLO, nobody]})).await;
    assert_eq!(answer.status(), 404, "{}", answer.text());
    assert_eq!(
        (&answer.json()["errors"][0]["index"], &answer.json()["errors"][0]["cid"]),
        (&json!(1), &json!(nobody))
    );
    let other = api.key("premium", ALL).await;
    assert_eq!(remove_all(&api, &other, json!({"cids": [HELLO]})).await.status(), 404, "it is not theirs");
    for (body, status) in [
        (json!({"cids": [HELLO, HELLO_FORMS[2]]}), 400),
        (json!({"cids": [HELLO, 5]}), 400),
        (json!({"cids": [HELLO], "items": [{"cid": WORLD}]}), 400),
        (json!({"items": [{"cid": HELLO, "cl": "no such!"}]}), 400),
        (json!({"items": [{"cid": HELLO, "cl": "cl1-eu"}]}), 404),
        (json!({}), 400),
    ] {
        let answer = remove_all(&api, &key, body).await;
        assert_eq!(answer.status(), status, "{}", answer.text());
    }
    assert_eq!(total(&api, &key).await, 2);
    let answer =
        remove_all(&api, &key, json!({"items": [{"cid": HELLO, "cl": "cl0-global"}, {"cid": WORLD}]})).await;
    assert_eq!(answer.status(), 200);
    assert_snapshot!(answer.text(), @r#"{"removed":true,"results":[{"index":0,"cid":"bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq","clusterId":"cl0-global","removed":true},{"index":1,"cid":"bafkreicin2sgejgrxnh3nahtj56jvwlkr4sozcf6opvi4wtmmuta5hfyu4","clusterId":"cl0-global","removed":true}],"total":2}"#);
    assert_eq!(total(&api, &key).await, 0);
    api.until_nothing_is_held().await;
}

const UNTIL: &str = "2026-06-01T00:00:00.000Z";

#[tokio::test]
async fn locked_pin_is_listed_and_not_removed_by_any_route() {
    let api = Api::start().await;
    let key = api.key("premium", ALL).await;
    let pin = format!("/api/v3/files/pin/{HELLO}");
    let answer = api.post(&pin).key(&key).body(r#"{"retainUntil":"2026-06-01T02:00:00+02:00"}"#).await;
    assert_eq!((answer.status(), &answer.json()["retainUntil"]), (201, &json!(UNTIL)), "{}", answer.text());
    let status = api.get(&format!("/api/v3/status/{HELLO}")).key(&key).await;
    assert_eq!(status.json()["retainUntil"], UNTIL);
    let list = api.get("/api/v3/users/me/uploads").key(&key).await;
    assert_eq!(list.json()["uploads"][0]["retainUntil"], UNTIL);

    for path in [format!("/api/v3/files/remove/{HELLO}"), format!("/api/v3/users/me/uploads/{HELLO}")] {
        let answer = api.request("DELETE", &path).key(&key).await;
        assert_eq!((answer.status(), answer.code()), (403, "retention_locked".into()));
        assert_eq!(answer.json()["retainUntil"], UNTIL);
    }
    let answer = remove_all(&api, &key, json!({"cids": [HELLO]})).await;
    assert_eq!((answer.status(), answer.code()), (403, "retention_locked".into()));
    assert_eq!(answer.json()["errors"][0]["retainUntil"], UNTIL);

    for (body, code) in [
        (r#"{"timelock":"2026-05-01T00:00:00Z"}"#, "timelock_before_retention"),
        (r#"{"retainUntil":"2026-05-01T00:00:00Z"}"#, "retention_shortened"),
        (r#"{"retainUntil":"2025-05-01T00:00:00Z"}"#, ""),
        (r#"{"retainUntil":"2999-05-01T00:00:00Z"}"#, ""),
        (r#"{"retainUntil":"soon"}"#, ""),
        (
            r#"{"retainUntil":"2026-08-01T00:00:00Z","timelock":"2026-07-01T00:00:00Z"}"#,
            "timelock_before_retention",
        ),
    ] {
        let answer = api.post(&pin).key(&key).body(body).await;
        assert_eq!((answer.status(), answer.code()), (400, code.into()), "{body}: {}", answer.text());
    }
    let answer = api.post(&pin).key(&key).body(r#"{"timelock":"2026-07-01T00:00:00Z"}"#).await;
    assert_eq!((answer.status(), &answer.json()["retainUntil"]), (200, &json!(UNTIL)));
    let answer = api.post(&pin).key(&key).body(r#"{"retainUntil":"2026-08-01T00:00:00Z"}"#).await;
    assert_eq!((answer.status(), answer.code()), (400, "retention_beyond_timelock".into()));
    assert!(answer.message().contains("later timelock"), "{}", answer.text());
}

#[tokio::test]
async fn retention_requires_a_plan_that_allows_it() {
    let api = Api::start().await;
    let (free, premium) = (api.key("free", ALL).await, api.key("premium", ALL).await);
    let answer = api
        .post(&format!("/api/v3/files/pin/{HELLO}"))
        .key(&free)
        .body(r#"{"retainUntil":"2026-06-01T00:00:00Z"}"#)
        .await;
    assert_eq!((answer.status(), answer.code()), (403, "retention_not_allowed".into()));
    let file = r#"file"; filename="a.txt"#;
    for parts in [[("retainUntil", UNTIL), (file, "a")], [(file, "a"), ("retainUntil", UNTIL)]] {
        let answer = api.post("/api/v3/files").key(&free).form(form(&parts)).await;
        assert_eq!((answer.status(), answer.code()), (403, "retention_not_allowed".into()), "{parts:?}");
        let answer = api.post("/api/v3/files").key(&premium).form(form(&parts)).await;
        assert_eq!((answer.status(), &answer.json()["retainUntil"]), (201, &json!(UNTIL)), "{parts:?}");
    }
    let files =
        [("retainUntil", UNTIL), (r#"files"; filename="b.txt"#, "b"), (r#"files"; filename="c.txt"#, "c")];
    let answer = api.post("/api/v3/files/directory-dag").key(&premium).form(form(&files)).await;
    assert_eq!((answer.status(), &answer.json()["retainUntil"]), (201, &json!(UNTIL)), "{}", answer.text());
}

#[tokio::test]
async fn dry_run_reports_and_changes_nothing() {
    let api = Api::start().await;
    let key = api.key("free", ALL).await;
    let path = format!("/api/v3/files/pin/{HELLO}?dryRun=true");
    let answer = api.post(&path).key(&key).header("prefer", "wait=3").await;
    assert_eq!((answer.status(), answer.header("preference-applied")), (200, "wait=3"));
    assert_snapshot!(answer.text(), @r#"{"dryRun":true,"cid":"bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq","clusterId":"cl0-global","pinned":false,"status":null,"uploadId":null,"size":0,"claimedSize":5,"blocks":{"here":0,"missing":1},"complete":false,"cut":null,"availability":"found","providers":null,"quota":{"charge":0,"exact":false,"used":0,"limit":1073741824,"left":1073741824,"fits":null}}"#);
    assert_eq!(total(&api, &key).await, 0);
    api.until_nothing_is_held().await;
    api.unpublish(WORLD);
    let answer =
        api.post(&format!("/api/v3/files/pin/{WORLD}?dryRun=1")).key(&key).header("prefer", "wait=0").await;
    assert_eq!((answer.status(), &answer.json()["availability"]), (200, &json!("not_found")));

    assert_eq!(api.post(&format!("/api/v3/files/pin/{HELLO}?dryRun=false")).key(&key).await.status(), 201);
    let answer = api.post(&path).key(&key).await;
    assert_snapshot!(answer.masked(), @r#"{"dryRun":true,"cid":"bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq","clusterId":"cl0-global","pinned":true,"status":"pinned","uploadId":"[id]","size":5,"claimedSize":null,"blocks":{"here":1,"missing":0},"complete":true,"cut":null,"availability":"here","providers":null,"quota":{"charge":0,"exact":true,"used":5,"limit":1073741824,"left":1073741819,"fits":true}}"#);
}

#[tokio::test]
async fn dry_run_is_refused_like_the_pin() {
    let api = Api::start().await;
    let key = api.key("free", ALL).await;
    let path = format!("/api/v3/files/pin/{HELLO}?dryRun=true");
    for (body, status, code) in [
        (r#"{"timelock":"2026-06-01T00:00:00Z"}"#, 403, "timelock_not_allowed"),
        (r#"{"retainUntil":"2026-06-01T00:00:00Z"}"#, 403, "retention_not_allowed"),
        (r#"{"cl":"nowhere"}"#, 400, ""),
        ("{", 400, ""),
    ] {
        let answer = api.post(&path).key(&key).body(body).await;
        assert_eq!((answer.status(), answer.code()), (status, code.into()), "{body}: {}", answer.text());
    }
    let answer = api.post(&format!("/api/v3/files/pin/{HELLO}?dryRun=maybe")).key(&key).await;
    assert!(answer.message().contains("dryRun"), "{}", answer.text());
    let reader = api.key("free", "files:read").await;
    assert_eq!(api.post(&path).key(&reader).await.status(), 403);
}
