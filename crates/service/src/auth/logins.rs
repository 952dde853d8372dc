//! Logins: password, second factor, session.
//!
//! A session is a row; its token is a signed reference to that row. A failed login has the same error and takes the same work
//! whatever the reason is. With a second factor, the password gives only a temporary token, with which a code can be tried a
//! few times.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use pinfold_model::{Account, AuditEvent, Email, ScopeSet};
use pinfold_store::{ChallengeAttempt, NewChallenge, NewSession};
use sha2::{Digest, Sha256};

use super::Auth;
use super::caller::{AuthError, Caller, Credential, Via};
use super::second_factor::{TRIES, required_code, right_code, too_many_tries};
use super::session_key::{SessionClaim, SessionKey};
use crate::error::log_store_error;
use crate::{Error, LoginError};

/// Sessions of one account at one time. The oldest are ended to make room.
const SESSIONS_MAX: u32 = 50;

/// Logins of one account that wait for a code. The oldest are ended to make room.
const CHALLENGES_MAX: u32 = 10;

/// Lifetime of a temporary token: time to find the device with the code.
const CHALLENGE_TIME: Duration = Duration::from_secs(5 * 60);

/// Codes that may be tried with one temporary token.
const CHALLENGE_TRIES_MAX: u32 = 5;

/// Random bytes of a temporary token.
const TEMPORARY_LEN: usize = 32;

/// Logging in and out. Cheap to clone.
#[derive(Clone)]
pub struct Logins {
    pub(crate) auth: Arc<Auth>,
    /// Lifetime of a session.
    pub(crate) session_time: Duration,
}

/// A session token. `Debug` hides it; only [`reveal`](Self::reveal) returns it.
#[derive(Clone)]
pub struct SessionToken(pub(crate) String);

impl SessionToken {
    /// The token's text.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionToken(…)")
    }
}

/// A new session.
#[derive(Debug, Clone)]
pub struct LoggedIn {
    pub token: SessionToken,
    pub caller: Caller,
}

/// The result of a correct password.
#[derive(Debug, Clone)]
pub enum Login {
    /// The login is complete. Boxed because it is much larger than the other variant.
    Done(Box<LoggedIn>),
    /// A code of the second factor is required: see [`Logins::verify`].
    NeedsCode {
        /// To be sent with the code. Valid for five minutes, and once.
        temporary_token: SessionToken,
    },
}

impl Logins {
    /// Logs in with a password.
    ///
    /// # Errors
    /// [`LoginError::WrongLogin`] if the address or the password is wrong; [`LoginError::AccountDisabled`] only after the
    /// correct password; [`Error::Unavailable`] if too many logins run at one time.
    pub async fn login(&self, email: &str, password: String, via: Via) -> Result<Login, Error> {
        let found = match Email::parse(email) {
            Ok(email) => self.auth.store.account_with_password_hash(&email).await.map_err(log_store_error)?,
            Err(_) => None,
        };
        let (account, hash) = found.map_or((None, None), |(account, hash)| (Some(account), hash));
        let is_right = self.auth.hasher.compare(password, hash.clone()).await?;
        let (Some(account), hash) = (account, hash.unwrap_or_default()) else {
            return Err(Error::Login(LoginError::WrongLogin));
        };
        let refused = |why| AuditEvent::new(account.id, via.actor(None), "account.login", why).refused();
        if !is_right {
            self.auth.audit.record_later(refused("password"));
            return Err(Error::Login(LoginError::WrongLogin));
        }
        if account.disabled {
            self.auth.audit.record_later(refused("disabled"));
            return Err(Error::Login(LoginError::AccountDisabled));
        }
        if account.two_factor {
            return self.challenge(&account, hash).await;
        }
        self.open(account, hash, via).await.map(|done| Login::Done(Box::new(done)))
    }

    /// Completes a login with a code of the account's second factor.
    ///
    /// # Errors
    /// [`LoginError::TemporaryTokenInvalid`] if the token is unknown, used, expired or tried too often;
    /// [`LoginError::SecondFactorRequired`] without a code; [`LoginError::SecondFactorInvalid`] for a wrong or used code;
    /// [`LoginError::TooManyTries`].
    pub async fn verify(
        &self,
        temporary_token: &str,
        code: Option<&str>,
        via: Via,
    ) -> Result<LoggedIn, Error> {
        let code = required_code(code)?;
        let (store, now) = (&self.auth.store, self.auth.clock.now());
        let hash = hash(temporary_token);
        let tried = store.attempt_challenge(hash.clone(), CHALLENGE_TRIES_MAX, TRIES, now);
        let id = match tried.await.map_err(log_store_error)? {
            ChallengeAttempt::NotFound => return Err(Error::Login(LoginError::TemporaryTokenInvalid)),
            ChallengeAttempt::Wait(retry_after) => {
                return Err(too_many_tries(now, retry_after));
            }
            ChallengeAttempt::Allowed(account) => account,
        };
        let account = store
            .account(id)
            .await
            .map_err(log_store_error)?
            .ok_or(Error::Login(LoginError::TemporaryTokenInvalid))?;
        if account.disabled {
            return Err(Error::Login(LoginError::AccountDisabled));
        }
        let factor = store.second_factor(id).await.map_err(log_store_error)?;
        let factor =
            factor.filter(|factor| factor.is_on).ok_or(Error::Login(LoginError::TemporaryTokenInvalid))?;
        let session = self.new_session(&account);
        let passed = match right_code(&factor, code, now) {
            Some(used) => store
                .complete_challenge(hash, used, session.clone(), via.actor(Some(id)), now)
                .await
                .map_err(log_store_error)?,
            None => None,
        };
        let Some(session_id) = passed else {
            self.auth
                .audit
                .record_later(AuditEvent::new(id, via.actor(None), "account.login", "code").refused());
            return Err(Error::Login(LoginError::SecondFactorInvalid));
        };
        let claim = SessionClaim { account: id, session: session_id, expires_at: session.expires_at };
        self.logged_in(account, claim, via).await
    }

