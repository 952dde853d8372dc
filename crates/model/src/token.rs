//! API keys, without their secrets.

use std::fmt;
use std::time::Duration;

use crate::{AccountId, IpRules, ScopeSet, Timestamp, TokenId};

/// Name of an API key; unique within its account.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenName(String);

/// The text is not a valid [`TokenName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("A key's name has 1 to {} bytes and no control characters", TokenName::LEN_MAX)]
pub struct TokenNameError;

impl TokenName {
    /// Maximum length in bytes. The name is part of URLs.
    pub const LEN_MAX: usize = 100;

    /// Parses a name, removing surrounding whitespace.
    ///
    /// # Errors
    /// [`TokenNameError`] if the name is empty, too long, or contains control characters.
    pub fn parse(text: &str) -> Result<Self, TokenNameError> {
        let text = text.trim();
        let fits = (1..=Self::LEN_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
        if fits { Ok(Self(text.to_owned())) } else { Err(TokenNameError) }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lifetime of a new key in days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenLife(u32);

/// The number is not a valid [`TokenLife`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The lifetime of a key is 1 to {} days; omit it for a key that does not expire", TokenLife::DAYS_MAX)]
pub struct TokenLifeError;

impl TokenLife {
    /// Maximum: ten years. A key that must last longer can be created without expiry.
    pub const DAYS_MAX: u32 = 3_650;

    /// A lifetime of this many days.
    ///
    /// # Errors
    /// [`TokenLifeError`] unless `days` is 1 to [`Self::DAYS_MAX`].
    pub fn days(days: i64) -> Result<Self, TokenLifeError> {
        let days = u32::try_from(days).ok().filter(|days| (1..=Self::DAYS_MAX).contains(days));
        days.map(Self).ok_or(TokenLifeError)
    }

    /// When a key created at `now` expires.
    #[must_use]
    pub fn ends_at(self, now: Timestamp) -> Timestamp {
        now.after(Duration::from_hours(24) * self.0)
    }
}

/// An API key without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub id: TokenId,
    pub account: AccountId,
    pub name: TokenName,
    /// Free text of the owner.
    pub label: Option<String>,
    /// First characters of the secret, so that the owner can distinguish keys.
    pub prefix: String,
    pub scopes: ScopeSet,
    /// Networks from which the key may be used.
    pub ip_allowlist: IpRules,
    pub created_at: Timestamp,
    /// `None` if the key does not expire.
    pub expires_at: Option<Timestamp>,
    /// Last use. Written with a delay of up to a minute.
    pub last_used_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetime_is_bounded() {
        let now = Timestamp::from_ms(0);
        assert_eq!(TokenLife::days(30).unwrap().ends_at(now).as_ms(), 30 * 86_400_000);
        for bad in [i64::MIN, -1, 0, 3_651, i64::MAX] {
            assert_eq!(TokenLife::days(bad), Err(TokenLifeError), "{bad}");
        }
    }
}
