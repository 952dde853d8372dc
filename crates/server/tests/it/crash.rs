//! SIGKILL at critical moments.

use reqwest::StatusCode;

use crate::content::Dag;
use crate::provider::{Provider, assert_stored};
use crate::server::TestServer;

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_pin_survives_a_kill() {
    let dag = Dag::flat(6, 50, 50_000);
    let provider = Provider::of(&dag).await;
    let mut server = TestServer::with(&[("node.peers", &provider.address().await)]).await;
    assert_eq!(server.admin().pin(&dag.text()).await.0, StatusCode::CREATED);
    server.kill().await;
    provider.stop().await;

    server.restart().await;
    let pin = server.admin().until_pinned(&dag.text()).await;
    assert_eq!(pin["progress"]["bytes"], dag.bytes());
    assert_stored(&server, &dag).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_upload_survives_a_kill() {
    let mut server = TestServer::start().await;
    let (status, file) = server.admin().upload("f", vec![3; 5_000_000]).await;
    assert_eq!(status, StatusCode::CREATED, "{file}");
    server.kill().await;
    server.restart().await;
    let cid = file["cid"].as_str().unwrap();
    server.admin().until_pinned(cid).await;
    let second = TestServer::with(&[("node.peers", &server.addresses().join(","))]).await;
    assert_eq!(second.admin().pin(cid).await.0, StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_pin_continues_with_its_stored_blocks() {
    let dag = Dag::flat(7, 60, 50_000);
    let provider = Provider::of(&dag.part(30)).await;
    let mut server = TestServer::with(&[("node.peers", &provider.address().await)]).await;
    server.admin().pin_async(&dag.text()).await;
    let half = |pin: &serde_json::Value| pin["progress"]["blocks"].as_u64() >= Some(31);
    server.admin().until(&dag.text(), "half fetched", half).await;
    server.kill().await;

    provider.add(&dag).await;
    server.restart().await;
    let pin = server.admin().until_pinned(&dag.text()).await;
    assert_eq!(pin["progress"]["bytes"], dag.bytes());
    provider.stop().await;
    assert_stored(&server, &dag).await;
}
