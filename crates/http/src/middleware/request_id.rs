//! `X-Request-Id`: identifies a request in its answer and in the log.

use axum::http::{HeaderMap, HeaderValue, header::HeaderName};

/// The header, of requests and of answers.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is accepted from a client, in bytes: it is in every log line of its request.
const LENGTH_MAX: usize = 128;

/// The id of a request. Its text is safe in a header and in a log line.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    /// The client's id if it is valid, else a new one.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        headers.get(&X_REQUEST_ID).filter(|id| is_valid(id)).cloned().map_or_else(Self::random, Self)
    }

    fn random() -> Self {
        // If the system has no randomness, ids repeat, which only makes the log harder to read.
        let id = getrandom::u64().unwrap_or_default();
        Self(HeaderValue::try_from(format!("{id:016x}")).unwrap_or(HeaderValue::from_static("none")))
    }

    pub(crate) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    pub(crate) fn into_header(self) -> HeaderValue {
        self.0
    }
}

fn is_valid(id: &HeaderValue) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
    (1..=LENGTH_MAX).contains(&id.len()) && id.as_bytes().iter().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_for(sent: &'static str) -> String {
        let headers = HeaderMap::from_iter([(X_REQUEST_ID, HeaderValue::from_static(sent))]);
        RequestId::of(&headers).as_str().to_owned()
    }

    #[test]
    fn valid_id_is_kept() {
        assert_eq!(id_for("req_0-1.2:3/4"), "req_0-1.2:3/4");
    }

    #[test]
    fn invalid_id_is_replaced() {
        for strange in ["", "two words", "<script>", "\"quoted\""] {
            let id = id_for(strange);
            assert_eq!(id.len(), 16, "{strange:?} became {id:?}");
        }
        assert_ne!(RequestId::of(&HeaderMap::new()).as_str(), RequestId::of(&HeaderMap::new()).as_str());
    }
}
