//! Logins that had the right password and wait for a code.

use std::time::Duration;

use pinfold_model::{AccountId, Actor, AuditEvent, SessionId, Timestamp};

use crate::accounts::second_factor::{self, AttemptBucket};
use crate::accounts::sessions;
use crate::audit::Journal;
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::{NewSession, Store, StoreError};

/// What a new half-done login is.
#[derive(Debug, Clone)]
pub struct NewChallenge {
    /// Whose login it is.
    pub account: AccountId,
    /// The hash that the password was compared with, as a PHC string.
    pub password_hash: String,
    /// The hash of its temporary token, in hexadecimal.
    pub hash: String,
    /// When it is over.
    pub expires_at: Timestamp,
    /// How many the account may have at one time; the oldest end to make room.
    pub challenges_max: u32,
}

/// What came of trying a code on a half-done login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChallengeAttempt {
    /// There is no such login, its time is over, or it was tried too often.
    NotFound,
    /// The account was tried too often; the next try is after so long.
    Wait(Duration),
    /// The try is counted; it is this account's login.
    Allowed(AccountId),
}

impl Store {
    /// Keeps a half-done login, after a password was found to be right. False when that is not enough any more: the
    /// hash that it was compared with is not the account's, the account is disabled, or it needs no code.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn create_challenge(&self, new: NewChallenge, now: Timestamp) -> Result<bool, StoreError> {
        self.write(Open { id: self.id(now), new }).await
    }

    /// Counts a try, before the code is looked at: so no number of requests at once gets more tries.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn attempt_challenge(
        &self,
        hash: String,
        tries_max: u32,
        bucket: AttemptBucket,
        now: Timestamp,
    ) -> Result<ChallengeAttempt, StoreError> {
        self.write(Try { hash, tries_max, bucket, now }).await
    }

    /// Completes a half-done login with the code of this time step: uses the code and the login up, and opens a
    /// session. `None`, and nothing is changed, when either was used up before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn complete_challenge(
        &self,
        hash: String,
        code: second_factor::TotpCode,
        session: NewSession,
        by: Actor,
        now: Timestamp,
    ) -> Result<Option<SessionId>, StoreError> {
        let (id, journal) = (self.id(now), self.journal());
        self.write(Pass { id, hash, code, session, by, now, journal }).await
    }
}

struct Open {
    id: i64,
    new: NewChallenge,
}

impl Write for Open {
    type Out = bool;

    async fn run(&self, conn: &mut Conn) -> Result<bool, StoreError> {
        let new = &self.new;
        if !sessions::still_opens(conn, new.account, &new.password_hash, sessions::Factor::Code).await? {
            return Ok(false);
        }
        statement::query(
            "INSERT INTO login_challenges (id, account_id, hash, attempts, expires_at_ms) VALUES ($1, $2, $3, 0, $4)",
        )
        .bind(self.id)
        .bind(new.account.0)
        .bind(&new.hash)
        .bind(new.expires_at.as_ms())
        .execute(&mut *conn)
        .await?;
        statement::query(
            "DELETE FROM login_challenges WHERE account_id = $1 AND id <= \
             (SELECT id FROM login_challenges WHERE account_id = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)",
        )
        .bind(new.account.0)
        .bind(i64::from(new.challenges_max))
        .execute(conn)
        .await?;
        Ok(true)
    }
}

struct Try {
    hash: String,
    tries_max: u32,
    bucket: AttemptBucket,
    now: Timestamp,
}

impl Write for Try {
    type Out = ChallengeAttempt;

    async fn run(&self, conn: &mut Conn) -> Result<ChallengeAttempt, StoreError> {
        let found: Option<i64> = statement::query_scalar(
            "SELECT account_id FROM login_challenges WHERE hash = $1 AND expires_at_ms > $2 AND attempts < $3",
        )
        .bind(&self.hash)
        .bind(self.now.as_ms())
        .bind(i64::from(self.tries_max))
        .fetch_optional(&mut *conn)
        .await?;
        let Some(account) = found.map(AccountId) else { return Ok(ChallengeAttempt::NotFound) };
        if let Some(wait) = second_factor::take_try(conn, account, self.bucket, self.now).await? {
            return Ok(ChallengeAttempt::Wait(wait));
        }
        let count = statement::query("UPDATE login_challenges SET attempts = attempts + 1 WHERE hash = $1")
            .bind(&self.hash);
        count.execute(conn).await?;
        Ok(ChallengeAttempt::Allowed(account))
    }
}

struct Pass {
    id: i64,
    hash: String,
    code: second_factor::TotpCode,
    session: NewSession,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for Pass {
    type Out = Option<SessionId>;

    async fn run(&self, conn: &mut Conn) -> Result<Option<SessionId>, StoreError> {
        let account = self.session.account;
        let found: Option<i64> = statement::query_scalar(
            "SELECT c.id FROM login_challenges c JOIN accounts a ON a.id = c.account_id \
             WHERE c.hash = $1 AND c.account_id = $2 AND c.expires_at_ms > $3 AND a.disabled = 0",
        )
        .bind(&self.hash)
        .bind(account.0)
        .bind(self.now.as_ms())
        .fetch_optional(&mut *conn)
        .await?;
        if found.is_none() || !second_factor::use_code(conn, account, &self.code).await? {
            return Ok(None);
        }
        statement::query("DELETE FROM login_challenges WHERE hash = $1")
            .bind(&self.hash)
            .execute(&mut *conn)
            .await?;
        let id = SessionId(self.id);
        sessions::insert(conn, id, &self.session, self.now).await?;
        let act = AuditEvent::new(account, self.by, "account.login", id.to_string());
        self.journal.log(conn, &act, self.now).await?;
        Ok(Some(id))
    }
}
