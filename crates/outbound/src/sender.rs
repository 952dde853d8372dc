//! Sends webhook requests.

use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, USER_AGENT};
use reqwest::{Client, Response, redirect};
use tokio::time::{Instant, timeout_at};

use crate::resolve::{NameError, RestrictedResolver};
use crate::signature::sign;
use crate::target::{Target, TargetPolicy};

/// Time limit of one request, from resolving the host name to the end of the response.
const TIME_MAX: Duration = Duration::from_secs(10);
/// How much of a response body is read, so that the receiver sees it accepted. The content is ignored.
const RESPONSE_BYTES_MAX: usize = 1_024;

// Header names of the Standard Webhooks specification.
const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const SIGNATURE: &str = "webhook-signature";

/// Why a request failed. The text is shown to the webhook's owner and contains nothing of the response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The response status is not 2xx.
    #[error("The receiver responded with status {0}")]
    Status(u16),
    #[error("The receiver did not respond within {} s", TIME_MAX.as_secs())]
    TimedOut,
    #[error("The host resolves to an address that is not public")]
    NotPublic,
    #[error("The host name does not resolve")]
    NotResolved,
    /// Includes TLS errors, such as an invalid certificate.
    #[error("The connection could not be established")]
    NotConnected,
    #[error("The connection was closed before a response arrived")]
    ConnectionLost,
    /// The HTTP client could not be built.
    #[error("The server cannot send requests at the moment")]
    ClientUnavailable,
}

/// One attempt to deliver a body.
#[derive(Clone)]
pub struct SignedRequest<'a> {
    /// Identifies the event. The same in each attempt; without a full stop.
    pub id: &'a str,
    /// The time of this attempt, in seconds since 1970.
    pub unix_s: i64,
    /// The HMAC keys. The request has one signature for each, in this order.
    pub keys: Vec<&'a [u8]>,
    pub body: String,
}

impl SignedRequest<'_> {
    /// The value of `webhook-signature`: a list of signatures, separated by spaces.
    fn signatures(&self) -> String {
        let signatures: Vec<_> =
            self.keys.iter().map(|key| sign(key, self.id, self.unix_s, &self.body)).collect();
        signatures.join(" ")
    }
}

/// Sends requests to the targets that its policy allows.
pub struct Sender {
    policy: TargetPolicy,
    client: Mutex<Option<Client>>,
}

impl Sender {
    #[must_use]
    pub fn new(policy: TargetPolicy) -> Self {
        Self { policy, client: Mutex::default() }
    }

    #[must_use]
    pub fn policy(&self) -> TargetPolicy {
        self.policy
    }

    /// Posts a request and returns the response status if it is 2xx. Takes at most 10 s. Dropping the future cancels the
    /// request, which the receiver may have received.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn post(&self, target: &Target, request: SignedRequest<'_>) -> Result<u16, SendError> {
        // The policy may have changed since the target was stored. The resolver checks only host names.
        Target::parse(target.as_str(), self.policy).map_err(|_| SendError::NotPublic)?;
        let request = self
            .client()?
            .post(target.url().clone())
            .header(USER_AGENT, concat!("pinfold/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .header(ID, request.id)
            .header(TIMESTAMP, request.unix_s)
            .header(SIGNATURE, request.signatures())
            .body(request.body);
        let until = Instant::now() + TIME_MAX;
        let response = timeout_at(until, request.send()).await.map_err(|_| SendError::TimedOut)?;
        let response = response.map_err(|error| send_error(&error))?;
        let status = response.status();
        // The status decides. A slow or broken body changes nothing.
        let _ignored = timeout_at(until, read_beginning(response)).await;
        if status.is_success() { Ok(status.as_u16()) } else { Err(SendError::Status(status.as_u16())) }
    }

    /// The HTTP client, built on first use. Building fails on a machine without root certificates.
    fn client(&self) -> Result<Client, SendError> {
        let mut slot = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*slot {
            return Ok(client.clone());
        }
        // Fails if the process already has a default provider, which then applies.
        let _already_set = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .dns_resolver(RestrictedResolver::new(self.policy))
            // A pooled connection would skip resolving and checking the host name.
            .pool_max_idle_per_host(0)
            .timeout(TIME_MAX)
            .build();
        match client {
            Ok(client) => Ok(slot.insert(client).clone()),
            Err(error) => {
                tracing::error!(%error, "failed to build the HTTP client for webhooks");
                Err(SendError::ClientUnavailable)
            }
        }
    }
}

/// Reads up to [`RESPONSE_BYTES_MAX`] of the body and drops the rest.
async fn read_beginning(mut response: Response) {
    let mut read = 0;
    while read < RESPONSE_BYTES_MAX {
        let Ok(Some(chunk)) = response.chunk().await else { return };
        read += chunk.len();
    }
}

fn send_error(error: &reqwest::Error) -> SendError {
    if let Some(name) = cause::<NameError>(error) {
        return match name {
            NameError::Unknown => SendError::NotResolved,
            NameError::NotPublic => SendError::NotPublic,
        };
    }
    if error.is_timeout() {
        SendError::TimedOut
    } else if error.is_connect() {
        SendError::NotConnected
    } else {
        SendError::ConnectionLost
    }
}

/// The first error of type `E` in the chain of sources.
fn cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const ANY: TargetPolicy = TargetPolicy { allow_http: true, allow_private: true };

