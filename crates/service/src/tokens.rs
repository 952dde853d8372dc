//! API keys: made, proven, listed, revoked.

use std::sync::Arc;

use pinfold_model::{AccountId, ScopeSet, Timestamp, Token, TokenName};

use crate::service::Core;
use crate::{ApiKey, AuthError, Caller, Error};

/// The keys of all accounts. Cheap to clone.
#[derive(Clone)]
pub struct Tokens {
    pub(crate) core: Arc<Core>,
}

/// What a new key shall be.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Its name; unique in the account.
    pub name: TokenName,
    /// A note of its owner, at most 255 bytes.
    pub label: Option<String>,
    /// What it may do.
    pub scopes: ScopeSet,
    /// When it ends; `None` for never.
    pub expires_at: Option<Timestamp>,
}

/// A key that was just made.
#[derive(Debug)]
pub struct CreatedToken {
    /// The key itself, which is nowhere else: show it once.
    pub secret: ApiKey,
    /// What is kept of it.
    pub token: Token,
}

impl Tokens {
    /// Proves a credential.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn authenticate(&self, credential: &str) -> Result<Caller, AuthError> {
        let _ = credential;
        Err(AuthError::Unavailable)
    }

    /// Makes a key for `account`, as an operator may.
    ///
    /// # Errors
    /// [`Error::NameTaken`], [`Error::AccountNotFound`], [`Error::InvalidRequest`] (no scope, past expiry).
    pub async fn create(&self, account: AccountId, new: NewToken) -> Result<CreatedToken, Error> {
        let _ = (account, new);
        Err(Error::Internal)
    }

    /// Makes a key for the caller, which can't have scopes that the caller's lacks.
    ///
    /// # Errors
    /// As [`create`](Self::create), and [`Error::ScopeNotHeld`].
    pub async fn create_for(&self, caller: &Caller, new: NewToken) -> Result<CreatedToken, Error> {
        let _ = (caller, new);
        Err(Error::Internal)
    }

    /// The account's keys, oldest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn list(&self, account: AccountId) -> Result<Vec<Token>, Error> {
        let _ = account;
        Err(Error::Internal)
    }

    /// Revokes a key. From the moment this returns, it proves nothing.
    ///
    /// # Errors
    /// [`Error::TokenNotFound`].
    pub async fn revoke(&self, account: AccountId, name: &TokenName) -> Result<(), Error> {
        let _ = (account, name);
        Err(Error::Internal)
    }
}
