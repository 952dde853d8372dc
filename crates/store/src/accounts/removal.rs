//! Removal of accounts: first the account is marked, then its pins are deleted in bounded steps, then the account itself.
//!
//! The mark (`removing_since_ms`) is stored in the row, so a removal that was interrupted continues after a restart.

use pinfold_model::{AccountId, Actor, AuditEvent, Details, Role, Timestamp, WebhookEvent};
use sqlx::FromRow;

use crate::accounts::update::has_other_admin;
use crate::audit::Journal;
use crate::db::row::{number, time};
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::pins::remove::{RemovalRow, remove_rows};
use crate::statistics::add_accounts;
use crate::webhooks::outbox::Outbox;
use crate::{PinRemoval, Store, StoreError};

/// Deletes the rows that belong to an account, except its pins, which are deleted before, and rows that cascade.
const OWNED_ROWS: [&str; 4] = [
    "DELETE FROM tokens WHERE account_id = $1",
    "DELETE FROM sessions WHERE account_id = $1",
    "DELETE FROM login_challenges WHERE account_id = $1",
    "DELETE FROM preferences WHERE account_id = $1",
];

/// Deletes rows of which an account can have many. They are deleted in steps, before the account.
const MANY: [&str; 2] = [
    "DELETE FROM webhook_deliveries WHERE id IN (SELECT d.id FROM webhooks h \
     JOIN webhook_deliveries d ON d.webhook_id = h.id WHERE h.account_id = $1 LIMIT $2)",
    "DELETE FROM idempotent_requests WHERE id IN (SELECT id FROM idempotent_requests WHERE account_id = $1 LIMIT $2)",
];

/// Maximum number of rows that one step deletes with [`MANY`].
const MANY_STEP: i64 = 1_000;

/// Result of [`Store::begin_account_removal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeginRemovalOutcome {
    /// The account was removed.
    Gone,
    /// The removal continues in steps.
    Begun {
        pins: u64,
    },
    NotFound,
    /// It is the last enabled administrator. Nothing was changed.
    LastAdmin,
    /// It has pins, and the removal was not forced. Nothing was changed.
    HasPins {
        pins: u64,
    },
}

/// Result of a step of the removal of accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemovalStep {
    /// These pins were removed. Empty if the step deleted other rows of the account.
    Pins(Vec<PinRemoval>),
    /// This account was removed.
    Gone(AccountId),
    /// No account is being removed.
    Nothing,
}

#[derive(Debug, FromRow)]
struct RemovingRow {
    email: String,
    role: String,
    plan: String,
    disabled: i64,
    pin_count: i64,
    removing_since_ms: Option<i64>,
}

impl Store {
    /// Begins the removal of an account: disables it and rejects new pins. An account without pins is removed
    /// immediately. An account with pins requires `force`, and is removed by the following
    /// [steps](Self::continue_account_removal).
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin_account_removal(
        &self,
        id: AccountId,
        force: bool,
        by: Actor,
        now: Timestamp,
    ) -> Result<BeginRemovalOutcome, StoreError> {
        self.write(Begin { id, force, by, now, journal: self.journal() }).await
    }

    /// Performs one step of the removal of an account that is being removed: removes up to `limit` of its pins, or the
    /// account itself if it has none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn continue_account_removal(
        &self,
        limit: u32,
        now: Timestamp,
    ) -> Result<RemovalStep, StoreError> {
        // Usually no account is being removed. The read avoids a write.
        let removing: Option<i64> = statement::query_scalar(
            "SELECT id FROM accounts WHERE removing_since_ms IS NOT NULL ORDER BY id LIMIT 1",
        )
        .fetch_optional(&self.readers)
        .await?;
        let Some(id) = removing else { return Ok(RemovalStep::Nothing) };
        let (journal, outbox) = (self.journal(), self.outbox());
        self.write(Step { id: AccountId(id), limit, now, journal, outbox }).await
    }
}

/// Reads the columns of an account that its removal uses.
async fn removing(conn: &mut Conn, id: AccountId) -> Result<Option<RemovingRow>, StoreError> {
    let query = statement::query_as(
        "SELECT email, role, plan, disabled, pin_count, removing_since_ms FROM accounts WHERE id = $1",
    );
    Ok(query.bind(id.0).fetch_optional(conn).await?)
}

/// Number of pins of an account with a retention lock, and the latest end of a lock. Failed pins are not locked.
pub(crate) const LOCKED: &str = "SELECT COUNT(*), MAX(retain_until_ms) FROM pins \
     WHERE account_id = $1 AND retain_until_ms > $2 AND phase <> 'failed'";

