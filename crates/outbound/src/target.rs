//! The URL that a request goes to, checked once.

use std::fmt;
use std::net::IpAddr;

use reqwest::Url;

use crate::address::is_public;

/// Which targets are allowed, beyond HTTPS to public addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TargetPolicy {
    /// URLs without TLS.
    pub allow_http: bool,
    /// Addresses that are not public.
    pub allow_private: bool,
}

impl TargetPolicy {
    /// Whether requests may go to this address.
    #[must_use]
    pub fn allows(self, address: IpAddr) -> bool {
        self.allow_private || is_public(address)
    }
}

/// A URL whose text the policy allows. The addresses of a host name are checked when a request is sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Target(Url);

/// Why a URL is not a [`Target`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("The URL must be absolute and have a host, such as https://example.org/hook")]
    Invalid,
    #[error("The URL must not be longer than {} bytes", Target::LEN_MAX)]
    TooLong,
    #[error("The URL must begin with https://")]
    Scheme,
    #[error("The URL must not have a user name, password or fragment")]
    CredentialsOrFragment,
    #[error("The URL's host must be a public address")]
    NotPublic,
}

impl Target {
    /// The maximum length of a URL, in bytes.
    pub const LEN_MAX: usize = 2_048;

    /// Parses a URL. A host that is an IP address, in any notation, is checked here; a host name is resolved and checked
    /// with each request.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn parse(text: &str, policy: TargetPolicy) -> Result<Self, TargetError> {
        if text.len() > Self::LEN_MAX {
            return Err(TargetError::TooLong);
        }
        let url = Url::parse(text.trim()).map_err(|_| TargetError::Invalid)?;
        match url.scheme() {
            "https" => {}
            "http" if policy.allow_http => {}
            _ => return Err(TargetError::Scheme),
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(TargetError::Invalid)?;
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(TargetError::CredentialsOrFragment);
        }
        if url.as_str().len() > Self::LEN_MAX {
            return Err(TargetError::TooLong);
        }
        match literal(host) {
            Some(address) if !policy.allows(address) => Err(TargetError::NotPublic),
            _ => Ok(Self(url)),
        }
    }

    /// The normalized URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub(crate) fn url(&self) -> &Url {
        &self.0
    }
}

/// The IP address if the host of a normalized URL is one.
fn literal(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// Shows only scheme and host: path and query can contain secrets, which must not be logged.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({}://{}/…)", self.0.scheme(), self.0.host_str().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: TargetPolicy = TargetPolicy { allow_http: false, allow_private: false };
    const ANY: TargetPolicy = TargetPolicy { allow_http: true, allow_private: true };

    fn error(text: &str) -> Option<TargetError> {
        Target::parse(text, PUBLIC).err()
    }

    #[test]
    fn target_is_an_https_url_without_credentials() {
        let target = Target::parse(" https://Example.org:8443/a?b=c ", PUBLIC).expect("is a target");
        assert_eq!(target.as_str(), "https://example.org:8443/a?b=c");
        assert_eq!(format!("{target:?}"), "Target(https://example.org/…)");
        for text in ["", "example.org", "/hook", "https://", "https://exa mple.org/"] {
            assert_eq!(error(text), Some(TargetError::Invalid), "{text:?}");
        }
        for text in
            ["http://example.org/", "ftp://example.org/", "file:///etc/passwd", "gopher://example.org/"]
        {
            assert_eq!(error(text), Some(TargetError::Scheme), "{text}");
        }
        for text in ["https://u@example.org/", "https://u:p@example.org/", "https://example.org/#x"] {
            assert_eq!(error(text), Some(TargetError::CredentialsOrFragment), "{text}");
        }
        assert_eq!(error(&format!("https://example.org/{}", "a".repeat(2_048))), Some(TargetError::TooLong));
        let grows_when_encoded = format!("https://example.org/{}", "é".repeat(1_000));
        assert_eq!(error(&grows_when_encoded), Some(TargetError::TooLong), "the normalized URL is too long");
    }

    #[test]
    fn private_addresses_are_rejected_in_every_notation() {
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "0x7f.1",
            "169.254.169.254",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "[fd00::1]",
            "１２７.0.0.1",
            "127。0。0。1",
        ] {
            let text = format!("https://{host}/hook");
            assert_eq!(error(&text), Some(TargetError::NotPublic), "{text}");
            Target::parse(&text.replace("https", "http"), ANY).expect("is allowed by the policy");
        }
        assert_eq!(error("https://1.1.1.1/hook"), None);
    }
}
