//! Statistics of the whole store. They are read from maintained sums (`account_sums`, `pin_sums`) and from indexes with few
//! rows, so that their cost does not depend on the number of pins.

use std::collections::BTreeMap;

use pinfold_model::{ClusterId, PinPhase, PlanCode};
use sqlx::{FromRow, QueryBuilder};

use crate::db::row::{LIST_MAX, number, push_list, unknown_value, word};
use crate::db::statement;
use crate::db::write_queue::Conn;
use crate::{Store, StoreError};

/// Maximum number of due placements, and of damaged placements, that are counted.
const COUNT_MAX: i64 = 100_000;

/// Number of accounts of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountSum {
    pub plan: PlanCode,
    /// Whether the disabled accounts are counted, or the enabled ones.
    pub disabled: bool,
    pub accounts: u64,
}

/// Number and size of the pins of a cluster in one phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinSum {
    pub cluster: ClusterId,
    pub phase: PinPhase,
    pub pins: u64,
    /// Total of the bytes charged for them.
    pub bytes: u64,
}

/// A number for each cluster. Clusters with zero are left out.
pub type PerCluster = Vec<(ClusterId, u64)>;

/// Result of [`Store::statistics`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreStatistics {
    /// By plan.
    pub accounts: Vec<AccountSum>,
    /// By cluster and phase.
    pub pins: Vec<PinSum>,
    /// Number of pending pins whose placement is leased.
    pub pinning: PerCluster,
    /// Number of placements in the work queue, due now or later. Counted up to 100,000.
    pub due: u64,
    /// Number of placements with damaged blocks. Counted up to 100,000 in total.
    pub damaged: PerCluster,
}

#[derive(Debug, FromRow)]
struct AccountSumRow {
    plan: String,
    disabled: i64,
    accounts: i64,
}

#[derive(Debug, FromRow)]
struct PinSumRow {
    cluster: String,
    phase: String,
    pins: i64,
    charged_bytes: i64,
}

fn cluster(id: &str) -> Result<ClusterId, StoreError> {
    ClusterId::parse(id).map_err(|_| unknown_value("cluster", id))
}

pub(crate) const PINNING: &str = "SELECT p.cluster, COUNT(*) FROM placements p JOIN pins n ON n.placement_id = p.id \
    WHERE p.state = 'pinning' AND n.phase = 'pending' GROUP BY p.cluster";

impl Store {
    /// Statistics of the whole store.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn statistics(&self) -> Result<StoreStatistics, StoreError> {
        let due: i64 = statement::query_scalar(
            "SELECT COUNT(*) FROM (SELECT 1 FROM placements WHERE due_at_ms IS NOT NULL LIMIT $1) due",
        )
        .bind(COUNT_MAX)
        .fetch_one(&self.readers)
        .await?;
        let damaged: Vec<(String, i64)> = statement::query_as(
            "SELECT cluster, COUNT(*) FROM \
             (SELECT cluster FROM placements WHERE damaged_blocks > 0 LIMIT $1) damaged GROUP BY cluster",
        )
        .bind(COUNT_MAX)
        .fetch_all(&self.readers)
        .await?;
        let pinning: Vec<(String, i64)> = statement::query_as(PINNING).fetch_all(&self.readers).await?;
        let per_cluster = |rows: Vec<(String, i64)>| {
            rows.into_iter()
                .map(|(id, count)| Ok((cluster(&id)?, number(count))))
                .collect::<Result<_, StoreError>>()
        };
        Ok(StoreStatistics {
            accounts: self.account_sums().await?,
            pins: self.pin_sums().await?,
            pinning: per_cluster(pinning)?,
            due: number(due),
            damaged: per_cluster(damaged)?,
        })
    }

    /// Number of accounts of each plan.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn account_sums(&self) -> Result<Vec<AccountSum>, StoreError> {
        let rows: Vec<AccountSumRow> = statement::query_as(
            "SELECT plan, disabled, accounts FROM account_sums WHERE accounts > 0 ORDER BY plan, disabled",
        )
        .fetch_all(&self.readers)
        .await?;
        let sum = |row: AccountSumRow| AccountSum {
            plan: PlanCode::new(&row.plan),
            disabled: row.disabled != 0,
            accounts: number(row.accounts),
        };
        Ok(rows.into_iter().map(sum).collect())
    }

    async fn pin_sums(&self) -> Result<Vec<PinSum>, StoreError> {
        let rows: Vec<PinSumRow> = statement::query_as(
            "SELECT cluster, phase, pins, charged_bytes FROM pin_sums WHERE pins > 0 ORDER BY cluster, phase",
        )
        .fetch_all(&self.readers)
        .await?;
        let sum = |row: PinSumRow| {
            Ok(PinSum {
                cluster: cluster(&row.cluster)?,
                phase: word("phase", &row.phase)?,
                pins: number(row.pins),
                bytes: number(row.charged_bytes),
            })
        };
        rows.into_iter().map(sum).collect()
    }
}

