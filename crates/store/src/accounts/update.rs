//! Changes to accounts, by operators or by the account itself.

use pinfold_model::{Account, AccountId, Actor, AuditEvent, Details, PlanCode, Role, Timestamp};
use sqlx::FromRow;

use crate::accounts::account::load;
use crate::audit::Journal;
use crate::db::row::{column, number, word};
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::plans;
use crate::statistics::add_accounts;
use crate::{Store, StoreError};

/// The plan that an account is to get.
#[derive(Debug, Clone)]
pub struct PlanGrant {
    pub code: PlanCode,
    /// Storage of the configured plan with this code, if there is one. A saved plan takes precedence.
    pub configured_bytes: Option<u64>,
    /// Whether to reject the plan if the account uses more storage than the plan allows.
    pub must_fit: bool,
}

/// Requested changes. `None` keeps the present value.
#[derive(Debug, Clone, Default)]
pub struct AccountChanges {
    /// Display name.
    pub name: Option<String>,
    pub plan: Option<PlanGrant>,
    pub role: Option<Role>,
    /// Whether all credentials of the account are rejected.
    pub disabled: Option<bool>,
    /// Storage limit that overrides the one of the plan. `Some(None)` removes the override.
    pub storage_override: Option<Option<u64>>,
}

/// Result of [`Store::update_account`]. Except for [`UpdateAccountOutcome::Done`], nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateAccountOutcome {
    /// The account after the change.
    Done(Box<Account>),
    NotFound,
    /// The account is being removed.
    Removing,
    /// No enabled administrator would be left.
    LastAdmin,
    /// The requested plan does not exist.
    UnknownPlan,
    /// The account uses more storage than the plan allows.
    DoesNotFit {
        used_bytes: u64,
        /// Storage of the plan.
        limit_bytes: u64,
    },
}

/// The columns of an account that a change reads and writes.
#[derive(Debug, Clone, FromRow)]
struct AccountColumns {
    name: String,
    role: String,
    plan: String,
    disabled: i64,
    used_bytes: i64,
    storage_limit_bytes: i64,
    storage_override_bytes: Option<i64>,
    removing_since_ms: Option<i64>,
}

impl Store {
    /// Changes an account atomically: either all changes are made or none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn update_account(
        &self,
        id: AccountId,
        changes: AccountChanges,
        by: Actor,
        now: Timestamp,
    ) -> Result<UpdateAccountOutcome, StoreError> {
        self.write(Change { id, changes, by, now, journal: self.journal() }).await
    }
}

/// Whether there is an enabled administrator other than this account.
pub(crate) async fn has_other_admin(conn: &mut Conn, id: AccountId) -> Result<bool, StoreError> {
    let other: Option<i64> = statement::query_scalar(
        "SELECT id FROM accounts WHERE role = 'admin' AND disabled = 0 AND id <> $1 LIMIT 1",
    )
    .bind(id.0)
    .fetch_optional(conn)
    .await?;
    Ok(other.is_some())
}