    /// Responds to one request with `text` and returns the request.
    async fn respond(listener: TcpListener, text: &'static str) -> String {
        let (mut stream, _) = listener.accept().await.expect("accepts");
        let mut request = Vec::new();
        while !request.ends_with(b"{}") {
            let read = stream.read_buf(&mut request).await.expect("reads");
            assert!(read > 0, "the request is incomplete");
        }
        stream.write_all(text.as_bytes()).await.expect("the client reads");
        String::from_utf8(request).expect("is UTF-8")
    }

    fn request<'a>(keys: &[&'a [u8]]) -> SignedRequest<'a> {
        SignedRequest { id: "1", unix_s: 7, keys: keys.to_vec(), body: "{}".to_owned() }
    }

    async fn send(text: &'static str) -> (Result<u16, SendError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let url = format!("http://localhost:{}/hook", listener.local_addr().expect("has an address").port());
        let target = Target::parse(&url, ANY).expect("is a target");
        let sender = Sender::new(ANY);
        tokio::join!(sender.post(&target, request(&[b"k", b"old"])), respond(listener, text))
    }

    #[tokio::test]
    async fn request_has_the_headers_of_the_specification() {
        let (sent, request) = send("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(sent, Ok(204));
        assert!(request.starts_with("POST /hook HTTP/1.1\r\n"), "{request}");
        for line in [
            "webhook-id: 1".to_owned(),
            "webhook-timestamp: 7".to_owned(),
            format!("webhook-signature: {} {}", sign(b"k", "1", 7, "{}"), sign(b"old", "1", 7, "{}")),
            "content-type: application/json".to_owned(),
        ] {
            assert!(request.contains(&format!("\r\n{line}\r\n")), "{line}: {request}");
        }
    }

    #[tokio::test]
    async fn redirects_are_not_followed() {
        let (sent, _) =
            send("HTTP/1.1 307 x\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(sent, Err(SendError::Status(307)));
    }

    #[tokio::test]
    async fn large_response_is_not_read_to_its_end() {
        let text = Box::leak(
            format!("HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n{}", "x".repeat(5_000)).into(),
        );
        assert_eq!(send(text).await.0, Ok(200));
    }

    #[tokio::test]
    async fn private_targets_are_rejected_before_anything_is_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let policy = TargetPolicy { allow_http: true, allow_private: false };
        let url = format!("http://localhost:{}/", listener.local_addr().expect("has an address").port());
        let target = Target::parse(&url, policy).expect("a host name is not resolved yet");
        let sent = Sender::new(policy).post(&target, request(&[])).await;
        assert_eq!(sent, Err(SendError::NotPublic));
        // An address that was allowed when the target was stored and is no longer.
        let literal = url.replace("localhost", "127.0.0.1");
        let target = Target::parse(&literal, ANY).expect("was allowed");
        let sent = Sender::new(policy).post(&target, request(&[])).await;
        assert_eq!(sent, Err(SendError::NotPublic));
        let connection = futures::FutureExt::now_or_never(listener.accept());
        assert!(connection.is_none(), "nothing connected");
    }

    #[tokio::test]
    async fn refused_connection_is_reported() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let url = format!("http://{}/", listener.local_addr().expect("has an address"));
        drop(listener);
        let target = Target::parse(&url, ANY).expect("is a target");
        let sent = Sender::new(ANY).post(&target, request(&[])).await;
        assert_eq!(sent, Err(SendError::NotConnected));
    }
}
