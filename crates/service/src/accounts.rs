//! Accounts: made, listed, found.

use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::PasswordHasher;
use argon2::password_hash::phc::PasswordHash;
use pinfold_model::{Account, AccountId, By, Email, IpRules, PlanCode, Role, ScopeSet, TokenName};

use crate::core::{Core, unavailable};
use crate::{ApiKey, Caller, Credential, Error, NewToken, Tokens, Via};

/// The address of the account that the first start makes.
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
        if (Self::LEN_MIN..=Self::LEN_MAX).contains(&text.len()) {
            Ok(Self(text))
        } else {
            Err(PasswordError)
        }
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
        self.insert(new, false).await?.ok_or(Error::EmailTaken)
    }

    async fn insert(&self, new: NewAccount, only_first: bool) -> Result<Option<Account>, Error> {
        if new.name.len() > NAME_LEN_MAX || new.name.chars().any(char::is_control) {
            return Err(Error::InvalidRequest(format!(
                "A name has at most {NAME_LEN_MAX} bytes and no control characters"
            )));
        }
        let plans = self.core.plans();
        let Some(plan) = plans.find(&new.plan) else {
            return Err(Error::InvalidRequest(format!("Unknown plan: {}", new.plan)));
        };
        let row = pinfold_store::NewAccount {
            email: new.email,
            name: new.name,
            role: new.role,
            plan: new.plan,
            storage_limit_bytes: plan.limits.storage_bytes,
            password_hash: hash(new.password).await?,
        };
        self.core
            .store
            .create_account(row, only_first, By::OPERATOR, self.core.clock.now())
            .await
            .map_err(unavailable)
    }

    /// All accounts, oldest first; at most 10,000.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn list(&self) -> Result<Vec<Account>, Error> {
        self.core.store.accounts(None, LIST_MAX).await.map_err(unavailable)
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
        let plan = self.core.plan_of(&account);
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

    /// On the very first start, makes the account [`ADMIN_EMAIL`] (role admin, plan premium or else the last
    /// plan on offer) and a key with every scope, and gives the key; `None` when there are accounts already.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn ensure_admin(&self) -> Result<Option<ApiKey>, Error> {
        let plans = self.core.plans();
        let premium = plans.find(&PlanCode::new("premium")).or_else(|| plans.iter().last());
        let admin = NewAccount {
            email: Email::parse(ADMIN_EMAIL).map_err(|_| Error::Internal)?,
            name: "Administrator".to_owned(),
            plan: premium.ok_or(Error::Internal)?.code.clone(),
            role: Role::Admin,
            password: None,
        };
        let Some(account) = self.insert(admin, true).await? else { return Ok(None) };
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

/// Argon2id with the crate's recommended cost, beside the runtime: it takes tens of milliseconds.
async fn hash(password: Option<Password>) -> Result<Option<String>, Error> {
    let Some(password) = password else { return Ok(None) };
    let hashed = tokio::task::spawn_blocking(move || {
        let hash: Result<PasswordHash, _> = Argon2::default().hash_password(password.as_bytes());
        hash.map(|hash| hash.to_string())
    });
    match hashed.await {
        Ok(Ok(hash)) => Ok(Some(hash)),
        Ok(Err(error)) => {
            tracing::error!(%error, "hashing a password");
            Err(Error::Internal)
        }
        Err(error) => {
            tracing::error!(%error, "hashing a password");
            Err(Error::Internal)
        }
    }
}