struct Change {
    id: AccountId,
    changes: AccountChanges,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for Change {
    type Out = UpdateAccountOutcome;

    async fn run(&self, conn: &mut Conn) -> Result<UpdateAccountOutcome, StoreError> {
        let old: Option<AccountColumns> = statement::query_as(
            "SELECT name, role, plan, disabled, used_bytes, storage_limit_bytes, storage_override_bytes, \
             removing_since_ms FROM accounts WHERE id = $1",
        )
        .bind(self.id.0)
        .fetch_optional(&mut *conn)
        .await?;
        let Some(old) = old else { return Ok(UpdateAccountOutcome::NotFound) };
        if old.removing_since_ms.is_some() {
            return Ok(UpdateAccountOutcome::Removing);
        }
        let new = match self.changed(conn, &old).await? {
            Ok(new) => new,
            Err(outcome) => return Ok(outcome),
        };
        self.write(conn, &old, &new).await?;
        self.log(conn, &old, &new).await?;
        match load(conn, self.id).await? {
            Some(account) => Ok(UpdateAccountOutcome::Done(Box::new(account))),
            None => Ok(UpdateAccountOutcome::NotFound),
        }
    }
}

impl Change {
    /// The columns after the change, or the reason to reject it.
    async fn changed(
        &self,
        conn: &mut Conn,
        old: &AccountColumns,
    ) -> Result<Result<AccountColumns, UpdateAccountOutcome>, StoreError> {
        let (changes, mut new) = (&self.changes, old.clone());
        if let Some(name) = &changes.name {
            new.name.clone_from(name);
        }
        if let Some(role) = changes.role {
            role.as_str().clone_into(&mut new.role);
        }
        if let Some(disabled) = changes.disabled {
            new.disabled = i64::from(disabled);
        }
        let was_admin = word::<Role>("role", &old.role)? == Role::Admin && old.disabled == 0;
        let is_admin = word::<Role>("role", &new.role)? == Role::Admin && new.disabled == 0;
        if was_admin && !is_admin && !has_other_admin(conn, self.id).await? {
            return Ok(Err(UpdateAccountOutcome::LastAdmin));
        }
        if let Some(storage) = changes.storage_override {
            new.storage_override_bytes = storage.map(column);
        }
        if let Some(grant) = &changes.plan {
            grant.code.as_str().clone_into(&mut new.plan);
            let plan_bytes = plans::storage_of(conn, &grant.code, grant.configured_bytes).await?;
            let Some(plan_bytes) = plan_bytes else { return Ok(Err(UpdateAccountOutcome::UnknownPlan)) };
            new.storage_limit_bytes = new.storage_override_bytes.unwrap_or(plan_bytes);
            if grant.must_fit && new.used_bytes > new.storage_limit_bytes {
                let (used_bytes, limit_bytes) = (number(new.used_bytes), number(new.storage_limit_bytes));
                return Ok(Err(UpdateAccountOutcome::DoesNotFit { used_bytes, limit_bytes }));
            }
        } else if let Some(own) = new.storage_override_bytes {
            new.storage_limit_bytes = own;
        }
        Ok(Ok(new))
    }

    async fn write(
        &self,
        conn: &mut Conn,
        old: &AccountColumns,
        new: &AccountColumns,
    ) -> Result<(), StoreError> {
        statement::query(
            "UPDATE accounts SET name = $2, role = $3, plan = $4, disabled = $5, storage_limit_bytes = $6, \
             storage_override_bytes = $7 WHERE id = $1",
        )
        .bind(self.id.0)
        .bind(&new.name)
        .bind(&new.role)
        .bind(&new.plan)
        .bind(new.disabled)
        .bind(new.storage_limit_bytes)
        .bind(new.storage_override_bytes)
        .execute(&mut *conn)
        .await?;
        if (&new.plan, new.disabled) != (&old.plan, old.disabled) {
            add_accounts(conn, &old.plan, old.disabled, -1).await?;
            add_accounts(conn, &new.plan, new.disabled, 1).await?;
        }
        if new.disabled == 0 && old.disabled != 0 {
            // Sessions are kept while the account is disabled, so that requests learn why they are rejected. Enabling
            // the account requires a new login.
            for sql in [
                "DELETE FROM sessions WHERE account_id = $1",
                "DELETE FROM login_challenges WHERE account_id = $1",
            ] {
                statement::query(sql).bind(self.id.0).execute(&mut *conn).await?;
            }
        }
        Ok(())
    }

    /// Adds an audit log entry for each changed column.
    async fn log(
        &self,
        conn: &mut Conn,
        old: &AccountColumns,
        new: &AccountColumns,
    ) -> Result<(), StoreError> {
        let changed = |action, subject: &str, before: &str| {
            AuditEvent::new(self.id, self.by, action, subject).with(Details::default().with("before", before))
        };
        let mut events = Vec::new();
        if old.name != new.name {
            events.push(changed("account.name", &new.name, &old.name));
        }
        if old.plan != new.plan {
            events.push(changed("plan.change", &new.plan, &old.plan));
        }
        if old.role != new.role {
            events.push(changed("account.role", &new.role, &old.role));
        }
        if old.disabled != new.disabled {
            let action = if new.disabled == 0 { "account.enable" } else { "account.disable" };
            events.push(AuditEvent::new(self.id, self.by, action, ""));
        }
        if old.storage_override_bytes != new.storage_override_bytes {
            let text =
                |bytes: Option<i64>| bytes.map_or_else(|| "plan".to_owned(), |bytes| bytes.to_string());
            let (new, old) = (text(new.storage_override_bytes), text(old.storage_override_bytes));
            events.push(changed("account.storage", &new, &old));
        }
        for event in &events {
            self.journal.log(conn, event, self.now).await?;
        }
        Ok(())
    }
}
