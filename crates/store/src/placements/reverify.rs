//! Schedules pinned placements for verification: after the block store was rebuilt, or when blocks are damaged.
//!
//! Their state remains `pinned` meanwhile. They become due like any other placement. A failed verification is retried
//! until it succeeds or no pin needs the placement any more.

use cid::Cid;
use pinfold_model::{ClusterId, PlacementState, Timestamp};
use sqlx::FromRow;

use crate::db::row::number;
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::{Store, StoreError};

/// Queue delay of placements that are only reverified, in milliseconds. New pins go ahead of them, and do not wait
/// until a whole store is verified.
pub(crate) const QUEUE_STEP_MS: i64 = 3_600_000;

/// The number of pinned placements still to be reverified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReverifyCounts {
    /// All of them, including the failing ones.
    pub due: u64,
    /// Placements whose last verification failed because blocks are missing.
    pub failing: u64,
}

#[derive(Debug, FromRow)]
struct ReverifyCountsRow {
    due: i64,
    failing: i64,
}

impl Store {
    /// Makes every pinned placement without a lease due now, to be verified. Returns their number.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reverify_all(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.write(ReverifyAll { now }).await
    }

    /// Makes a placement due now, to be verified. False if it is not pinned, or leased.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reverify(&self, cid: &Cid, cluster: &ClusterId, now: Timestamp) -> Result<bool, StoreError> {
        self.write(Reverify { cid: cid.to_string(), cluster: cluster.as_str().to_owned(), now }).await
    }

    /// Counts the pinned placements that are due. The cost is proportional to their number.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reverify_counts(&self) -> Result<ReverifyCounts, StoreError> {
        let row: ReverifyCountsRow = statement::query_as(
            "SELECT COUNT(*) AS due, COUNT(error_code) AS failing FROM placements \
             WHERE due_at_ms IS NOT NULL AND state = $1",
        )
        .bind(PlacementState::Pinned.as_str())
        .fetch_one(&self.readers)
        .await?;
        Ok(ReverifyCounts { due: number(row.due), failing: number(row.failing) })
    }
}

struct ReverifyAll {
    now: Timestamp,
}

impl Write for ReverifyAll {
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

struct Reverify {
    cid: String,
    cluster: String,
    now: Timestamp,
}

impl Write for Reverify {
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
