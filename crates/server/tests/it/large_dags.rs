//! Much: many small blocks, and many bytes. The providers make blocks as they are asked for, so that what
//! is measured and bounded is the server.

use reqwest::StatusCode;

use crate::content::{Dag, MadeBlocks};
use crate::provider::Provider;
use crate::server::TestServer;

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_small_files() {
    let folders = (0..20).map(|i| Dag::flat(100 + i, 1000, 300)).collect();
    let dag = Dag::over(folders);
    let provider = Provider::of(&dag).await;
    let server = TestServer::with(&[("node.peers", &provider.address().await)]).await;
    let (status, pin) = server.admin().pin(&dag.text()).await;
    assert_eq!(status, StatusCode::CREATED, "{pin}");
    assert_eq!(pin["size"], dag.bytes());
    let pin = server.admin().until_pinned(&dag.text()).await;
    assert_eq!(pin["progress"]["blocks"], 20_021);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gibibyte_comes_in_and_its_space_goes_back() {
    let made = MadeBlocks::new(11, 1024, 1 << 20);
    let (root, nodes) = (*made.root().cid(), made.root().data().len() as u64);
    let provider = Provider::over(made, &[]).await;
    let server = TestServer::with(&[("node.peers", &provider.address().await)]).await;
    let admin = server.admin();
    admin.pin_later(&root.to_string()).await;
    let pin = admin.until_pinned(&root.to_string()).await;
    assert_eq!(pin["progress"]["bytes"], (1 << 30) + nodes);
    assert!(server.disk_bytes() >= 1 << 30);

    assert_eq!(admin.remove(&root.to_string()).await.0, StatusCode::OK);
    server.until_disk_is_below(100 << 20).await;
}
