//! Client of the HTTP API v3.
//!
//! The time to connect, the time without data, the size of a response, and the number and length of waits for a rate
//! limit are bounded.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;

use super::ServerArgs;
use super::output::plain;

/// Maximum time to connect.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Maximum time without data. Longer than the longest wait that a server allows for a pin.
const READ_TIMEOUT: Duration = Duration::from_secs(660);
/// Maximum size of a response in bytes, about 100 times the size of a page of 100 pins.
const RESPONSE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Maximum number of attempts for a request that exceeds the rate limit.
const RATE_LIMIT_TRIES_MAX: u32 = 5;
/// Maximum wait for one `Retry-After`.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// An HTTP client with the server's URL and an API key.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    key: Option<String>,
}

/// A response with a 2xx status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
}

/// A response with another status.
#[derive(Debug, thiserror::Error)]
#[error("{message}{hint}")]
pub(crate) struct ErrorResponse {
    pub(crate) status: StatusCode,
    message: String,
    hint: String,
}

impl Client {
    /// A client of the given server.
    ///
    /// # Errors
    /// The server's address is not an HTTP or HTTPS URL.
    pub(crate) fn new(remote: &ServerArgs) -> anyhow::Result<Self> {
        let base = base_url(&remote.server)?;
        let http = builder(is_loopback(&base))
            .read_timeout(READ_TIMEOUT)
            .build()
            .context("cannot create an HTTP client")?;
        Ok(Self { http, base, key: remote.key.clone() })
    }

    /// The server's URL, for messages.
    pub(crate) fn server(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// A request for `path` under `/api/v3`, such as `["status", cid]`. Each segment is escaped.
    pub(crate) fn request(&self, method: Method, path: &[&str]) -> anyhow::Result<RequestBuilder> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| anyhow!("{} cannot have a path", self.base))?
            .pop_if_empty()
            .extend(["api", "v3"])
            .extend(path);
        let request = self.http.request(method, url);
        Ok(match &self.key {
            Some(key) => request.header("X-API-Key", key),
            None => request,
        })
    }

    /// Sends a request that can be repeated. Waits and retries if the rate limit is exceeded.
    ///
    /// # Errors
    /// [`ErrorResponse`] if the status is not 2xx; other errors if there was no valid response.
    pub(crate) async fn send(&self, request: RequestBuilder) -> anyhow::Result<Answer> {
        for _ in 1..RATE_LIMIT_TRIES_MAX {
            let again = request.try_clone().context("the request cannot be repeated")?;
            let response = self.exchange(again).await?;
            if response.status() != StatusCode::TOO_MANY_REQUESTS {
                return self.read(response).await;
            }
            tokio::time::sleep(retry_after(response.headers())).await;
        }
        self.send_once(request).await
    }

    /// Sends a request whose body can be read only once, such as an upload.
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
                    "cannot connect to {}; start a server with `pinfold serve`, or set another one with --server or \
                     PINFOLD_SERVER",
                    self.server()
                )
            } else {
                anyhow::Error::new(error.without_url())
                    .context(format!("the request to {} failed", self.server()))
            }
        })
    }

    async fn read(&self, mut response: Response) -> anyhow::Result<Answer> {
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) =
            response.chunk().await.context("the connection closed before the end of the response")?
        {
            if bytes.len() + chunk.len() > RESPONSE_BYTES_MAX {
                bail!("the response of {} is larger than {RESPONSE_BYTES_MAX} bytes", self.server());
            }
            bytes.extend_from_slice(&chunk);
        }
        let body: Value = match serde_json::from_slice(&bytes) {
            Ok(body) => body,
            Err(_) if bytes.is_empty() => Value::Null,
            Err(_) => {
                bail!("{} answered {status} without JSON; check that it is a Pinfold server", self.server())
            }
        };
        if status.is_success() {
            return Ok(Answer { status, body });
        }
        Err(self.error_response(status, &body).into())
    }

    fn error_response(&self, status: StatusCode, body: &Value) -> ErrorResponse {
        let said = |field: &str| body.get(field).and_then(Value::as_str);
        let message = said("message").or_else(|| said("error")).unwrap_or("the server gave no reason");
        let hint = match (status, said("code")) {
            (StatusCode::UNAUTHORIZED, _) if self.key.is_none() => {
                "; set your API key with --key or PINFOLD_API_KEY".to_owned()
            }
            (StatusCode::UNAUTHORIZED, _) => {
                "; create a new key with `pinfold token create --email … --name …`".to_owned()
            }
            (StatusCode::FORBIDDEN, Some("missing_scope")) => said("required")
                .map_or_else(String::new, |scope| format!("; use a key that has the scope {scope}")),
            _ => String::new(),
        };
        ErrorResponse {
            status,
            message: format!("{} ({})", message.trim_end_matches('.'), status.as_u16()),
            hint,
        }
    }
}

/// The HTTP client of this program. Connections to loopback use no proxy and no root certificates, so that they work on
/// a machine without a certificate store.
pub(crate) fn builder(is_loopback: bool) -> reqwest::ClientBuilder {
    // An error means that a provider is already installed.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder()
        .user_agent(concat!("pinfold/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIME_MAX);
    if is_loopback { builder.no_proxy().tls_certs_only([]) } else { builder }
}

/// The server's URL without a trailing `/api/v3`, which some users include.
fn base_url(text: &str) -> anyhow::Result<Url> {
    let trimmed = text.trim_end_matches('/').trim_end_matches("/api/v3");
    let url = Url::parse(trimmed)
        .with_context(|| format!("{text:?} is not a URL; example: http://127.0.0.1:3000"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        bail!("{text:?} is not an HTTP URL; example: http://127.0.0.1:3000");
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost" | "[::1]") => true,
        Some(host) => host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        None => false,
    }
}

/// The wait that the server asks for, limited to between one second and [`RETRY_AFTER_MAX`].
fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Duration::from_secs(seconds.unwrap_or(1)).clamp(Duration::from_secs(1), RETRY_AFTER_MAX)
}

/// A string field with control characters replaced, or an empty string.
pub(super) fn text(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).map(plain).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_url_may_include_the_api_path() {
        for text in ["http://h:3000", "http://h:3000/", "http://h:3000/api/v3", "http://h:3000/api/v3/"] {
            assert_eq!(base_url(text).unwrap().as_str(), "http://h:3000/", "{text}");
        }
        for text in ["h:3000", "127.0.0.1:3000", "ftp://h", "nonsense"] {
            let message = base_url(text).unwrap_err().to_string();
            assert!(message.contains("http://127.0.0.1:3000"), "{text}: {message}");
        }
    }

    #[test]
    fn rate_limit_wait_is_bounded() {
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
    fn path_segments_are_escaped() {
        let remote = ServerArgs { server: "http://h:1/x".into(), key: None, json: false };
        let request = Client::new(&remote).unwrap().request(Method::GET, &["status", "../a?b"]).unwrap();
        assert_eq!(request.build().unwrap().url().as_str(), "http://h:1/x/api/v3/status/..%2Fa%3Fb");
    }
}
