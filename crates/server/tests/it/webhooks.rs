//! Webhooks of the real binary: retries, signatures, restarts, target checks.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::server::{Client, TIMEOUT, TestServer};
use crate::webhook_receiver::{Receiver, Response};

/// Settings that allow webhooks on loopback.
const ALLOW_LOOPBACK: [(&str, &str); 2] =
    [("webhooks.allow_http", "true"), ("webhooks.allow_private", "true")];

/// Creates a webhook and returns its id and secret.
async fn create_webhook(client: &Client<'_>, url: &str) -> (String, String) {
    let (status, created) = client.send(Method::POST, "/webhooks", None, Some(json!({ "url": url }))).await;
    assert_eq!(status, StatusCode::CREATED, "{created}");
    let text = |name: &str| created[name].as_str().unwrap().to_owned();
    (text("id"), text("secret"))
}

/// Waits until the newest delivery of a webhook satisfies `wanted`, and returns it.
async fn until_delivery(client: &Client<'_>, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut polls = tokio::time::interval(std::time::Duration::from_millis(50));
    let found = async {
        loop {
            polls.tick().await;
            let (_, page) = client.send(Method::GET, &format!("/webhooks/{id}/deliveries"), None, None).await;
            if wanted(&page["deliveries"][0]) {
                return page["deliveries"][0].clone();
            }
        }
    };
    tokio::time::timeout(TIMEOUT, found).await.expect("the delivery changes in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_delivery_is_retried_until_it_succeeds() {
    let server = TestServer::with(&ALLOW_LOOPBACK).await;
    let admin = server.admin();
    let receiver = Receiver::start().await;
    receiver.script([Response::Status(500)]);
    let (id, secret) = create_webhook(&admin, &receiver.url()).await;
    let (status, file) = admin.upload("f", vec![3; 100_000]).await;
    assert_eq!(status, StatusCode::CREATED, "{file}");

    let requests = receiver.until_requests(2).await;
    for request in &requests {
        assert!(request.is_signed_with(&secret));
        assert!(request.timestamp() > 1_700_000_000, "{}", request.timestamp());
        assert_eq!((request.event().as_str(), &request.json()["data"]["cid"]), ("pin.pinned", &file["cid"]));
    }
    assert_eq!((requests[0].id(), &requests[0].body), (requests[1].id(), &requests[1].body));
    let done = until_delivery(&admin, &id, |delivery| delivery["status"] == "delivered").await;
    assert_eq!((&done["attempts"], &done["responseStatus"]), (&json!(2), &json!(200)));

    admin.remove(file["cid"].as_str().unwrap()).await;
    let request = receiver.until_requests(3).await.remove(2);
    assert_eq!(
        (request.event().as_str(), &request.json()["data"]["status"]),
        ("pin.removed", &json!("unpinned"))
    );
    assert!(!server.log_text().contains(&secret), "no secret is logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_survive_a_kill_of_the_server_and_an_unavailable_receiver() {
    let mut server = TestServer::with(&ALLOW_LOOPBACK).await;
    let receiver = Receiver::start().await;
    receiver.script([Response::Waits]);
    let (_, secret) = create_webhook(&server.admin(), &receiver.url()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let down = listener.local_addr().unwrap();
    drop(listener);
    let (unreachable, _) = create_webhook(&server.admin(), &format!("http://{down}/hook")).await;
    assert_eq!(server.admin().upload("f", vec![3; 100_000]).await.0, StatusCode::CREATED);
    // One delivery is in flight and one has failed when the server is killed.
    let first = receiver.until_requests(1).await.remove(0);
    let failed = until_delivery(&server.admin(), &unreachable, |delivery| delivery["attempts"] == 1).await;
    assert_eq!(failed["error"], "The connection could not be established");
    server.kill().await;

    let back = Receiver::on(down).await;
    server.restart().await;
    let again = receiver.until_requests(2).await.remove(1);
    assert!(again.is_signed_with(&secret));
    assert_eq!((again.id(), &again.body), (first.id(), &first.body));
    let late = back.until_requests(1).await.remove(0);
    assert_eq!(late.id(), failed["id"].as_str().unwrap());
    let done =
        until_delivery(&server.admin(), &unreachable, |delivery| delivery["status"] == "delivered").await;
    assert_eq!(done["attempts"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn private_targets_are_unreachable_by_name_address_and_redirect() {
    let internal = Receiver::start().await;
    let permissive = TestServer::with(&ALLOW_LOOPBACK).await;
    let receiver = Receiver::start().await;
    receiver.script([Response::Redirect(internal.url())]);
    let (id, _) = create_webhook(&permissive.admin(), &receiver.url()).await;
    let test = format!("/webhooks/{id}/test");
    assert_eq!(permissive.admin().send(Method::POST, &test, None, None).await.0, StatusCode::ACCEPTED);
    let delivery = until_delivery(&permissive.admin(), &id, |delivery| delivery["attempts"] == 1).await;
    assert_eq!(
        (&delivery["responseStatus"], &delivery["error"]),
        (&json!(302), &json!("The receiver responded with status 302"))
    );

    let restrictive = TestServer::with(&[("webhooks.allow_http", "true")]).await;
    let admin = restrictive.admin();
    let port = internal.address().port();
    for host in
        ["127.0.0.1", "127.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1", "169.254.169.254"]
    {
        let body = json!({ "url": format!("http://{host}:{port}/hook") });
        let (status, refused) = admin.send(Method::POST, "/webhooks", None, Some(body)).await;
        assert_eq!(
            (status, &refused["message"]),
            (StatusCode::BAD_REQUEST, &json!("The URL's host must be a public address")),
            "{host}"
        );
    }
    let (id, _) = create_webhook(&admin, &format!("http://localhost:{port}/hook")).await;
    admin.send(Method::POST, &format!("/webhooks/{id}/test"), None, None).await;
    let delivery = until_delivery(&admin, &id, |delivery| delivery["attempts"] == 1).await;
    assert_eq!(delivery["error"], "The host resolves to an address that is not public");
    assert!(internal.requests().is_empty(), "{:?}", internal.requests());
}
