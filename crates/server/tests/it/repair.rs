//! Damage to the block store: detection and repair.

use std::process::Output;

use reqwest::StatusCode;
use serde_json::Value;

use crate::content::Dag;
use crate::provider::{Provider, assert_stored};
use crate::server::TestServer;

/// A stopped server that has this DAG pinned and is configured with its provider as a peer.
async fn stopped_server(dag: &Dag, provider: &Provider) -> TestServer {
    stopped_server_with_peers(dag, &provider.address().await).await
}

/// The same with several peers, separated by commas.
async fn stopped_server_with_peers(dag: &Dag, peers: &str) -> TestServer {
    let mut server = TestServer::with(&[
        ("node.peers", peers),
        ("pins.find_seconds", "2"),
        ("pins.retry_first_seconds", "1"),
        ("pins.retry_max_seconds", "1"),
        ("blocks.segment_bytes", "1000000"),
    ])
    .await;
    assert_eq!(server.admin().pin(&dag.text()).await.0, StatusCode::CREATED);
    server.stop().await;
    server
}

fn output_text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

async fn assert_refuses_to_start(server: &TestServer, hint: &str) {
    let args =
        ["serve", "--listen", "127.0.0.1:0", "--swarm-listen", "/ip4/127.0.0.1/tcp/0", "--no-bootstrap"];
    let refused = server.cli(&args).await;
    assert!(
        refused.status.code() == Some(1) && output_text(&refused).contains(hint),
        "{}",
        output_text(&refused)
    );
}

