//! Providers that appear and disappear during a fetch.

use crate::content::Dag;
use crate::provider::{Provider, assert_stored};
use crate::server::TestServer;

#[tokio::test(flavor = "multi_thread")]
async fn fetch_continues_with_another_provider() {
    let dag = Dag::flat(8, 80, 40_000);
    let first = Provider::of(&dag.part(20)).await;
    let server = TestServer::with(&[("node.peers", &first.address().await)]).await;
    let admin = server.admin();
    admin.pin_async(&dag.text()).await;
    let begun = |pin: &serde_json::Value| pin["progress"]["blocks"].as_u64() >= Some(21);
    admin.until(&dag.text(), "begun", begun).await;
    first.stop().await;

    let second = Provider::connected_to(&server, &dag).await;
    admin.until_pinned(&dag.text()).await;
    second.stop().await;
    assert_stored(&server, &dag).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dag_is_fetched_from_two_partial_providers() {
    let halves = [Dag::flat(9, 30, 30_000), Dag::flat(10, 30, 30_000)];
    let dag = Dag::over(halves.to_vec());
    let [left, right] = halves;
    let left =
        Provider::of(&Dag { blocks: [left.blocks, vec![dag.blocks[dag.blocks.len() - 1].clone()]].concat() })
            .await;
    let right = Provider::of(&right).await;
    let peers = format!("{},{}", left.address().await, right.address().await);
    let server = TestServer::with(&[("node.peers", &peers)]).await;
    server.admin().pin_async(&dag.text()).await;
    let pin = server.admin().until_pinned(&dag.text()).await;
    assert_eq!(pin["progress"]["bytes"], dag.bytes());
}
