//! Requests that cannot be fulfilled: the response has the reason, and nothing is left behind.

use reqwest::StatusCode;
use serde_json::json;

use crate::content::Dag;
use crate::provider::{Provider, assert_not_stored};
use crate::server::TestServer;

#[tokio::test(flavor = "multi_thread")]
async fn cid_without_provider_is_not_found_and_leaves_nothing() {
    let server = TestServer::with(&[("pins.find_seconds", "1"), ("pins.attempts_max", "1")]).await;
    let admin = server.admin();
    let nowhere = Dag::raw("no provider").text();
    let (status, body) = admin.pin(&nowhere).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{body}");
    assert_eq!(body["message"], "CID not found");
    assert_eq!(admin.uploads().await["uploads"], json!([]));
    assert_eq!(admin.status(&nowhere).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn dag_over_the_quota_is_rejected_during_the_fetch_and_leaves_nothing() {
    let dag = Dag::flat(3, 64, 128 * 1024);
    let provider = Provider::of(&dag).await;
    let server = TestServer::with(&[
        ("node.peers", &provider.address().await),
        ("plans.free.storage_bytes", "1000000"),
    ])
    .await;
    let alice = server.account("alice").await;
    let (status, body) = alice.pin(&dag.text()).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{body}");
    assert_eq!(body["code"], "quota_exceeded");
    assert_eq!(alice.uploads().await["uploads"], json!([]));
    provider.stop().await;
    assert_not_stored(&server, dag.root()).await;

    let small = Dag::flat(4, 4, 100_000);
    let provider = Provider::connected_to(&server, &small).await;
    let (status, body) = alice.pin(&small.text()).await;
    assert_eq!(status, StatusCode::CREATED, "rejected content is not accounted: {body}");
    provider.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_cid_is_a_bad_request() {
    let server = TestServer::start().await;
    for word in ["nonsense", "Qm", "bafy"] {
        let (status, body) = server.admin().pin(word).await;
        assert_eq!((status, &body["message"]), (StatusCode::BAD_REQUEST, &json!("Invalid CID")), "{word}");
    }
}
