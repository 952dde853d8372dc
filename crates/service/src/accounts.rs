//! Accounts: made, listed, found.

use std::sync::Arc;

use pinfold_model::{Account, AccountId, Actor, Email, IpRules, PlanCode, Role, ScopeSet, TokenName};

use crate::core::{Core, unavailable};
use crate::{ApiKey, Caller, Credential, Error, NewToken, Password, Tokens, Via};

/// The address of the account that the first start makes, unless another one is set.
pub const ADMIN_EMAIL: &str = "admin@localhost";

/// The longest name, in bytes.
const NAME_LEN_MAX: usize = 255;

/// Accounts in one list.
const LIST_MAX: u32 = 10_000;

/// The accounts. Cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    pub(crate) core: Arc<Core>,
}

/// The account that the first start makes.
#[derive(Debug, Clone)]
pub struct FirstAdmin {
    /// Its address.
    pub email: Email,
    /// Its password; without one it can't log in, but has a key.
    pub password: Option<Password>,
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
    /// Makes an account, as an operator's command.
    ///
    /// # Errors
    /// [`Error::EmailTaken`], [`Error::InvalidRequest`] (no such plan, a name that is too long, a
    /// password that does not suit).
    pub async fn create(&self, new: NewAccount) -> Result<Account, Error> {
        self.create_by(Actor::OPERATOR, new).await
    }

    /// Makes an account, as `by` wants.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub async fn create_by(&self, by: Actor, new: NewAccount) -> Result<Account, Error> {
        self.insert(new, false, by).await?.ok_or(Error::EmailTaken)
    }

    pub(crate) async fn insert(
        &self,
        new: NewAccount,
        only_first: bool,
        by: Actor,
    ) -> Result<Option<Account>, Error> {
        check_name(&new.name)?;
        if let Some(password) = &new.password {
            password.suits(&new.email)?;
        }
        let plan = self.core.plan(&new.plan).await?;
        let plan = plan.ok_or_else(|| Error::InvalidRequest(format!("Unknown plan: {}", new.plan)))?;
        let configured = self.core.settings.plans.find(&plan.code);
        let row = pinfold_store::NewAccount {
            email: new.email,
            name: new.name,
            role: new.role,
            plan: new.plan,
            storage_limit_bytes: configured.unwrap_or(&plan).limits.storage_bytes,
            plan_is_configured: configured.is_some(),
            password_hash: match new.password {
                Some(password) => Some(self.core.hasher.hash(password).await?),
                None => None,
            },
        };
        self.core.store.create_account(row, only_first, by, self.core.clock.now()).await.map_err(unavailable)
    }

    /// All accounts, oldest first; at most 10,000.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn list(&self) -> Result<Vec<Account>, Error> {
        self.core.store.accounts(None, LIST_MAX).await.map_err(unavailable)
    }

    /// Whether there is any account.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn any(&self) -> Result<bool, Error> {
        let some = self.core.store.accounts(None, 1).await.map_err(unavailable)?;
        Ok(!some.is_empty())
    }

    /// The oldest account: the one that the first start made, as long as it is there.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`] when there is none at all.
    pub async fn oldest(&self) -> Result<Account, Error> {
        let oldest = self.core.store.accounts(None, 1).await.map_err(unavailable)?;
        oldest.into_iter().next().ok_or(Error::AccountNotFound)
    }

    /// The account with this address.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`].
    pub async fn by_email(&self, email: &Email) -> Result<Account, Error> {
        let found = self.core.store.account_by_email(email).await.map_err(unavailable)?;
        found.ok_or(Error::AccountNotFound)
    }

    /// An account as the caller of use cases that an operator begins in its name: with every scope, and bound
    /// by its plan as ever.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`]; [`Error::InvalidRequest`] when it is disabled or its plan is not set up.
    pub async fn caller(&self, email: &Email) -> Result<Caller, Error> {
        let account = self.by_email(email).await?;
        if account.disabled {
            return Err(Error::InvalidRequest(format!("The account {email} is disabled")));
        }
        let plan = self.core.plan_of(&account).await?;
        let plan = plan.ok_or_else(|| Error::InvalidRequest(format!("Unknown plan: {}", account.plan)))?;
        let (credential, via) = (Credential::Operator, Via::OPERATOR);
        Ok(Caller { account, plan, scopes: ScopeSet::all(), credential, via })
    }

    /// The account with this id, as it is now.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`].
    pub async fn by_id(&self, id: AccountId) -> Result<Account, Error> {
        self.core.store.account(id).await.map_err(unavailable)?.ok_or(Error::AccountNotFound)
    }

    /// On the very first start, makes the first account (role admin, plan premium or else the last plan on offer) and
    /// a key with every scope, and gives the key; `None` when there are accounts already.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn ensure_admin(&self, first: FirstAdmin) -> Result<Option<ApiKey>, Error> {
        let plans = self.core.plans();
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
        let tokens = Tokens { core: Arc::clone(&self.core) };
        Ok(Some(tokens.create(account.id, new).await?.secret))
    }
}

/// A name that an account may have.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    if !name.trim().is_empty() && name.len() <= NAME_LEN_MAX && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Error::InvalidRequest(format!("A name has 1 to {NAME_LEN_MAX} bytes and no control characters")))
}
