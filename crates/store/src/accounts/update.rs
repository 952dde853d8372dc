//! What an operator, or the account itself, changes of an account.

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

/// A plan to be given.
#[derive(Debug, Clone)]
pub struct PlanGrant {
    /// Its code.
    pub code: PlanCode,
    /// The storage of the configured plan of this code, if there is one; a saved plan takes its place.
    pub configured_bytes: Option<u64>,
    /// Whether to refuse it when the account's pins don't fit in.
    pub must_fit: bool,
}

/// What shall be different. What is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct AccountChanges {
    /// What it calls itself.
    pub name: Option<String>,
    /// Its plan.
    pub plan: Option<PlanGrant>,
    /// Its role.
    pub role: Option<Role>,
    /// Whether its credentials are refused.
    pub disabled: Option<bool>,
    /// A storage of its own; `Some(None)` for that of its plan.
    pub storage_override: Option<Option<u64>>,
}

/// What came of a change. But for [`UpdateAccountOutcome::Done`], nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateAccountOutcome {
    /// The account as it is now.
    Done(Box<Account>),
    /// There is no such account.
    NotFound,
    /// It is on its way out.
    Removing,
    /// Nobody else would be left who may change anything.
    LastAdmin,
    /// There is no such plan.
    UnknownPlan,
    /// Its pins don't fit into the plan.
    DoesNotFit {
        /// What they take.
        used_bytes: u64,
        /// What the plan has.
        limit_bytes: u64,
    },
}

/// The columns that changes look at.
#[derive(Debug, Clone, FromRow)]
struct Now {
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
    /// Changes an account, all or nothing.
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

/// Whether an enabled admin is left beside this account.
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
        let old: Option<Now> = statement::query_as(
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
        let new = match self.wanted(conn, &old).await? {
            Ok(new) => new,
            Err(refused) => return Ok(refused),
        };
        self.write(conn, &old, &new).await?;
        self.tell(conn, &old, &new).await?;
        match load(conn, self.id).await? {
            Some(account) => Ok(UpdateAccountOutcome::Done(Box::new(account))),
            None => Ok(UpdateAccountOutcome::NotFound),
        }
    }
}

impl Change {
    /// The row as it shall be, or why it may not be so.
    async fn wanted(
        &self,
        conn: &mut Conn,
        old: &Now,
    ) -> Result<Result<Now, UpdateAccountOutcome>, StoreError> {
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

    async fn write(&self, conn: &mut Conn, old: &Now, new: &Now) -> Result<(), StoreError> {
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
            // Until now its sessions were told why they are refused. Whoever is let in again logs in again.
            for sql in [
                "DELETE FROM sessions WHERE account_id = $1",
                "DELETE FROM login_challenges WHERE account_id = $1",
            ] {
                statement::query(sql).bind(self.id.0).execute(&mut *conn).await?;
            }
        }
        Ok(())
    }

    /// An entry in the account's log for each thing that is different.
    async fn tell(&self, conn: &mut Conn, old: &Now, new: &Now) -> Result<(), StoreError> {
        let changed = |action, subject: &str, before: &str| {
            AuditEvent::new(self.id, self.by, action, subject).with(Details::default().with("before", before))
        };
        let mut acts = Vec::new();
        if old.name != new.name {
            acts.push(changed("account.name", &new.name, &old.name));
        }
        if old.plan != new.plan {
            acts.push(changed("plan.change", &new.plan, &old.plan));
        }
        if old.role != new.role {
            acts.push(changed("account.role", &new.role, &old.role));
        }
        if old.disabled != new.disabled {
            let action = if new.disabled == 0 { "account.enable" } else { "account.disable" };
            acts.push(AuditEvent::new(self.id, self.by, action, ""));
        }
        if old.storage_override_bytes != new.storage_override_bytes {
            let text =
                |bytes: Option<i64>| bytes.map_or_else(|| "plan".to_owned(), |bytes| bytes.to_string());
            let (new, old) = (text(new.storage_override_bytes), text(old.storage_override_bytes));
            acts.push(changed("account.storage", &new, &old));
        }
        for act in &acts {
            self.journal.log(conn, act, self.now).await?;
        }
        Ok(())
    }
}
