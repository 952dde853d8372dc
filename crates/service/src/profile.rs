//! What an account can change about itself: its name, its password, what its clients remember.

use pinfold_model::{Account, AccountId, Actor, Email};
use pinfold_store::{AuditEvent, Preference};

use crate::core::{Core, unavailable};
use crate::{Accounts, Caller, Credential, Error, LoginError, Password};

/// The bytes that all preferences of an account may have together, names and values: a few dozen settings.
pub const PREFERENCES_LEN_MAX: usize = 16 * 1024;

/// The longest name of a preference, in bytes.
const PREFERENCE_NAME_LEN_MAX: usize = 100;

impl Accounts {
    /// Calls the caller's account something else.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for a name that is empty, too long, or has control characters.
    pub async fn rename(&self, caller: &Caller, name: String) -> Result<Account, Error> {
        crate::accounts::check_name(&name)?;
        let (id, now) = (caller.account.id, self.core.clock.now());
        let renamed =
            self.core.store.rename_account(id, name, caller.by(), now).await.map_err(unavailable)?;
        renamed.ok_or(Error::AccountNotFound)
    }

    /// Gives the caller's account another password, and ends all its other sessions.
    ///
    /// # Errors
    /// [`LoginError::WrongPassword`] unless `current` is the present one; [`Error::InvalidRequest`] for a new one that
    /// does not suit.
    pub async fn change_password(
        &self,
        caller: &Caller,
        current: String,
        new: Password,
    ) -> Result<(), Error> {
        new.suits(&caller.account.email)?;
        let expected = self.check_password(caller, current).await?;
        let keep = match caller.credential {
            Credential::Session(id) => Some(id),
            Credential::Key(_) | Credential::Operator => None,
        };
        let hash = self.core.hasher.hash(new).await?;
        let (id, now) = (caller.account.id, self.core.clock.now());
        let set = self.core.store.set_password(id, hash, Some(expected), keep, caller.by(), now);
        // Another request may have changed it since it was compared.
        if !set.await.map_err(unavailable)? {
            return Err(Error::Login(LoginError::WrongPassword));
        }
        self.core.revoked.send_replace(());
        Ok(())
    }

    /// Gives an account another password, as an operator may, and ends all its sessions.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`], [`Error::InvalidRequest`] for a password that does not suit.
    pub async fn reset_password(&self, email: &Email, new: Password) -> Result<(), Error> {
        let account = self.by_email(email).await?;
        self.core.reset_password(Actor::OPERATOR, &account, new).await
    }

    /// The caller's preferences, by name.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn preferences(&self, caller: &Caller) -> Result<Vec<Preference>, Error> {
        self.core.store.preferences(caller.account.id).await.map_err(unavailable)
    }

    /// Sets preferences, removes those without a value, leaves the rest, and gives all. Values are JSON.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] when all together would be too large, or a name is empty or too long.
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
                "A preference's name has 1 to {PREFERENCE_NAME_LEN_MAX} bytes and no control characters"
            )));
        }
        let merged = self.core.store.merge_preferences(caller.account.id, changes, PREFERENCES_LEN_MAX);
        merged.await.map_err(unavailable)?.ok_or_else(|| {
            Error::InvalidRequest(format!("Preferences have at most {PREFERENCES_LEN_MAX} bytes together"))
        })
    }

    /// Compares the caller's password with what was typed; gives its hash.
    pub(crate) async fn check_password(&self, caller: &Caller, typed: String) -> Result<String, Error> {
        let hash = self.core.store.password_hash(caller.account.id).await.map_err(unavailable)?;
        let is_right = self.core.hasher.compare(typed, hash.clone()).await?;
        hash.filter(|_| is_right).ok_or_else(|| {
            let act = AuditEvent::new(caller.account.id, caller.by(), "account.password", "password");
            self.core.log_later(act.refused());
            Error::Login(LoginError::WrongPassword)
        })
    }
}

impl Core {
    /// Gives an account another password, as `by` wants, and ends all its sessions.
    pub(crate) async fn reset_password(
        &self,
        by: Actor,
        account: &Account,
        new: Password,
    ) -> Result<(), Error> {
        new.suits(&account.email)?;
        let hash = self.hasher.hash(new).await?;
        let now = self.clock.now();
        let set = self.store.set_password(account.id, hash, None, None, by, now);
        if !set.await.map_err(unavailable)? {
            return Err(Error::AccountNotFound);
        }
        self.revoked.send_replace(());
        Ok(())
    }

    /// Removes the second factor of an account, as `by` wants.
    pub(crate) async fn remove_second_factor(&self, by: Actor, account: AccountId) -> Result<(), Error> {
        let now = self.clock.now();
        let turned = self.store.disable_second_factor(account, None, by, now).await.map_err(unavailable)?;
        if turned { Ok(()) } else { Err(Error::Login(LoginError::SecondFactorOff)) }
    }
}
