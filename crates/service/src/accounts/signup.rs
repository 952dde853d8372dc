//! Sign-up: an account that a client creates for itself.

use pinfold_model::{Email, Role};

use super::{Accounts, NewAccount};
use crate::auth::logins::LoggedIn;
use crate::error::log_store_error;
use crate::{Error, LoginError, Password, Via};

/// A request for an account.
#[derive(Debug, Clone)]
pub struct NewSignup {
    /// Unique.
    pub email: Email,
    /// At most 255 bytes.
    pub name: String,
    pub password: Password,
    /// Referral code of the account that referred the new one.
    pub referral: Option<String>,
}

impl Accounts {
    /// Creates an account with the first plan, and logs it in.
    ///
    /// # Errors
    /// [`LoginError::SignupClosed`], [`Error::EmailTaken`], [`Error::InvalidRequest`] (name, password).
    pub async fn sign_up(&self, new: NewSignup, via: Via) -> Result<LoggedIn, Error> {
        if !self.signup_open {
            return Err(Error::Login(LoginError::SignupClosed));
        }
        let plan = self.auth.catalog.plans().iter().next().ok_or(Error::Internal)?.code.clone();
        let NewSignup { email, name, password, referral } = new;
        let new = NewAccount { email, name, plan, role: Role::User, password: Some(password) };
        let account = self.insert(new, false, via.actor(None)).await?.ok_or(Error::EmailTaken)?;
        let hash = self.auth.store.password_hash(account.id).await.map_err(log_store_error)?;
        if let Some(code) = referral {
            self.referrals.accept(account.id, &code).await?;
        }
        self.logins.open(account, hash.ok_or(Error::Internal)?, via).await
    }
}
