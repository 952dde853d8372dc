//! Pinned placements that are walked again: what holds their blocks was made anew, or some are damaged.
//!
//! Their state stays `pinned` all the while: the promise to their owners stands. They are due like any work,
//! and a walk that fails is tried again until it succeeds, or until nobody wants the placement any more.

use cid::Cid;
use pinfold_model::{ClusterId, PlacementState, Timestamp};
use sqlx::FromRow;

use crate::db::row::number;
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::{Store, StoreError};

/// How much later than new pins those stand in the queue that are only walked again, in milliseconds: nobody
/// shall wait for a whole store to be walked.
pub(crate) const QUEUE_STEP_MS: i64 = 3_600_000;

/// How many pinned placements are still to be walked again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReverifyCounts {
    /// All of them.
    pub due: u64,
    /// Those whose last walk failed: some of their blocks are not here.
    pub failing: u64,
}

#[derive(Debug, FromRow)]
struct RechecksRow {
    due: i64,
    failing: i64,
}

impl Store {
    /// Makes every pinned placement due now, to be held once more; gives how many there are. Those that
    /// somebody works on already are left to them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reverify_all(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.write(RecheckAll { now }).await
    }

    /// Makes one placement due now, if it is pinned and nobody works on it; false if not.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reverify(&self, cid: &Cid, cluster: &ClusterId, now: Timestamp) -> Result<bool, StoreError> {
        self.write(Recheck { cid: cid.to_string(), cluster: cluster.as_str().to_owned(), now }).await
    }

    /// How many pinned placements are due, for whatever reason. Costs what they are.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reverify_counts(&self) -> Result<ReverifyCounts, StoreError> {
        let row: RechecksRow = statement::query_as(
            "SELECT COUNT(*) AS due, COUNT(error_code) AS failing FROM placements \
             WHERE due_at_ms IS NOT NULL AND state = $1",
        )
        .bind(PlacementState::Pinned.as_str())
        .fetch_one(&self.readers)
        .await?;
        Ok(ReverifyCounts { due: number(row.due), failing: number(row.failing) })
    }
}

struct RecheckAll {
    now: Timestamp,
}

impl Write for RecheckAll {
    type Out = u64;

    async fn run(&self, conn: &mut Conn) -> Result<u64, StoreError> {
        let done = statement::query(
            "UPDATE placements SET due_at_ms = $2, queue_ms = $3, attempts = 0 \
             WHERE state = $1 AND lease IS NULL",
        )
        .bind(PlacementState::Pinned.as_str())
        .bind(self.now.as_ms())
        .bind(self.now.as_ms() + QUEUE_STEP_MS)
        .execute(conn)
        .await?;
        Ok(done.rows_affected())
    }
}

struct Recheck {
    cid: String,
    cluster: String,
    now: Timestamp,
}

impl Write for Recheck {
    type Out = bool;

    async fn run(&self, conn: &mut Conn) -> Result<bool, StoreError> {
        let done = statement::query(
            "UPDATE placements SET due_at_ms = $4, queue_ms = $4, attempts = 0 \
             WHERE cid = $1 AND cluster = $2 AND state = $3 AND lease IS NULL",
        )
        .bind(&self.cid)
        .bind(&self.cluster)
        .bind(PlacementState::Pinned.as_str())
        .bind(self.now.as_ms())
        .execute(conn)
        .await?;
        Ok(done.rows_affected() > 0)
    }
}
