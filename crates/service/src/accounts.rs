//! Accounts: creating and finding.

#[cfg(test)]
mod login_timing_tests;
mod profile;
pub(crate) mod referrals;
mod second_factor;
mod signup;
pub(crate) mod subscriptions;

use std::sync::Arc;

use pinfold_model::{Account, AccountId, Actor, Email, IpRules, PlanCode, Role, ScopeSet, TokenName};

pub use self::profile::PREFERENCES_LEN_MAX;
use self::referrals::Referrals;
pub use self::second_factor::SecondFactorSetup;
pub use self::signup::NewSignup;
use crate::auth::Auth;
use crate::error::log_store_error;
use crate::{ApiKey, Caller, Credential, Error, Logins, NewToken, Password, Tokens, Via};

/// E-mail address of the account that the first start creates, unless another one is configured.
pub const ADMIN_EMAIL: &str = "admin@localhost";

/// Maximum length of a name in bytes.
const NAME_LEN_MAX: usize = 255;

/// Maximum accounts in one list.
const LIST_MAX: u32 = 10_000;

/// The accounts. Cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    pub(crate) auth: Arc<Auth>,
    pub(crate) logins: Logins,
    pub(crate) referrals: Referrals,
    /// Whether anyone may sign up.
    pub(crate) signup_open: bool,
}

/// The account that the first start creates.
#[derive(Debug, Clone)]
pub struct FirstAdmin {
    pub email: Email,
    /// Without a password the account can't log in, but has an API key.
    pub password: Option<Password>,
}

/// A new account.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// Unique.
    pub email: Email,
    /// At most 255 bytes.
    pub name: String,
    pub plan: PlanCode,
    pub role: Role,
    /// Without a password the account can't log in, but can have API keys.
    pub password: Option<Password>,
}

impl Accounts {
    /// Creates an account. For operators.
    ///
    /// # Errors
    /// [`Error::EmailTaken`], [`Error::InvalidRequest`] (unknown plan, invalid name or
    /// password).
    pub async fn create(&self, new: NewAccount) -> Result<Account, Error> {
        self.create_by(Actor::OPERATOR, new).await
    }

    /// Creates an account on behalf of `actor`.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub async fn create_by(&self, actor: Actor, new: NewAccount) -> Result<Account, Error> {
        self.insert(new, false, actor).await?.ok_or(Error::EmailTaken)
    }

    /// Creates an account; `None` if the address is taken, or `only_first` and there is an account already.
    pub(crate) async fn insert(
        &self,
        new: NewAccount,
        only_first: bool,
        actor: Actor,
    ) -> Result<Option<Account>, Error> {
        check_name(&new.name)?;
        if let Some(password) = &new.password {
            password.check_for(&new.email)?;
        }
        let plan = self.auth.catalog.requested_plan(&new.plan).await?;
        let configured = self.auth.catalog.configured_plan(&plan.code);
        let row = pinfold_store::NewAccount {
            email: new.email,
            name: new.name,
            role: new.role,
            plan: new.plan,
            storage_limit_bytes: configured.unwrap_or(&plan).limits.storage_bytes,
            plan_is_configured: configured.is_some(),
            password_hash: match new.password {
                Some(password) => Some(self.auth.hasher.hash(password).await?),
                None => None,
            },
        };
        self.auth
            .store
            .create_account(row, only_first, actor, self.auth.clock.now())
            .await
            .map_err(log_store_error)
    }

    /// Lists accounts, oldest first; at most 10,000.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn list(&self) -> Result<Vec<Account>, Error> {
        self.auth.store.accounts(None, LIST_MAX).await.map_err(log_store_error)
    }

    /// Whether an account exists.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn any(&self) -> Result<bool, Error> {
        let some = self.auth.store.accounts(None, 1).await.map_err(log_store_error)?;
        Ok(!some.is_empty())
    }

    /// Returns the oldest account: the one that the first start created, as long as it exists.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`] if there is no account.
    pub async fn oldest(&self) -> Result<Account, Error> {
        let oldest = self.auth.store.accounts(None, 1).await.map_err(log_store_error)?;
        oldest.into_iter().next().ok_or(Error::AccountNotFound)
    }

    /// Finds the account with this e-mail address.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`].
    pub async fn by_email(&self, email: &Email) -> Result<Account, Error> {
        let found = self.auth.store.account_by_email(email).await.map_err(log_store_error)?;
        found.ok_or(Error::AccountNotFound)
    }

    /// Returns an account as the caller of operations that an operator begins on its behalf: with all scopes, and within the
    /// limits of its plan.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`]; [`Error::InvalidRequest`] if the account is disabled or its plan does not exist.
    pub async fn caller(&self, email: &Email) -> Result<Caller, Error> {
        let account = self.by_email(email).await?;
        if account.disabled {
            return Err(Error::InvalidRequest(format!("The account {email} is disabled")));
        }
        let plan = self.auth.catalog.requested_plan(&account.plan).await?;
        let (credential, via) = (Credential::Operator, Via::OPERATOR);
        Ok(Caller { account, plan, scopes: ScopeSet::all(), credential, via })
    }

    /// Reads the account with this id.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`].
    pub async fn by_id(&self, id: AccountId) -> Result<Account, Error> {
        self.auth.store.account(id).await.map_err(log_store_error)?.ok_or(Error::AccountNotFound)
    }

    /// On the very first start, creates the first account (role admin, plan premium or else the last plan) and an API key with
    /// all scopes, and returns the key; `None` if there is an account already.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn ensure_admin(&self, first: FirstAdmin) -> Result<Option<ApiKey>, Error> {
        let plans = self.auth.catalog.plans();
        let premium = plans.find(&PlanCode::new("premium")).or_else(|| plans.iter().last());
        let admin = NewAccount {
            email: first.email,
            name: "Administrator".to_owned(),
            plan: premium.ok_or(Error::Internal)?.code.clone(),
            role: Role::Admin,
            password: first.password,
        };
        let Some(account) = self.insert(admin, true, Actor::OPERATOR).await? else { return Ok(None) };
        let name = TokenName::parse("first-start").map_err(|_| Error::Internal)?;
        let new = NewToken {
            name,
            label: None,
            scopes: ScopeSet::of_role(Role::Admin),
            ip_allowlist: IpRules::default(),
            expires_at: None,
        };
        let tokens = Tokens { auth: Arc::clone(&self.auth) };
        Ok(Some(tokens.create(account.id, new).await?.secret))
    }
}

/// Checks the name of an account.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    if !name.trim().is_empty() && name.len() <= NAME_LEN_MAX && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Error::InvalidRequest(format!(
        "The name must have 1 to {NAME_LEN_MAX} bytes and no control characters"
    )))
}
