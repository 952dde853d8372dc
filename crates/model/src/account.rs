//! Who uses the service: accounts, their e-mail addresses and roles.

use std::fmt;
use std::str::FromStr;

use crate::{AccountId, PlanCode, Timestamp};

/// An e-mail address, lower-cased: the name that an account logs in with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Email(String);

/// Why a text is not an [`Email`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The e-mail address must look like name@host and have at most {} characters", Email::LEN_MAX)]
pub struct EmailError;

impl Email {
    /// The longest address, in bytes (RFC 5321, section 4.5.3.1.3, without the brackets).
    pub const LEN_MAX: usize = 254;

    /// Takes an address. It is compared and kept in lower case.
    ///
    /// # Errors
    /// [`EmailError`] unless it has one `@` between two parts, no blank and no control character.
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

/// What an account may do beyond its own things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Its own pins and keys only.
    User,
    /// Everything, for everyone.
    Admin,
}

/// A text that is no [`Role`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The role must be user or admin")]
pub struct RoleError;

impl Role {
    /// `user` or `admin`.
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
    /// Its number.
    pub id: AccountId,
    /// Its address; unique.
    pub email: Email,
    /// What it calls itself.
    pub name: String,
    /// What it may do beyond its own things.
    pub role: Role,
    /// The code of its plan.
    pub plan: PlanCode,
    /// Whether its credentials are refused.
    pub disabled: bool,
    /// Whether logging in needs a code beside the password.
    pub two_factor: bool,
    /// The bytes that its pins are charged with; never more than `storage_limit_bytes` was when they came.
    pub used_bytes: u64,
    /// The same when blocks that its pins share count once: at most as much, and counted a little behind the changes.
    pub dedup_bytes: u64,
    /// The bytes that its pins may have altogether.
    pub storage_limit_bytes: u64,
    /// How many pins it has, failed ones included.
    pub pins: u64,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Account {
    /// The bytes that are left.
    #[must_use]
    pub fn remaining_bytes(&self) -> u64 {
        self.storage_limit_bytes.saturating_sub(self.used_bytes)
    }
}

/// A setting that the account's clients store. The service does not interpret it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preference {
    pub name: String,
    /// JSON.
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
    fn an_address_is_kept_in_lower_case() {
        assert_eq!(Email::parse(" Ada@Example.ORG ").unwrap().as_str(), "ada@example.org");
        for bad in ["", "@", "a@", "@b", "a b@c", "a@b@c", "a@b\n.c"] {
            assert_eq!(Email::parse(bad), Err(EmailError), "{bad:?}");
        }
        assert!(Email::parse(&format!("{}@b", "a".repeat(253))).is_err());
    }

    #[test]
    fn roles_read_what_they_write() {
        for role in [Role::User, Role::Admin] {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().is_err());
    }
}
