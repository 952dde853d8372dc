//! Password hashes of accounts.

use pinfold_model::{Account, AccountId, Actor, AuditEvent, Email, SessionId, Timestamp};
use sqlx::FromRow;

use crate::accounts::account::AccountRow;
use crate::audit::Journal;
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::{Store, StoreError};

#[derive(Debug, FromRow)]
struct LoginRow {
    password_hash: Option<String>,
    #[sqlx(flatten)]
    account: AccountRow,
}

impl Store {
    /// The account with this e-mail address, and its password hash if it has one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn account_with_password_hash(
        &self,
        email: &Email,
    ) -> Result<Option<(Account, Option<String>)>, StoreError> {
        let row: Option<LoginRow> = statement::query_as(
            "SELECT password_hash, id, email, name, role, plan, disabled, totp_enabled, used_bytes, dedup_bytes, \
             storage_limit_bytes, pin_count, created_at_ms FROM accounts WHERE email = $1",
        )
        .bind(email.as_str())
        .fetch_optional(&self.readers)
        .await?;
        row.map(|row| Ok((row.account.into_account()?, row.password_hash))).transpose()
    }

    /// The password hash of the account, if it has one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn password_hash(&self, account: AccountId) -> Result<Option<String>, StoreError> {
        let query =
            statement::query_scalar("SELECT password_hash FROM accounts WHERE id = $1").bind(account.0);
        let hash: Option<Option<String>> = query.fetch_optional(&self.readers).await?;
        Ok(hash.flatten())
    }

    /// Sets the password hash, and deletes all login challenges and all sessions of the account except `keep`. False,
    /// without changes, if there is no such account, or `expected` is given and is not the present password hash.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_password(
        &self,
        account: AccountId,
        hash: String,
        expected: Option<String>,
        keep: Option<SessionId>,
        by: Actor,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(Set { account, hash, expected, keep, by, now, journal: self.journal() }).await
    }
}

struct Set {
    account: AccountId,
    hash: String,
    expected: Option<String>,
    keep: Option<SessionId>,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for Set {
    type Out = bool;

    async fn run(&self, conn: &mut Conn) -> Result<bool, StoreError> {
        let done = statement::query(
            "UPDATE accounts SET password_hash = $2 WHERE id = $1 AND ($3 = '' OR password_hash = $3)",
        )
        .bind(self.account.0)
        .bind(&self.hash)
        .bind(self.expected.as_deref().unwrap_or_default())
        .execute(&mut *conn)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        // No session has the id 0.
        statement::query("DELETE FROM sessions WHERE account_id = $1 AND id <> $2")
            .bind(self.account.0)
            .bind(self.keep.map_or(0, |id| id.0))
            .execute(&mut *conn)
            .await?;
        let query =
            statement::query("DELETE FROM login_challenges WHERE account_id = $1").bind(self.account.0);
        query.execute(&mut *conn).await?;
        self.journal
            .log(conn, &AuditEvent::new(self.account, self.by, "account.password", ""), self.now)
            .await?;
        Ok(true)
    }
}
