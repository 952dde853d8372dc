//! Sends what a webhook is told.

use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, USER_AGENT};
use reqwest::{Client, Response, redirect};
use tokio::time::{Instant, timeout_at};

use crate::notice::signature;
use crate::resolve::{Guarded, NameError};
use crate::target::{Reach, Target};

/// How long one request may take, from the lookup of its name to the end of the answer.
const TIME_MAX: Duration = Duration::from_secs(10);
/// What is read of an answer, so that its sender sees it taken; nobody looks at it.
const ANSWER_BYTES_MAX: usize = 1_024;

const SIGNATURE: &str = "pinfold-signature";
const EVENT: &str = "pinfold-event";
const DELIVERY: &str = "pinfold-delivery";

/// Why nobody was told. Its text is for the owner of the webhook: what an address inside answers is not in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It answered, but not with 2xx.
    #[error("It answered {0}")]
    Answered(u16),
    /// It did not answer in time.
    #[error("It did not answer within {} s", TIME_MAX.as_secs())]
    TimedOut,
    /// It is, or has become, an address that is not public.
    #[error("Its host has an address that is not public")]
    NotPublic,
    /// Its name leads nowhere.
    #[error("Its host has no address")]
    NoAddress,
    /// It can't be connected to; this includes certificates that prove nothing.
    #[error("It could not be connected to")]
    NotConnected,
    /// The connection broke.
    #[error("The connection broke off")]
    Broken,
    /// This server can't send at all.
    #[error("This server cannot make requests at the moment")]
    Unable,
}

/// Sends to wherever its reach goes. Cheap to clone.
pub struct Sender {
    reach: Reach,
    client: Mutex<Option<Client>>,
}

impl Sender {
    /// A sender with this reach.
    #[must_use]
    pub fn new(reach: Reach) -> Self {
        Self { reach, client: Mutex::default() }
    }

    /// Where its requests may go.
    #[must_use]
    pub fn reach(&self) -> Reach {
        self.reach
    }

