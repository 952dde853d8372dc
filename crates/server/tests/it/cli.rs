//! The command line against a running server.

use std::fs;

use serde_json::Value;

use crate::content::Dag;
use crate::provider::Provider;
use crate::server::TestServer;

#[tokio::test(flavor = "multi_thread")]
async fn directory_is_added_listed_shown_and_removed() {
    let server = TestServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::write(folder.path().join("a.txt"), "alpha").unwrap();
    fs::write(folder.path().join("sub/b ü.txt"), "beta").unwrap();

    let path = folder.path().to_str().unwrap();
    let cid = server.cli_ok(&["add", path, "--name", "my folder", "--quiet"]).await;
    let listed: Value = serde_json::from_str(&server.cli_ok(&["ls", "--json"]).await).unwrap();
    assert_eq!((listed["cid"].as_str(), listed["customName"].as_str()), (Some(&*cid), Some("my folder")));
    assert!(server.cli_ok(&["ls"]).await.contains("my folder"));
    let status = server.cli_ok(&["status", &cid]).await;
    assert!(status.contains("pinned") && status.contains(&cid), "{status}");
    server.cli_ok(&["rm", &cid]).await;
    assert_eq!(server.cli_ok(&["ls"]).await, "");
    assert_eq!(server.cli(&["status", &cid]).await.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn file_has_the_same_cid_from_cli_and_http() {
    let server = TestServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hello.txt");
    fs::write(&path, "hello").unwrap();
    let added = server.cli_ok(&["add", path.to_str().unwrap(), "-q"]).await;
    assert_eq!(
        added, "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq",
        "the CID of other IPFS importers"
    );
    let (_, uploaded) = server.admin().upload("other.txt", b"hello".to_vec()).await;
    assert_eq!(uploaded["cid"], added);
}

#[tokio::test(flavor = "multi_thread")]
async fn pin_waits_for_success_or_reports_the_error() {
    let dag = Dag::flat(13, 10, 10_000);
    let provider = Provider::of(&dag).await;
    let settings =
        [("node.peers", &*provider.address().await), ("pins.find_seconds", "1"), ("pins.attempts_max", "1")];
    let server = TestServer::with(&settings).await;
    let pinned = server.cli_ok(&["pin", &dag.text(), "--name", "mine"]).await;
    assert!(pinned.starts_with("pinned ") && pinned.contains(&dag.text()), "{pinned}");

    let nowhere = server.cli(&["pin", &Dag::raw("nowhere").text()]).await;
    assert_eq!(nowhere.status.code(), Some(1));
    let message = String::from_utf8(nowhere.stderr).unwrap();
    assert!(message.contains("not found"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn id_shows_peer_id_and_addresses() {
    let server = TestServer::start().await;
    let id = server.cli_ok(&["id"]).await;
    for address in server.addresses() {
        assert!(id.contains(address.as_str()), "{address} in {id}");
    }
    let json: Value = serde_json::from_str(&server.cli_ok(&["id", "--json"]).await).unwrap();
    assert_eq!(json["id"].as_str(), id.lines().next());
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_key_or_server_is_explained() {
    let server = TestServer::start().await;
    let keyless = server.command(&["ls"]).env_remove("PINFOLD_API_KEY").output().await.unwrap();
    let message = String::from_utf8(keyless.stderr).unwrap();
    assert!(keyless.status.code() == Some(1) && message.contains("PINFOLD_API_KEY"), "{message}");
    let alone = server.cli(&["ls", "--server", "http://127.0.0.1:1"]).await;
    let message = String::from_utf8(alone.stderr).unwrap();
    assert!(alone.status.code() == Some(1) && message.contains("pinfold serve"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn try_succeeds() {
    let server = TestServer::start().await;
    let shown = server.cli_ok(&["try", "--exit"]).await;
    assert!(shown.contains("POST") && shown.contains("201 Created"), "{shown}");
}
