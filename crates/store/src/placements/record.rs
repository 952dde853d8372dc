//! The record of a placement that readers get, and the state of the work queue.

use cid::Cid;
use pinfold_model::{ClusterId, Failure, FailureCode, PinKind, PlacementId, PlacementState, Timestamp};
use sqlx::FromRow;

use crate::db::row::{number, time, unknown_value, word};
use crate::db::statement;
use crate::{Capacity, Store, StoreError};

/// Bound of [`Store::count_in_progress`]. Its callers only need to know whether there are any.
const IN_PROGRESS_MAX: i64 = 1_000;

/// A CID in a cluster, with its observed state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementRecord {
    pub id: PlacementId,
    /// The root of the DAG.
    pub cid: Cid,
    pub cluster: ClusterId,
    pub state: PlacementState,
    /// When a worker processes the placement next, or when its lease expires. `None` if nothing is to do.
    pub due_at: Option<Timestamp>,
    /// Whether a lease is recorded. It may have expired.
    pub leased: bool,
    /// Failed attempts since the last successful one.
    pub attempts: u32,
    /// Why the last attempt failed.
    pub error: Option<Failure>,
    /// The number of distinct blocks. 0 until the placement is pinned.
    pub blocks: u64,
    /// The total size of the distinct blocks.
    pub bytes: u64,
    pub kind: PinKind,
    /// The number of blocks known to be damaged.
    pub damaged_blocks: u64,
    pub updated_at: Timestamp,
}

impl PlacementRecord {
    /// Whether the placement is pinned and has no known damage.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.state == PlacementState::Pinned && self.damaged_blocks == 0
    }
}

/// The columns of a [`PlacementRow`], from table `p`.
macro_rules! placement_columns {
    () => {
        "p.id, p.cid, p.cluster, p.state, p.due_at_ms, p.lease, p.attempts, p.error_code, p.error_detail, p.blocks, \
         p.bytes, p.kind, p.damaged_blocks, p.updated_at_ms"
    };
}
pub(crate) use placement_columns;

/// A `SELECT` of placements, followed by a literal tail.
macro_rules! select_placements {
    ($tail:literal) => {
        concat!(
            "SELECT id, cid, cluster, state, due_at_ms, lease, attempts, error_code, error_detail, ",
            "blocks, bytes, kind, damaged_blocks, updated_at_ms FROM placements ",
            $tail
        )
    };
}
pub(crate) use select_placements;

#[derive(Debug, FromRow)]
pub(crate) struct PlacementRow {
    id: i64,
    cid: String,
    cluster: String,
    state: String,
    due_at_ms: Option<i64>,
    lease: Option<i64>,
    attempts: i64,
    error_code: Option<String>,
    error_detail: Option<String>,
    blocks: i64,
    bytes: i64,
    kind: String,
    damaged_blocks: i64,
    updated_at_ms: i64,
}

impl PlacementRow {
    pub(crate) fn into_record(self) -> Result<PlacementRecord, StoreError> {
        Ok(PlacementRecord {
            id: PlacementId(self.id),
            cid: Cid::try_from(self.cid.as_str()).map_err(|_| unknown_value("CID", &self.cid))?,
            cluster: ClusterId::parse(&self.cluster).map_err(|_| unknown_value("cluster", &self.cluster))?,
            state: word("state", &self.state)?,
            due_at: time(self.due_at_ms),
            leased: self.lease.is_some(),
            attempts: u32::try_from(self.attempts).unwrap_or(0),
            error: failure(self.error_code.as_deref(), self.error_detail)?,
            blocks: number(self.blocks),
            bytes: number(self.bytes),
            kind: word("kind", &self.kind)?,
            damaged_blocks: number(self.damaged_blocks),
            updated_at: Timestamp::from_ms(self.updated_at_ms),
        })
    }
}

