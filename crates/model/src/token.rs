//! API keys, as far as they may be shown.

use std::fmt;
use std::time::Duration;

use crate::{AccountId, IpRules, ScopeSet, Timestamp, TokenId};

/// The name that an account gives a key; unique in the account.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenName(String);

/// Why a text is not a [`TokenName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("A key's name has 1 to {} bytes and no control characters", TokenName::LEN_MAX)]
pub struct TokenNameError;

impl TokenName {
    /// The longest name, in bytes: it stands in URLs.
    pub const LEN_MAX: usize = 100;

    /// Takes a name as it is, without blanks around it.
    ///
    /// # Errors
    /// [`TokenNameError`] if nothing is left, it is too long, or it has control characters.
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

/// How long a new key lives: a whole number of days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenLife(u32);

/// Why a number is no [`TokenLife`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("A key lives 1 to {} days; leave it out for a key without end", TokenLife::DAYS_MAX)]
pub struct TokenLifeError;

impl TokenLife {
    /// The longest: ten years. Who wants more wants a key without end.
    pub const DAYS_MAX: u32 = 3_650;

    /// Takes a number of days.
    ///
    /// # Errors
    /// [`TokenLifeError`] unless it is from 1 to [`Self::DAYS_MAX`].
    pub fn days(days: i64) -> Result<Self, TokenLifeError> {
        let days = u32::try_from(days).ok().filter(|days| (1..=Self::DAYS_MAX).contains(days));
        days.map(Self).ok_or(TokenLifeError)
    }

    /// When a key ends that is made now.
    #[must_use]
    pub fn ends_at(self, now: Timestamp) -> Timestamp {
        now.after(Duration::from_hours(24) * self.0)
    }
}

/// An API key without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its number.
    pub id: TokenId,
    /// Whose it is.
    pub account: AccountId,
    /// Its name.
    pub name: TokenName,
    /// A note of its owner.
    pub label: Option<String>,
    /// The first characters of the secret, so that its owner can tell keys apart.
    pub prefix: String,
    /// What it may do.
    pub scopes: ScopeSet,
    /// From where it may be used.
    pub ip_allowlist: IpRules,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; `None` for never.
    pub expires_at: Option<Timestamp>,
    /// About when it was last used (written with a delay of up to a minute).
    pub last_used_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_some_days() {
        let now = Timestamp::from_ms(0);
        assert_eq!(TokenLife::days(30).unwrap().ends_at(now).as_ms(), 30 * 86_400_000);
        for bad in [i64::MIN, -1, 0, 3_651, i64::MAX] {
            assert_eq!(TokenLife::days(bad), Err(TokenLifeError), "{bad}");
        }
    }
}
