//! API keys: creating, authenticating, listing, revoking.

use std::sync::Arc;
use std::time::Duration;

use pinfold_model::{AccountId, Actor, IpRules, ScopeSet, Source, Timestamp, Token, TokenId, TokenName};
use pinfold_store::{AuthenticatedKey, CreateTokenOutcome};
use tokio::sync::watch;

use super::Auth;
use super::api_key::{ApiKey, KEY_PREFIX, same_hash};
use super::caller::{AuthError, Caller, Credential, Via};
use super::logins::authenticate_session;
use crate::Error;
use crate::error::log_store_error;

/// Maximum keys per account: the list of them needs no pages.
const TOKENS_MAX: u32 = 1_000;

/// Maximum length of a label in bytes.
const LABEL_LEN_MAX: usize = 255;

/// Precision of a key's last use: otherwise each use would be a write.
const LAST_USE_STEP: Duration = Duration::from_secs(60);

/// The keys of all accounts. Cheap to clone.
#[derive(Clone)]
pub struct Tokens {
    pub(crate) auth: Arc<Auth>,
}

/// A new key.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Unique in the account.
    pub name: TokenName,
    /// A note of the owner; at most 255 bytes.
    pub label: Option<String>,
    pub scopes: ScopeSet,
    /// Addresses that may use the key; empty for all.
    pub ip_allowlist: IpRules,
    /// `None` if the key does not expire.
    pub expires_at: Option<Timestamp>,
}

/// A key that was just created.
#[derive(Debug)]
pub struct CreatedToken {
    /// The key itself, which is not stored: show it once.
    pub secret: ApiKey,
    pub token: Token,
}