    /// Ends the caller's session. When this returns, its token is invalid.
    ///
    /// # Errors
    /// [`LoginError::SessionNeeded`] if the caller has no session.
    pub async fn logout(&self, caller: &Caller) -> Result<(), Error> {
        let Credential::Session(id) = caller.credential else {
            return Err(Error::Login(LoginError::SessionNeeded));
        };
        let now = self.auth.clock.now();
        let closed = self.auth.store.delete_session(caller.account.id, id, caller.actor(), now);
        // A session that was ended meanwhile is no error.
        closed.await.map_err(log_store_error)?;
        self.auth.notify_revocation();
        Ok(())
    }

    async fn challenge(&self, account: &Account, password_hash: String) -> Result<Login, Error> {
        let mut random = [0; TEMPORARY_LEN];
        getrandom::fill(&mut random).map_err(|error| {
            tracing::error!(%error, "failed to read random bytes from the system");
            Error::Internal
        })?;
        let token = HEXLOWER.encode(&random);
        let now = self.auth.clock.now();
        let new = NewChallenge {
            account: account.id,
            password_hash,
            hash: hash(&token),
            expires_at: now.after(CHALLENGE_TIME),
            challenges_max: CHALLENGES_MAX,
        };
        if !self.auth.store.create_challenge(new, now).await.map_err(log_store_error)? {
            return Err(Error::Login(LoginError::WrongLogin));
        }
        Ok(Login::NeedsCode { temporary_token: SessionToken(token) })
    }

    fn new_session(&self, account: &Account) -> NewSession {
        let expires_at = self.auth.clock.now().after(self.session_time);
        NewSession { account: account.id, expires_at, sessions_max: SESSIONS_MAX }
    }

    /// Opens a session for an account with this password hash, unless the password was changed meanwhile.
    pub(crate) async fn open(
        &self,
        account: Account,
        password_hash: String,
        via: Via,
    ) -> Result<LoggedIn, Error> {
        let (new, now) = (self.new_session(&account), self.auth.clock.now());
        let expires_at = new.expires_at;
        let by = via.actor(Some(account.id));
        let opened =
            self.auth.store.create_session(new, password_hash, by, now).await.map_err(log_store_error)?;
        let session = opened.ok_or(Error::Login(LoginError::WrongLogin))?;
        let claim = SessionClaim { account: account.id, session, expires_at };
        self.logged_in(account, claim, via).await
    }

    async fn logged_in(&self, account: Account, claim: SessionClaim, via: Via) -> Result<LoggedIn, Error> {
        let key = SessionKey::of(&self.auth).await?;
        let token = key.sign(claim, self.auth.clock.now())?;
        let caller = caller(&self.auth, account, claim, via).await.map_err(|_| Error::Internal)?;
        Ok(LoggedIn { token, caller })
    }
}

/// Authenticates a session token.
///
/// # Errors
/// [`AuthError`].
pub(super) async fn authenticate_session(auth: &Auth, token: &str, via: Via) -> Result<Caller, AuthError> {
    let key = SessionKey::of(auth).await.map_err(|_| AuthError::Unavailable)?;
    let now = auth.clock.now();
    let claim = key.check(token, now).ok_or(AuthError::Invalid)?;
    let found = auth.store.session(claim.session).await.map_err(|error| {
        tracing::error!(%error, "failed to check a session");
        AuthError::Unavailable
    })?;
    let (account, expires_at) = found.ok_or(AuthError::Invalid)?;
    if account.id != claim.account || expires_at <= now {
        return Err(AuthError::Invalid);
    }
    if account.disabled {
        return Err(AuthError::AccountDisabled);
    }
    caller(auth, account, claim, via).await
}

/// The caller with a session, which has all scopes of the account's role.
async fn caller(auth: &Auth, account: Account, claim: SessionClaim, via: Via) -> Result<Caller, AuthError> {
    let plan = auth.plan_of(&account).await?;
    let credential = Credential::Session(claim.session);
    let scopes = ScopeSet::of_role(account.role);
    Ok(Caller { account, plan, scopes, credential, via })
}

/// The stored hash of a temporary token.
fn hash(token: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(token.as_bytes()))
}
