//! Creates, reads and renames accounts.

use pinfold_model::{Account, AccountId, Actor, AuditEvent, Email, PlanCode, Role, Timestamp};
use sqlx::FromRow;

use crate::audit::Journal;
use crate::db::row::{number, unknown_value, word};
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::plans;
use crate::statistics::add_accounts;
use crate::{Store, StoreError};

/// `SELECT` of all columns of an account, optionally followed by further columns, with a literal tail.
macro_rules! select {
    ($tail:literal) => {
        crate::accounts::account::select!("", $tail)
    };
    ($more:literal, $tail:literal) => {
        concat!(
            "SELECT id, email, name, role, plan, disabled, totp_enabled, used_bytes, dedup_bytes, storage_limit_bytes, ",
            "pin_count, created_at_ms",
            $more,
            " FROM accounts ",
            $tail
        )
    };
}
pub(crate) use select;

/// An account to be created.
#[derive(Debug, Clone)]
pub struct NewAccount {
    pub email: Email,
    /// Display name.
    pub name: String,
    pub role: Role,
    pub plan: PlanCode,
    /// Storage of the configured plan. A saved plan with the same code takes precedence.
    pub storage_limit_bytes: u64,
    /// Whether the plan is configured. If not, a plan with this code must be saved.
    pub plan_is_configured: bool,
    /// Password hash as a PHC string.
    pub password_hash: Option<String>,
}

#[derive(Debug, FromRow)]
pub(crate) struct AccountRow {
    id: i64,
    email: String,
    name: String,
    role: String,
    plan: String,
    disabled: i64,
    totp_enabled: i64,
    used_bytes: i64,
    dedup_bytes: i64,
    storage_limit_bytes: i64,
    pin_count: i64,
    created_at_ms: i64,
}

impl AccountRow {
    pub(crate) fn into_account(self) -> Result<Account, StoreError> {
        Ok(Account {
            id: AccountId(self.id),
            email: Email::parse(&self.email).map_err(|_| unknown_value("e-mail", &self.email))?,
            name: self.name,
            role: word("role", &self.role)?,
            plan: PlanCode::new(&self.plan),
            disabled: self.disabled != 0,
            two_factor: self.totp_enabled != 0,
            used_bytes: number(self.used_bytes),
            dedup_bytes: number(self.dedup_bytes),
            storage_limit_bytes: number(self.storage_limit_bytes),
            pins: number(self.pin_count),
            created_at: Timestamp::from_ms(self.created_at_ms),
        })
    }
}

impl Store {
    /// Creates an account. `None` if the e-mail address is in use. With `only_first`, also `None` if any account exists.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn create_account(
        &self,
        new: NewAccount,
        only_first: bool,
        by: Actor,
        now: Timestamp,
    ) -> Result<Option<Account>, StoreError> {
        let (id, journal) = (self.id(now), self.journal());
        self.write(Create { id, new, only_first, by, now, journal }).await
    }

    /// The account with this address.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn account_by_email(&self, email: &Email) -> Result<Option<Account>, StoreError> {
        let query = statement::query_as::<AccountRow>(select!("WHERE email = $1")).bind(email.as_str());
        let row = query.fetch_optional(&self.readers).await?;
        row.map(AccountRow::into_account).transpose()
    }

    /// The account with this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn account(&self, id: AccountId) -> Result<Option<Account>, StoreError> {
        let query = statement::query_as::<AccountRow>(select!("WHERE id = $1")).bind(id.0);
        let row = query.fetch_optional(&self.readers).await?;
        row.map(AccountRow::into_account).transpose()
    }

    /// Up to `limit` accounts with ids greater than `after`, in ascending order of their ids.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn accounts(&self, after: Option<AccountId>, limit: u32) -> Result<Vec<Account>, StoreError> {
        let rows = statement::query_as::<AccountRow>(select!("WHERE id > $1 ORDER BY id LIMIT $2"))
            .bind(after.map_or(-1, |id| id.0))
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        rows.into_iter().map(AccountRow::into_account).collect()
    }

    /// Changes the display name of an account. `None` if there is no such account.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn rename_account(
        &self,
        id: AccountId,
        name: String,
        by: Actor,
        now: Timestamp,
    ) -> Result<Option<Account>, StoreError> {
        self.write(Rename { id, name, by, now, journal: self.journal() }).await
    }
}

/// Reads the account with this id inside a transaction.
pub(crate) async fn load(conn: &mut Conn, id: AccountId) -> Result<Option<Account>, StoreError> {
    let query = statement::query_as::<AccountRow>(select!("WHERE id = $1")).bind(id.0);
    query.fetch_optional(conn).await?.map(AccountRow::into_account).transpose()
}

struct Create {
    id: i64,
    new: NewAccount,
    only_first: bool,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for Create {
    type Out = Option<Account>;

    async fn run(&self, conn: &mut Conn) -> Result<Option<Account>, StoreError> {
        if self.only_first {
            let any: Option<i64> =
                statement::query_scalar("SELECT id FROM accounts LIMIT 1").fetch_optional(&mut *conn).await?;
            if any.is_some() {
                return Ok(None);
            }
        }
        let configured = self.new.plan_is_configured.then_some(self.new.storage_limit_bytes);
        let storage = plans::storage_of(conn, &self.new.plan, configured).await?;
        // The plan was deleted after the caller looked it up.
        let storage = storage.ok_or_else(|| unknown_value("plan", self.new.plan.as_str()))?;
        let done = statement::query(
            "INSERT INTO accounts (id, email, name, role, plan, disabled, password_hash, storage_limit_bytes, \
             used_bytes, pin_count, created_at_ms) VALUES ($1, $2, $3, $4, $5, 0, $6, $7, 0, 0, $8) \
             ON CONFLICT (email) DO NOTHING",
        )
        .bind(self.id)
        .bind(self.new.email.as_str())
        .bind(&self.new.name)
        .bind(self.new.role.as_str())
        .bind(self.new.plan.as_str())
        .bind(&self.new.password_hash)
        .bind(storage)
        .bind(self.now.as_ms())
        .execute(&mut *conn)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(None);
        }
        add_accounts(conn, self.new.plan.as_str(), 0, 1).await?;
        let id = AccountId(self.id);
        let event = AuditEvent::new(id, self.by, "account.create", self.new.email.as_str());
        self.journal.log(conn, &event, self.now).await?;
        Ok(Some(Account {
            id,
            email: self.new.email.clone(),
            name: self.new.name.clone(),
            role: self.new.role,
            plan: self.new.plan.clone(),
            disabled: false,
            two_factor: false,
            used_bytes: 0,
            dedup_bytes: 0,
            storage_limit_bytes: number(storage),
            pins: 0,
            created_at: self.now,
        }))
    }
}

struct Rename {
    id: AccountId,
    name: String,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for Rename {
    type Out = Option<Account>;

    async fn run(&self, conn: &mut Conn) -> Result<Option<Account>, StoreError> {
        let query =
            statement::query("UPDATE accounts SET name = $2 WHERE id = $1").bind(self.id.0).bind(&self.name);
        if query.execute(&mut *conn).await?.rows_affected() == 0 {
            return Ok(None);
        }
        let event = AuditEvent::new(self.id, self.by, "account.name", self.name.as_str());
        self.journal.log(conn, &event, self.now).await?;
        let row: AccountRow =
            statement::query_as(select!("WHERE id = $1")).bind(self.id.0).fetch_one(conn).await?;
        row.into_account().map(Some)
    }
}
