//! Accounts: listed, changed, told to go.

use pinfold_model::{
    Account, AccountId, Actor, PlanCode, PlanError, PlanLimits, Role, Timestamp, Token, TokenId,
};
use pinfold_store::{AccountChanges, AccountFilter, AccountRecord, BeginRemovalOutcome};

use super::Admin;
use crate::accounts::check_name;
use crate::core::unavailable;
use crate::subscriptions::changed;
use crate::{Error, Password, Tokens};

/// Accounts on one page.
const LIMIT_MAX: u32 = 100;
/// The longest text to search for, in bytes.
const SEARCH_LEN_MAX: usize = 255;

/// Which accounts to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct AccountQuery {
    /// Only those with this text in the address or the name; at most 255 bytes.
    pub search: Option<String>,
    /// Only those with this plan.
    pub plan: Option<PlanCode>,
    /// Only those with this role.
    pub role: Option<Role>,
    /// Only those that are disabled, or are not.
    pub disabled: Option<bool>,
    /// Accounts on a page, 1 to 100; others are moved to the nearer end.
    pub limit: u32,
    /// Where to go on.
    pub cursor: Option<AccountId>,
}

/// An account, as an operator sees it.
pub type AccountView = AccountRecord;

/// A page of accounts. It can have fewer than asked for, or none, and still not be the last.
#[derive(Debug, Clone)]
pub struct AccountPage {
    /// The accounts.
    pub accounts: Vec<AccountView>,
    /// Where the next page begins; `None` on the last.
    pub next_cursor: Option<AccountId>,
}

/// What shall be different of an account. What is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct AccountEdit {
    /// What it calls itself; at most 255 bytes.
    pub name: Option<String>,
    /// Its plan. It may be one into which the pins don't fit: they stay, and no more come.
    pub plan: Option<PlanCode>,
    /// Its role.
    pub role: Option<Role>,
    /// Whether its credentials are refused.
    pub disabled: Option<bool>,
    /// A storage of its own; `Some(None)` for that of its plan.
    pub storage_override_bytes: Option<Option<u64>>,
}

/// How an account goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// It is gone.
    Gone,
    /// It is disabled, and goes when these pins of it are removed.
    Begun {
        /// How many there are.
        pins: u64,
    },
}

