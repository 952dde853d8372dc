//! Webhooks and named requests, over failures of the receiver and kills of the server.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::content::Dag;
use crate::server::{Client, PATIENCE, TestServer};

/// Settings of a server that may tell receivers of this machine.
const HERE: [(&str, &str); 2] = [("webhooks.allow_http", "true"), ("webhooks.allow_private", "true")];

/// What came to a receiver.
#[derive(Debug, Clone)]
struct Told {
    id: String,
    event: String,
    signature: String,
    body: String,
}

impl Told {
    fn assert_signed_with(&self, secret: &str) {
        let (time, digest) = self.signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
        let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        let expected =
            mac.chain_update(time).chain_update(".").chain_update(&self.body).finalize().into_bytes();
        let expected: String = expected.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, expected);
        assert!(time.parse::<u64>().unwrap() > 1_700_000_000, "{time}");
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Somebody who is told. An answer is a status line with its headers; an empty one never comes.
struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    answers: Mutex<VecDeque<String>>,
    told: Mutex<Vec<Told>>,
    came: Notify,
}

impl Receiver {
    async fn start(answers: &[&str]) -> Self {
        Self::on("127.0.0.1:0".parse().unwrap(), answers).await
    }

    async fn on(address: SocketAddr, answers: &[&str]) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let shared = Arc::new(Shared::default());
        shared.answers.lock().unwrap().extend(answers.iter().map(|text| (*text).to_owned()));
        let this = Self { address: listener.local_addr().unwrap(), shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        this
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    fn told(&self) -> Vec<Told> {
        self.shared.told.lock().unwrap().clone()
    }

    async fn until_told(&self, count: usize) -> Vec<Told> {
        let told = async {
            loop {
                let came = self.shared.came.notified();
                let told = self.told();
                if told.len() >= count {
                    return told;
                }
                came.await;
            }
        };
        tokio::time::timeout(PATIENCE, told).await.expect("it is told")
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut told =
        Told { id: String::new(), event: String::new(), signature: String::new(), body: String::new() };
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ").unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "pinfold-delivery" => told.id = value.to_owned(),
            "pinfold-event" => told.event = value.to_owned(),
            "pinfold-signature" => told.signature = value.to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    told.body = String::from_utf8(body).ok()?;
    let answer = shared.answers.lock().unwrap().pop_front().unwrap_or_else(|| "200 OK".to_owned());
    shared.told.lock().unwrap().push(told);
    shared.came.notify_waiters();
    if answer.is_empty() {
        return std::future::pending().await;
    }
    let text = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.ok()
}

/// Makes a webhook and gives its id and secret.
async fn hook(client: &Client<'_>, url: &str) -> (String, String) {
    let (status, made) = client.send(Method::POST, "/webhooks", None, Some(json!({ "url": url }))).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    (text("id"), text("secret"))
}

/// The newest delivery of a webhook, once `is_it` is so.
async fn until_delivery(client: &Client<'_>, id: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let mut looks = tokio::time::interval(std::time::Duration::from_millis(50));
    let found = async {
        loop {
            looks.tick().await;
            let (_, page) = client.send(Method::GET, &format!("/webhooks/{id}/deliveries"), None, None).await;
            if is_it(&page["deliveries"][0]) {
                return page["deliveries"][0].clone();
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("it is so in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_told_again_until_it_hears() {
    let server = TestServer::with(&HERE).await;
    let admin = server.admin();
    let receiver = Receiver::start(&["500 Oh"]).await;
    let (id, secret) = hook(&admin, &receiver.url()).await;
    let (status, file) = admin.upload("f", vec![3; 100_000]).await;
    assert_eq!(status, StatusCode::CREATED, "{file}");

    let told = receiver.until_told(2).await;
    for told in &told {
        told.assert_signed_with(&secret);
        assert_eq!((told.event.as_str(), &told.json()["data"]["cid"]), ("pin.pinned", &file["cid"]));
    }
    assert_eq!((&told[0].id, &told[0].body), (&told[1].id, &told[1].body));
    let done = until_delivery(&admin, &id, |told| told["status"] == "delivered").await;
    assert_eq!((&done["attempts"], &done["responseStatus"]), (&json!(2), &json!(200)));

    admin.remove(file["cid"].as_str().unwrap()).await;
    let told = receiver.until_told(3).await.remove(2);
    assert_eq!((told.event.as_str(), &told.json()["data"]["status"]), ("pin.removed", &json!("unpinned")));
    assert!(!server.log_text().contains(&secret), "no secret is logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_is_told_although_the_server_was_killed_and_the_receiver_down() {
    let mut server = TestServer::with(&HERE).await;
    let receiver = Receiver::start(&[""]).await;
    let (_, secret) = hook(&server.admin(), &receiver.url()).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let down = nobody.local_addr().unwrap();
    drop(nobody);
    let (lost, _) = hook(&server.admin(), &format!("http://{down}/hook")).await;
    assert_eq!(server.admin().upload("f", vec![3; 100_000]).await.0, StatusCode::CREATED);
    // One is in the middle of being told, the other one could not be.
    let first = receiver.until_told(1).await.remove(0);
    let failed = until_delivery(&server.admin(), &lost, |told| told["attempts"] == 1).await;
    assert_eq!(failed["error"], "It could not be connected to");
    server.kill().await;

    let back = Receiver::on(down, &[]).await;
    server.restart().await;
    let again = receiver.until_told(2).await.remove(1);
    again.assert_signed_with(&secret);
    assert_eq!((&again.id, &again.body), (&first.id, &first.body), "as it was");
    let late = back.until_told(1).await.remove(0);
    assert_eq!(late.id, failed["id"].as_str().unwrap());
    let done = until_delivery(&server.admin(), &lost, |told| told["status"] == "delivered").await;
    assert_eq!(done["attempts"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_inside_is_asked_by_name_by_address_or_by_redirect() {
    let inside = Receiver::start(&[]).await;
    let open = TestServer::with(&HERE).await;
    let location = format!("302 Found\r\nlocation: {}", inside.url());
    let receiver = Receiver::start(&[&location]).await;
    let (id, _) = hook(&open.admin(), &receiver.url()).await;
    let test = format!("/webhooks/{id}/test");
    assert_eq!(open.admin().send(Method::POST, &test, None, None).await.0, StatusCode::ACCEPTED);
    let told = until_delivery(&open.admin(), &id, |told| told["attempts"] == 1).await;
    assert_eq!((&told["responseStatus"], &told["error"]), (&json!(302), &json!("It answered 302")));

    let closed = TestServer::with(&[("webhooks.allow_http", "true")]).await;
    let admin = closed.admin();
    let port = inside.address.port();
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
    let (id, _) = hook(&admin, &format!("http://localhost:{port}/hook")).await;
    admin.send(Method::POST, &format!("/webhooks/{id}/test"), None, None).await;
    let told = until_delivery(&admin, &id, |told| told["attempts"] == 1).await;
    assert_eq!(told["error"], "Its host has an address that is not public");
    assert!(inside.told().is_empty(), "{:?}", inside.told());
}

/// Pins under a name, waiting this many seconds.
async fn pin_named(
    server: &TestServer,
    cid: &str,
    name: &str,
    wait: u32,
) -> reqwest::Result<reqwest::Response> {
    let request = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = request.post(format!("{}/api/v3/files/pin/{cid}", server.url()));
    let request = request.header("X-API-Key", &server.key).header("Idempotency-Key", name);
    request.header("Prefer", format!("wait={wait}")).send().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_a_kill_cut_short_runs_again_under_its_name_and_one_that_was_answered_does_not() {
    let (dag, other) = (Dag::flat(8, 3, 1_000), Dag::flat(9, 3, 1_000));
    let mut server = TestServer::with(&[("pins.find_seconds", "120")]).await;
    let answered = pin_named(&server, &other.text(), "answered", 0).await.unwrap();
    assert_eq!(answered.status(), StatusCode::ACCEPTED);
    let answered = answered.text().await.unwrap();
    let kill = async {
        // The wish is written after the name is taken.
        server.admin().until(&dag.text(), "asked for", |_| true).await;
        let pid = server.pid().to_string();
        let killed = tokio::process::Command::new("kill").args(["-KILL", &pid]).status().await.unwrap();
        assert!(killed.success());
    };
    let cid = dag.text();
    let (cut_short, ()) = tokio::join!(pin_named(&server, &cid, "cut", 100), kill);
    assert!(cut_short.is_err(), "{cut_short:?}");
    server.kill().await;
    server.restart().await;
    let again = pin_named(&server, &dag.text(), "cut", 0).await.unwrap();
    assert_eq!(again.status(), StatusCode::ACCEPTED, "nobody has the name any more");
    assert_eq!(again.headers().get("idempotent-replayed"), None);
    let replayed = pin_named(&server, &other.text(), "answered", 0).await.unwrap();
    assert_eq!(replayed.headers()["idempotent-replayed"], "true");
    assert!(replayed.headers().contains_key("location"));
    assert_eq!(replayed.text().await.unwrap(), answered);
}
