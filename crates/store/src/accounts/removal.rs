//! How accounts go: told to go first, then their pins in bounded steps, then the account itself.
//!
//! The row says that it is on its way out, so that a process that is killed leaves nothing half done for ever: whoever
//! comes next goes on.

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

/// What an account has and is to go with it. Its pins are gone by then; what is not named here cascades.
const BELONGINGS: [&str; 4] = [
    "DELETE FROM tokens WHERE account_id = $1",
    "DELETE FROM sessions WHERE account_id = $1",
    "DELETE FROM login_challenges WHERE account_id = $1",
    "DELETE FROM preferences WHERE account_id = $1",
];

/// What an account can have so much of that it goes in steps, before the account does.
const MANY: [&str; 2] = [
    "DELETE FROM webhook_deliveries WHERE id IN (SELECT d.id FROM webhooks h \
     JOIN webhook_deliveries d ON d.webhook_id = h.id WHERE h.account_id = $1 LIMIT $2)",
    "DELETE FROM idempotent_requests WHERE id IN (SELECT id FROM idempotent_requests WHERE account_id = $1 LIMIT $2)",
];

/// So many rows of those go in one step.
const MANY_STEP: i64 = 1_000;

/// What came of telling an account to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeginRemovalOutcome {
    /// It is gone.
    Gone,
    /// It goes once these pins of it are gone.
    Begun {
        /// How many there are.
        pins: u64,
    },
    /// There is no such account.
    NotFound,
    /// Nobody else would be left who may change anything; nothing was changed.
    LastAdmin,
    /// It has pins, and was not to lose them; nothing was changed.
    HasPins {
        /// How many there are.
        pins: u64,
    },
}

/// A step of the removal of accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemovalStep {
    /// Pins ended; none when other things of the account went.
    Pins(Vec<PinRemoval>),
    /// An account is gone.
    Gone(AccountId),
    /// Nobody is on the way out.
    Nothing,
}

#[derive(Debug, FromRow)]
struct LeavingRow {
    email: String,
    role: String,
    plan: String,
    disabled: i64,
    pin_count: i64,
    removing_since_ms: Option<i64>,
}

impl Store {
    /// Tells an account to go: it is disabled and gets no more pins. One without pins is gone at once; one with pins
    /// must be told with `force`, and goes in the [steps](Self::continue_account_removal) that follow.
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

    /// One step of the removal of accounts that were told to go: up to `limit` pins of one of them, or that account
    /// itself when it has none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn continue_account_removal(
        &self,
        limit: u32,
        now: Timestamp,
    ) -> Result<RemovalStep, StoreError> {
        // Most of the time there is none, and nothing is written.
        let leaving: Option<i64> = statement::query_scalar(
            "SELECT id FROM accounts WHERE removing_since_ms IS NOT NULL ORDER BY id LIMIT 1",
        )
        .fetch_optional(&self.readers)
        .await?;
        let Some(id) = leaving else { return Ok(RemovalStep::Nothing) };
        let (journal, outbox) = (self.journal(), self.outbox());
        self.write(Step { id: AccountId(id), limit, now, journal, outbox }).await
    }
}

/// The account as far as its removal is concerned.
async fn leaving(conn: &mut Conn, id: AccountId) -> Result<Option<LeavingRow>, StoreError> {
    let query = statement::query_as(
        "SELECT email, role, plan, disabled, pin_count, removing_since_ms FROM accounts WHERE id = $1",
    );
    Ok(query.bind(id.0).fetch_optional(conn).await?)
}

/// How many pins of an account are locked, and until when at the longest. What has failed promises nothing.
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
        let Some(row) = leaving(conn, self.id).await? else { return Ok(BeginRemovalOutcome::NotFound) };
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
        if pins == 0 && !take_many(conn, self.id).await? {
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
    /// Logs it for the account; and if that opens locks, with their number, for who said so as well.
    async fn log(&self, conn: &mut Conn, email: &str, pins: u64) -> Result<(), StoreError> {
        let query = statement::query_as(LOCKED).bind(self.id.0).bind(self.now.as_ms());
        let (locked, until_ms): (i64, Option<i64>) = query.fetch_one(&mut *conn).await?;
        let locked = number(locked);
        let details =
            Details::default().with("pins", pins).with_some("locked", (locked > 0).then_some(locked));
        let details = details.with_some("retainUntil", time(until_ms));
        let actor = self.by.actor.filter(|actor| locked > 0 && *actor != self.id);
        for account in [Some(self.id), actor].into_iter().flatten() {
            let act = AuditEvent::new(account, self.by, "account.remove", email).with(details.clone());
            self.journal.log(conn, &act, self.now).await?;
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
        let row = leaving(conn, self.id).await?.filter(|row| row.removing_since_ms.is_some());
        let Some(row) = row else { return Ok(RemovalStep::Nothing) };
        let rows: Vec<RemovalRow> = statement::query_as(
            // Its webhooks go with it, and hear nothing of that.
            "SELECT id, account_id, placement_id, charged_bytes, CAST(0 AS BIGINT) AS watched, \
             CASE WHEN phase <> 'failed' THEN retain_until_ms END AS locked_until_ms FROM pins \
             WHERE account_id = $1 ORDER BY id LIMIT $2",
        )
        .bind(self.id.0)
        .bind(i64::from(self.limit))
        .fetch_all(&mut *conn)
        .await?;
        if rows.is_empty() && take_many(conn, self.id).await? {
            return Ok(RemovalStep::Pins(Vec::new()));
        }
        if rows.is_empty() {
            let act = AuditEvent::new(self.id, Actor::SYSTEM, "account.gone", row.email.as_str());
            self.journal.log(conn, &act, self.now).await?;
            finish(conn, self.id, &row).await?;
            return Ok(RemovalStep::Gone(self.id));
        }
        // Also those that are locked: who told the account to go said so.
        let (locked, free): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row| row.locked_until(self.now).is_some());
        let mut ended = Vec::new();
        for (rows, action) in [(free, "pin.remove"), (locked, "pin.remove_locked")] {
            let (to, what) =
                ((&self.journal, &self.outbox), (WebhookEvent::Removed, (action, Actor::SYSTEM)));
            ended.extend(remove_rows(conn, &rows, to, what, self.now).await?);
        }
        Ok(RemovalStep::Pins(ended))
    }
}

/// Takes a step's worth of [`MANY`] away; true if there may be more.
async fn take_many(conn: &mut Conn, id: AccountId) -> Result<bool, StoreError> {
    let mut left = MANY_STEP;
    for sql in MANY {
        let done = statement::query(sql).bind(id.0).bind(left).execute(&mut *conn).await?;
        left = left.saturating_sub_unsigned(done.rows_affected());
    }
    Ok(left <= 0)
}

/// Takes the account itself away. It has no pins.
async fn finish(conn: &mut Conn, id: AccountId, row: &LeavingRow) -> Result<(), StoreError> {
    add_accounts(conn, &row.plan, row.disabled, -1).await?;
    for belongings in BELONGINGS {
        statement::query(belongings).bind(id.0).execute(&mut *conn).await?;
    }
    statement::query("DELETE FROM accounts WHERE id = $1").bind(id.0).execute(conn).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Row as _, SqlSafeStr as _};

    use super::*;

    #[tokio::test]
    async fn whatever_hangs_on_an_account_goes_with_it() {
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
                let deleted = BELONGINGS.iter().any(|sql| sql.contains(&format!("FROM {table} ")));
                assert!(
                    deleted || on_delete == "CASCADE",
                    "rows of {table} would keep an account from going"
                );
            }
        }
        assert!(found >= BELONGINGS.len());
    }
}
