//! Drops the entries of the audit log that are older than the operator wants, in small steps, so that no other write
//! waits for long.

use std::time::Duration;

use crate::Error;
use crate::core::{Core, unavailable};

/// Entries that are dropped in one transaction.
const STEP: u32 = 500;
/// The rest between two steps while there is more to drop.
const PAUSE: Duration = Duration::from_millis(250);
/// The rest when there is nothing: what is due at an hour's end may as well go at the next one's.
const REST: Duration = Duration::from_hours(1);

/// Sweeps until the service stops.
pub(crate) async fn run(core: &Core) {
    let mut rest = PAUSE;
    while core.stop.run_until_cancelled(tokio::time::sleep(rest)).await.is_some() {
        rest = match look(core).await {
            Ok(dropped) if dropped >= u64::from(STEP) => PAUSE,
            Ok(_) => REST,
            Err(error) => {
                tracing::warn!(%error, "sweeping the audit log");
                REST
            }
        };
    }
}

/// One step; gives how many entries were dropped.
pub(crate) async fn look(core: &Core) -> Result<u64, Error> {
    let Some(kept) = core.settings.audit_kept else { return Ok(0) };
    let kept_ms = i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
    let before = core.clock.now().as_ms().saturating_sub(kept_ms);
    core.store
        .delete_old_audit_entries(pinfold_model::Timestamp::from_ms(before), STEP)
        .await
        .map_err(unavailable)
}
