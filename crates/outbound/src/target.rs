//! Where a webhook is told: a URL that was looked at once.

use std::fmt;
use std::net::IpAddr;

use reqwest::Url;

use crate::address::is_public;

/// Where requests may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reach {
    /// Also without TLS.
    pub plain_http: bool,
    /// Also to addresses that are not public.
    pub private: bool,
}

impl Reach {
    /// Whether this address may be connected to.
    #[must_use]
    pub fn allows(self, address: IpAddr) -> bool {
        self.private || is_public(address)
    }
}

/// A URL that may be asked, as far as its text says.
#[derive(Clone, PartialEq, Eq)]
pub struct Target(Url);

/// Why a text is not a [`Target`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// No URL, or none that can be asked.
    #[error("The URL must be an absolute one with a host, such as https://example.org/hook")]
    Invalid,
    /// Too long.
    #[error("A URL has at most {} bytes", Target::LEN_MAX)]
    TooLong,
    /// Another scheme than allowed.
    #[error("The URL must begin with https://")]
    Scheme,
    /// It has a user name or password, or a fragment.
    #[error("The URL may have no user name, password or fragment")]
    Extras,
    /// Its host is an address that is not public.
    #[error("The URL's host must be a public address")]
    NotPublic,
}

impl Target {
    /// The longest, in bytes.
    pub const LEN_MAX: usize = 2_048;

    /// Reads a URL. What a host's name stands for is looked at with each request; an address, in whatever notation, is
    /// looked at here too.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn parse(text: &str, reach: Reach) -> Result<Self, TargetError> {
        if text.len() > Self::LEN_MAX {
            return Err(TargetError::TooLong);
        }
        let url = Url::parse(text.trim()).map_err(|_| TargetError::Invalid)?;
        match url.scheme() {
            "https" => {}
            "http" if reach.plain_http => {}
            _ => return Err(TargetError::Scheme),
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(TargetError::Invalid)?;
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(TargetError::Extras);
        }
        if url.as_str().len() > Self::LEN_MAX {
            return Err(TargetError::TooLong);
        }
        match literal(host) {
            Some(address) if !reach.allows(address) => Err(TargetError::NotPublic),
            _ => Ok(Self(url)),
        }
    }

    /// The URL in its normal form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub(crate) fn url(&self) -> &Url {
        &self.0
    }
}

/// The address that a host is, in the normal form of a URL.
fn literal(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// A URL can have a secret in its path or query, which belongs in no log: the host alone is shown.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({}://{}/…)", self.0.scheme(), self.0.host_str().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: Reach = Reach { plain_http: false, private: false };
    const ANY: Reach = Reach { plain_http: true, private: true };

    fn fault(text: &str) -> Option<TargetError> {
        Target::parse(text, PUBLIC).err()
    }

    #[test]
    fn a_target_is_a_plain_https_url() {
        let target = Target::parse(" https://Example.org:8443/a?b=c ", PUBLIC).expect("a target");
        assert_eq!(target.as_str(), "https://example.org:8443/a?b=c");
        assert_eq!(format!("{target:?}"), "Target(https://example.org/…)");
        for text in ["", "example.org", "/hook", "https://", "https://exa mple.org/"] {
            assert_eq!(fault(text), Some(TargetError::Invalid), "{text:?}");
        }
        for text in
            ["http://example.org/", "ftp://example.org/", "file:///etc/passwd", "gopher://example.org/"]
        {
            assert_eq!(fault(text), Some(TargetError::Scheme), "{text}");
        }
        for text in ["https://u@example.org/", "https://u:p@example.org/", "https://example.org/#x"] {
            assert_eq!(fault(text), Some(TargetError::Extras), "{text}");
        }
        assert_eq!(fault(&format!("https://example.org/{}", "a".repeat(2_048))), Some(TargetError::TooLong));
        let growing = format!("https://example.org/{}", "é".repeat(1_000));
        assert_eq!(fault(&growing), Some(TargetError::TooLong), "as it is sent");
    }

    #[test]
    fn no_notation_of_a_private_address_gets_by() {
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
            assert_eq!(fault(&text), Some(TargetError::NotPublic), "{text}");
            Target::parse(&text.replace("https", "http"), ANY).expect("where it is allowed");
        }
        assert_eq!(fault("https://1.1.1.1/hook"), None);
    }
}
