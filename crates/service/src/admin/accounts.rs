//! Accounts: listing, changing, removing.

use pinfold_model::{
    Account, AccountId, Actor, PlanCode, PlanError, PlanLimits, Role, Timestamp, Token, TokenId,
};
use pinfold_store::{AccountChanges, AccountFilter, AccountRecord, BeginRemovalOutcome};

use super::Admin;
use crate::accounts::check_name;
use crate::accounts::subscriptions::updated_account;
use crate::error::log_store_error;
use crate::{Error, Password, Tokens};

/// Maximum accounts per page.
const LIMIT_MAX: u32 = 100;
/// Maximum length of a search text in bytes.
const SEARCH_LEN_MAX: usize = 255;

/// Which accounts to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct AccountQuery {
    /// Only accounts with this text in the e-mail address or the name; at most 255 bytes.
    pub search: Option<String>,
    /// Only accounts with this plan.
    pub plan: Option<PlanCode>,
    /// Only accounts with this role.
    pub role: Option<Role>,
    /// Only accounts that are disabled (or, if `false`, enabled).
    pub disabled: Option<bool>,
    /// Accounts per page; clamped to 1 to 100.
    pub limit: u32,
    /// Where to continue.
    pub cursor: Option<AccountId>,
}

/// An account, as administrators see it.
pub type AccountView = AccountRecord;

/// A page of accounts. A page with fewer accounts than requested, or none, may not be the last.
#[derive(Debug, Clone)]
pub struct AccountPage {
    pub accounts: Vec<AccountView>,
    /// Where the next page begins; `None` on the last page.
    pub next_cursor: Option<AccountId>,
}

/// Changes of an account. `None` leaves a field unchanged.
#[derive(Debug, Clone, Default)]
pub struct AccountEdit {
    /// At most 255 bytes.
    pub name: Option<String>,
    /// May be a plan that the pins do not fit into: they stay, and no more can be added.
    pub plan: Option<PlanCode>,
    pub role: Option<Role>,
    /// Whether its credentials are refused.
    pub disabled: Option<bool>,
    /// Individual storage limit; `Some(None)` selects that of the plan.
    pub storage_override_bytes: Option<Option<u64>>,
}

/// The result of removing an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoveAccountOutcome {
    /// The account is removed.
    Removed,
    /// The account is disabled, and will be removed after this number of pins.
    Begun { pins: u64 },
}

