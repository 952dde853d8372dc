//! Where content comes from: providers that go and come.

use crate::content::Dag;
use crate::provider::{Provider, assert_held};
use crate::server::TestServer;

#[tokio::test(flavor = "multi_thread")]
async fn another_provider_takes_over_when_one_goes_away_mid_transfer() {
    let dag = Dag::flat(8, 80, 40_000);
    let first = Provider::of(&dag.part(20)).await;
    let server = TestServer::with(&[("node.peers", &first.address().await)]).await;
    let admin = server.admin();
    admin.pin_later(&dag.text()).await;
    let begun = |pin: &serde_json::Value| pin["progress"]["blocks"].as_u64() >= Some(21);
    admin.until(&dag.text(), "begun", begun).await;
    first.stop().await;

    let second = Provider::beside(&server, &dag).await;
    admin.until_pinned(&dag.text()).await;
    second.stop().await;
    assert_held(&server, &dag).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_providers_with_half_each_make_a_whole() {
    let halves = [Dag::flat(9, 30, 30_000), Dag::flat(10, 30, 30_000)];
    let dag = Dag::over(halves.to_vec());
    let [left, right] = halves;
    let left =
        Provider::of(&Dag { blocks: [left.blocks, vec![dag.blocks[dag.blocks.len() - 1].clone()]].concat() })
            .await;
    let right = Provider::of(&right).await;
    let peers = format!("{},{}", left.address().await, right.address().await);
    let server = TestServer::with(&[("node.peers", &peers)]).await;
    server.admin().pin_later(&dag.text()).await;
    let pin = server.admin().until_pinned(&dag.text()).await;
    assert_eq!(pin["progress"]["bytes"], dag.bytes());
}