impl Tokens {
    /// Authenticates an API key or a session token from the client `via`. Only sessions count as requests from a web page.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn authenticate(&self, credential: &str, via: Via) -> Result<Caller, AuthError> {
        if !credential.starts_with(KEY_PREFIX) {
            return authenticate_session(&self.auth, credential, via).await;
        }
        let key = ApiKey::parse(credential).ok_or(AuthError::Invalid)?;
        let hash = key.hash();
        let found = self.auth.store.token_by_hash(&hash).await.map_err(|error| {
            tracing::error!(%error, "failed to check an API key");
            AuthError::Unavailable
        })?;
        let AuthenticatedKey { token, hash: stored, account } = found.ok_or(AuthError::Invalid)?;
        let now = self.auth.clock.now();
        if !same_hash(&hash, &stored) || token.expires_at.is_some_and(|end| end <= now) {
            return Err(AuthError::Invalid);
        }
        if account.disabled {
            return Err(AuthError::AccountDisabled);
        }
        if !token.ip_allowlist.allow(via.address) {
            return Err(AuthError::IpNotAllowed);
        }
        let plan = self.auth.plan_of(&account).await?;
        if token.last_used_at.is_none_or(|last| now.since(last) >= LAST_USE_STEP) {
            self.auth.key_uses.note(token.id, now);
        }
        let credential = Credential::Key(token.id);
        let via = Via { source: Source::Api, ..via };
        Ok(Caller { account, plan, scopes: token.scopes, credential, via })
    }

    /// Creates a key for `account`. For operators.
    ///
    /// # Errors
    /// [`Error::NameTaken`], [`Error::AccountNotFound`], [`Error::InvalidRequest`] (no scope, past expiry, too many
    /// keys), [`Error::ScopeNotHeld`] (`admin` for an account without that role).
    pub async fn create(&self, account: AccountId, new: NewToken) -> Result<CreatedToken, Error> {
        self.insert(account, new, None, Actor::OPERATOR).await
    }

    async fn insert(
        &self,
        account: AccountId,
        new: NewToken,
        maker: Option<TokenId>,
        actor: Actor,
    ) -> Result<CreatedToken, Error> {
        let now = self.auth.clock.now();
        check(&new, now)?;
        let store = &self.auth.store;
        let owner = store.account(account).await.map_err(log_store_error)?.ok_or(Error::AccountNotFound)?;
        if !new.scopes.is_subset(ScopeSet::of_role(owner.role)) {
            return Err(Error::ScopeNotHeld);
        }
        let secret = ApiKey::generate().ok_or(Error::Internal)?;
        let row = pinfold_store::NewToken {
            account,
            name: new.name,
            label: new.label,
            hash: secret.hash(),
            prefix: secret.shown(),
            scopes: new.scopes,
            ip_allowlist: new.ip_allowlist,
            expires_at: new.expires_at,
            maker,
        };
        match store.create_token(row, TOKENS_MAX, actor, now).await.map_err(log_store_error)? {
            CreateTokenOutcome::Created(token) => Ok(CreatedToken { secret, token: *token }),
            CreateTokenOutcome::NameTaken => Err(Error::NameTaken),
            CreateTokenOutcome::TooMany => Err(too_many()),
            CreateTokenOutcome::MakerGone => Err(Error::CredentialGone),
        }
    }

    /// Creates a key for the caller. If the caller uses a key itself, the new key can't have more scopes, a later expiry or more
    /// addresses; expiry and addresses that are left out are taken from the caller's key. `code` is the code of the second
    /// factor, which accounts that have one must send.
    ///
    /// # Errors
    /// As [`create`](Self::create); [`Error::ScopeNotHeld`], [`Error::LifeNotHeld`], [`Error::AddressesNotHeld`],
    /// [`Error::CredentialGone`]; and as
    /// [`Accounts::check_second_factor`](crate::Accounts::check_second_factor).
    pub async fn create_for(
        &self,
        caller: &Caller,
        new: NewToken,
        code: Option<&str>,
    ) -> Result<CreatedToken, Error> {
        if !new.scopes.is_subset(caller.scopes) {
            return Err(Error::ScopeNotHeld);
        }
        let (new, maker) = match caller.credential {
            Credential::Key(maker) => (self.within(maker, new).await?, Some(maker)),
            Credential::Session(_) | Credential::Operator => (new, None),
        };
        if caller.account.two_factor {
            self.check_creatable(caller, &new).await?;
        }
        self.auth.check_second_factor(caller, code).await?;
        self.insert(caller.account.id, new, maker, caller.actor()).await
    }

    /// Fails if the key can't be created, before a code is consumed.
    async fn check_creatable(&self, caller: &Caller, new: &NewToken) -> Result<(), Error> {
        check(new, self.auth.clock.now())?;
        let known = self.list(caller.account.id).await?;
        if known.iter().any(|token| token.name == new.name) {
            return Err(Error::NameTaken);
        }
        if u32::try_from(known.len()).is_ok_and(|known| known < TOKENS_MAX) {
            Ok(())
        } else {
            Err(too_many())
        }
    }

    /// A new key within the bounds of the key that creates it.
    async fn within(&self, maker: TokenId, mut new: NewToken) -> Result<NewToken, Error> {
        let maker =
            self.auth.store.token(maker).await.map_err(log_store_error)?.ok_or(Error::CredentialGone)?;
        if !new.scopes.is_subset(maker.scopes) {
            return Err(Error::ScopeNotHeld);
        }
        if let Some(end) = maker.expires_at
            && *new.expires_at.get_or_insert(end) > end
        {
            return Err(Error::LifeNotHeld);
        }
        if new.ip_allowlist.is_empty() {
            new.ip_allowlist.clone_from(&maker.ip_allowlist);
        }
        if !new.ip_allowlist.are_within(&maker.ip_allowlist) {
            return Err(Error::AddressesNotHeld);
        }
        Ok(new)
    }

    /// Lists the account's keys, oldest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn list(&self, account: AccountId) -> Result<Vec<Token>, Error> {
        self.auth.store.tokens(account, TOKENS_MAX).await.map_err(log_store_error)
    }

    /// Returns the first of these names that a key of the account has.
    ///
    /// # Errors
    /// [`Error::TokenNotFound`].
    pub async fn first_of(&self, account: AccountId, names: &[TokenName]) -> Result<TokenName, Error> {
        let tokens = self.list(account).await?;
        let known = |name: &&TokenName| tokens.iter().any(|token| token.name == **name);
        names.iter().find(known).cloned().ok_or(Error::TokenNotFound)
    }

    /// Revokes a key. When this returns, the key is invalid. For operators.
    ///
    /// # Errors
    /// [`Error::TokenNotFound`].
    pub async fn revoke(&self, account: AccountId, name: &TokenName) -> Result<(), Error> {
        self.delete(account, name, Actor::OPERATOR).await
    }

    /// Revokes a key of the caller; `code` as for [`create_for`](Self::create_for).
    ///
    /// # Errors
    /// [`Error::TokenNotFound`].
    pub async fn revoke_for(
        &self,
        caller: &Caller,
        name: &TokenName,
        code: Option<&str>,
    ) -> Result<(), Error> {
        // A code is not consumed for a key that does not exist.
        self.first_of(caller.account.id, std::slice::from_ref(name)).await?;
        self.auth.check_second_factor(caller, code).await?;
        self.delete(caller.account.id, name, caller.actor()).await
    }

    async fn delete(&self, account: AccountId, name: &TokenName, actor: Actor) -> Result<(), Error> {
        let now = self.auth.clock.now();
        let gone = self.auth.store.revoke_token(account, name, actor, now).await.map_err(log_store_error)?;
        if gone {
            self.auth.notify_revocation();
            Ok(())
        } else {
            Err(Error::TokenNotFound)
        }
    }

    /// Notifies of revoked credentials, so that long requests can check theirs.
    #[must_use]
    pub fn revocations(&self) -> watch::Receiver<()> {
        self.auth.revocations.subscribe()
    }
}

fn too_many() -> Error {
    Error::InvalidRequest(format!("An account can have at most {TOKENS_MAX} API keys; revoke some first"))
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
        return refuse("The label must have at most 255 bytes");
    }
    Ok(())
}
