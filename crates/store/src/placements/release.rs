//! Steps on placements that several writes share: reading one, releasing those that no pin needs, deleting their rows.

use std::collections::{BTreeMap, HashSet};

use pinfold_model::{Event, PlacementId, PlacementState, Timestamp};
use sqlx::QueryBuilder;

use crate::PlacementRecord;
use crate::StoreError;
use crate::db::row::push_list;
use crate::db::statement;
use crate::db::write_queue::Conn;
use crate::placements::record::{PlacementRow, select_placements};

/// Reads a placement inside a transaction.
pub(crate) async fn load(conn: &mut Conn, id: PlacementId) -> Result<Option<PlacementRecord>, StoreError> {
    let query = statement::query_as::<PlacementRow>(select_placements!("WHERE id = $1")).bind(id.0);
    query.fetch_optional(conn).await?.map(PlacementRow::into_record).transpose()
}

/// Whether a live pin needs the placement.
pub(crate) async fn is_wanted(conn: &mut Conn, id: PlacementId) -> Result<bool, StoreError> {
    let live: Option<i64> = statement::query_scalar(
        "SELECT CAST(1 AS BIGINT) FROM pins WHERE placement_id = $1 AND phase <> 'failed' LIMIT 1",
    )
    .bind(id.0)
    .fetch_optional(conn)
    .await?;
    Ok(live.is_some())
}

/// Changes the state of those placements that no live pin needs any more, and deletes rows without content. Returns the
/// placements that a worker has to process now. `ids` has at most [`LIST_MAX`](crate::db::row::LIST_MAX) entries and
/// may contain duplicates.
pub(crate) async fn release_unreferenced(
    conn: &mut Conn,
    ids: &[i64],
    now: Timestamp,
) -> Result<HashSet<i64>, StoreError> {
    let mut query = QueryBuilder::new(select_placements!(
        "WHERE NOT EXISTS \
         (SELECT 1 FROM pins WHERE pins.placement_id = placements.id AND pins.phase <> 'failed') AND id IN "
    ));
    let rows: Vec<PlacementRow> =
        statement::build_as(push_list(&mut query, ids)).fetch_all(&mut *conn).await?;
    let (mut gone, mut moved) = (Vec::new(), BTreeMap::<&str, Vec<i64>>::new());
    for row in rows {
        let placement = row.into_record()?;
        let state = placement.state.after(Event::Unwanted);
        if state == PlacementState::Unpinned && !placement.leased {
            gone.push(placement.id.0);
        } else {
            moved.entry(state.as_str()).or_default().push(placement.id.0);
        }
    }
    if !gone.is_empty() {
        forget(conn, &gone).await?;
    }
    for (state, ids) in &moved {
        // The holder of the lease is notified within its process. If that process has stopped, the lease expires.
        let mut query = QueryBuilder::new("UPDATE placements SET state = ");
        query.push_bind(*state).push(", attempts = 0, queue_ms = ").push_bind(now.as_ms());
        query.push(", updated_at_ms = ").push_bind(now.as_ms());
        query.push(", due_at_ms = CASE WHEN lease IS NULL THEN CAST(").push_bind(now.as_ms());
        query.push(" AS BIGINT) ELSE due_at_ms END WHERE id IN ");
        statement::build(push_list(&mut query, ids)).execute(&mut *conn).await?;
    }
    Ok(moved.into_values().flatten().collect())
}

/// Deletes the rows of placements that hold nothing, except those with pins. `ids` has at most
/// [`LIST_MAX`](crate::db::row::LIST_MAX) entries.
pub(crate) async fn forget(conn: &mut Conn, ids: &[i64]) -> Result<(), StoreError> {
    let mut query = QueryBuilder::new(
        "DELETE FROM placements WHERE NOT EXISTS \
         (SELECT 1 FROM pins WHERE pins.placement_id = placements.id) AND id IN ",
    );
    statement::build(push_list(&mut query, ids)).execute(conn).await?;
    Ok(())
}