/// Changes to `pin_sums`, written with one statement. Each write that changes `phase` or `charged_bytes` of pins, or
/// inserts or deletes pins, writes them in its transaction.
#[derive(Default)]
pub(crate) struct PinSumChanges(BTreeMap<(String, &'static str), (i64, i64)>);

impl PinSumChanges {
    /// Adds pins of a cluster and phase, and what is charged for them; negative numbers subtract.
    pub(crate) fn add(&mut self, cluster: &str, phase: PinPhase, pins: i64, charged_bytes: i64) {
        let (sum, bytes) = self.0.entry((cluster.to_owned(), phase.as_str())).or_default();
        *sum += pins;
        *bytes = bytes.saturating_add(charged_bytes);
    }

    pub(crate) async fn write(&self, conn: &mut Conn) -> Result<(), StoreError> {
        let changes: Vec<_> = self.0.iter().filter(|(_, change)| **change != (0, 0)).collect();
        for changes in changes.chunks(LIST_MAX) {
            let mut query = QueryBuilder::new("INSERT INTO pin_sums (cluster, phase, pins, charged_bytes) ");
            query.push_values(changes, |mut row, ((cluster, phase), (pins, bytes))| {
                row.push_bind(cluster.clone()).push_bind(*phase).push_bind(*pins).push_bind(*bytes);
            });
            query.push(
                " ON CONFLICT (cluster, phase) DO UPDATE SET pins = pin_sums.pins + excluded.pins, \
                 charged_bytes = pin_sums.charged_bytes + excluded.charged_bytes",
            );
            statement::build(&mut query).execute(&mut *conn).await?;
        }
        Ok(())
    }
}

/// Subtracts these pins from `pin_sums`, before they are deleted. Takes at most [`LIST_MAX`].
pub(crate) async fn subtract_pins(conn: &mut Conn, ids: &[i64]) -> Result<(), StoreError> {
    let mut query = QueryBuilder::new(
        "INSERT INTO pin_sums (cluster, phase, pins, charged_bytes) \
         SELECT p.cluster, n.phase, -COUNT(*), CAST(-SUM(n.charged_bytes) AS BIGINT) \
         FROM pins n JOIN placements p ON p.id = n.placement_id WHERE n.id IN ",
    );
    push_list(&mut query, ids);
    query.push(
        " GROUP BY p.cluster, n.phase ON CONFLICT (cluster, phase) DO UPDATE \
         SET pins = pin_sums.pins + excluded.pins, \
         charged_bytes = pin_sums.charged_bytes + excluded.charged_bytes",
    );
    statement::build(&mut query).execute(conn).await?;
    Ok(())
}

/// Adds accounts of a plan to `account_sums`; a negative number subtracts. Each write that changes `plan` or `disabled`
/// of an account, or inserts or deletes one, calls it in its transaction.
pub(crate) async fn add_accounts(
    conn: &mut Conn,
    plan: &str,
    disabled: i64,
    accounts: i64,
) -> Result<(), StoreError> {
    statement::query(
        "INSERT INTO account_sums (plan, disabled, accounts) VALUES ($1, $2, $3) \
         ON CONFLICT (plan, disabled) DO UPDATE SET accounts = account_sums.accounts + excluded.accounts",
    )
    .bind(plan.to_owned())
    .bind(disabled)
    .bind(accounts)
    .execute(conn)
    .await?;
    Ok(())
}
