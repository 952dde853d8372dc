//! Login sessions of accounts.

use pinfold_model::{Account, AccountId, Actor, AuditEvent, Details, SessionId, Timestamp};
use sqlx::FromRow;

use crate::accounts::account::AccountRow;
use crate::audit::Journal;
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::{Store, StoreError};

/// A session to be created.
#[derive(Debug, Clone)]
pub struct NewSession {
    pub account: AccountId,
    pub expires_at: Timestamp,
    /// Maximum number of sessions of the account. The oldest ones are deleted when it is exceeded.
    pub sessions_max: u32,
}

/// Deletes expired sessions and expired login challenges.
pub(crate) const DELETE_EXPIRED: [&str; 2] = [
    "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE expires_at_ms <= $1 LIMIT $2)",
    "DELETE FROM login_challenges WHERE id IN (SELECT id FROM login_challenges WHERE expires_at_ms <= $1 LIMIT $2)",
];

/// Whether there is an expired session or login challenge.
pub(crate) const ANY_EXPIRED: &str = "SELECT CAST(1 AS BIGINT) WHERE EXISTS (SELECT 1 FROM sessions WHERE expires_at_ms <= $1) \
    OR EXISTS (SELECT 1 FROM login_challenges WHERE expires_at_ms <= $1)";

#[derive(Debug, FromRow)]
struct SessionRow {
    expires_at_ms: i64,
    #[sqlx(flatten)]
    account: AccountRow,
}

impl Store {
    /// Creates a session after the password was verified. `None` if that is no longer sufficient: the password hash
    /// changed, the account was disabled, or it requires a code.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn create_session(
        &self,
        new: NewSession,
        password_hash: String,
        by: Actor,
        now: Timestamp,
    ) -> Result<Option<SessionId>, StoreError> {
        let (id, journal) = (self.id(now), self.journal());
        self.write(CreateSession { id, new, password_hash, by, now, journal }).await
    }

    /// The account of a session, and when the session expires.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session(&self, id: SessionId) -> Result<Option<(Account, Timestamp)>, StoreError> {
        let row: Option<SessionRow> = statement::query_as(
            "SELECT s.expires_at_ms, a.id, a.email, a.name, a.role, a.plan, a.disabled, a.totp_enabled, a.used_bytes, \
             a.dedup_bytes, a.storage_limit_bytes, a.pin_count, a.created_at_ms \
             FROM sessions s JOIN accounts a ON a.id = s.account_id WHERE s.id = $1",
        )
        .bind(id.0)
        .fetch_optional(&self.readers)
        .await?;
        row.map(|row| Ok((row.account.into_account()?, Timestamp::from_ms(row.expires_at_ms)))).transpose()
    }

    /// Deletes a session. False if it does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_session(
        &self,
        account: AccountId,
        id: SessionId,
        by: Actor,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(Delete { account, id, by, now, journal: self.journal() }).await
    }

    /// Deletes all sessions and login challenges of an account. Returns the number of sessions; `None` if there is no such
    /// account.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_sessions(
        &self,
        account: AccountId,
        by: Actor,
        now: Timestamp,
    ) -> Result<Option<u64>, StoreError> {
        self.write(DeleteAll { account, by, now, journal: self.journal() }).await
    }

    /// Deletes up to `limit` expired sessions and up to `limit` expired login challenges. Returns the number of both.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_expired_sessions(&self, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let query = statement::query_scalar(ANY_EXPIRED).bind(now.as_ms());
        let found: Option<i64> = query.fetch_optional(&self.readers).await?;
        // Usually nothing has expired. The read avoids a write, which costs a sync.
        if found.is_none() {
            return Ok(0);
        }
        self.write(DeleteExpired { now, limit }).await
    }
}

/// What a login requires in addition to the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Factor {
    None,
    /// A one-time code.
    Code,
}

