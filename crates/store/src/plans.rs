//! Plans saved by operators. They override the configured ones. Their number is bounded, so that the service can keep all
//! of them in memory.

use pinfold_model::{AccountId, Actor, ClusterId, Details, Plan, PlanCode, PlanLimits, Timestamp};
use sqlx::FromRow;

use crate::audit::{Journal, operator_event};
use crate::db::row::{column, number, unknown_value};
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::{Store, StoreError};

/// Maximum number of saved plans. All of them are kept in memory and shown in one list.
const PLANS_MAX: i64 = 100;

/// Maximum number of accounts that one transaction updates. Other writes wait for it.
const APPLY_MAX: i64 = 1_000;

/// Result of [`Store::save_plan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SavePlanOutcome {
    Done,
    /// The maximum number of plans is saved. Nothing was changed.
    TooMany,
}

/// Result of [`Store::delete_plan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeletePlanOutcome {
    Done,
    /// No plan with this code is saved.
    NotFound,
    /// Accounts have the plan, and no configured plan replaces it. Nothing was changed.
    InUse,
}

#[derive(Debug, FromRow)]
struct PlanRow {
    code: String,
    name: String,
    descriptions: String,
    price_cents: i64,
    self_service: i64,
    storage_bytes: i64,
    file_bytes_max: Option<i64>,
    directory_bytes_max: Option<i64>,
    timelock: i64,
    retention_lock: i64,
    clusters: Option<String>,
    in_flight_pins_max: i64,
    requests_per_minute: i64,
    requests_per_second: i64,
}

impl PlanRow {
    fn into_plan(self) -> Result<Plan, StoreError> {
        let count = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
        let cluster = |id: &str| ClusterId::parse(id).map_err(|_| unknown_value("cluster", id));
        let clusters = self.clusters.map(|ids| {
            ids.split(',').filter(|id| !id.is_empty()).map(cluster).collect::<Result<Vec<_>, _>>()
        });
        Ok(Plan {
            code: PlanCode::parse(&self.code).map_err(|_| unknown_value("plan", &self.code))?,
            name: self.name,
            descriptions: self.descriptions.lines().map(str::to_owned).collect(),
            price_cents: number(self.price_cents),
            self_service: self.self_service != 0,
            limits: PlanLimits {
                storage_bytes: number(self.storage_bytes),
                file_bytes_max: self.file_bytes_max.map(number),
                directory_bytes_max: self.directory_bytes_max.map(number),
                timelock: self.timelock != 0,
                retention_lock: self.retention_lock != 0,
                clusters: clusters.transpose()?,
                in_flight_pins_max: count(self.in_flight_pins_max),
                requests_per_minute: count(self.requests_per_minute),
                requests_per_second: count(self.requests_per_second),
            },
        })
    }
}

impl Store {
    /// The saved plans, in the order of their codes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn saved_plans(&self) -> Result<Vec<Plan>, StoreError> {
        let rows: Vec<PlanRow> = statement::query_as(
            "SELECT code, name, descriptions, price_cents, self_service, storage_bytes, file_bytes_max, \
             directory_bytes_max, timelock, retention_lock, clusters, in_flight_pins_max, requests_per_minute, \
             requests_per_second FROM plans ORDER BY code",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(PlanRow::into_plan).collect()
    }

    /// Saves a plan, replacing one with the same code. Its name and descriptions may not contain line breaks. The storage
    /// limits of its accounts change with [`apply_plan_storage`](Self::apply_plan_storage).
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn save_plan(
        &self,
        plan: Plan,
        by: Actor,
        now: Timestamp,
    ) -> Result<SavePlanOutcome, StoreError> {
        self.write(SavePlan { plan, by, now, journal: self.journal() }).await
    }

    /// Deletes a saved plan, unless accounts have it. With `is_configured`, it is deleted in any case, and its accounts get
    /// the configured plan with this code.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_plan(
        &self,
        code: PlanCode,
        is_configured: bool,
        by: Actor,
        now: Timestamp,
    ) -> Result<DeletePlanOutcome, StoreError> {
        self.write(DeletePlan { code, is_configured, by, now, journal: self.journal() }).await
    }

    /// Sets the storage limit of accounts of a plan to that of the saved plan, or to `configured_bytes` if none is saved.
    /// Accounts with a storage override keep it. Updates a bounded number of accounts with ids greater than `after`, and
    /// returns the last of them, from which the caller continues. `None` at the end.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn apply_plan_storage(
        &self,
        code: &PlanCode,
        configured_bytes: u64,
        after: Option<AccountId>,
    ) -> Result<Option<AccountId>, StoreError> {
        // Usually all accounts have the limit already. The read avoids a write.
        let ids: Vec<i64> = statement::query_scalar(
            "SELECT id FROM accounts WHERE plan = $1 AND id > $3 AND storage_override_bytes IS NULL \
             AND storage_limit_bytes <> COALESCE((SELECT storage_bytes FROM plans WHERE code = $1), $2) \
             ORDER BY id LIMIT $4",
        )
        .bind(code.as_str())
        .bind(column(configured_bytes))
        .bind(after.map_or(-1, |id| id.0))
        .bind(APPLY_MAX)
        .fetch_all(&self.readers)
        .await?;
        let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return Ok(None) };
        let apply = ApplyPlanStorage { code: code.clone(), configured_bytes, ids: (*first, *last) };
        self.write(apply).await?;
        Ok(Some(AccountId(*last)))
    }
}

