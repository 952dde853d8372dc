//! Records which placements have damaged blocks.

use cid::Cid;
use pinfold_model::{ClusterId, Timestamp};

use crate::db::row::column;
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::placements::record::{PlacementRow, select_placements};
use crate::placements::reverify::QUEUE_STEP_MS;
use crate::{PlacementRecord, Store, StoreError};

/// The damage found in a placement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub cid: Cid,
    pub cluster: ClusterId,
    /// The number of damaged blocks. 0 if all are intact again.
    pub blocks: u64,
}

impl Store {
    /// Records the damage of placements. Damaged placements that are pinned and not leased become due now, but go
    /// behind new pins in the queue.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn record_damage(&self, damage: Vec<Damage>, now: Timestamp) -> Result<(), StoreError> {
        self.write(RecordDamage { damage, now }).await
    }

    /// Placements with damaged blocks, at most `limit`, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn damaged_placements(&self, limit: u32) -> Result<Vec<PlacementRecord>, StoreError> {
        let query = statement::query_as::<PlacementRow>(select_placements!(
            "WHERE damaged_blocks > 0 ORDER BY id LIMIT $1"
        ));
        let rows = query.bind(i64::from(limit)).fetch_all(&self.readers).await?;
        rows.into_iter().map(PlacementRow::into_record).collect()
    }
}

struct RecordDamage {
    damage: Vec<Damage>,
    now: Timestamp,
}

impl Write for RecordDamage {
    type Out = ();

    async fn run(&self, conn: &mut Conn) -> Result<(), StoreError> {
        for Damage { cid, cluster, blocks } in &self.damage {
            statement::query(
                "UPDATE placements SET damaged_blocks = $3, due_at_ms = CASE \
                 WHEN CAST($3 AS BIGINT) > 0 AND state = 'pinned' AND due_at_ms IS NULL THEN $4 ELSE due_at_ms END, \
                 queue_ms = CASE WHEN CAST($3 AS BIGINT) > 0 AND state = 'pinned' AND due_at_ms IS NULL THEN $5 \
                 ELSE queue_ms END WHERE cid = $1 AND cluster = $2",
            )
            .bind(cid.to_string())
            .bind(cluster.as_str())
            .bind(column(*blocks))
            .bind(self.now.as_ms())
            .bind(self.now.as_ms() + QUEUE_STEP_MS)
            .execute(&mut *conn)
            .await?;
        }
        Ok(())
    }
}
