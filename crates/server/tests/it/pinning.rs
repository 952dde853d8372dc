//! A CID is pinned, served, listed and removed.

use cid::{Cid, Version};
use pinfold_node::Block;
use reqwest::StatusCode;
use serde_json::json;

use crate::content::Dag;
use crate::provider::{Provider, assert_not_stored, assert_stored};
use crate::server::TestServer;

#[tokio::test(flavor = "multi_thread")]
async fn pinned_dag_is_served_after_its_provider_stopped() {
    let dag = Dag::flat(1, 40, 64 * 1024);
    let provider = Provider::of(&dag).await;
    let server = TestServer::with(&[("node.peers", &provider.address().await)]).await;
    let admin = server.admin();

    let (status, pin) = admin.pin(&dag.text()).await;
    assert_eq!(status, StatusCode::CREATED, "{pin}");
    let expected = json!({
        "cid": dag.text(),
        "clusterId": "cl0-global",
        "expiresAt": null,
        "retainUntil": null,
        "pinned": true,
        "status": "pinned",
        "uploadId": pin["uploadId"],
        "name": null,
        "originalName": null,
        "customName": null,
        "type": "unknown",
        "size": dag.bytes(),
        "createdAt": pin["createdAt"],
    });
    assert_eq!(pin, expected);
    assert!(pin["uploadId"].is_string() && pin["createdAt"].is_string(), "{pin}");

    provider.stop().await;
    assert_stored(&server, &dag).await;
    assert_eq!(admin.uploads().await["total"], 1);

    let (status, again) = admin.pin(&dag.text()).await;
    assert_eq!(status, StatusCode::OK, "already pinned: {again}");
    assert_eq!(again["uploadId"], pin["uploadId"]);

    let (status, removed) = admin.remove(&dag.text()).await;
    assert_eq!(status, StatusCode::OK, "{removed}");
    assert_not_stored(&server, dag.root()).await;
    assert_eq!(admin.remove(&dag.text()).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_pins_from_another_server() {
    let first = TestServer::start().await;
    let (status, file) = first.admin().upload("file.bin", vec![7; 3 << 20]).await;
    assert_eq!(status, StatusCode::CREATED, "{file}");
    let cid = file["cid"].as_str().unwrap();

    let second = TestServer::with(&[("node.peers", &first.addresses().join(","))]).await;
    let (status, pin) = second.admin().pin(cid).await;
    assert_eq!(status, StatusCode::CREATED, "{pin}");
    assert_eq!(pin["size"], file_size_of(&first, cid).await);
}

async fn file_size_of(server: &TestServer, cid: &str) -> serde_json::Value {
    server.admin().until_pinned(cid).await["progress"]["bytes"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_blocks_are_fetched_and_counted_once() {
    let leaf = Dag::flat(2, 5, 1000);
    let branch = Dag::over(vec![leaf.clone(), leaf.clone()]);
    let dag = Dag::over(vec![branch.clone(), leaf, branch]);
    let provider = Provider::of(&dag).await;
    let server = TestServer::with(&[("node.peers", &provider.address().await)]).await;
    let (status, pin) = server.admin().pin(&dag.text()).await;
    assert_eq!(status, StatusCode::CREATED, "{pin}");
    assert_eq!(pin["size"], dag.bytes());
    assert_stored(&server, &dag).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_encodings_of_a_cid_name_the_same_pin() {
    let child = Dag::raw("hello");
    let bytes = Dag::over(vec![child.clone()]).blocks[1].data().clone();
    let v0 = Block::hash(Version::V0, 0x70, 0x12, bytes.clone()).unwrap();
    let v1 = Dag::over(vec![child.clone()]);
    let provider = Provider::of(&v1).await;
    let server = TestServer::with(&[("node.peers", &provider.address().await)]).await;
    let admin = server.admin();

    let spell = |cid: &Cid, base| cid.to_string_of_base(base).unwrap();
    use cid::multibase::Base;
    for (i, base) in
        [Base::Base32Lower, Base::Base36Lower, Base::Base58Btc, Base::Base64Url].into_iter().enumerate()
    {
        let text = spell(v1.root(), base);
        let (status, pin) = admin.pin(&text).await;
        let expected = if i == 0 { StatusCode::CREATED } else { StatusCode::OK };
        assert_eq!((status, &pin["cid"]), (expected, &v1.text().into()), "{text}: {pin}");
    }
    let (status, pin) = admin.pin(&v0.cid().to_string()).await;
    assert!(status.is_success(), "{pin}");
    assert_eq!(pin["cid"], v0.cid().to_string(), "a CIDv0 is returned as CIDv0");
}
