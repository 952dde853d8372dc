//! The idempotency key, by which the service recognizes a repeated request.

/// Value of the `Idempotency-Key` header. Chosen by the client; identifies a request within its account for a day.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

/// The text is not a valid [`IdempotencyKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("An Idempotency-Key has 1 to {} visible ASCII characters", IdempotencyKey::LEN_MAX)]
pub struct IdempotencyKeyError;

impl IdempotencyKey {
    /// Maximum length in bytes. A UUID has 36.
    pub const LEN_MAX: usize = 255;

    /// Parses a key. Nothing is trimmed.
    ///
    /// # Errors
    /// [`IdempotencyKeyError`] if the text is empty, too long, or contains other characters than visible ASCII.
    pub fn parse(text: &[u8]) -> Result<Self, IdempotencyKeyError> {
        let fits = (1..=Self::LEN_MAX).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic);
        let text = std::str::from_utf8(text).ok().filter(|_| fits);
        text.map(|text| Self(text.to_owned())).ok_or(IdempotencyKeyError)
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The stored response of a request with an idempotency key. Only the surface that sent it interprets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResponse {
    /// Status code of the surface; opaque to the service.
    pub code: u16,
    /// Names and values of headers, in ASCII.
    pub headers: Vec<(String, String)>,
    /// `None` if the body contained a secret, which is not stored.
    pub body: Option<String>,
    /// Hash of the body of the request.
    pub request_body_hash: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_bounded_visible_ascii() {
        for good in ["1", "9f0c6c1e-6d1c-4a52-9f0e-2f2d0d0c6a11", "\"quoted\"", &"~".repeat(255)] {
            assert_eq!(
                IdempotencyKey::parse(good.as_bytes()).map(|key| key.as_str().to_owned()),
                Ok(good.into())
            );
        }
        for bad in [&b""[..], b"two words", b"tab\t", b"\x7f", "é".as_bytes(), &[b'x'; 256]] {
            assert_eq!(IdempotencyKey::parse(bad), Err(IdempotencyKeyError), "{bad:?}");
        }
    }
}
