//! The identity of a request's sender, as far as its headers prove it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use pinfold_service::{AuthError, Caller, Source, Tokens, Via};

/// The header of an API key; `Authorization: Bearer` carries one as well.
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The longest credential that is checked, in bytes. Keys have under 100, session tokens some hundred.
const CREDENTIAL_LENGTH_MAX: usize = 4096;

/// The header that web pages set to `web`, for the audit log.
const X_REQUEST_SOURCE: HeaderName = HeaderName::from_static("x-request-source");

/// The headers that carry credentials.
pub(crate) fn credential_headers(headers: &HeaderMap) -> HeaderMap {
    let carried = [header::AUTHORIZATION, X_API_KEY].into_iter();
    carried.filter_map(|name| headers.get(&name).map(|value| (name, value.clone()))).collect()
}

/// The kind of client and the address of a request, for the audit log.
pub(crate) fn via(headers: &HeaderMap, address: IpAddr) -> Via {
    let is_web =
        headers.get(X_REQUEST_SOURCE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"web"));
    let source = if is_web { Source::Web } else { Source::Api };
    Via { source, address: Some(address) }
}

/// The result of checking the credentials of a request.
#[derive(Debug, Clone)]
pub(crate) enum Identity {
    /// The request has no credential.
    Unknown,
    /// One credential is valid.
    Caller(Arc<Caller>),
    /// There are one or two credentials, and none is valid.
    Refused(AuthError),
}

impl Identity {
    /// Checks `Authorization: Bearer` and `X-API-Key`. If both are present, one valid credential is enough.
    pub(crate) async fn of(headers: &HeaderMap, tokens: &Tokens, via: Via) -> Self {
        let mut identity = Self::Unknown;
        for credential in credentials(headers) {
            match check(credential, tokens, via).await {
                Ok(caller) => return Self::Caller(Arc::new(caller)),
                Err(error) => identity = identity.or_refused(error),
            }
        }
        identity
    }

    /// Keeps the more specific of two reasons: a credential that can't be checked may be valid, and a disabled account is
    /// known.
    fn or_refused(self, new: AuthError) -> Self {
        let weight = |error: &AuthError| match error {
            AuthError::Invalid => 0,
            AuthError::IpNotAllowed => 1,
            AuthError::AccountDisabled => 2,
            AuthError::Unavailable => 3,
        };
        match self {
            Self::Refused(old) if weight(&old) >= weight(&new) => Self::Refused(old),
            Self::Unknown | Self::Caller(_) | Self::Refused(_) => Self::Refused(new),
        }
    }
}

async fn check(credential: &str, tokens: &Tokens, via: Via) -> Result<Caller, AuthError> {
    if credential.len() > CREDENTIAL_LENGTH_MAX {
        return Err(AuthError::Invalid);
    }
    tokens.authenticate(credential, via).await
}

/// Whether a request has a credential.
pub(crate) fn has_credential(headers: &HeaderMap) -> bool {
    credentials(headers).next().is_some()
}

/// The credentials of a request, without empty ones. A value that is no plain text becomes an invalid credential.
fn credentials(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let text =
        |name: HeaderName| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("\u{fffd}"));
    let bearer = text(header::AUTHORIZATION).and_then(|text| {
        let (scheme, credential) = text.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(credential)
    });
    let key = text(X_API_KEY);
    [bearer, key].into_iter().flatten().map(str::trim).filter(|credential| !credential.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pairs: &[(&'static str, &'static [u8])]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_bytes(value).expect("a header value"));
        }
        credentials(&headers).map(str::to_owned).collect()
    }

    #[test]
    fn both_headers_are_read_bearer_first() {
        assert_eq!(found(&[("x-api-key", b"k"), ("authorization", b"bearer  t ")]), ["t", "k"]);
    }

    #[test]
    fn empty_credential_counts_as_missing() {
        assert!(found(&[("x-api-key", b" "), ("authorization", b"Bearer")]).is_empty());
        assert!(found(&[("authorization", b"Basic dXNlcjpwYXNz")]).is_empty());
    }

    #[test]
    fn credential_that_is_no_text_is_wrong_not_missing() {
        assert_eq!(found(&[("x-api-key", b"\xff\xfe")]), ["\u{fffd}"]);
    }

    #[test]
    fn most_specific_refusal_is_kept() {
        let identity =
            Identity::Unknown.or_refused(AuthError::AccountDisabled).or_refused(AuthError::Invalid);
        assert!(matches!(identity, Identity::Refused(AuthError::AccountDisabled)));
        assert!(matches!(
            identity.or_refused(AuthError::Unavailable),
            Identity::Refused(AuthError::Unavailable)
        ));
    }
}
