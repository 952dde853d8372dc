//! Logging in and out: sign-up, password, code, session.
//!
//! A session is a row; its token is a signed name of that row ([`session_key`](SessionToken)). What a wrong login is
//! told, and the work that it costs, is the same whatever was wrong. With a second factor, the right password gives a
//! temporary token only, with which a code can be tried a few times.

mod session_key;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use pinfold_model::{Account, Email, Role, ScopeSet};
use pinfold_store::{AuditEvent, ChallengeAttempt, NewChallenge, NewSession};
use sha2::{Digest, Sha256};

pub(crate) use session_key::{SessionClaim, SessionKey};

use crate::core::{Core, unavailable};
use crate::second_factor::{TRIES, right_code};
use crate::{
    Accounts, AuthError, Caller, Credential, Error, LoginError, NewAccount, Password, Referrals, Via,
};

/// Sessions of one account at one time: more devices than anyone has. The oldest end to make room.
const SESSIONS_MAX: u32 = 50;

/// Half-done logins of one account at one time. The oldest end to make room.
const CHALLENGES_MAX: u32 = 10;

/// How long a temporary token is good for: time enough to find the device with the code.
const CHALLENGE_TIME: Duration = Duration::from_secs(5 * 60);

/// Codes that may be tried with one temporary token: some typing errors.
const CHALLENGE_TRIES_MAX: u32 = 5;

/// Random bytes of a temporary token.
const TEMPORARY_LEN: usize = 32;

/// Sessions whose time is over that are removed in one transaction.
const SWEEP_MAX: u32 = 1_000;

/// The time between two sweeps.
const SWEEP_EVERY: Duration = Duration::from_secs(10 * 60);

/// Logging in and out. Cheap to clone.
#[derive(Clone)]
pub struct Logins {
    pub(crate) core: Arc<Core>,
}

/// Who wants an account.
#[derive(Debug, Clone)]
pub struct NewSignup {
    /// The address; unique.
    pub email: Email,
    /// What it calls itself; at most 255 bytes.
    pub name: String,
    /// The password.
    pub password: Password,
    /// The word of the account that it came by, if there is one.
    pub referral: Option<String>,
}

/// A token that proves a session. `Debug` hides it; [`reveal`](Self::reveal) is the one way out.
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

/// Somebody who has logged in.
#[derive(Debug, Clone)]
pub struct LoggedIn {
    /// The token of the session.
    pub token: SessionToken,
    /// Who it is.
    pub caller: Caller,
}

/// What came of a right password.
#[derive(Debug, Clone)]
pub enum Login {
    /// It was enough. Boxed: it is much larger than the other.
    Done(Box<LoggedIn>),
    /// A code is needed as well: see [`Logins::verify`].
    NeedsCode {
        /// What the code is to be shown with. Good for five minutes, and once.
        temporary_token: SessionToken,
    },
}

impl Logins {
    /// Makes an account with the first plan on offer, and logs it in.
    ///
    /// # Errors
    /// [`LoginError::SignupClosed`], [`Error::EmailTaken`], [`Error::InvalidRequest`] (name, password).
    pub async fn signup(&self, new: NewSignup, via: Via) -> Result<LoggedIn, Error> {
        if !self.core.settings.signup_open {
            return Err(Error::Login(LoginError::SignupClosed));
        }
        let plan = self.core.plans().iter().next().ok_or(Error::Internal)?.code.clone();
        let NewSignup { email, name, password, referral } = new;
        let accounts = Accounts { core: Arc::clone(&self.core) };
        let new = NewAccount { email, name, plan, role: Role::User, password: Some(password) };
        let account = accounts.insert(new, false, via.by(None)).await?.ok_or(Error::EmailTaken)?;
        let hash = self.core.store.password_hash(account.id).await.map_err(unavailable)?;
        if let Some(code) = referral {
            Referrals { core: Arc::clone(&self.core) }.accept(account.id, &code).await?;
        }
        self.open(account, hash.ok_or(Error::Internal)?, via).await
    }

