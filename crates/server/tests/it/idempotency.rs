//! Idempotency keys across a kill of the server.

use reqwest::StatusCode;

use crate::content::Dag;
use crate::server::TestServer;

/// Pins with an idempotency key, waiting this many seconds.
async fn pin_with_key(
    server: &TestServer,
    cid: &str,
    key: &str,
    wait: u32,
) -> reqwest::Result<reqwest::Response> {
    let request = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = request.post(format!("{}/api/v3/files/pin/{cid}", server.url()));
    let request = request.header("X-API-Key", &server.key).header("Idempotency-Key", key);
    request.header("Prefer", format!("wait={wait}")).send().await
}

#[tokio::test(flavor = "multi_thread")]
async fn request_interrupted_by_a_kill_runs_again_and_a_completed_one_is_replayed() {
    let (dag, other) = (Dag::flat(8, 3, 1_000), Dag::flat(9, 3, 1_000));
    let mut server = TestServer::with(&[("pins.find_seconds", "120")]).await;
    let completed = pin_with_key(&server, &other.text(), "completed", 0).await.unwrap();
    assert_eq!(completed.status(), StatusCode::ACCEPTED);
    let completed = completed.text().await.unwrap();
    let kill = async {
        // The pin is recorded after the idempotency key.
        server.admin().until(&dag.text(), "asked for", |_| true).await;
        let pid = server.pid().to_string();
        let killed = tokio::process::Command::new("kill").args(["-KILL", &pid]).status().await.unwrap();
        assert!(killed.success());
    };
    let cid = dag.text();
    let (interrupted, ()) = tokio::join!(pin_with_key(&server, &cid, "interrupted", 100), kill);
    assert!(interrupted.is_err(), "{interrupted:?}");
    server.kill().await;
    server.restart().await;
    let again = pin_with_key(&server, &dag.text(), "interrupted", 0).await.unwrap();
    assert_eq!(again.status(), StatusCode::ACCEPTED, "the key is not in use any more");
    assert_eq!(again.headers().get("idempotent-replayed"), None);
    let replayed = pin_with_key(&server, &other.text(), "completed", 0).await.unwrap();
    assert_eq!(replayed.headers()["idempotent-replayed"], "true");
    assert!(replayed.headers().contains_key("location"));
    assert_eq!(replayed.text().await.unwrap(), completed);
}
