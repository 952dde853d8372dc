//! Figures of the whole store. They come from sums that are kept, and from indices of what is few.

use pinfold_model::{ClusterId, PinPhase, PlanCode};
use sqlx::FromRow;

use crate::db::row::{number, unknown_value, word};
use crate::{Store, StoreError};

/// As far as placements that are due, or damaged, are counted.
const COUNT_MAX: i64 = 100_000;

/// Accounts of one plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountSum {
    /// The plan.
    pub plan: PlanCode,
    /// Whether these are the disabled ones.
    pub disabled: bool,
    /// How many there are.
    pub accounts: u64,
}

/// Pins of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinSum {
    /// The cluster.
    pub cluster: ClusterId,
    /// How these stand.
    pub phase: PinPhase,
    /// How many there are.
    pub pins: u64,
    /// What accounts are charged for them.
    pub bytes: u64,
}

/// A number for each cluster that has any.
pub type PerCluster = Vec<(ClusterId, u64)>;

/// The figures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreStatistics {
    /// Accounts by plan.
    pub accounts: Vec<AccountSum>,
    /// Pins by cluster and phase.
    pub pins: Vec<PinSum>,
    /// Waiting pins whose placement is in work.
    pub pinning: PerCluster,
    /// Placements that are due, now or later: the queue. At most 100,000 are counted.
    pub due: u64,
    /// Placements with damaged blocks. At most 100,000 are counted.
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
    bytes: i64,
}

fn cluster(id: &str) -> Result<ClusterId, StoreError> {
    ClusterId::parse(id).map_err(|_| unknown_value("cluster", id))
}

pub(crate) const PINNING: &str = "SELECT p.cluster, COUNT(*) FROM placements p JOIN pins n ON n.placement_id = p.id \
    WHERE p.state = 'pinning' AND n.phase = 'pending' GROUP BY p.cluster";

impl Store {
    /// The figures of the whole store.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn statistics(&self) -> Result<StoreStatistics, StoreError> {
        let due: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM (SELECT 1 FROM placements WHERE due_at_ms IS NOT NULL LIMIT $1) due",
        )
        .bind(COUNT_MAX)
        .fetch_one(&self.readers)
        .await?;
        let damaged: Vec<(String, i64)> = sqlx::query_as(
            "SELECT cluster, COUNT(*) FROM \
             (SELECT cluster FROM placements WHERE damaged_blocks > 0 LIMIT $1) damaged GROUP BY cluster",
        )
        .bind(COUNT_MAX)
        .fetch_all(&self.readers)
        .await?;
        let pinning: Vec<(String, i64)> = sqlx::query_as(PINNING).fetch_all(&self.readers).await?;
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

    /// How many accounts each plan has.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn account_sums(&self) -> Result<Vec<AccountSum>, StoreError> {
        let rows: Vec<AccountSumRow> = sqlx::query_as(
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
        let rows: Vec<PinSumRow> = sqlx::query_as(
            "SELECT cluster, phase, pins, bytes FROM pin_sums WHERE pins > 0 ORDER BY cluster, phase",
        )
        .fetch_all(&self.readers)
        .await?;
        let sum = |row: PinSumRow| {
            Ok(PinSum {
                cluster: cluster(&row.cluster)?,
                phase: word("phase", &row.phase)?,
                pins: number(row.pins),
                bytes: number(row.bytes),
            })
        };
        rows.into_iter().map(sum).collect()
    }
}