    /// Logs in with a password.
    ///
    /// # Errors
    /// [`LoginError::WrongLogin`], whatever of it is wrong; [`LoginError::AccountDisabled`], only after the right password;
    /// [`Error::Unavailable`] when too many try at one time.
    pub async fn login(&self, email: &str, password: String, via: Via) -> Result<Login, Error> {
        let found = match Email::parse(email) {
            Ok(email) => self.core.store.account_with_password_hash(&email).await.map_err(unavailable)?,
            Err(_) => None,
        };
        let (account, hash) = found.map_or((None, None), |(account, hash)| (Some(account), hash));
        let is_right = self.core.hasher.compare(password, hash.clone()).await?;
        let (Some(account), hash) = (account, hash.unwrap_or_default()) else {
            return Err(Error::Login(LoginError::WrongLogin));
        };
        let refused = |why| AuditEvent::new(account.id, via.by(None), "account.login", why).refused();
        if !is_right {
            self.core.log_later(refused("password"));
            return Err(Error::Login(LoginError::WrongLogin));
        }
        if account.disabled {
            self.core.log_later(refused("disabled"));
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
    /// [`LoginError::TemporaryTokenInvalid`] when it is unknown, used, too old or tried too often;
    /// [`LoginError::SecondFactorRequired`] without a code; [`LoginError::SecondFactorInvalid`] for a wrong code, and one
    /// that was used before; [`LoginError::TooManyTries`].
    pub async fn verify(
        &self,
        temporary_token: &str,
        code: Option<&str>,
        via: Via,
    ) -> Result<LoggedIn, Error> {
        let code = code
            .map(str::trim)
            .filter(|code| !code.is_empty())
            .ok_or(Error::Login(LoginError::SecondFactorRequired))?;
        let (store, now) = (&self.core.store, self.core.clock.now());
        let hash = hash(temporary_token);
        let tried = store.attempt_challenge(hash.clone(), CHALLENGE_TRIES_MAX, TRIES, now);
        let id = match tried.await.map_err(unavailable)? {
            ChallengeAttempt::NotFound => return Err(Error::Login(LoginError::TemporaryTokenInvalid)),
            ChallengeAttempt::Wait(retry_after) => {
                return Err(Error::Login(LoginError::TooManyTries {
                    limit: TRIES.tries,
                    at: now,
                    retry_after,
                }));
            }
            ChallengeAttempt::Allowed(account) => account,
        };
        let account = store
            .account(id)
            .await
            .map_err(unavailable)?
            .ok_or(Error::Login(LoginError::TemporaryTokenInvalid))?;
        if account.disabled {
            return Err(Error::Login(LoginError::AccountDisabled));
        }
        let factor = store.second_factor(id).await.map_err(unavailable)?;
        let factor =
            factor.filter(|factor| factor.is_on).ok_or(Error::Login(LoginError::TemporaryTokenInvalid))?;
        let session = self.new_session(&account);
        let passed = match right_code(&factor, code, now) {
            Some(used) => store
                .complete_challenge(hash, used, session.clone(), via.by(Some(id)), now)
                .await
                .map_err(unavailable)?,
            None => None,
        };
        let Some(session_id) = passed else {
            self.core.log_later(AuditEvent::new(id, via.by(None), "account.login", "code").refused());
            return Err(Error::Login(LoginError::SecondFactorInvalid));
        };
        let claim = SessionClaim { account: id, session: session_id, expires_at: session.expires_at };
        self.logged_in(account, claim, via).await
    }

    /// Ends the caller's session: from the moment this returns, its token proves nothing.
    ///
    /// # Errors
    /// [`LoginError::SessionNeeded`] when the caller has none.
    pub async fn logout(&self, caller: &Caller) -> Result<(), Error> {
        let Credential::Session(id) = caller.credential else {
            return Err(Error::Login(LoginError::SessionNeeded));
        };
        let now = self.core.clock.now();
        let closed = self.core.store.delete_session(caller.account.id, id, caller.by(), now);
        // One that has ended meanwhile has ended.
        closed.await.map_err(unavailable)?;
        self.core.revoked.send_replace(());
        Ok(())
    }

    async fn challenge(&self, account: &Account, password_hash: String) -> Result<Login, Error> {
        let mut random = [0; TEMPORARY_LEN];
        getrandom::fill(&mut random).map_err(|error| {
            tracing::error!(%error, "the system has no randomness");
            Error::Internal
        })?;
        let token = HEXLOWER.encode(&random);
        let now = self.core.clock.now();
        let new = NewChallenge {
            account: account.id,
            password_hash,
            hash: hash(&token),
            expires_at: now.after(CHALLENGE_TIME),
            challenges_max: CHALLENGES_MAX,
        };
        if !self.core.store.create_challenge(new, now).await.map_err(unavailable)? {
            return Err(Error::Login(LoginError::WrongLogin));
        }
        Ok(Login::NeedsCode { temporary_token: SessionToken(token) })
    }

    fn new_session(&self, account: &Account) -> NewSession {
        let expires_at = self.core.clock.now().after(self.core.settings.session_time);
        NewSession { account: account.id, expires_at, sessions_max: SESSIONS_MAX }
    }

    async fn open(&self, account: Account, password_hash: String, via: Via) -> Result<LoggedIn, Error> {
        let (new, now) = (self.new_session(&account), self.core.clock.now());
        let expires_at = new.expires_at;
        let by = via.by(Some(account.id));
        let opened =
            self.core.store.create_session(new, password_hash, by, now).await.map_err(unavailable)?;
        let session = opened.ok_or(Error::Login(LoginError::WrongLogin))?;
        let claim = SessionClaim { account: account.id, session, expires_at };
        self.logged_in(account, claim, via).await
    }

    async fn logged_in(&self, account: Account, claim: SessionClaim, via: Via) -> Result<LoggedIn, Error> {
        let key = SessionKey::of(&self.core).await?;
        let token = key.sign(claim, self.core.clock.now())?;
        let caller = caller(&self.core, account, claim, via).await.map_err(|_| Error::Internal)?;
        Ok(LoggedIn { token, caller })
    }
}

/// Proves a session token.
pub(crate) async fn prove(core: &Core, token: &str, via: Via) -> Result<Caller, AuthError> {
    let key = SessionKey::of(core).await.map_err(|_| AuthError::Unavailable)?;
    let now = core.clock.now();
    let claim = key.check(token, now).ok_or(AuthError::Invalid)?;
    let found = core.store.session(claim.session).await.map_err(|error| {
        tracing::error!(%error, "checking a session");
        AuthError::Unavailable
    })?;
    let (account, expires_at) = found.ok_or(AuthError::Invalid)?;
    if account.id != claim.account || expires_at <= now {
        return Err(AuthError::Invalid);
    }
    if account.disabled {
        return Err(AuthError::AccountDisabled);
    }
    caller(core, account, claim, via).await
}

/// Who has a session: they may do whatever the account may.
async fn caller(core: &Core, account: Account, claim: SessionClaim, via: Via) -> Result<Caller, AuthError> {
    let plan = core.plan_of(&account).await.map_err(|_| AuthError::Unavailable)?;
    let Some(plan) = plan else {
        tracing::error!(plan = %account.plan, account = %account.id, "an account has a plan that is not set up");
        return Err(AuthError::Unavailable);
    };
    let credential = Credential::Session(claim.session);
    let scopes = ScopeSet::of_role(account.role);
    Ok(Caller { account, plan, scopes, credential, via })
}

/// What is kept of a temporary token.
fn hash(token: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(token.as_bytes()))
}

/// Removes what is over, and says how much that was.
pub(crate) async fn sweep(core: &Core) -> Result<u64, Error> {
    core.store.delete_expired_sessions(core.clock.now(), SWEEP_MAX).await.map_err(unavailable)
}

/// Sweeps from time to time, until the service stops.
pub(crate) async fn run(core: &Core) {
    while !core.stop.is_cancelled() {
        match sweep(core).await {
            Ok(swept) if swept >= u64::from(SWEEP_MAX) => continue,
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "sweeping sessions"),
        }
        tokio::select! {
            () = tokio::time::sleep(SWEEP_EVERY) => {}
            () = core.stop.cancelled() => {}
        }
    }
}