/// Whether a verified password is still valid. Verifying takes long, and the password may have been changed meanwhile,
/// for example because it was compromised.
pub(crate) async fn is_still_valid_password(
    conn: &mut Conn,
    account: AccountId,
    password_hash: &str,
    factor: Factor,
) -> Result<bool, StoreError> {
    let found: Option<i64> = statement::query_scalar(
        "SELECT id FROM accounts WHERE id = $1 AND password_hash = $2 AND disabled = 0 AND totp_enabled = $3",
    )
    .bind(account.0)
    .bind(password_hash)
    .bind(i64::from(factor == Factor::Code))
    .fetch_optional(conn)
    .await?;
    Ok(found.is_some())
}

/// Creates a session inside a transaction, and deletes the oldest sessions of the account above its maximum.
pub(crate) async fn insert(
    conn: &mut Conn,
    id: SessionId,
    new: &NewSession,
    now: Timestamp,
) -> Result<(), StoreError> {
    statement::query(
        "INSERT INTO sessions (id, account_id, created_at_ms, expires_at_ms) VALUES ($1, $2, $3, $4)",
    )
    .bind(id.0)
    .bind(new.account.0)
    .bind(now.as_ms())
    .bind(new.expires_at.as_ms())
    .execute(&mut *conn)
    .await?;
    statement::query(
        "DELETE FROM sessions WHERE account_id = $1 AND id <= \
         (SELECT id FROM sessions WHERE account_id = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)",
    )
    .bind(new.account.0)
    .bind(i64::from(new.sessions_max))
    .execute(conn)
    .await?;
    Ok(())
}

struct CreateSession {
    id: i64,
    new: NewSession,
    password_hash: String,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for CreateSession {
    type Out = Option<SessionId>;

    async fn run(&self, conn: &mut Conn) -> Result<Option<SessionId>, StoreError> {
        let account = self.new.account;
        if !is_still_valid_password(conn, account, &self.password_hash, Factor::None).await? {
            return Ok(None);
        }
        let id = SessionId(self.id);
        insert(conn, id, &self.new, self.now).await?;
        let event = AuditEvent::new(account, self.by, "account.login", id.to_string());
        self.journal.log(conn, &event, self.now).await?;
        Ok(Some(id))
    }
}

struct Delete {
    account: AccountId,
    id: SessionId,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for Delete {
    type Out = bool;

    async fn run(&self, conn: &mut Conn) -> Result<bool, StoreError> {
        let done = statement::query("DELETE FROM sessions WHERE id = $1 AND account_id = $2")
            .bind(self.id.0)
            .bind(self.account.0)
            .execute(&mut *conn)
            .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        let event = AuditEvent::new(self.account, self.by, "account.logout", self.id.to_string());
        self.journal.log(conn, &event, self.now).await?;
        Ok(true)
    }
}

struct DeleteAll {
    account: AccountId,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for DeleteAll {
    type Out = Option<u64>;

    async fn run(&self, conn: &mut Conn) -> Result<Option<u64>, StoreError> {
        let account: Option<i64> = statement::query_scalar("SELECT id FROM accounts WHERE id = $1")
            .bind(self.account.0)
            .fetch_optional(&mut *conn)
            .await?;
        if account.is_none() {
            return Ok(None);
        }
        let query =
            statement::query("DELETE FROM login_challenges WHERE account_id = $1").bind(self.account.0);
        query.execute(&mut *conn).await?;
        let query = statement::query("DELETE FROM sessions WHERE account_id = $1").bind(self.account.0);
        let deleted = query.execute(&mut *conn).await?.rows_affected();
        let details = Details::default().with("sessions", deleted);
        let event = AuditEvent::new(self.account, self.by, "auth.logout_all", "").with(details);
        self.journal.log(conn, &event, self.now).await?;
        Ok(Some(deleted))
    }
}

struct DeleteExpired {
    now: Timestamp,
    limit: u32,
}

impl Write for DeleteExpired {
    type Out = u64;

    async fn run(&self, conn: &mut Conn) -> Result<u64, StoreError> {
        let mut deleted = 0;
        for query in DELETE_EXPIRED {
            let query = statement::query(query).bind(self.now.as_ms()).bind(i64::from(self.limit));
            deleted += query.execute(&mut *conn).await?.rows_affected();
        }
        Ok(deleted)
    }
}