impl Admin {
    /// Lists accounts.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn accounts(&self, query: AccountQuery) -> Result<AccountPage, Error> {
        if query.search.as_ref().is_some_and(|text| text.len() > SEARCH_LEN_MAX) {
            return Err(Error::InvalidRequest(format!("`search` must have at most {SEARCH_LEN_MAX} bytes")));
        }
        let AccountQuery { search, plan, role, disabled, limit, cursor } = query;
        let filter = AccountFilter { search: search.filter(|text| !text.is_empty()), plan, role, disabled };
        let limit = limit.clamp(1, LIMIT_MAX);
        let list = self.store.list_accounts(&filter, cursor, limit).await.map_err(log_store_error)?;
        Ok(AccountPage { accounts: list.accounts, next_cursor: list.next })
    }

    /// Reads an account.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`].
    pub async fn account(&self, id: AccountId) -> Result<AccountView, Error> {
        self.store.account_record(id).await.map_err(log_store_error)?.ok_or(Error::AccountNotFound)
    }

    /// Changes an account. All changes are applied, or none.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`], [`Error::InvalidRequest`] (invalid name, unknown plan), [`Error::LastAdmin`],
    /// [`Error::AccountLeaving`].
    pub async fn change_account(
        &self,
        actor: Actor,
        id: AccountId,
        edit: AccountEdit,
    ) -> Result<Account, Error> {
        if let Some(name) = &edit.name {
            check_name(name)?;
        }
        if edit.storage_override_bytes.flatten().is_some_and(|bytes| bytes > PlanLimits::BYTES_MAX) {
            return Err(Error::InvalidRequest(PlanError::Bytes.to_string()));
        }
        let plan = match &edit.plan {
            None => None,
            Some(code) => {
                let plan = self.catalog.requested_plan(code).await?;
                Some(self.catalog.grant(&plan, false))
            }
        };
        let plan = self.plan_for_storage(id, plan, edit.storage_override_bytes).await?;
        let AccountEdit { name, role, disabled, storage_override_bytes, .. } = edit;
        let changes = AccountChanges { name, plan, role, disabled, storage_override: storage_override_bytes };
        let now = self.clock.now();
        let done = self.store.update_account(id, changes, actor, now).await.map_err(log_store_error)?;
        // Its role may have fewer permissions, or it may be disabled.
        self.auth.notify_revocation();
        updated_account(done)
    }

    /// An account that returns to the plan's storage is granted the plan again.
    async fn plan_for_storage(
        &self,
        id: AccountId,
        plan: Option<pinfold_store::PlanGrant>,
        storage: Option<Option<u64>>,
    ) -> Result<Option<pinfold_store::PlanGrant>, Error> {
        if plan.is_some() || storage != Some(None) {
            return Ok(plan);
        }
        let account = self.store.account(id).await.map_err(log_store_error)?.ok_or(Error::AccountNotFound)?;
        let plan = self.catalog.plan_of(&account).await?.ok_or(Error::Internal)?;
        Ok(Some(self.catalog.grant(&plan, false)))
    }

    /// Sets the password of an account, and ends all its sessions.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`], [`Error::InvalidRequest`] if the password is not allowed.
    pub async fn reset_password(&self, actor: Actor, id: AccountId, new: Password) -> Result<(), Error> {
        let account = self.account(id).await?.account;
        self.auth.reset_password(actor, &account, new).await
    }

    /// Disables the second factor of an account whose owner has lost it.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`], [`LoginError::SecondFactorOff`](crate::LoginError::SecondFactorOff).
    pub async fn remove_second_factor(&self, actor: Actor, id: AccountId) -> Result<(), Error> {
        let account = self.account(id).await?.account;
        self.auth.remove_second_factor(actor, account.id).await
    }

    /// Ends all sessions of an account, and returns how many. Its API keys stay valid.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`].
    pub async fn end_sessions(&self, actor: Actor, id: AccountId) -> Result<u64, Error> {
        let now = self.clock.now();
        let closed = self.store.delete_sessions(id, actor, now).await.map_err(log_store_error)?;
        self.auth.notify_revocation();
        closed.ok_or(Error::AccountNotFound)
    }

    /// Removes an account. An account without pins is removed when this returns. An account with pins is removed only with
    /// `force`: it is disabled at once, and its pins, including locked ones, are removed in the background, also after a
    /// restart.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`], [`Error::LastAdmin`], [`Error::AccountHasPins`].
    pub async fn remove_account(
        &self,
        actor: Actor,
        id: AccountId,
        force: bool,
    ) -> Result<RemoveAccountOutcome, Error> {
        let now = self.clock.now();
        let begun = self.store.begin_account_removal(id, force, actor, now).await.map_err(log_store_error)?;
        self.auth.notify_revocation();
        match begun {
            BeginRemovalOutcome::Gone => Ok(RemoveAccountOutcome::Removed),
            BeginRemovalOutcome::Begun { pins } => {
                self.accounts_to_remove.notify_one();
                Ok(RemoveAccountOutcome::Begun { pins })
            }
            BeginRemovalOutcome::NotFound => Err(Error::AccountNotFound),
            BeginRemovalOutcome::LastAdmin => Err(Error::LastAdmin),
            BeginRemovalOutcome::HasPins { pins } => Err(Error::AccountHasPins { pins }),
        }
    }

    /// Lists the API keys of an account.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`].
    pub async fn tokens(&self, id: AccountId) -> Result<Vec<Token>, Error> {
        self.account(id).await?;
        Tokens { auth: self.auth.clone() }.list(id).await
    }

    /// Revokes an API key of an account. When this returns, the key is invalid.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`], [`Error::TokenNotFound`].
    pub async fn revoke_token(&self, actor: Actor, account: AccountId, token: TokenId) -> Result<(), Error> {
        let tokens = self.tokens(account).await?;
        let token = tokens.into_iter().find(|known| known.id == token).ok_or(Error::TokenNotFound)?;
        let now: Timestamp = self.clock.now();
        let gone =
            self.store.revoke_token(account, &token.name, actor, now).await.map_err(log_store_error)?;
        self.auth.notify_revocation();
        if gone { Ok(()) } else { Err(Error::TokenNotFound) }
    }
}
