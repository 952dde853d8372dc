//! Deletes audit log entries that are older than the retention time, in small steps, so that other writes do not wait long.

use std::time::Duration;

use pinfold_model::Timestamp;

use super::runner::Workers;
use crate::Error;
use crate::error::log_store_error;

/// Entries that are deleted in one transaction.
const BATCH_MAX: u32 = 500;
/// Wait between two steps while there are more entries to delete.
const STEP_WAIT: Duration = Duration::from_millis(250);
/// Wait when there are none: retention need not be exact.
const IDLE_WAIT: Duration = Duration::from_hours(1);

/// Runs until the service stops.
pub(super) async fn run(workers: &Workers) {
    let mut wait = STEP_WAIT;
    while workers.placements.tasks.sleep(wait).await {
        wait = match turn(workers).await {
            Ok(deleted) if deleted >= u64::from(BATCH_MAX) => STEP_WAIT,
            Ok(_) => IDLE_WAIT,
            Err(error) => {
                tracing::warn!(%error, "failed to delete old audit log entries");
                IDLE_WAIT
            }
        };
    }
}

/// One step; returns how many entries were deleted.
pub(super) async fn turn(workers: &Workers) -> Result<u64, Error> {
    let Some(retention) = workers.audit_retention else { return Ok(0) };
    let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    let before = workers.placements.clock.now().as_ms().saturating_sub(retention_ms);
    let deleted = workers.store.delete_old_audit_entries(Timestamp::from_ms(before), BATCH_MAX).await;
    deleted.map_err(log_store_error)
}
