//! A client of the HTTP API v3: one request, one answer or one error that says what to do.
//!
//! Bounded in every direction: connecting, the size of an answer, and how often and how long a rate limit
//! is waited out.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;

use super::ServerArgs;

/// How long connecting may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// How long an answer may send nothing. Longer than the longest wait that a server grants a pin.
const SILENCE_MAX: Duration = Duration::from_secs(660);
/// The largest answer that is read, in bytes: a page of 100 pins is a hundredth of it.
const RESPONSE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How often a request that meets the rate limit is sent again.
const RATE_LIMIT_TRIES_MAX: u32 = 5;
/// The longest that one `Retry-After` is waited for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// A server and a key.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    key: Option<String>,
}

/// An answer that was not an error.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: StatusCode,
    /// The body.
    pub(crate) body: Value,
}

/// An answer that was one.
#[derive(Debug, thiserror::Error)]
#[error("{message}{hint}")]
pub(crate) struct Refusal {
    /// The HTTP status.
    pub(crate) status: StatusCode,
    message: String,
    hint: String,
}

impl Client {
    /// A client of the server that was named.
    ///
    /// # Errors
    /// The address is no http(s) URL.
    pub(crate) fn new(remote: &ServerArgs) -> anyhow::Result<Self> {
        let base = base_url(&remote.server)?;
        let http =
            builder(is_loopback(&base)).read_timeout(SILENCE_MAX).build().context("cannot set up HTTP")?;
        Ok(Self { http, base, key: remote.key.clone() })
    }

    /// The server, as it can be shown.
    pub(crate) fn server(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// A request for `path` under the API's base, such as `["status", cid]`; each part is escaped.
    pub(crate) fn request(&self, method: Method, path: &[&str]) -> anyhow::Result<RequestBuilder> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| anyhow!("{} cannot carry a path", self.base))?
            .pop_if_empty()
            .extend(["api", "v3"])
            .extend(path);
        let request = self.http.request(method, url);
        Ok(match &self.key {
            Some(key) => request.header("X-API-Key", key),
            None => request,
        })
    }

    /// Sends a request that can be repeated; waits out a rate limit within bounds.
    ///
    /// # Errors
    /// [`Refusal`] for an answer outside 2xx; anything else when there was no answer.
    pub(crate) async fn send(&self, request: RequestBuilder) -> anyhow::Result<Answer> {
        for _ in 1..RATE_LIMIT_TRIES_MAX {
            let again = request.try_clone().context("this request cannot be repeated")?;
            let response = self.exchange(again).await?;
            if response.status() != StatusCode::TOO_MANY_REQUESTS {
                return self.read(response).await;
            }
            tokio::time::sleep(retry_after(response.headers())).await;
        }
        self.send_once(request).await
    }

    /// Sends a request whose body can be sent only once, such as an upload.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub(crate) async fn send_once(&self, request: RequestBuilder) -> anyhow::Result<Answer> {
        let response = self.exchange(request).await?;
        self.read(response).await
    }

    async fn exchange(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        request.send().await.map_err(|error| {
            if error.is_connect() {
                anyhow!(
                    "no Pinfold answers at {}; start one with `pinfold serve`, or name another with \
                     --server or PINFOLD_SERVER",
                    self.server()
                )
            } else {
                anyhow::Error::new(error.without_url())
                    .context(format!("talking to {} failed", self.server()))
            }
        })
    }

    async fn read(&self, mut response: Response) -> anyhow::Result<Answer> {
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.context("the answer was cut off")? {
            if bytes.len() + chunk.len() > RESPONSE_BYTES_MAX {
                bail!("{} answered with more than {RESPONSE_BYTES_MAX} bytes", self.server());
            }
            bytes.extend_from_slice(&chunk);
        }
        let body: Value = match serde_json::from_slice(&bytes) {
            Ok(body) => body,
            Err(_) if bytes.is_empty() => Value::Null,
            Err(_) => bail!("{} answered {status} without JSON; is it a Pinfold?", self.server()),
        };
        if status.is_success() {
            return Ok(Answer { status, body });
        }
        Err(self.refusal(status, &body).into())
    }

    fn refusal(&self, status: StatusCode, body: &Value) -> Refusal {
        let said = |field: &str| body.get(field).and_then(Value::as_str);
        let message = said("message").or_else(|| said("error")).unwrap_or("the server gave no reason");
        let hint = match (status, said("code")) {
            (StatusCode::UNAUTHORIZED, _) if self.key.is_none() => {
                "; give your API key with --key or PINFOLD_API_KEY".to_owned()
            }
            (StatusCode::UNAUTHORIZED, _) => {
                "; make a new key with `pinfold token create --email … --name …`".to_owned()
            }
            (StatusCode::FORBIDDEN, Some("missing_scope")) => said("required")
                .map_or_else(String::new, |scope| format!("; use a key with the scope {scope}")),
            _ => String::new(),
        };
        Refusal { status, message: format!("{} ({})", message.trim_end_matches('.'), status.as_u16()), hint }
    }
}

/// HTTP as this program speaks it. On loopback there is no proxy to go through, and no certificate to check:
/// a machine without any certificate store can talk to itself.
pub(crate) fn builder(is_loopback: bool) -> reqwest::ClientBuilder {
    // Needs no answer: that a provider is installed already is as good.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder()
        .user_agent(concat!("pinfold/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIME_MAX);
    if is_loopback { builder.no_proxy().tls_certs_only([]) } else { builder }
}

/// The server's URL without `/api/v3`, which some people include.
fn base_url(text: &str) -> anyhow::Result<Url> {
    let trimmed = text.trim_end_matches('/').trim_end_matches("/api/v3");
    let url = Url::parse(trimmed)
        .with_context(|| format!("{text:?} is no URL; a server looks like http://127.0.0.1:3000"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        bail!("{text:?} is no http URL; a server looks like http://127.0.0.1:3000");
    }
    Ok(url)
}

/// Whether a proxy would only be in the way.
fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost" | "[::1]") => true,
        Some(host) => host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        None => false,
    }
}

/// How long the server asks to wait: at least a second, at most [`RETRY_AFTER_MAX`].
fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Duration::from_secs(seconds.unwrap_or(1)).clamp(Duration::from_secs(1), RETRY_AFTER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_taken_with_and_without_the_api_path() {
        for text in ["http://h:3000", "http://h:3000/", "http://h:3000/api/v3", "http://h:3000/api/v3/"] {
            assert_eq!(base_url(text).unwrap().as_str(), "http://h:3000/", "{text}");
        }
        for text in ["h:3000", "127.0.0.1:3000", "ftp://h", "nonsense"] {
            let message = base_url(text).unwrap_err().to_string();
            assert!(message.contains("http://127.0.0.1:3000"), "{text}: {message}");
        }
    }

    #[test]
    fn a_rate_limit_is_waited_out_within_bounds() {
        let wait = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(wait("7"), Duration::from_secs(7));
        assert_eq!(wait("0"), Duration::from_secs(1));
        assert_eq!(wait("86400"), RETRY_AFTER_MAX);
        assert_eq!(wait("soon"), Duration::from_secs(1));
        assert_eq!(retry_after(&HeaderMap::new()), Duration::from_secs(1));
    }

    #[test]
    fn path_parts_are_escaped() {
        let remote = ServerArgs { server: "http://h:1/x".into(), key: None, json: false };
        let request = Client::new(&remote).unwrap().request(Method::GET, &["status", "../a?b"]).unwrap();
        assert_eq!(request.build().unwrap().url().as_str(), "http://h:1/x/api/v3/status/..%2Fa%3Fb");
    }
}
