//! What an account can change about itself: name, password, preferences of its clients.

use pinfold_model::{Account, AccountId, Actor, Email, Preference};

use super::{Accounts, check_name};
use crate::auth::Auth;
use crate::error::log_store_error;
use crate::{Caller, Credential, Error, LoginError, Password};

/// Maximum size in bytes of all preferences of an account, names and values: a few dozen settings.
pub const PREFERENCES_LEN_MAX: usize = 16 * 1024;

/// Maximum length of a preference's name in bytes.
const PREFERENCE_NAME_LEN_MAX: usize = 100;

impl Accounts {
    /// Changes the name of the caller's account.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] if the name is empty, too long, or has control characters.
    pub async fn rename(&self, caller: &Caller, name: String) -> Result<Account, Error> {
        check_name(&name)?;
        let (id, now) = (caller.account.id, self.auth.clock.now());
        let renamed =
            self.auth.store.rename_account(id, name, caller.actor(), now).await.map_err(log_store_error)?;
        renamed.ok_or(Error::AccountNotFound)
    }

    /// Changes the password of the caller's account, and ends all its other sessions.
    ///
    /// # Errors
    /// [`LoginError::WrongPassword`] if `current` is not the present password; [`Error::InvalidRequest`] if the new one is
    /// not allowed.
    pub async fn change_password(
        &self,
        caller: &Caller,
        current: String,
        new: Password,
    ) -> Result<(), Error> {
        new.check_for(&caller.account.email)?;
        let expected = self.auth.check_password(caller, current).await?;
        let keep = match caller.credential {
            Credential::Session(id) => Some(id),
            Credential::Key(_) | Credential::Operator => None,
        };
        let hash = self.auth.hasher.hash(new).await?;
        let (id, now) = (caller.account.id, self.auth.clock.now());
        let set = self.auth.store.set_password(id, hash, Some(expected), keep, caller.actor(), now);
        // Another request may have changed the password meanwhile.
        if !set.await.map_err(log_store_error)? {
            return Err(Error::Login(LoginError::WrongPassword));
        }
        self.auth.notify_revocation();
        Ok(())
    }

    /// Sets the password of an account, and ends all its sessions. For operators.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`], [`Error::InvalidRequest`] if the password is not allowed.
    pub async fn reset_password(&self, email: &Email, new: Password) -> Result<(), Error> {
        let account = self.by_email(email).await?;
        self.auth.reset_password(Actor::OPERATOR, &account, new).await
    }

    /// Lists the caller's preferences, sorted by name.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn preferences(&self, caller: &Caller) -> Result<Vec<Preference>, Error> {
        self.auth.store.preferences(caller.account.id).await.map_err(log_store_error)
    }

    /// Sets preferences, and removes those without a value. Others stay. Returns all of them. Values are JSON.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] if all together would be too large, or a name is empty or too long.
    pub async fn set_preferences(
        &self,
        caller: &Caller,
        changes: Vec<(String, Option<String>)>,
    ) -> Result<Vec<Preference>, Error> {
        let fits = |name: &str| {
            (1..=PREFERENCE_NAME_LEN_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
        };
        if !changes.iter().all(|(name, _)| fits(name)) {
            return Err(Error::InvalidRequest(format!(
                "The name of a preference must have 1 to {PREFERENCE_NAME_LEN_MAX} bytes and no control characters"
            )));
        }
        let merged = self.auth.store.merge_preferences(caller.account.id, changes, PREFERENCES_LEN_MAX);
        merged.await.map_err(log_store_error)?.ok_or_else(|| {
            Error::InvalidRequest(format!(
                "All preferences together can have at most {PREFERENCES_LEN_MAX} bytes"
            ))
        })
    }
}

impl Auth {
    /// Sets the password of an account on behalf of `actor`, and ends all its sessions.
    pub(crate) async fn reset_password(
        &self,
        actor: Actor,
        account: &Account,
        new: Password,
    ) -> Result<(), Error> {
        new.check_for(&account.email)?;
        let hash = self.hasher.hash(new).await?;
        let now = self.clock.now();
        let set = self.store.set_password(account.id, hash, None, None, actor, now);
        if !set.await.map_err(log_store_error)? {
            return Err(Error::AccountNotFound);
        }
        self.notify_revocation();
        Ok(())
    }

    /// Disables the second factor of an account on behalf of `actor`.
    pub(crate) async fn remove_second_factor(&self, actor: Actor, account: AccountId) -> Result<(), Error> {
        let now = self.clock.now();
        let turned =
            self.store.disable_second_factor(account, None, actor, now).await.map_err(log_store_error)?;
        if turned { Ok(()) } else { Err(Error::Login(LoginError::SecondFactorOff)) }
    }
}