/// The storage of a plan, inside a transaction: that of the saved plan, otherwise `configured_bytes`. `None` if neither
/// exists.
pub(crate) async fn storage_of(
    conn: &mut Conn,
    code: &PlanCode,
    configured_bytes: Option<u64>,
) -> Result<Option<i64>, StoreError> {
    let saved: Option<i64> = statement::query_scalar("SELECT storage_bytes FROM plans WHERE code = $1")
        .bind(code.as_str())
        .fetch_optional(conn)
        .await?;
    Ok(saved.or(configured_bytes.map(column)))
}

struct SavePlan {
    plan: Plan,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for SavePlan {
    type Out = SavePlanOutcome;

    async fn run(&self, conn: &mut Conn) -> Result<SavePlanOutcome, StoreError> {
        let others: i64 = statement::query_scalar("SELECT COUNT(*) FROM plans WHERE code <> $1")
            .bind(self.plan.code.as_str())
            .fetch_one(&mut *conn)
            .await?;
        if others >= PLANS_MAX {
            return Ok(SavePlanOutcome::TooMany);
        }
        self.upsert(conn).await?;
        let limits = &self.plan.limits;
        let details = Details::default()
            .with("name", &self.plan.name)
            .with("storageLimit", limits.storage_bytes)
            .with("timelockAllowed", limits.timelock)
            .with("retentionLockAllowed", limits.retention_lock);
        let event = operator_event(self.by, "plan.save", self.plan.code.as_str()).with(details);
        self.journal.log(conn, &event, self.now).await?;
        Ok(SavePlanOutcome::Done)
    }
}

impl SavePlan {
    async fn upsert(&self, conn: &mut Conn) -> Result<(), StoreError> {
        let (plan, limits) = (&self.plan, &self.plan.limits);
        let clusters = limits.clusters.as_ref().map(|ids| {
            let ids: Vec<&str> = ids.iter().map(ClusterId::as_str).collect();
            ids.join(",")
        });
        statement::query(
            "INSERT INTO plans (code, name, descriptions, price_cents, self_service, storage_bytes, file_bytes_max, \
             directory_bytes_max, timelock, retention_lock, clusters, in_flight_pins_max, requests_per_minute, \
             requests_per_second, updated_at_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) ON CONFLICT (code) DO UPDATE SET \
             name = excluded.name, descriptions = excluded.descriptions, price_cents = excluded.price_cents, \
             self_service = excluded.self_service, storage_bytes = excluded.storage_bytes, \
             file_bytes_max = excluded.file_bytes_max, directory_bytes_max = excluded.directory_bytes_max, \
             timelock = excluded.timelock, retention_lock = excluded.retention_lock, clusters = excluded.clusters, \
             in_flight_pins_max = excluded.in_flight_pins_max, \
             requests_per_minute = excluded.requests_per_minute, \
             requests_per_second = excluded.requests_per_second, updated_at_ms = excluded.updated_at_ms",
        )
        .bind(plan.code.as_str())
        .bind(&plan.name)
        .bind(plan.descriptions.join("\n"))
        .bind(column(plan.price_cents))
        .bind(i64::from(plan.self_service))
        .bind(column(limits.storage_bytes))
        .bind(limits.file_bytes_max.map(column))
        .bind(limits.directory_bytes_max.map(column))
        .bind(i64::from(limits.timelock))
        .bind(i64::from(limits.retention_lock))
        .bind(clusters)
        .bind(i64::from(limits.in_flight_pins_max))
        .bind(i64::from(limits.requests_per_minute))
        .bind(i64::from(limits.requests_per_second))
        .bind(self.now.as_ms())
        .execute(conn)
        .await?;
        Ok(())
    }
}

struct DeletePlan {
    code: PlanCode,
    is_configured: bool,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for DeletePlan {
    type Out = DeletePlanOutcome;

    async fn run(&self, conn: &mut Conn) -> Result<DeletePlanOutcome, StoreError> {
        let code = self.code.as_str();
        let saved: Option<i64> =
            statement::query_scalar("SELECT CAST(1 AS BIGINT) FROM plans WHERE code = $1")
                .bind(code)
                .fetch_optional(&mut *conn)
                .await?;
        if saved.is_none() {
            return Ok(DeletePlanOutcome::NotFound);
        }
        if !self.is_configured {
            let used: Option<i64> =
                statement::query_scalar("SELECT id FROM accounts WHERE plan = $1 LIMIT 1")
                    .bind(code)
                    .fetch_optional(&mut *conn)
                    .await?;
            if used.is_some() {
                return Ok(DeletePlanOutcome::InUse);
            }
        }
        statement::query("DELETE FROM plans WHERE code = $1").bind(code).execute(&mut *conn).await?;
        self.journal.log(conn, &operator_event(self.by, "plan.delete", code), self.now).await?;
        Ok(DeletePlanOutcome::Done)
    }
}

struct ApplyPlanStorage {
    code: PlanCode,
    configured_bytes: u64,
    ids: (i64, i64),
}

impl Write for ApplyPlanStorage {
    type Out = ();

    async fn run(&self, conn: &mut Conn) -> Result<(), StoreError> {
        // Reads the plan in the same statement, so that the plan that was saved last applies.
        statement::query(
            "UPDATE accounts SET storage_limit_bytes = \
             COALESCE((SELECT storage_bytes FROM plans WHERE code = $1), $2) \
             WHERE plan = $1 AND id >= $3 AND id <= $4 AND storage_override_bytes IS NULL",
        )
        .bind(self.code.as_str())
        .bind(column(self.configured_bytes))
        .bind(self.ids.0)
        .bind(self.ids.1)
        .execute(conn)
        .await?;
        Ok(())
    }
}
