//! Sessions: who is logged in.

use pinfold_model::{Account, AccountId, Actor, AuditEvent, Details, SessionId, Timestamp};
use sqlx::FromRow;

use crate::accounts::account::AccountRow;
use crate::audit::Journal;
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::{Store, StoreError};

/// What a new session is.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// Whose it is.
    pub account: AccountId,
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// How many sessions the account may have; the oldest end to make room.
    pub sessions_max: u32,
}

/// Removes what is over: sessions, and half-done logins.
pub(crate) const SWEEPS: [&str; 2] = [
    "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE expires_at_ms <= $1 LIMIT $2)",
    "DELETE FROM login_challenges WHERE id IN (SELECT id FROM login_challenges WHERE expires_at_ms <= $1 LIMIT $2)",
];

/// Something whose time is over.
pub(crate) const NEXT_OVER: &str = "SELECT CAST(1 AS BIGINT) WHERE EXISTS (SELECT 1 FROM sessions WHERE expires_at_ms <= $1) \
    OR EXISTS (SELECT 1 FROM login_challenges WHERE expires_at_ms <= $1)";

#[derive(Debug, FromRow)]
struct SessionRow {
    expires_at_ms: i64,
    #[sqlx(flatten)]
    account: AccountRow,
}

impl Store {
    /// Opens a session, after a password was found to be right. `None` when that is not enough any more: the hash that
    /// it was compared with is not the account's, the account is disabled, or it needs a code.
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
        self.write(Open { id, new, password_hash, by, now, journal }).await
    }

    /// Whose session this is, and when it ends.
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

    /// Ends a session; false if it has ended.
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
        self.write(Close { account, id, by, now, journal: self.journal() }).await
    }

    /// Ends all sessions of an account, and its half-done logins; gives how many sessions there were, or `None` if
    /// there is no such account.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_sessions(
        &self,
        account: AccountId,
        by: Actor,
        now: Timestamp,
    ) -> Result<Option<u64>, StoreError> {
        self.write(CloseAll { account, by, now, journal: self.journal() }).await
    }

    /// Removes sessions and half-done logins whose time is over, at most `limit` of each, and says how many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_expired_sessions(&self, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let query = statement::query_scalar(NEXT_OVER).bind(now.as_ms());
        let found: Option<i64> = query.fetch_optional(&self.readers).await?;
        // Mostly there is nothing, and a write costs a sync.
        if found.is_none() {
            return Ok(0);
        }
        self.write(Sweep { now, limit }).await
    }
}

/// What else than a password an account asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Factor {
    /// Nothing.
    None,
    /// A code.
    Code,
}

/// Whether a password that was right a moment ago still lets in: comparing takes long, and meanwhile it may have been
/// changed because somebody else knows it.
pub(crate) async fn still_opens(
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

/// Opens a session inside a transaction, and ends the oldest ones of the account that are too many.
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

struct Open {
    id: i64,
    new: NewSession,
    password_hash: String,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for Open {
    type Out = Option<SessionId>;

    async fn run(&self, conn: &mut Conn) -> Result<Option<SessionId>, StoreError> {
        let account = self.new.account;
        if !still_opens(conn, account, &self.password_hash, Factor::None).await? {
            return Ok(None);
        }
        let id = SessionId(self.id);
        insert(conn, id, &self.new, self.now).await?;
        let act = AuditEvent::new(account, self.by, "account.login", id.to_string());
        self.journal.log(conn, &act, self.now).await?;
        Ok(Some(id))
    }
}

struct Close {
    account: AccountId,
    id: SessionId,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for Close {
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
        let act = AuditEvent::new(self.account, self.by, "account.logout", self.id.to_string());
        self.journal.log(conn, &act, self.now).await?;
        Ok(true)
    }
}

struct CloseAll {
    account: AccountId,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for CloseAll {
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
        let closed = query.execute(&mut *conn).await?.rows_affected();
        let details = Details::default().with("sessions", closed);
        let act = AuditEvent::new(self.account, self.by, "auth.logout_all", "").with(details);
        self.journal.log(conn, &act, self.now).await?;
        Ok(Some(closed))
    }
}

struct Sweep {
    now: Timestamp,
    limit: u32,
}

impl Write for Sweep {
    type Out = u64;

    async fn run(&self, conn: &mut Conn) -> Result<u64, StoreError> {
        let mut swept = 0;
        for query in SWEEPS {
            let query = statement::query(query).bind(self.now.as_ms()).bind(i64::from(self.limit));
            swept += query.execute(&mut *conn).await?.rows_affected();
        }
        Ok(swept)
    }
}