struct Begin {
    id: AccountId,
    force: bool,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for Begin {
    type Out = BeginRemovalOutcome;

    async fn run(&self, conn: &mut Conn) -> Result<BeginRemovalOutcome, StoreError> {
        let Some(row) = removing(conn, self.id).await? else { return Ok(BeginRemovalOutcome::NotFound) };
        let pins = number(row.pin_count);
        if row.removing_since_ms.is_some() {
            return Ok(BeginRemovalOutcome::Begun { pins });
        }
        let is_admin = row.role == Role::Admin.as_str() && row.disabled == 0;
        if is_admin && !has_other_admin(conn, self.id).await? {
            return Ok(BeginRemovalOutcome::LastAdmin);
        }
        if pins > 0 && !self.force {
            return Ok(BeginRemovalOutcome::HasPins { pins });
        }
        self.log(conn, row.email.as_str(), pins).await?;
        if pins == 0 && !delete_many(conn, self.id).await? {
            finish(conn, self.id, &row).await?;
            return Ok(BeginRemovalOutcome::Gone);
        }
        if row.disabled == 0 {
            add_accounts(conn, &row.plan, 0, -1).await?;
            add_accounts(conn, &row.plan, 1, 1).await?;
        }
        statement::query("UPDATE accounts SET disabled = 1, removing_since_ms = $2 WHERE id = $1")
            .bind(self.id.0)
            .bind(self.now.as_ms())
            .execute(&mut *conn)
            .await?;
        Ok(BeginRemovalOutcome::Begun { pins })
    }
}

impl Begin {
    /// Logs the removal for the account. If it overrides retention locks, also logs it for the acting account.
    async fn log(&self, conn: &mut Conn, email: &str, pins: u64) -> Result<(), StoreError> {
        let query = statement::query_as(LOCKED).bind(self.id.0).bind(self.now.as_ms());
        let (locked, until_ms): (i64, Option<i64>) = query.fetch_one(&mut *conn).await?;
        let locked = number(locked);
        let details =
            Details::default().with("pins", pins).with_some("locked", (locked > 0).then_some(locked));
        let details = details.with_some("retainUntil", time(until_ms));
        let actor = self.by.actor.filter(|actor| locked > 0 && *actor != self.id);
        for account in [Some(self.id), actor].into_iter().flatten() {
            let event = AuditEvent::new(account, self.by, "account.remove", email).with(details.clone());
            self.journal.log(conn, &event, self.now).await?;
        }
        Ok(())
    }
}

struct Step {
    id: AccountId,
    limit: u32,
    now: Timestamp,
    journal: Journal,
    outbox: Outbox,
}

impl Write for Step {
    type Out = RemovalStep;

    async fn run(&self, conn: &mut Conn) -> Result<RemovalStep, StoreError> {
        let row = removing(conn, self.id).await?.filter(|row| row.removing_since_ms.is_some());
        let Some(row) = row else { return Ok(RemovalStep::Nothing) };
        let rows: Vec<RemovalRow> = statement::query_as(
            // `watched` is 0: the webhooks of the account are removed with it and get no events.
            "SELECT id, account_id, placement_id, charged_bytes, CAST(0 AS BIGINT) AS watched, \
             CASE WHEN phase <> 'failed' THEN retain_until_ms END AS locked_until_ms FROM pins \
             WHERE account_id = $1 ORDER BY id LIMIT $2",
        )
        .bind(self.id.0)
        .bind(i64::from(self.limit))
        .fetch_all(&mut *conn)
        .await?;
        if rows.is_empty() && delete_many(conn, self.id).await? {
            return Ok(RemovalStep::Pins(Vec::new()));
        }
        if rows.is_empty() {
            let event = AuditEvent::new(self.id, Actor::SYSTEM, "account.gone", row.email.as_str());
            self.journal.log(conn, &event, self.now).await?;
            finish(conn, self.id, &row).await?;
            return Ok(RemovalStep::Gone(self.id));
        }
        // Locked pins are removed too: the removal of the account overrides their locks.
        let (locked, free): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row| row.locked_until(self.now).is_some());
        let mut removed = Vec::new();
        for (rows, action) in [(free, "pin.remove"), (locked, "pin.remove_locked")] {
            let (to, what) =
                ((&self.journal, &self.outbox), (WebhookEvent::Removed, (action, Actor::SYSTEM)));
            removed.extend(remove_rows(conn, &rows, to, what, self.now).await?);
        }
        Ok(RemovalStep::Pins(removed))
    }
}

/// Deletes up to [`MANY_STEP`] rows with [`MANY`]. True if more may be left.
async fn delete_many(conn: &mut Conn, id: AccountId) -> Result<bool, StoreError> {
    let mut left = MANY_STEP;
    for sql in MANY {
        let done = statement::query(sql).bind(id.0).bind(left).execute(&mut *conn).await?;
        left = left.saturating_sub_unsigned(done.rows_affected());
    }
    Ok(left <= 0)
}

/// Deletes the account, which has no pins, and the rows that belong to it.
async fn finish(conn: &mut Conn, id: AccountId, row: &RemovingRow) -> Result<(), StoreError> {
    add_accounts(conn, &row.plan, row.disabled, -1).await?;
    for sql in OWNED_ROWS {
        statement::query(sql).bind(id.0).execute(&mut *conn).await?;
    }
    statement::query("DELETE FROM accounts WHERE id = $1").bind(id.0).execute(conn).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Row as _, SqlSafeStr as _};

    use super::*;

    #[tokio::test]
    async fn all_tables_that_reference_accounts_are_covered() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("pinfold.db")).await.unwrap();
        let tables: Vec<String> = sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table'")
            .fetch_all(&store.readers)
            .await
            .unwrap();
        let mut found = 0;
        for table in tables {
            let sql = AssertSqlSafe(format!("PRAGMA foreign_key_list({table})")).into_sql_str();
            for key in sqlx::query(sql).fetch_all(&store.readers).await.unwrap() {
                let (parent, on_delete): (String, String) = (key.get("table"), key.get("on_delete"));
                if parent != "accounts" || table == "pins" {
                    continue;
                }
                found += 1;
                let deleted = OWNED_ROWS.iter().any(|sql| sql.contains(&format!("FROM {table} ")));
                assert!(
                    deleted || on_delete == "CASCADE",
                    "rows of {table} would prevent the removal of an account"
                );
            }
        }
        assert!(found >= OWNED_ROWS.len());
    }
}
