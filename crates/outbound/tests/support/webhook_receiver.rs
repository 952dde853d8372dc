//! A webhook receiver for tests: an HTTP server on loopback that records requests and responds as the test says.
//!
//! The test suites of several crates include this file by its path. It computes signatures by itself, from the text of
//! the Standard Webhooks specification, so that it does not repeat a fault of the code that signs.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

/// The longest wait for a request.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// A request that a receiver got.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Names are in lower case.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn id(&self) -> &str {
        self.header("webhook-id")
    }

    /// In seconds since 1970.
    pub(crate) fn timestamp(&self) -> i64 {
        self.header("webhook-timestamp").parse().unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn event(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }

    pub(crate) fn signatures(&self) -> Vec<&str> {
        self.header("webhook-signature").split(' ').collect()
    }

    /// Whether one of the signatures is made with this secret.
    pub(crate) fn is_signed_with(&self, secret: &str) -> bool {
        let key = BASE64.decode(secret.strip_prefix("whsec_").unwrap().as_bytes()).unwrap();
        let signed = format!("{}.{}.{}", self.id(), self.header("webhook-timestamp"), self.body);
        let mac = Hmac::<Sha256>::new_from_slice(&key).unwrap().chain_update(signed);
        let signature = format!("v1,{}", BASE64.encode(&mac.finalize().into_bytes()));
        self.signatures().contains(&signature.as_str())
    }
}

/// How a receiver responds.
#[derive(Debug, Clone)]
pub(crate) enum Response {
    Status(u16),
    /// Status 302 to this URL.
    Redirect(String),
    /// Nothing until [`Receiver::release`], then status 200.
    Waits,
}

pub(crate) struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    script: Mutex<VecDeque<Response>>,
    default: Mutex<Response>,
    requests: Mutex<Vec<Request>>,
    received: Notify,
    released: watch::Sender<bool>,
}

impl Receiver {
    /// Starts a receiver that responds with status 200.
    pub(crate) async fn start() -> Self {
        Self::on("127.0.0.1:0".parse().unwrap()).await
    }

    /// As [`start`](Self::start), on this address.
    pub(crate) async fn on(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Mutex::default(),
            default: Mutex::new(Response::Status(200)),
            requests: Mutex::default(),
            received: Notify::new(),
            released: watch::Sender::new(false),
        });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&serving)));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Sets the responses to the next requests, in order.
    pub(crate) fn script(&self, responses: impl IntoIterator<Item = Response>) {
        self.shared.script.lock().unwrap().extend(responses);
    }

    /// Sets the response to requests that have none in the script.
    pub(crate) fn respond_with(&self, response: Response) {
        *self.shared.default.lock().unwrap() = response;
    }

    /// Lets the requests that wait be answered, now and later.
    pub(crate) fn release(&self) {
        self.shared.released.send_replace(true);
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// The event types of the requests so far.
    pub(crate) fn events(&self) -> Vec<String> {
        self.requests().iter().map(Request::event).collect()
    }

    /// Waits for this many requests in all.
    pub(crate) async fn until_requests(&self, count: usize) -> Vec<Request> {
        let requests = async {
            loop {
                let received = self.shared.received.notified();
                let requests = self.requests();
                if requests.len() >= count {
                    return requests;
                }
                received.await;
            }
        };
        tokio::time::timeout(WAIT_MAX, requests).await.expect("the receiver gets the requests in time")
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ") {
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    stream.read_exact(&mut body).await.ok()?;
    let request = Request { headers, body: String::from_utf8(body).ok()? };
    let response = shared.script.lock().unwrap().pop_front();
    let response = response.unwrap_or_else(|| shared.default.lock().unwrap().clone());
    shared.requests.lock().unwrap().push(request);
    shared.received.notify_waiters();
    let head = match response {
        Response::Status(status) => format!("{status} x"),
        Response::Redirect(location) => format!("302 Found\r\nlocation: {location}"),
        Response::Waits => {
            shared.released.subscribe().wait_for(|is_released| *is_released).await.ok()?;
            "200 OK".to_owned()
        }
    };
    let text = format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.ok()
}
