//! Shutdown, and conditions under which a server does not start.

use std::time::Duration;

use reqwest::{Method, StatusCode};

use crate::content::Dag;
use crate::provider::Provider;
use crate::server::TestServer;

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_answers_waiting_requests_and_their_pins_continue() {
    let dag = Dag::flat(12, 20, 20_000);
    let provider = Provider::of(&dag.part(5)).await;
    let mut server = TestServer::with(&[("node.peers", &provider.address().await)]).await;
    let answer = {
        let admin = server.admin();
        let path = format!("/files/pin/{}", dag.text());
        let waits = admin.send(Method::POST, &path, None, None);
        let stops = async {
            let begun = |pin: &serde_json::Value| pin["progress"]["blocks"].as_u64() >= Some(6);
            admin.until(&dag.text(), "begun", begun).await;
            server.terminate().await;
        };
        let (answer, ()) = tokio::join!(waits, stops);
        answer
    };
    assert_eq!(answer.0, StatusCode::ACCEPTED, "{}", answer.1);
    assert_eq!(answer.1["status"], "pinning");
    server.stopped().await;

    provider.add(&dag).await;
    server.restart().await;
    server.admin().until_pinned(&dag.text()).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn second_process_on_the_same_data_directory_is_refused() {
    let server = TestServer::start().await;
    let args =
        ["serve", "--listen", "127.0.0.1:0", "--swarm-listen", "/ip4/127.0.0.1/tcp/0", "--no-bootstrap"];
    let second = server.cli(&args).await;
    assert_eq!(second.status.code(), Some(1));
    let message = String::from_utf8(second.stderr).unwrap();
    let folder = server.data_dir().display().to_string();
    assert!(message.contains(&folder) && message.contains("--data-dir"), "{message}");
    assert!(message.contains(&format!("process {}", server.pid())), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn port_in_use_is_named() {
    let server = TestServer::start().await;
    let other = tempfile::tempdir().unwrap();
    let folder = other.path().to_str().unwrap();
    let taken = server.url().trim_start_matches("http://");
    let args = ["serve", "--data-dir", folder, "--no-bootstrap", "--swarm-listen", "/ip4/127.0.0.1/tcp/0"];
    let refused = server.cli(&[&args[..], &["--listen", taken]].concat()).await;
    let message = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{message}");
    assert!(message.contains(taken) && message.contains("--listen"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_server_stops_quickly() {
    let mut server = TestServer::start().await;
    tokio::time::timeout(Duration::from_secs(60), server.stop()).await.expect("the server stops in time");
}
