//! The scrub: reads and verifies every block from time to time, slowly, so that damage is found while other peers still
//! have the block.
//!
//! It only detects damage, and records it in the store. Repair is up to the owner of a hold, who fetches the DAG again
//! ([`Blocks::damaged_holds`](crate::Blocks::damaged_holds)).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;

use super::store::SegmentBlocks;
use crate::blocks::BlocksError;

pub(super) mod rebuild;
pub(super) mod verify;

/// The pause between two steps.
const PAUSE: Duration = Duration::from_secs(10);
/// The least that a step reads, in bytes. A round through a small store is short.
const STEP_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// The longest pause, because the system clock may be set in the meantime. Also the pause after an error.
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// Verifies the whole store again and again until `stop` is cancelled, each round in about `round`. Reads evenly: a step
/// proportional to the store's size, then a pause. The position survives a restart.
///
/// Returns after the step that runs when `stop` is cancelled. The caller spawns it and must join it before it closes the
/// store.
pub async fn scrub(blocks: Arc<SegmentBlocks>, round: Duration, stop: CancellationToken) {
    let mut pause = PAUSE;
    while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        let blocks = Arc::clone(&blocks);
        let stepped = tokio::task::spawn_blocking(move || step(&blocks, round)).await;
        pause = match stepped {
            Ok(Ok(pause)) => pause,
            Ok(Err(BlocksError::Closed)) | Err(_) => return,
            Ok(Err(error)) => {
                tracing::warn!(%error, "scrub step failed, retrying later");
                PAUSE_MAX
            }
        };
    }
}

/// One step; returns the pause after it.
pub(crate) fn step(blocks: &SegmentBlocks, round: Duration) -> Result<Duration, BlocksError> {
    let steps = (round.as_secs() / PAUSE.as_secs()).max(1);
    let step = blocks.scrub((blocks.live_bytes()? / steps).max(STEP_BYTES_MIN))?;
    if step.damaged > 0 {
        tracing::error!(blocks = step.damaged, "scrub found damaged blocks; they will be fetched again");
    }
    if !step.is_round_over {
        return Ok(PAUSE);
    }
    let began = UNIX_EPOCH + Duration::from_millis(step.began_at_ms);
    #[expect(clippy::disallowed_methods, reason = "the node does not depend on the crate with the clock")]
    let took = SystemTime::now().duration_since(began).unwrap_or_default();
    tracing::info!(?took, "scrub round completed");
    Ok(round.saturating_sub(took).max(PAUSE))
}
