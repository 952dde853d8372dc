//! Login challenges: logins with a verified password that still require a one-time code.

use std::time::Duration;

use pinfold_model::{AccountId, Actor, AuditEvent, SessionId, Timestamp};

use crate::accounts::second_factor::{self, AttemptBucket};
use crate::accounts::sessions;
use crate::audit::Journal;
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::{NewSession, Store, StoreError};

/// A login challenge to be created.
#[derive(Debug, Clone)]
pub struct NewChallenge {
    pub account: AccountId,
    /// The password hash that was verified, as a PHC string.
    pub password_hash: String,
    /// Hash of the temporary token of the challenge, in hexadecimal.
    pub hash: String,
    pub expires_at: Timestamp,
    /// Maximum number of challenges of the account. The oldest ones are deleted when it is exceeded.
    pub challenges_max: u32,
}

/// Result of [`Store::attempt_challenge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChallengeAttempt {
    /// The challenge does not exist, has expired, or had too many attempts.
    NotFound,
    /// The account had too many attempts. The next one is allowed after this time.
    Wait(Duration),
    /// The attempt was counted. The challenge belongs to this account.
    Allowed(AccountId),
}

impl Store {
    /// Creates a challenge after the password was verified. False if that is no longer sufficient: the password hash
    /// changed, the account was disabled, or it no longer requires a code.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn create_challenge(&self, new: NewChallenge, now: Timestamp) -> Result<bool, StoreError> {
        self.write(CreateChallenge { id: self.id(now), new }).await
    }

    /// Counts an attempt. Called before the code is verified, so that concurrent requests get no additional attempts.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn attempt_challenge(
        &self,
        hash: String,
        attempts_max: u32,
        bucket: AttemptBucket,
        now: Timestamp,
    ) -> Result<ChallengeAttempt, StoreError> {
        self.write(AttemptChallenge { hash, attempts_max, bucket, now }).await
    }

    /// Completes a challenge with a verified code: consumes the code and the challenge, and creates a session. `None`,
    /// without changes, if either was consumed before.
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
        self.write(CompleteChallenge { id, hash, code, session, by, now, journal }).await
    }
}

struct CreateChallenge {
    id: i64,
    new: NewChallenge,
}

impl Write for CreateChallenge {
    type Out = bool;

    async fn run(&self, conn: &mut Conn) -> Result<bool, StoreError> {
        let new = &self.new;
        if !sessions::is_still_valid_password(conn, new.account, &new.password_hash, sessions::Factor::Code)
            .await?
        {
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

struct AttemptChallenge {
    hash: String,
    attempts_max: u32,
    bucket: AttemptBucket,
    now: Timestamp,
}

impl Write for AttemptChallenge {
    type Out = ChallengeAttempt;

    async fn run(&self, conn: &mut Conn) -> Result<ChallengeAttempt, StoreError> {
        let found: Option<i64> = statement::query_scalar(
            "SELECT account_id FROM login_challenges WHERE hash = $1 AND expires_at_ms > $2 AND attempts < $3",
        )
        .bind(&self.hash)
        .bind(self.now.as_ms())
        .bind(i64::from(self.attempts_max))
        .fetch_optional(&mut *conn)
        .await?;
        let Some(account) = found.map(AccountId) else { return Ok(ChallengeAttempt::NotFound) };
        if let Some(wait) = second_factor::take_attempt(conn, account, self.bucket, self.now).await? {
            return Ok(ChallengeAttempt::Wait(wait));
        }
        let count = statement::query("UPDATE login_challenges SET attempts = attempts + 1 WHERE hash = $1")
            .bind(&self.hash);
        count.execute(conn).await?;
        Ok(ChallengeAttempt::Allowed(account))
    }
}

struct CompleteChallenge {
    id: i64,
    hash: String,
    code: second_factor::TotpCode,
    session: NewSession,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for CompleteChallenge {
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
        if found.is_none() || !second_factor::consume_code(conn, account, &self.code).await? {
            return Ok(None);
        }
        statement::query("DELETE FROM login_challenges WHERE hash = $1")
            .bind(&self.hash)
            .execute(&mut *conn)
            .await?;
        let id = SessionId(self.id);
        sessions::insert(conn, id, &self.session, self.now).await?;
        let event = AuditEvent::new(account, self.by, "account.login", id.to_string());
        self.journal.log(conn, &event, self.now).await?;
        Ok(Some(id))
    }
}
