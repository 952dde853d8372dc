//! Setting up and removing the second factor of an account.

use pinfold_model::{Actor, Email};

use super::Accounts;
use crate::auth::second_factor::{new_secret, otpauth_url};
use crate::error::log_store_error;
use crate::{Caller, Error, LoginError};

/// What an authenticator app needs. `Debug` hides it.
#[derive(Clone)]
pub struct SecondFactorSetup {
    /// In base32.
    pub secret: String,
    /// The `otpauth://` URL with the secret and all parameters.
    pub otpauth_url: String,
}

impl std::fmt::Debug for SecondFactorSetup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecondFactorSetup(…)")
    }
}

impl Accounts {
    /// Creates a new secret for the caller. It takes effect when [`enable_second_factor`](Self::enable_second_factor)
    /// receives a code of it.
    ///
    /// # Errors
    /// [`LoginError::SecondFactorOn`].
    pub async fn set_up_second_factor(&self, caller: &Caller) -> Result<SecondFactorSetup, Error> {
        let secret = new_secret()?;
        let now = self.auth.clock.now();
        let set_up =
            self.auth.store.set_up_second_factor(caller.account.id, secret.clone(), caller.actor(), now);
        if !set_up.await.map_err(log_store_error)? {
            return Err(Error::Login(LoginError::SecondFactorOn));
        }
        let otpauth_url = otpauth_url(&caller.account.email, &secret);
        Ok(SecondFactorSetup { secret, otpauth_url })
    }

    /// Enables the second factor that was set up, with its first code.
    ///
    /// # Errors
    /// [`LoginError::SecondFactorOn`], [`LoginError::SecondFactorOff`] if none was set up, and as
    /// [`check_second_factor`](Self::check_second_factor).
    pub async fn enable_second_factor(&self, caller: &Caller, code: Option<&str>) -> Result<(), Error> {
        let factor =
            self.auth.second_factor(caller).await?.ok_or(Error::Login(LoginError::SecondFactorOff))?;
        if factor.is_on {
            return Err(Error::Login(LoginError::SecondFactorOn));
        }
        let (id, now) = (caller.account.id, self.auth.clock.now());
        let used = self.auth.try_code(caller, &factor, code).await?;
        let turned = self
            .auth
            .store
            .enable_second_factor(id, used, caller.actor(), now)
            .await
            .map_err(log_store_error)?;
        if turned { Ok(()) } else { Err(Error::Login(LoginError::SecondFactorInvalid)) }
    }

    /// Disables the second factor.
    ///
    /// # Errors
    /// [`LoginError::WrongPassword`], [`LoginError::SecondFactorOff`] if none is enabled, and as
    /// [`check_second_factor`](Self::check_second_factor).
    pub async fn disable_second_factor(
        &self,
        caller: &Caller,
        password: String,
        code: Option<&str>,
    ) -> Result<(), Error> {
        let factor = self
            .auth
            .second_factor(caller)
            .await?
            .filter(|factor| factor.is_on)
            .ok_or(Error::Login(LoginError::SecondFactorOff))?;
        self.auth.check_password(caller, password).await?;
        let used = self.auth.try_code(caller, &factor, code).await?;
        let (id, now) = (caller.account.id, self.auth.clock.now());
        let turned = self
            .auth
            .store
            .disable_second_factor(id, Some(used), caller.actor(), now)
            .await
            .map_err(log_store_error)?;
        if turned { Ok(()) } else { Err(Error::Login(LoginError::SecondFactorInvalid)) }
    }

    /// Disables the second factor of an account whose owner has lost it. For operators.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`], [`LoginError::SecondFactorOff`].
    pub async fn remove_second_factor(&self, email: &Email) -> Result<(), Error> {
        let account = self.by_email(email).await?;
        self.auth.remove_second_factor(Actor::OPERATOR, account.id).await
    }

    /// Requires a code from the caller, if the account has a second factor, and consumes it. Operators need none.
    ///
    /// # Errors
    /// [`LoginError::SecondFactorRequired`] without a code; [`LoginError::SecondFactorInvalid`] for a wrong or used code;
    /// [`LoginError::TooManyTries`].
    pub async fn check_second_factor(&self, caller: &Caller, code: Option<&str>) -> Result<(), Error> {
        self.auth.check_second_factor(caller, code).await
    }
}