impl Admin {
    /// Lists accounts.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn accounts(&self, query: AccountQuery) -> Result<AccountPage, Error> {
        if query.search.as_ref().is_some_and(|text| text.len() > SEARCH_LEN_MAX) {
            return Err(Error::InvalidRequest(format!("The search text has at most {SEARCH_LEN_MAX} bytes")));
        }
        let AccountQuery { search, plan, role, disabled, limit, cursor } = query;
        let filter = AccountFilter { search: search.filter(|text| !text.is_empty()), plan, role, disabled };
        let limit = limit.clamp(1, LIMIT_MAX);
        let list = self.core.store.list_accounts(&filter, cursor, limit).await.map_err(unavailable)?;
        Ok(AccountPage { accounts: list.accounts, next_cursor: list.next })
    }

    /// One account.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`].
    pub async fn account(&self, id: AccountId) -> Result<AccountView, Error> {
        self.core.store.account_record(id).await.map_err(unavailable)?.ok_or(Error::AccountNotFound)
    }

    /// Changes an account, all or nothing.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`], [`Error::InvalidRequest`] (a bad name, no such plan), [`Error::LastAdmin`],
    /// [`Error::AccountLeaving`].
    pub async fn change_account(
        &self,
        by: Actor,
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
                let plan = self.core.plan(code).await?;
                let plan = plan.ok_or_else(|| Error::InvalidRequest(format!("Unknown plan: {code}")))?;
                Some(self.core.grant(&plan, false))
            }
        };
        let plan = self.plan_for_storage(id, plan, edit.storage_override_bytes).await?;
        let AccountEdit { name, role, disabled, storage_override_bytes, .. } = edit;
        let changes = AccountChanges { name, plan, role, disabled, storage_override: storage_override_bytes };
        let now = self.core.clock.now();
        let done = self.core.store.update_account(id, changes, by, now).await.map_err(unavailable)?;
        // Its role may be less, or it may be shut out.
        self.core.revoked.send_replace(());
        changed(done)
    }

    /// Whoever goes back to the plan's storage is given the plan once more.
    async fn plan_for_storage(
        &self,
        id: AccountId,
        plan: Option<pinfold_store::PlanGrant>,
        storage: Option<Option<u64>>,
    ) -> Result<Option<pinfold_store::PlanGrant>, Error> {
        if plan.is_some() || storage != Some(None) {
            return Ok(plan);
        }
        let account =
            self.core.store.account(id).await.map_err(unavailable)?.ok_or(Error::AccountNotFound)?;
        let plan = self.core.plan_of(&account).await?.ok_or(Error::Internal)?;
        Ok(Some(self.core.grant(&plan, false)))
    }

    /// Gives an account another password, and ends all its sessions.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`], [`Error::InvalidRequest`] for a password that does not suit.
    pub async fn reset_password(&self, by: Actor, id: AccountId, new: Password) -> Result<(), Error> {
        let account = self.account(id).await?.account;
        self.core.reset_password(by, &account, new).await
    }

    /// Removes the second factor of an account whose owner has lost it.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`], [`LoginError::SecondFactorOff`](crate::LoginError::SecondFactorOff).
    pub async fn remove_second_factor(&self, by: Actor, id: AccountId) -> Result<(), Error> {
        let account = self.account(id).await?.account;
        self.core.remove_second_factor(by, account.id).await
    }

    /// Ends all sessions of an account; gives how many there were. Its keys go on.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`].
    pub async fn end_sessions(&self, by: Actor, id: AccountId) -> Result<u64, Error> {
        let now = self.core.clock.now();
        let closed = self.core.store.delete_sessions(id, by, now).await.map_err(unavailable)?;
        self.core.revoked.send_replace(());
        closed.ok_or(Error::AccountNotFound)
    }

    /// Tells an account to go. One without pins is gone when this returns. One with pins goes only with `force`: it is
    /// disabled at once, and its pins end in the background, over restarts, also those that are locked.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`], [`Error::LastAdmin`], [`Error::AccountHasPins`].
    pub async fn remove_account(&self, by: Actor, id: AccountId, force: bool) -> Result<Leaving, Error> {
        let now = self.core.clock.now();
        let begun = self.core.store.begin_account_removal(id, force, by, now).await.map_err(unavailable)?;
        self.core.revoked.send_replace(());
        match begun {
            BeginRemovalOutcome::Gone => Ok(Leaving::Gone),
            BeginRemovalOutcome::Begun { pins } => {
                self.core.wake_removal.notify_one();
                Ok(Leaving::Begun { pins })
            }
            BeginRemovalOutcome::NotFound => Err(Error::AccountNotFound),
            BeginRemovalOutcome::LastAdmin => Err(Error::LastAdmin),
            BeginRemovalOutcome::HasPins { pins } => Err(Error::AccountHasPins { pins }),
        }
    }

    /// The keys of an account.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`].
    pub async fn tokens(&self, id: AccountId) -> Result<Vec<Token>, Error> {
        self.account(id).await?;
        Tokens { core: self.core.clone() }.list(id).await
    }

    /// Revokes a key of an account. From the moment this returns, it proves nothing.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`], [`Error::TokenNotFound`].
    pub async fn revoke_token(&self, by: Actor, account: AccountId, token: TokenId) -> Result<(), Error> {
        let tokens = self.tokens(account).await?;
        let token = tokens.into_iter().find(|known| known.id == token).ok_or(Error::TokenNotFound)?;
        let now: Timestamp = self.core.clock.now();
        let gone = self.core.store.revoke_token(account, &token.name, by, now).await.map_err(unavailable)?;
        self.core.revoked.send_replace(());
        if gone { Ok(()) } else { Err(Error::TokenNotFound) }
    }
}
