//! Several accounts on one server, and administration of accounts while it runs.

use reqwest::StatusCode;
use serde_json::json;

use crate::content::Dag;
use crate::provider::{Provider, assert_not_stored, assert_stored};
use crate::server::TestServer;

#[tokio::test(flavor = "multi_thread")]
async fn content_is_kept_until_its_last_pin_is_removed() {
    let dag = Dag::flat(5, 8, 10_000);
    let provider = Provider::of(&dag).await;
    let server = TestServer::with(&[("node.peers", &provider.address().await)]).await;
    let (alice, bob) = (server.account("alice").await, server.account("bob").await);
    assert_eq!(alice.pin(&dag.text()).await.0, StatusCode::CREATED);
    provider.stop().await;
    let (status, body) = bob.pin(&dag.text()).await;
    assert_eq!(status, StatusCode::CREATED, "the content is already stored, but the pin is new: {body}");

    assert_eq!(alice.remove(&dag.text()).await.0, StatusCode::OK);
    assert_stored(&server, &dag).await;
    assert_eq!(alice.uploads().await["uploads"], json!([]));
    assert_eq!(bob.uploads().await["total"], 1);

    assert_eq!(bob.remove(&dag.text()).await.0, StatusCode::OK);
    assert_not_stored(&server, dag.root()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_key_is_rejected() {
    let server = TestServer::start().await;
    server.cli_ok(&["user", "create", "--email", "eve@example.org", "--no-password"]).await;
    let eve = ["--email", "eve@example.org", "--name", "k"];
    let key = server.cli_ok(&[&["token", "create"][..], &eve[..]].concat()).await;
    server.cli_ok(&["ls", "--key", &key]).await;
    let listed = server.cli_ok(&["token", "list", "--email", "eve@example.org", "--json"]).await;
    assert!(listed.contains("\"name\":\"k\"") && !listed.contains(&key), "{listed}");
    server.cli_ok(&[&["token", "revoke"][..], &eve[..]].concat()).await;
    let refused = server.cli(&["ls", "--key", &key]).await;
    assert_eq!(refused.status.code(), Some(1));
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(message.contains("pinfold token create"), "the message says what to do: {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn password_is_set_while_the_server_runs() {
    let server = TestServer::start().await;
    server.cli_ok(&["user", "create", "--email", "ada@example.org", "--no-password"]).await;
    let login = async |password: &str| {
        let body = json!({"email": "ada@example.org", "password": password});
        let sending = server.http().post(format!("{}/api/v3/auth/login", server.url())).json(&body);
        sending.send().await.unwrap().status()
    };
    assert_eq!(login("correct horse").await, StatusCode::UNAUTHORIZED);
    let common = server.cli_with(&["user", "password", "ada@example.org"], b"password1\n").await;
    assert_eq!(common.status.code(), Some(1));
    let set = server.cli_with(&["user", "password", "ada@example.org"], b"correct horse\n").await;
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    assert_eq!(login("correct horse").await, StatusCode::OK);
    let off = server.cli(&["user", "disable-2fa", "ada@example.org"]).await;
    let message = String::from_utf8(off.stderr).unwrap();
    assert!(off.status.code() == Some(1) && message.contains("not set up"), "{message}");
}
