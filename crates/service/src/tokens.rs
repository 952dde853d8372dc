//! API keys: made, proven, listed, revoked.

use std::sync::Arc;
use std::time::Duration;

use pinfold_model::{AccountId, ScopeSet, Timestamp, Token, TokenName};
use pinfold_store::Proven;
use tokio::sync::watch;

use crate::core::{Core, unavailable};
use crate::secret::same_hash;
use crate::{ApiKey, AuthError, Caller, Credential, Error, Source, Via};

/// Keys of one account: so that the list of them needs no pages.
const TOKENS_MAX: u32 = 1_000;

/// The longest label, in bytes.
const LABEL_LEN_MAX: usize = 255;

/// How exact the time of a key's last use is: each use would else be a write.
const LAST_USE_STEP: Duration = Duration::from_secs(60);

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
    /// Proves a credential that came via `via`. Only a session token can come from a web page: whoever shows a key
    /// is a program.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn authenticate(&self, credential: &str, via: Via) -> Result<Caller, AuthError> {
        let key = ApiKey::parse(credential).ok_or(AuthError::Invalid)?;
        let hash = key.hash();
        let found = self.core.store.token_by_hash(&hash).await.map_err(|error| {
            tracing::error!(%error, "checking a key");
            AuthError::Unavailable
        })?;
        let Proven { token, hash: stored, account } = found.ok_or(AuthError::Invalid)?;
        let now = self.core.clock.now();
        if !same_hash(&hash, &stored) || token.expires_at.is_some_and(|end| end <= now) {
            return Err(AuthError::Invalid);
        }
        if account.disabled {
            return Err(AuthError::AccountDisabled);
        }
        let Some(plan) = self.core.plan_of(&account) else {
            tracing::error!(plan = %account.plan, account = %account.id, "an account has a plan that is not set up");
            return Err(AuthError::Unavailable);
        };
        if token.last_used_at.is_none_or(|last| now.since(last) >= LAST_USE_STEP) {
            self.core.note_use(token.id, now);
        }
        let credential = Credential::Key(token.id);
        let via = Via { source: Source::Api, ..via };
        Ok(Caller { account, plan, scopes: token.scopes, credential, via })
    }

    /// Makes a key for `account`, as an operator may.
    ///
    /// # Errors
    /// [`Error::NameTaken`], [`Error::AccountNotFound`], [`Error::InvalidRequest`] (no scope, past expiry),
    /// [`Error::ScopeNotHeld`] (`admin` for an account that is none).
    pub async fn create(&self, account: AccountId, new: NewToken) -> Result<CreatedToken, Error> {
        let now = self.core.clock.now();
        check(&new, now)?;
        let store = &self.core.store;
        let owner = store.account(account).await.map_err(unavailable)?.ok_or(Error::AccountNotFound)?;
        if !new.scopes.is_subset(ScopeSet::of_role(owner.role)) {
            return Err(Error::ScopeNotHeld);
        }
        if store.tokens(account, TOKENS_MAX).await.map_err(unavailable)?.len() >= TOKENS_MAX as usize {
            return Err(Error::InvalidRequest(format!(
                "An account can have {TOKENS_MAX} API keys; revoke some"
            )));
        }
        let secret = ApiKey::generate().ok_or(Error::Internal)?;
        let row = pinfold_store::NewToken {
            account,
            name: new.name,
            label: new.label,
            hash: secret.hash(),
            prefix: secret.shown(),
            scopes: new.scopes,
            expires_at: new.expires_at,
        };
        let token = store.create_token(row, now).await.map_err(unavailable)?.ok_or(Error::NameTaken)?;
        Ok(CreatedToken { secret, token })
    }

    /// Makes a key for the caller, which can't have scopes that the caller's lacks.
    ///
    /// # Errors
    /// As [`create`](Self::create), and [`Error::ScopeNotHeld`].
    pub async fn create_for(&self, caller: &Caller, new: NewToken) -> Result<CreatedToken, Error> {
        if !new.scopes.is_subset(caller.scopes) {
            return Err(Error::ScopeNotHeld);
        }
        self.create(caller.account.id, new).await
    }

    /// The account's keys, oldest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn list(&self, account: AccountId) -> Result<Vec<Token>, Error> {
        self.core.store.tokens(account, TOKENS_MAX).await.map_err(unavailable)
    }

    /// Revokes a key. From the moment this returns, it proves nothing.
    ///
    /// # Errors
    /// [`Error::TokenNotFound`].
    pub async fn revoke(&self, account: AccountId, name: &TokenName) -> Result<(), Error> {
        let now = self.core.clock.now();
        let gone = self.core.store.revoke_token(account, name, now).await.map_err(unavailable)?;
        if gone {
            self.core.revoked.send_replace(());
            Ok(())
        } else {
            Err(Error::TokenNotFound)
        }
    }

    /// Hears of credentials that may be good no more, so that what goes on for long can look at its own.
    #[must_use]
    pub fn revocations(&self) -> watch::Receiver<()> {
        self.core.revoked.subscribe()
    }
}

fn check(new: &NewToken, now: Timestamp) -> Result<(), Error> {
    let refuse = |text: &str| Err(Error::InvalidRequest(text.to_owned()));
    if new.scopes.is_empty() {
        return refuse("An API key needs at least one scope");
    }
    if new.expires_at.is_some_and(|end| end <= now) {
        return refuse("The expiry must be in the future");
    }
    if new.label.as_ref().is_some_and(|label| label.len() > LABEL_LEN_MAX) {
        return refuse("The label is too long");
    }
    Ok(())
}