pub(crate) fn failure(code: Option<&str>, detail: Option<String>) -> Result<Option<Failure>, StoreError> {
    let code: Option<FailureCode> = code.map(|code| word("failure", code)).transpose()?;
    Ok(code.map(|code| Failure::new(code, detail.unwrap_or_default())))
}

pub(crate) const NEXT_DUE: &str = "SELECT CASE \
     WHEN CAST($2 AS BIGINT) > 0 AND EXISTS (SELECT 1 FROM placements WHERE ready = 1 AND state <> 'releasing') \
     THEN CAST($1 AS BIGINT) \
     WHEN CAST($3 AS BIGINT) > 0 AND EXISTS (SELECT 1 FROM placements WHERE ready = 1 AND state = 'releasing') \
     THEN CAST($1 AS BIGINT) \
     ELSE (SELECT MIN(due_at_ms) FROM placements WHERE ready = 0 AND due_at_ms IS NOT NULL) END";

/// Counts placements in progress up to an id. The plus makes SQLite use the index on `due_at_ms` instead of scanning
/// all ids.
pub(crate) const IN_PROGRESS: &str = "SELECT COUNT(*) FROM (SELECT 1 FROM placements WHERE due_at_ms IS NOT NULL \
     AND +id <= $1 AND state IN ('queued', 'pinning', 'pinned') LIMIT $2) p";

impl Store {
    /// The placement of a CID in a cluster.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn placement_of(
        &self,
        cid: &Cid,
        cluster: &ClusterId,
    ) -> Result<Option<PlacementRecord>, StoreError> {
        let query =
            statement::query_as::<PlacementRow>(select_placements!("WHERE cid = $1 AND cluster = $2"));
        let row = query.bind(cid.to_string()).bind(cluster.as_str()).fetch_optional(&self.readers).await?;
        row.map(PlacementRow::into_record).transpose()
    }

    /// The placement with this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn placement(&self, id: PlacementId) -> Result<Option<PlacementRecord>, StoreError> {
        let query = statement::query_as::<PlacementRow>(select_placements!("WHERE id = $1")).bind(id.0);
        query.fetch_optional(&self.readers).await?.map(PlacementRow::into_record).transpose()
    }

    /// Up to `limit` placements with an id above `after`, by id. For checks of the whole store.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn placements(
        &self,
        after: Option<PlacementId>,
        limit: u32,
    ) -> Result<Vec<PlacementRecord>, StoreError> {
        let query =
            statement::query_as::<PlacementRow>(select_placements!("WHERE id > $1 ORDER BY id LIMIT $2"));
        let rows =
            query.bind(after.map_or(-1, |id| id.0)).bind(i64::from(limit)).fetch_all(&self.readers).await?;
        rows.into_iter().map(PlacementRow::into_record).collect()
    }

    /// The number of placements with an id up to `newest` that are still to be pinned, or pinned and still to be
    /// reverified. Stops counting at 1,000.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn count_in_progress(&self, newest: PlacementId) -> Result<u64, StoreError> {
        let query = statement::query_scalar(IN_PROGRESS).bind(newest.0).bind(IN_PROGRESS_MAX);
        let count: i64 = query.fetch_one(&self.readers).await?;
        Ok(number(count))
    }

    /// The placement that was created last.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn newest_placement(&self) -> Result<Option<PlacementId>, StoreError> {
        let id: Option<i64> =
            statement::query_scalar("SELECT MAX(id) FROM placements").fetch_one(&self.readers).await?;
        Ok(id.map(PlacementId))
    }

    /// When the next placement is due: `now` if one is in a queue for which there is capacity. A leased placement is
    /// due when its lease expires.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next_placement_due(
        &self,
        now: Timestamp,
        capacity: Capacity,
    ) -> Result<Option<Timestamp>, StoreError> {
        let query = statement::query_scalar(NEXT_DUE).bind(now.as_ms());
        let query = query.bind(i64::from(capacity.pins)).bind(i64::from(capacity.releases));
        let due: Option<i64> = query.fetch_one(&self.readers).await?;
        Ok(time(due))
    }
}
