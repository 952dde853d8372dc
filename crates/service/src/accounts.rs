//! Accounts: made, listed, found.

use std::sync::Arc;

use pinfold_model::{Account, Email, PlanCode, Role};

use crate::service::Core;
use crate::{ApiKey, Error};

/// The accounts. Cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    pub(crate) core: Arc<Core>,
}

/// A password as it was typed, of a fitting length. It is never shown.
#[derive(Clone)]
pub struct Password(String);

/// Why a text is not a [`Password`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("A password has {} to {} bytes", Password::LEN_MIN, Password::LEN_MAX)]
pub struct PasswordError;

impl Password {
    /// The shortest, in bytes.
    pub const LEN_MIN: usize = 8;
    /// The longest, in bytes: hashing costs by length.
    pub const LEN_MAX: usize = 1_024;

    /// Takes a password as it is.
    ///
    /// # Errors
    /// [`PasswordError`] if it is too short or too long.
    pub fn parse(text: impl Into<String>) -> Result<Self, PasswordError> {
        let text = text.into();
        if (Self::LEN_MIN..=Self::LEN_MAX).contains(&text.len()) { Ok(Self(text)) } else { Err(PasswordError) }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

/// What a new account shall be.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// Its address; unique.
    pub email: Email,
    /// What it calls itself; at most 255 bytes.
    pub name: String,
    /// Its plan.
    pub plan: PlanCode,
    /// Its role.
    pub role: Role,
    /// Its password; without one it can't log in, but have keys.
    pub password: Option<Password>,
}

impl Accounts {
    /// Makes an account.
    ///
    /// # Errors
    /// [`Error::EmailTaken`], [`Error::InvalidRequest`] (no such plan, a name that is too long).
    pub async fn create(&self, new: NewAccount) -> Result<Account, Error> {
        let _ = new;
        Err(Error::Internal)
    }

    /// All accounts, oldest first; at most 10,000.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn list(&self) -> Result<Vec<Account>, Error> {
        Err(Error::Internal)
    }

    /// The account with this address.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`].
    pub async fn by_email(&self, email: &Email) -> Result<Account, Error> {
        let _ = email;
        Err(Error::AccountNotFound)
    }

    /// On the very first start, makes the account `admin@localhost` (role admin, plan premium) and a key
    /// with every scope, and gives the key; `None` when there are accounts already.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn ensure_admin(&self) -> Result<Option<ApiKey>, Error> {
        Err(Error::Internal)
    }
}