async fn assert_repaired(server: &TestServer, dag: &Dag) {
    let is_intact =
        |stats: &Value| stats["damagedBlocks"] == 0 && stats["pinsToVerify"] == 0 && stats["holds"] == 1;
    server.until_stats("repaired", is_intact).await;
    server.cli_ok(&["blocks", "verify"]).await;
    let pin = server.admin().status(&dag.text()).await.1;
    assert_eq!(
        (&pin["status"], &pin["error"], &pin["progress"]["bytes"]),
        (&"pinned".into(), &Value::Null, &dag.bytes().into())
    );
    assert_stored(server, dag).await;
    let users: Value = serde_json::from_str(&server.cli_ok(&["user", "list", "--json"]).await).unwrap();
    assert_eq!(users["usedBytes"], dag.bytes(), "the storage is accounted once");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_blocks_are_reported_and_fetched_again() {
    let dag = Dag::flat(20, 30, 50_000);
    let (first, second) = (Provider::of(&dag).await, Provider::of(&Dag::flat(99, 1, 10)).await);
    let peers = format!("{},{}", first.address().await, second.address().await);
    let mut server = stopped_server_with_peers(&dag, &peers).await;
    // No provider is available for a while.
    first.stop().await;
    for block in [&dag.blocks[3], &dag.blocks[17]] {
        server.damage(block.data());
    }
    server.restart().await;

    let verified = server.cli(&["blocks", "verify"]).await;
    assert_eq!(verified.status.code(), Some(1), "{}", output_text(&verified));
    for word in [dag.blocks[3].cid(), dag.blocks[17].cid(), dag.root()].map(ToString::to_string) {
        assert!(output_text(&verified).contains(&word), "{word}: {}", output_text(&verified));
    }
    assert!(output_text(&verified).contains("admin@localhost"), "{}", output_text(&verified));
    let listed = server.cli(&["blocks", "verify", "--json"]).await;
    let blocks: Vec<Value> = String::from_utf8(listed.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(blocks.len(), 2);
    assert_eq!((&blocks[0]["bytes"], &blocks[0]["pins"][0]["cid"]), (&50_000.into(), &dag.text().into()));

    let is_reported = |pin: &Value| pin["damagedBlocks"] == 2 && pin["error"].is_string();
    let pin = server.admin().until(&dag.text(), "reported as damaged", is_reported).await;
    assert_eq!(pin["status"], "pinned", "the pin stays pinned: {pin}");
    let metrics = server.metrics(&server.key).await;
    assert_eq!(metrics.0, StatusCode::OK);
    for line in [
        "pinfold_damaged_blocks{cluster=\"cl0-global\"} 2",
        "pinfold_damaged_pins{cluster=\"cl0-global\"} 1",
        &format!("pinfold_held_bytes{{cluster=\"cl0-global\"}} {}", dag.bytes()),
    ] {
        assert!(metrics.1.lines().any(|found| found == line), "{line}: {}", metrics.1);
    }
    let repair = server.cli_ok(&["blocks", "repair"]).await;
    assert!(repair.starts_with("2 damaged blocks"), "{repair}");

    second.add(&dag).await;
    assert_repaired(&server, &dag).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_segment_is_accepted_and_its_blocks_are_fetched_again() {
    let dag = Dag::flat(21, 60, 50_000);
    let provider = Provider::of(&dag).await;
    let mut server = stopped_server(&dag, &provider).await;
    let mut segments = server.segments();
    segments.sort();
    assert!(segments.len() >= 3, "{segments:?}");
    std::fs::remove_file(&segments[0]).unwrap();
    let cut = std::fs::File::options().write(true).open(&segments[1]).unwrap();
    cut.set_len(400_000).unwrap();

    assert_refuses_to_start(&server, "pinfold blocks repair").await;
    let stats = server.cli(&["blocks", "stats"]).await;
    assert!(output_text(&stats).contains("pinfold blocks repair"), "{}", output_text(&stats));
    let repair = server.cli(&["blocks", "repair"]).await;
    assert!(
        repair.status.success() && output_text(&repair).contains("1 pinned DAGs"),
        "{}",
        output_text(&repair)
    );
    assert!(output_text(&repair).contains(segments[0].to_str().unwrap()), "{}", output_text(&repair));
    server.restart().await;
    assert_eq!(server.admin().status(&dag.text()).await.1["status"], "pinned");
    assert_repaired(&server, &dag).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_index_is_rebuilt_from_the_segments() {
    let dag = Dag::flat(22, 40, 50_000);
    let provider = Provider::of(&dag).await;
    let mut server = stopped_server(&dag, &provider).await;
    provider.stop().await;
    std::fs::remove_dir_all(server.data_dir().join("blocks/index")).unwrap();
    assert_refuses_to_start(&server, "pinfold blocks rebuild-index").await;

    server.cli_ok(&["blocks", "rebuild-index"]).await;
    server.restart().await;
    let pin = server.admin().status(&dag.text()).await.1;
    assert_eq!(pin["status"], "pinned", "the pin stays pinned: {pin}");
    assert_repaired(&server, &dag).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn incomplete_pin_is_reported_until_an_import_brings_its_blocks() {
    let dag = Dag::flat(23, 20, 50_000);
    let provider = Provider::of(&dag).await;
    let mut server = stopped_server(&dag, &provider).await;
    provider.stop().await;
    server.damage(dag.blocks[5].data());
    server.cli_ok(&["blocks", "rebuild-index"]).await;
    server.restart().await;

    let is_reported = |pin: &Value| pin["status"] == "pinned" && pin["error"].is_string();
    server.admin().until(&dag.text(), "reported", is_reported).await;
    let stats = server.until_stats("reported", |stats| stats["incompletePins"] == 1).await;
    assert!(stats["heldBlocks"].as_u64() >= Some(20), "the hold on all rebuilt blocks remains: {stats}");
    server.admin().until(&dag.text(), "tried again", |pin| pin["attempts"].as_u64() >= Some(2)).await;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved.car");
    std::fs::write(&path, dag.car(&[*dag.root()])).unwrap();
    server.cli_ok(&["import", path.to_str().unwrap()]).await;
    assert_repaired(&server, &dag).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn index_is_not_rebuilt_while_a_server_runs() {
    let server = TestServer::start().await;
    let refused = server.cli(&["blocks", "rebuild-index"]).await;
    assert!(
        refused.status.code() == Some(1) && output_text(&refused).contains("while a server runs"),
        "{}",
        output_text(&refused)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_require_the_admin_scope() {
    let server = TestServer::start().await;
    assert_eq!(server.metrics("").await.0, StatusCode::UNAUTHORIZED);
    let alice = server.account("alice").await;
    assert_eq!(server.metrics(alice.key()).await.0, StatusCode::FORBIDDEN);
    assert!(server.metrics(&server.key).await.1.starts_with("# HELP pinfold_blocks "));
}
