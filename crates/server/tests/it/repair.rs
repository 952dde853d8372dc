//! A store that is damaged: found out, and made whole again.

use std::process::Output;

use reqwest::StatusCode;
use serde_json::Value;

use crate::content::Dag;
use crate::provider::{Provider, assert_held};
use crate::server::TestServer;

/// A server that has this DAG pinned, stopped; whoever has the DAG is there again when it starts.
async fn stopped_with(dag: &Dag, provider: &Provider) -> TestServer {
    stopped_beside(dag, &provider.address().await).await
}

/// The same, with all of these as its peers.
async fn stopped_beside(dag: &Dag, peers: &str) -> TestServer {
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

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

async fn refuses_to_start(server: &TestServer, hint: &str) {
    let args =
        ["serve", "--listen", "127.0.0.1:0", "--swarm-listen", "/ip4/127.0.0.1/tcp/0", "--no-bootstrap"];
    let refused = server.cli(&args).await;
    assert!(refused.status.code() == Some(1) && said(&refused).contains(hint), "{}", said(&refused));
}

async fn is_mended(server: &TestServer, dag: &Dag) {
    let is_whole =
        |stats: &Value| stats["damagedBlocks"] == 0 && stats["reverify_counts"] == 0 && stats["holds"] == 1;
    server.until_stats("mended", is_whole).await;
    server.cli_ok(&["blocks", "verify"]).await;
    let pin = server.admin().status(&dag.text()).await.1;
    assert_eq!(
        (&pin["status"], &pin["error"], &pin["progress"]["bytes"]),
        (&"pinned".into(), &Value::Null, &dag.bytes().into())
    );
    assert_held(server, dag).await;
    let users: Value = serde_json::from_str(&server.cli_ok(&["user", "list", "--json"]).await).unwrap();
    assert_eq!(users["usedBytes"], dag.bytes(), "it is charged once");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_blocks_are_found_named_and_fetched_again() {
    let dag = Dag::flat(20, 30, 50_000);
    let (first, second) = (Provider::of(&dag).await, Provider::of(&Dag::flat(99, 1, 10)).await);
    let peers = format!("{},{}", first.address().await, second.address().await);
    let mut server = stopped_beside(&dag, &peers).await;
    // Nobody has it for a while.
    first.stop().await;
    for block in [&dag.blocks[3], &dag.blocks[17]] {
        server.damage(block.data());
    }
    server.restart().await;

    let verified = server.cli(&["blocks", "verify"]).await;
    assert_eq!(verified.status.code(), Some(1), "{}", said(&verified));
    for word in [dag.blocks[3].cid(), dag.blocks[17].cid(), dag.root()].map(ToString::to_string) {
        assert!(said(&verified).contains(&word), "{word}: {}", said(&verified));
    }
    assert!(said(&verified).contains("admin@localhost"), "{}", said(&verified));
    let listed = server.cli(&["blocks", "verify", "--json"]).await;
    let blocks: Vec<Value> = String::from_utf8(listed.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(blocks.len(), 2);
    assert_eq!((&blocks[0]["bytes"], &blocks[0]["pins"][0]["cid"]), (&50_000.into(), &dag.text().into()));

    let is_told = |pin: &Value| pin["damagedBlocks"] == 2 && pin["error"].is_string();
    let pin = server.admin().until(&dag.text(), "told to be damaged", is_told).await;
    assert_eq!(pin["status"], "pinned", "the promise stands: {pin}");
    let metrics = server.metrics(&server.key).await;
    assert_eq!(metrics.0, StatusCode::OK);
    for line in [
        "pinfold_damaged_blocks{cluster=\"cl0-global\"} 2",
        "pinfold_damaged_pins{cluster=\"cl0-global\"} 1",
        &format!("pinfold_held_bytes{{cluster=\"cl0-global\"}} {}", dag.bytes()),
    ] {
        assert!(metrics.1.lines().any(|told| told == line), "{line}: {}", metrics.1);
    }
    let repair = server.cli_ok(&["blocks", "repair"]).await;
    assert!(repair.starts_with("2 blocks are damaged"), "{repair}");

    second.add(&dag).await;
    is_mended(&server, &dag).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_segment_is_accepted_and_its_blocks_are_fetched_again() {
    let dag = Dag::flat(21, 60, 50_000);
    let provider = Provider::of(&dag).await;
    let mut server = stopped_with(&dag, &provider).await;
    let mut segments = server.segments();
    segments.sort();
    assert!(segments.len() >= 3, "{segments:?}");
    std::fs::remove_file(&segments[0]).unwrap();
    let cut = std::fs::File::options().write(true).open(&segments[1]).unwrap();
    cut.set_len(400_000).unwrap();

    refuses_to_start(&server, "pinfold blocks repair").await;
    let stats = server.cli(&["blocks", "stats"]).await;
    assert!(said(&stats).contains("pinfold blocks repair"), "{}", said(&stats));
    let repair = server.cli(&["blocks", "repair"]).await;
    assert!(repair.status.success() && said(&repair).contains("1 pinned DAGs"), "{}", said(&repair));
    assert!(said(&repair).contains(segments[0].to_str().unwrap()), "{}", said(&repair));
    server.restart().await;
    assert_eq!(server.admin().status(&dag.text()).await.1["status"], "pinned");
    is_mended(&server, &dag).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_index_is_made_anew_from_the_segments() {
    let dag = Dag::flat(22, 40, 50_000);
    let provider = Provider::of(&dag).await;
    let mut server = stopped_with(&dag, &provider).await;
    provider.stop().await;
    std::fs::remove_dir_all(server.data_dir().join("blocks/index")).unwrap();
    refuses_to_start(&server, "pinfold blocks rebuild-index").await;

    server.cli_ok(&["blocks", "rebuild-index"]).await;
    server.restart().await;
    let pin = server.admin().status(&dag.text()).await.1;
    assert_eq!(pin["status"], "pinned", "at every moment: {pin}");
    is_mended(&server, &dag).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_whose_blocks_nobody_has_stays_and_says_so_until_a_car_brings_them() {
    let dag = Dag::flat(23, 20, 50_000);
    let provider = Provider::of(&dag).await;
    let mut server = stopped_with(&dag, &provider).await;
    provider.stop().await;
    server.damage(dag.blocks[5].data());
    server.cli_ok(&["blocks", "rebuild-index"]).await;
    server.restart().await;

    let said_so = |pin: &Value| pin["status"] == "pinned" && pin["error"].is_string();
    server.admin().until(&dag.text(), "reported", said_so).await;
    let stats = server.until_stats("reported", |stats| stats["incompletePins"] == 1).await;
    assert!(stats["heldBlocks"].as_u64() >= Some(20), "the guard of what was rebuilt stays: {stats}");
    server.admin().until(&dag.text(), "tried again", |pin| pin["attempts"].as_u64() >= Some(2)).await;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved.car");
    std::fs::write(&path, dag.car(&[*dag.root()])).unwrap();
    server.cli_ok(&["import", path.to_str().unwrap()]).await;
    is_mended(&server, &dag).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_is_not_made_anew_under_a_running_server() {
    let server = TestServer::start().await;
    let refused = server.cli(&["blocks", "rebuild-index"]).await;
    assert!(
        refused.status.code() == Some(1) && said(&refused).contains("while no server runs"),
        "{}",
        said(&refused)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_the_operators_alone() {
    let server = TestServer::start().await;
    assert_eq!(server.metrics("").await.0, StatusCode::UNAUTHORIZED);
    let alice = server.account("alice").await;
    assert_eq!(server.metrics(alice.key()).await.0, StatusCode::FORBIDDEN);
    assert!(server.metrics(&server.key).await.1.starts_with("# HELP pinfold_blocks "));
}
