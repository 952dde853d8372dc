//! Accounts, their e-mail addresses and their roles.

use std::fmt;
use std::str::FromStr;

use crate::{AccountId, PlanCode, Timestamp};

/// An e-mail address in lower case. It is unique and identifies the account at login.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Email(String);

/// The text is not a valid [`Email`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The e-mail address must look like name@host and have at most {} characters", Email::LEN_MAX)]
pub struct EmailError;

impl Email {
    /// Maximum length in bytes (RFC 5321, section 4.5.3.1.3, without the angle brackets).
    pub const LEN_MAX: usize = 254;

    /// Parses an address, removing surrounding whitespace and converting it to lower case.
    ///
    /// # Errors
    /// [`EmailError`] unless the text is exactly two non-empty parts joined by `@`, without whitespace or control
    /// characters, and at most [`LEN_MAX`](Self::LEN_MAX) bytes long.
    pub fn parse(text: &str) -> Result<Self, EmailError> {
        let text = text.trim().to_lowercase();
        let (name, host) = text.split_once('@').ok_or(EmailError)?;
        let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '@';
        let fits = text.len() <= Self::LEN_MAX && !name.is_empty() && !host.is_empty();
        if fits && name.chars().all(plain) && host.chars().all(plain) {
            Ok(Self(text))
        } else {
            Err(EmailError)
        }
    }

    /// The address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The role of an account: whether it may act on other accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// May act on its own pins, keys and settings only.
    User,
    /// May also administer the service and all accounts.
    Admin,
}

/// The text is not a [`Role`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The role must be user or admin")]
pub struct RoleError;

impl Role {
    /// The stored and displayed form: `user` or `admin`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        match text {
            "user" => Ok(Self::User),
            "admin" => Ok(Self::Admin),
            _ => Err(RoleError),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A user of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub id: AccountId,
    pub email: Email,
    /// Display name.
    pub name: String,
    pub role: Role,
    pub plan: PlanCode,
    /// Whether all credentials of the account are rejected.
    pub disabled: bool,
    /// Whether a login requires a one-time code in addition to the password.
    pub two_factor: bool,
    /// Sum of the bytes charged for its pins. A pin is only charged if the sum stays within `storage_limit_bytes`; a
    /// later reduction of the limit can leave the sum above it.
    pub used_bytes: u64,
    /// Deduplicated usage: like `used_bytes`, with blocks that several of its pins share counted once. Computed in
    /// the background, so it lags behind changes.
    pub dedup_bytes: u64,
    /// Maximum of `used_bytes`.
    pub storage_limit_bytes: u64,
    /// Number of pins, including failed ones.
    pub pins: u64,
    pub created_at: Timestamp,
}

impl Account {
    /// Unused storage in bytes: zero if the account is over its limit.
    #[must_use]
    pub fn remaining_bytes(&self) -> u64 {
        self.storage_limit_bytes.saturating_sub(self.used_bytes)
    }
}

/// A setting that the account's clients store. The service does not interpret it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preference {
    pub name: String,
    /// JSON text.
    pub value: String,
}

/// An account that signed up with the referral code of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Referral {
    pub account: AccountId,
    /// When it signed up.
    pub at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn email_is_normalized_to_lower_case() {
        assert_eq!(Email::parse(" Ada@Example.ORG ").unwrap().as_str(), "ada@example.org");
        for bad in ["", "@", "a@", "@b", "a b@c", "a@b@c", "a@b\n.c"] {
            assert_eq!(Email::parse(bad), Err(EmailError), "{bad:?}");
        }
        assert!(Email::parse(&format!("{}@b", "a".repeat(253))).is_err());
    }

    #[test]
    fn role_round_trips_through_text() {
        for role in [Role::User, Role::Admin] {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().is_err());
    }
}
