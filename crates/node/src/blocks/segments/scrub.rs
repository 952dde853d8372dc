//! The scrub: reads and verifies every block from time to time, slowly, so that damage is found while there is still
//! somebody who has the block.
//!
//! It only finds. What it finds is noted in the block store; whoever holds the content fetches it again
//! ([`Blocks::damaged_holds`](crate::Blocks::damaged_holds)).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;

use super::store::SegmentBlocks;
use crate::blocks::BlocksError;

pub(super) mod rebuild;
pub(super) mod verify;

/// How long it rests between two steps.
const PAUSE: Duration = Duration::from_secs(10);
/// The least that a step reads: a store that is small is soon done.
const STEP_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// The longest rest, since the system's clock may be set meanwhile.
const REST_MAX: Duration = Duration::from_secs(3600);

/// Goes round through the store until `stop`, each time in about `round`. Reads evenly: one step of the round's
/// part, and a pause. Where it is survives a restart.
pub async fn scrub(blocks: Arc<SegmentBlocks>, round: Duration, stop: CancellationToken) {
    let mut pause = PAUSE;
    while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        let blocks = Arc::clone(&blocks);
        let stepped = tokio::task::spawn_blocking(move || step(&blocks, round)).await;
        pause = match stepped {
            Ok(Ok(pause)) => pause,
            Ok(Err(BlocksError::Closed)) | Err(_) => return,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the scrub cannot go on for now");
                REST_MAX
            }
        };
    }
}

/// One step; returns how long to rest after it.
pub(crate) fn step(blocks: &SegmentBlocks, round: Duration) -> Result<Duration, BlocksError> {
    let steps = (round.as_secs() / PAUSE.as_secs()).max(1);
    let step = blocks.scrub((blocks.live_bytes()? / steps).max(STEP_BYTES_MIN))?;
    if step.damaged > 0 {
        tracing::error!(blocks = step.damaged, "the scrub has found damaged blocks; they are fetched again");
    }
    if !step.is_round_over {
        return Ok(PAUSE);
    }
    let began = UNIX_EPOCH + Duration::from_millis(step.began_at_ms);
    #[expect(clippy::disallowed_methods, reason = "the node stands alone and has no clock of its own")]
    let took = SystemTime::now().duration_since(began).unwrap_or_default();
    tracing::info!(?took, "the scrub has been through all blocks");
    Ok(round.saturating_sub(took).max(PAUSE))
}
