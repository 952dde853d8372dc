//! API keys: made, proven, listed, revoked.

use std::sync::Arc;
use std::time::Duration;

use pinfold_model::{AccountId, Actor, IpRules, ScopeSet, Timestamp, Token, TokenId, TokenName};
use pinfold_store::{AuthenticatedKey, CreateTokenOutcome};
use tokio::sync::watch;

use crate::core::{Core, unavailable};
use crate::logins;
use crate::secret::{KEY_PREFIX, same_hash};
use crate::{Accounts, ApiKey, AuthError, Caller, Credential, Error, Source, Via};

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
    /// From where it may be used; empty for everywhere.
    pub ip_allowlist: IpRules,
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
        if !credential.starts_with(KEY_PREFIX) {
            return logins::prove(&self.core, credential, via).await;
        }
        let key = ApiKey::parse(credential).ok_or(AuthError::Invalid)?;
        let hash = key.hash();
        let found = self.core.store.token_by_hash(&hash).await.map_err(|error| {
            tracing::error!(%error, "checking a key");
            AuthError::Unavailable
        })?;
        let AuthenticatedKey { token, hash: stored, account } = found.ok_or(AuthError::Invalid)?;
        let now = self.core.clock.now();
        if !same_hash(&hash, &stored) || token.expires_at.is_some_and(|end| end <= now) {
            return Err(AuthError::Invalid);
        }
        if account.disabled {
            return Err(AuthError::AccountDisabled);
        }
        if !token.ip_allowlist.allow(via.address) {
            return Err(AuthError::IpNotAllowed);
        }
        let plan = self.core.plan_of(&account).await.map_err(|_| AuthError::Unavailable)?;
        let Some(plan) = plan else {
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
    /// [`Error::NameTaken`], [`Error::AccountNotFound`], [`Error::InvalidRequest`] (no scope, past expiry, too many
    /// keys), [`Error::ScopeNotHeld`] (`admin` for an account that is none).
    pub async fn create(&self, account: AccountId, new: NewToken) -> Result<CreatedToken, Error> {
        self.insert(account, new, None, Actor::OPERATOR).await
    }

    async fn insert(
        &self,
        account: AccountId,
        new: NewToken,
        maker: Option<TokenId>,
        by: Actor,
    ) -> Result<CreatedToken, Error> {
        let now = self.core.clock.now();
        check(&new, now)?;
        let store = &self.core.store;
        let owner = store.account(account).await.map_err(unavailable)?.ok_or(Error::AccountNotFound)?;
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
        match store.create_token(row, TOKENS_MAX, by, now).await.map_err(unavailable)? {
            CreateTokenOutcome::Created(token) => Ok(CreatedToken { secret, token: *token }),
            CreateTokenOutcome::NameTaken => Err(Error::NameTaken),
            CreateTokenOutcome::TooMany => Err(too_many()),
            CreateTokenOutcome::MakerGone => Err(Error::CredentialGone),
        }
    }

    /// Makes a key for the caller. If the caller has shown a key, the new one can't do more: not have scopes that
    /// the caller's lacks, not live longer, not be used from more addresses. What is not said (no end, no addresses) is
    /// then as it is with the caller's. `code` is the second factor, which accounts that have one must show.
    ///
    /// # Errors
    /// As [`create`](Self::create); [`Error::ScopeNotHeld`], [`Error::LifeNotHeld`], [`Error::AddressesNotHeld`],
    /// [`Error::CredentialGone`]; and as [`Accounts::check_second_factor`].
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
            self.check_place(caller, &new).await?;
        }
        self.second_factor(caller, code).await?;
        self.insert(caller.account.id, new, maker, caller.by()).await
    }

    /// Refuses what can't be made, before a code is used up for it.
    async fn check_place(&self, caller: &Caller, new: &NewToken) -> Result<(), Error> {
        check(new, self.core.clock.now())?;
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

    /// A new key within the bounds of the key that makes it.
    async fn within(&self, maker: TokenId, mut new: NewToken) -> Result<NewToken, Error> {
        let maker = self.core.store.token(maker).await.map_err(unavailable)?.ok_or(Error::CredentialGone)?;
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

    /// Where acts on keys ask for the second factor, if the account has one.
    async fn second_factor(&self, caller: &Caller, code: Option<&str>) -> Result<(), Error> {
        Accounts { core: Arc::clone(&self.core) }.check_second_factor(caller, code).await
    }

    /// The account's keys, oldest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn list(&self, account: AccountId) -> Result<Vec<Token>, Error> {
        self.core.store.tokens(account, TOKENS_MAX).await.map_err(unavailable)
    }

    /// The first of these names that a key of the account has.
    ///
    /// # Errors
    /// [`Error::TokenNotFound`].
    pub async fn first_of(&self, account: AccountId, names: &[TokenName]) -> Result<TokenName, Error> {
        let tokens = self.list(account).await?;
        let known = |name: &&TokenName| tokens.iter().any(|token| token.name == **name);
        names.iter().find(known).cloned().ok_or(Error::TokenNotFound)
    }

    /// Revokes a key, as an operator may. From the moment this returns, it proves nothing.
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
        // No code is used up for a key that is not there.
        self.first_of(caller.account.id, std::slice::from_ref(name)).await?;
        self.second_factor(caller, code).await?;
        self.delete(caller.account.id, name, caller.by()).await
    }

    async fn delete(&self, account: AccountId, name: &TokenName, by: Actor) -> Result<(), Error> {
        let now = self.core.clock.now();
        let gone = self.core.store.revoke_token(account, name, by, now).await.map_err(unavailable)?;
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

fn too_many() -> Error {
    Error::InvalidRequest(format!("An account can have {TOKENS_MAX} API keys; revoke some"))
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
