//! The options of a pin: what a request can set apart from the CID and the cluster.

use crate::{Lifetime, PinName, Retention, Timelock};

/// A peer that claims to have the content: a multiaddr with `/p2p/…`, without spaces or control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

/// The text can't be an [`Origin`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "An origin must be a multiaddr of at most {} bytes, without spaces or control characters",
    Origin::LEN_MAX
)]
pub struct OriginError;

impl Origin {
    /// Maximum length in bytes.
    pub const LEN_MAX: usize = 512;

    /// Checks the length and the characters. Whether the text is a multiaddr is checked by the cluster driver,
    /// which ignores origins that it can't use.
    ///
    /// # Errors
    /// [`OriginError`].
    pub fn parse(text: impl Into<String>) -> Result<Self, OriginError> {
        let text = text.into();
        let is_plain = !text.chars().any(|c| c.is_control() || c.is_whitespace());
        if text.len() <= Self::LEN_MAX && is_plain { Ok(Self(text)) } else { Err(OriginError) }
    }

    /// The multiaddr.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The options of a pin. On an existing pin, an option that is left out keeps its present value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PinOptions {
    /// Name of the content at its source, such as a file name.
    pub original_name: Option<PinName>,
    /// Name chosen by the account.
    pub custom_name: Option<PinName>,
    /// When the pin is removed automatically.
    pub timelock: Option<Timelock>,
    /// Until when the pin can't be removed. Can only be extended.
    pub retention: Option<Retention>,
    /// Peers to fetch the content from, in addition to those that routing finds. At most
    /// [`ORIGINS_MAX`](Self::ORIGINS_MAX).
    pub origins: Vec<Origin>,
}

impl PinOptions {
    /// Maximum number of origins: each is dialled when the content is fetched.
    pub const ORIGINS_MAX: usize = 20;

    /// The requested times.
    #[must_use]
    pub fn lifetime(&self) -> Lifetime {
        Lifetime {
            expires_at: self.timelock.map(Timelock::ends_at),
            retain_until: self.retention.map(Retention::until),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_rejects_long_text_and_spaces() {
        let is_ok = |text: &str| Origin::parse(text).is_ok();
        assert!(is_ok("/ip4/127.0.0.1/tcp/4001/p2p/12D3KooW"));
        assert!(is_ok(&"a".repeat(Origin::LEN_MAX)));
        assert!(!is_ok(&"a".repeat(Origin::LEN_MAX + 1)));
        assert!(!is_ok("/ip4/127.0.0.1 /tcp/1") && !is_ok("a\nb") && !is_ok("a\0b"));
    }
}
