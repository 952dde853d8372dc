//! What several writes do to a placement, inside their transactions.

use pinfold_model::{Event, PlacementId, PlacementState, Timestamp};

use crate::PlacementRecord;
use crate::StoreError;
use crate::pin::{PlacementRow, select_placements};
use crate::writer::Conn;

/// Reads a placement for a change.
pub(crate) async fn load(conn: &mut Conn, id: PlacementId) -> Result<Option<PlacementRecord>, StoreError> {
    let query = sqlx::query_as::<_, PlacementRow>(select_placements!("WHERE id = $1")).bind(id.0);
    query.fetch_optional(conn).await?.map(PlacementRow::into_record).transpose()
}

/// Whether a live pin wants it.
pub(crate) async fn is_wanted(conn: &mut Conn, id: PlacementId) -> Result<bool, StoreError> {
    let live: Option<i64> =
        sqlx::query_scalar("SELECT 1 FROM pins WHERE placement_id = $1 AND standing <> 'failed' LIMIT 1")
            .bind(id.0)
            .fetch_optional(conn)
            .await?;
    Ok(live.is_some())
}

/// Moves a placement whose last live pin may just have gone, and drops its row when nothing is left of it.
/// True if there is work to do now.
pub(crate) async fn let_go(conn: &mut Conn, id: PlacementId, now: Timestamp) -> Result<bool, StoreError> {
    let unwanted = sqlx::query_as::<_, PlacementRow>(select_placements!(
        "WHERE id = $1 AND NOT EXISTS \
         (SELECT 1 FROM pins WHERE pins.placement_id = placements.id AND pins.standing <> 'failed')"
    ));
    let unwanted = unwanted.bind(id.0).fetch_optional(&mut *conn).await?;
    let Some(placement) = unwanted.map(PlacementRow::into_record).transpose()? else { return Ok(false) };
    let state = placement.state.after(Event::Unwanted);
    if state == PlacementState::Unpinned && !placement.leased {
        forget(conn, id).await?;
        return Ok(false);
    }
    // Whoever has the lease is told by its own process; if that is gone, the lease ends.
    let due_at = if placement.leased { placement.due_at } else { Some(now) };
    sqlx::query(
        "UPDATE placements SET state = $2, due_at_ms = $3, queue_ms = $4, attempts = 0, updated_at_ms = $4 WHERE id = $1",
    )
    .bind(id.0)
    .bind(state.as_str())
    .bind(due_at.map(Timestamp::as_ms))
    .bind(now.as_ms())
    .execute(conn)
    .await?;
    Ok(true)
}

/// Drops the row of a placement that holds nothing, unless a pin still names it.
pub(crate) async fn forget(conn: &mut Conn, id: PlacementId) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM placements WHERE id = $1 \
         AND NOT EXISTS (SELECT 1 FROM pins WHERE pins.placement_id = placements.id)",
    )
    .bind(id.0)
    .execute(conn)
    .await?;
    Ok(())
}