    /// Posts a body, signed with `secret` at `unix_s`; gives the status if that is 2xx. Takes at most 10 s. Dropping
    /// the future ends the request, which may have been received.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn post(
        &self,
        target: &Target,
        secret: &str,
        unix_s: i64,
        (event, delivery): (&str, &str),
        body: String,
    ) -> Result<u16, SendError> {
        // What was stored under another setting is looked at again; the resolver sees names alone.
        Target::parse(target.as_str(), self.reach).map_err(|_| SendError::NotPublic)?;
        let request = self
            .client()?
            .post(target.url().clone())
            .header(USER_AGENT, concat!("pinfold/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .header(SIGNATURE, signature(secret, unix_s, &body))
            .header(EVENT, event)
            .header(DELIVERY, delivery)
            .body(body);
        let until = Instant::now() + TIME_MAX;
        let response = timeout_at(until, request.send()).await.map_err(|_| SendError::TimedOut)?;
        let response = response.map_err(|error| wording(&error))?;
        let status = response.status();
        // It has answered, however slowly the rest of that comes.
        let _rest = timeout_at(until, take(response)).await;
        if status.is_success() { Ok(status.as_u16()) } else { Err(SendError::Answered(status.as_u16())) }
    }

    /// The client, made when it is first needed: a machine without certificates of authorities has none.
    fn client(&self) -> Result<Client, SendError> {
        let mut slot = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*slot {
            return Ok(client.clone());
        }
        // Whoever was first has chosen for all.
        let _already = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .dns_resolver(Guarded::new(self.reach))
            // A name is looked at anew with each request.
            .pool_max_idle_per_host(0)
            .timeout(TIME_MAX)
            .build();
        match client {
            Ok(client) => Ok(slot.insert(client).clone()),
            Err(error) => {
                tracing::error!(%error, "making a client for webhooks");
                Err(SendError::Unable)
            }
        }
    }
}

/// Reads the beginning of an answer and lets the rest go.
async fn take(mut response: Response) {
    let mut taken = 0;
    while taken < ANSWER_BYTES_MAX {
        // The status was read: what follows changes nothing.
        let Ok(Some(chunk)) = response.chunk().await else { return };
        taken += chunk.len();
    }
}

fn wording(error: &reqwest::Error) -> SendError {
    if let Some(name) = cause::<NameError>(error) {
        return match name {
            NameError::Unknown => SendError::NoAddress,
            NameError::NotPublic => SendError::NotPublic,
        };
    }
    if error.is_timeout() {
        SendError::TimedOut
    } else if error.is_connect() {
        SendError::NotConnected
    } else {
        SendError::Broken
    }
}

/// The first of this kind among an error's causes.
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

    const ANY: Reach = Reach { plain_http: true, private: true };

    /// Answers one request with this text, and gives the request.
    async fn answer(listener: TcpListener, text: &'static str) -> String {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut request = Vec::new();
        while !request.ends_with(b"{}") {
            let read = stream.read_buf(&mut request).await.expect("a request");
            assert!(read > 0, "it ended early");
        }
        stream.write_all(text.as_bytes()).await.expect("it listens");
        String::from_utf8(request).expect("text")
    }

    async fn send(text: &'static str) -> (Result<u16, SendError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://localhost:{}/hook", listener.local_addr().expect("an address").port());
        let target = Target::parse(&url, ANY).expect("a target");
        let sender = Sender::new(ANY);
        let post = sender.post(&target, "s", 7, ("pin.pinned", "1"), "{}".to_owned());
        tokio::join!(post, answer(listener, text))
    }

    #[tokio::test]
    async fn what_is_posted_is_signed_and_named() {
        let (sent, request) = send("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(sent, Ok(204));
        let request = request.to_ascii_lowercase();
        assert!(request.starts_with("post /hook http/1.1\r\n"), "{request}");
        for line in [
            format!("pinfold-signature: {}", signature("s", 7, "{}")),
            "pinfold-event: pin.pinned".to_owned(),
            "pinfold-delivery: 1".to_owned(),
            "content-type: application/json".to_owned(),
        ] {
            assert!(request.contains(&format!("\r\n{line}\r\n")), "{line}: {request}");
        }
    }

    #[tokio::test]
    async fn no_redirect_is_followed() {
        let (sent, _) =
            send("HTTP/1.1 307 x\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(sent, Err(SendError::Answered(307)));
    }

    #[tokio::test]
    async fn an_answer_without_end_is_not_read_to_it() {
        let text = Box::leak(
            format!("HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n{}", "x".repeat(5_000)).into(),
        );
        assert_eq!(send(text).await.0, Ok(200));
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_refused_before_anything_is_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let reach = Reach { plain_http: true, private: false };
        let url = format!("http://localhost:{}/", listener.local_addr().expect("an address").port());
        let target = Target::parse(&url, reach).expect("its text says nothing");
        let sent = Sender::new(reach).post(&target, "s", 7, ("e", "1"), "{}".to_owned()).await;
        assert_eq!(sent, Err(SendError::NotPublic));
        // An address that was allowed when it was stored, and is not any more.
        let literal = url.replace("localhost", "127.0.0.1");
        let target = Target::parse(&literal, ANY).expect("it was allowed");
        let sent = Sender::new(reach).post(&target, "s", 7, ("e", "1"), "{}".to_owned()).await;
        assert_eq!(sent, Err(SendError::NotPublic));
        let nobody = futures::FutureExt::now_or_never(listener.accept());
        assert!(nobody.is_none(), "nothing came");
    }

    #[tokio::test]
    async fn where_nobody_listens_is_no_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        drop(listener);
        let target = Target::parse(&url, ANY).expect("a target");
        let sent = Sender::new(ANY).post(&target, "s", 7, ("e", "1"), "{}".to_owned()).await;
        assert_eq!(sent, Err(SendError::NotConnected));
    }
}
