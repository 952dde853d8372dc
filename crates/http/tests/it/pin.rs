//! Pinning by CID.

use std::convert::Infallible;
use std::future::IntoFuture;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use futures::stream;
use hyper::body::{Frame, SizeHint};
use insta::assert_snapshot;
use pinfold_http::Settings;

use crate::harness::{Answer, Api, HELLO, HELLO_FORMS};

fn pin(cid: &str) -> String {
    format!("/api/v3/files/pin/{cid}")
}

#[tokio::test]
async fn documented_request_gets_the_documented_answer() {
    let api = Api::start().await;
    let key = api.key("free", "files:write").await;
    let answer = api.post(&pin(HELLO)).key(&key).body(r#"{"cl":"cl0-global"}"#).await;
    assert_eq!(answer.status(), 201);
    assert_snapshot!(answer.masked(), @r#"{"cid":"bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq","clusterId":"cl0-global","expiresAt":null,"retainUntil":null,"pinned":true,"status":"pinned","uploadId":"[id]","name":null,"originalName":null,"customName":null,"size":5,"type":"file","createdAt":"2026-01-01T00:00:00.000Z"}"#);

    let again = api.post(&pin(HELLO)).key(&key).body(r#"{"customName":"hello"}"#).await;
    assert_eq!(again.status(), 200, "it was there");
    assert_eq!(again.json()["customName"], "hello");
    assert_eq!(again.json()["uploadId"], answer.json()["uploadId"]);
}

#[tokio::test]
async fn body_is_optional() {
    let api = Api::start().await;
    let key = api.key("free", "files:write").await;
    for body in ["", "{}", "[]", "null", r#"{"cl":"","timelock":null,"unknown":[{}]}"#] {
        let answer = api.post(&pin(HELLO)).key(&key).body(body).await;
        assert!(matches!(answer.status(), 200 | 201), "{body:?}: {}", answer.text());
    }
}

#[tokio::test]
async fn every_encoding_of_a_cid_is_one_pin() {
    let api = Api::start().await;
    let key = api.key("free", "files:write,files:read").await;
    for form in HELLO_FORMS {
        let answer = api.post(&pin(form)).key(&key).await;
        assert_eq!(answer.json()["cid"], HELLO, "{form}");
    }
    assert_eq!(api.get("/api/v3/users/me/uploads").key(&key).await.json()["total"], 1);
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let api = Api::start().await;
    let key = api.key("premium", "files:write").await;
    for cid in ["nonsense", "%00", "%ff", "Qm", &"b".repeat(700)] {
        let answer = api.post(&pin(cid)).key(&key).await;
        assert_eq!((answer.status(), answer.message()), (400, "Invalid CID".into()), "{cid}");
    }
    let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    for (body, word) in [
        (r#"{"cl":5}"#, "`cl`"),
        (r#"{"customName":["a"]}"#, "`customName`"),
        (r#"{"customName":"a\u0000"}"#, "`customName`"),
        (r#"{"timelock":"yesterday"}"#, "timelock"),
        (r#"{"timelock":"2020-01-01T00:00:00Z"}"#, "future"),
        (r#"{"cl":"nowhere"}"#, "Unknown cluster"),
        ("{", "JSON"),
        ("[1]", "JSON object"),
        (deep.as_str(), "JSON"),
    ] {
        let answer = api.post(&pin(HELLO)).key(&key).body(body).await;
        assert_eq!(answer.status(), 400, "{body:.40}: {}", answer.text());
        assert!(answer.message().contains(word), "{body:.40}: {}", answer.text());
    }
    let huge = format!(r#"{{"x":"{}"}}"#, "x".repeat(70_000));
    let answer = api.post(&pin(HELLO)).key(&key).body(&huge).await;
    assert_eq!((answer.status(), answer.code()), (413, "FILE_TOO_LARGE".into()));
}

#[tokio::test]
async fn body_without_end_is_refused() {
    let mut settings = Settings::default();
    settings.bodies.json_time = Duration::from_millis(20);
    let api = Api::start_with(settings).await;
    let key = api.key("free", "files:write").await;
    let body = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    assert_eq!(api.post(&pin(HELLO)).key(&key).stream(body).await.status(), 408);
}

/// A body that declares its length and never arrives.
struct Announced(u64);

impl HttpBody for Announced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0)
    }
}

#[tokio::test]
async fn body_with_too_large_declared_length_is_not_read() {
    let mut settings = Settings::default();
    settings.bodies.json_time = Duration::from_millis(20);
    let api = Api::start_with(settings).await;
    let key = api.key("free", "files:write").await;
    let answer = api.post(&pin(HELLO)).key(&key).stream(Body::new(Announced(5_000_000_000))).await;
    assert_eq!((answer.status(), answer.code()), (413, "FILE_TOO_LARGE".into()));
}

#[tokio::test]
async fn timelock_is_stored_and_returned() {
    let api = Api::start().await;
    let key = api.key("premium", "files:write").await;
    let body = r#"{"timelock":"2027-01-01T01:59:59+02:00"}"#;
    let answer = api.post(&pin(HELLO)).key(&key).body(body).await;
    assert_eq!(answer.json()["expiresAt"], "2026-12-31T23:59:59.000Z");
    let again = api.post(&pin(HELLO)).key(&key).await;
    assert_eq!(again.json()["expiresAt"], "2026-12-31T23:59:59.000Z", "leaving it out does not drop it");
}

#[tokio::test]
async fn cluster_can_be_named_in_four_places() {
    let api = Api::start().await;
    let key = api.key("free", "files:write").await;
    let cluster = |answer: Answer| answer.json()["clusterId"].clone();
    assert_eq!(cluster(api.post(&pin(HELLO)).key(&key).body(r#"{"cl":"cl1-eu"}"#).await), "cl1-eu");
    assert_eq!(cluster(api.post(&format!("{}?cl=cl1-eu", pin(HELLO))).key(&key).await), "cl1-eu");
    let by_header = || api.post(&pin(HELLO)).key(&key).header("x-cluster", "cl1-eu");
    assert_eq!(cluster(by_header().await), "cl1-eu");
    assert_eq!(cluster(by_header().body(r#"{"cl":"cl0-global"}"#).await), "cl0-global");
}

#[tokio::test]
async fn cluster_header_applies_to_new_pins_only() {
    let api = Api::start().await;
    let key = api.key("free", "files:write,files:delete,cluster:read").await;
    assert_eq!(api.post(&format!("{}?cl=cl1-eu", pin(HELLO))).key(&key).await.status(), 201);
    let send = |method: &str, path: &str| {
        api.request(method, &format!("/api/v3{path}")).key(&key).header("x-cluster", "cl0-global")
    };
    for path in ["/status/", "/allocations/", "/status/allocations/"] {
        assert_eq!(send("GET", &format!("{path}{HELLO}")).await.status(), 200, "{path}");
        assert_eq!(send("GET", &format!("{path}{HELLO}?cl=cl0-global")).await.status(), 404, "{path}");
    }
    assert_eq!(send("GET", &format!("/status/{HELLO}/events")).open().await.status(), 200);
    assert_eq!(send("DELETE", &format!("/files/remove/{HELLO}?cl=cl0-global")).await.status(), 404);
    assert_eq!(send("DELETE", &format!("/users/me/uploads/{HELLO}")).await.status(), 200);
    for removal in ["/files/remove/", "/files/pin-batch"] {
        assert_eq!(api.post(&format!("{}?cl=cl1-eu", pin(HELLO))).key(&key).await.status(), 201);
        let removed = match removal {
            "/files/pin-batch" => send("DELETE", removal).body(&format!(r#"{{"cids":["{HELLO}"]}}"#)).await,
            _ => send("DELETE", &format!("{removal}{HELLO}")).await,
        };
        assert_eq!(removed.status(), 200, "{}", removed.text());
    }
}

#[tokio::test]
async fn unavailable_content_is_404_and_leaves_nothing() {
    let api = Api::start().await;
    api.unpublish(HELLO);
    let key = api.key("free", "files:write,files:read").await;
    let answer = api.post(&pin(HELLO)).key(&key).await;
    assert_eq!(answer.status(), 404);
    assert_snapshot!(answer.text(), @r#"{"error":"Not Found","message":"CID not found"}"#);
    assert_eq!(api.get("/api/v3/users/me/uploads").key(&key).await.json()["total"], 0);
}

#[tokio::test]
async fn respond_async_returns_location() {
    let api = Api::start().await;
    api.block_fetch(HELLO);
    let key = api.key("free", "files:write,cluster:read").await;
    let answer = api.post(&pin(HELLO)).key(&key).header("prefer", "respond-async").await;
    assert_eq!(answer.status(), 202);
    assert_eq!(answer.header("preference-applied"), "respond-async");
    assert!(matches!(answer.json()["status"].as_str(), Some("queued" | "pinning")));
    assert_eq!(answer.json()["pinned"], false);

    let location = answer.header("location").to_owned();
    assert_eq!(location, format!("/api/v3/status/{HELLO}?cl=cl0-global"));
    assert_eq!(api.get(&location).key(&key).await.status(), 200);
}

#[tokio::test]
async fn short_wait_ends_with_202() {
    let api = Api::start().await;
    api.block_fetch(HELLO);
    let key = api.key("free", "files:write").await;
    let answer = api.post(&pin(HELLO)).key(&key).header("prefer", "wait=0").await;
    assert_eq!((answer.status(), answer.header("preference-applied")), (202, "wait=0"));
}

#[tokio::test]
async fn shutdown_answers_waiting_requests() {
    let api = Api::start().await;
    let gate = api.block_fetch(HELLO);
    let key = api.key("free", "files:write").await;
    let waiting = tokio::spawn(api.post(&pin(HELLO)).key(&key).into_future());
    gate.reached().await;
    api.stop();
    let answer =
        tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("told").expect("no panic");
    assert_eq!(answer.status(), 202);
    assert!(answer.header("location").ends_with("?cl=cl0-global"));
}

#[tokio::test]
async fn pin_is_removed_by_either_route() {
    let api = Api::start().await;
    let key = api.key("free", "files:write,files:delete").await;
    for route in ["files/remove", "users/me/uploads"] {
        assert_eq!(api.post(&pin(HELLO)).key(&key).await.status(), 201);
        let path = format!("/api/v3/{route}/{HELLO}");
        let answer = api.request("DELETE", &path).key(&key).await;
        assert_eq!(answer.text(), format!(r#"{{"cid":"{HELLO}","removed":true}}"#));
        let again = api.request("DELETE", &path).key(&key).await;
        assert_eq!((again.status(), again.message()), (404, "Pin not found for this CID".into()));
    }
}

#[tokio::test]
async fn pin_of_another_account_is_not_found() {
    let api = Api::start().await;
    let (alice, bob) =
        (api.key("free", "files:write").await, api.key("free", "files:delete,cluster:read").await);
    api.post(&pin(HELLO)).key(&alice).await;
    assert_eq!(api.request("DELETE", &format!("/api/v3/files/remove/{HELLO}")).key(&bob).await.status(), 404);
    assert_eq!(api.get(&format!("/api/v3/status/{HELLO}")).key(&bob).await.status(), 404);
}
