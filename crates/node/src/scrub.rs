//! The scrub: reads and verifies every block from time to time, slowly, so that damage is found while there is still
//! somebody who has the block.
//!
//! It only finds. What it finds is noted in the block store; whoever holds the content fetches it again
//! ([`Blocks::damaged_holds`](crate::Blocks::damaged_holds)).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;

use crate::BlocksError;
use crate::blocks::SegmentBlocks;

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
fn step(blocks: &SegmentBlocks, round: Duration) -> Result<Duration, BlocksError> {
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::bitswap::testnet::{raws, tree, until};
    use crate::blocks::{MemoryBlocks, SegmentConfig};
    use crate::{Block, Blocks, FetchLimits, FetchRequest, HoldName, Node, NodeConfig};

    fn name() -> HoldName {
        HoldName::parse("pin/test").unwrap()
    }

    async fn store(blocks: &dyn Blocks, dag: &[Block]) {
        let hold = blocks.open(&name()).unwrap();
        for block in dag {
            blocks.put(hold, block.clone()).await.unwrap();
        }
        blocks.seal(hold).await.unwrap();
    }

    fn open(dir: &Path) -> Arc<SegmentBlocks> {
        let config = SegmentConfig { reserve_bytes: 0, ..SegmentConfig::default() };
        Arc::new(SegmentBlocks::open(dir, &config).unwrap())
    }

    /// Damages every block that has these bytes in it.
    fn damage(dir: &Path, bytes: &[u8]) {
        let file = dir.join("segments/0000000001.car");
        let mut content = std::fs::read(&file).unwrap();
        let places: Vec<_> =
            (0..content.len() - bytes.len()).filter(|at| content[*at..].starts_with(bytes)).collect();
        assert!(!places.is_empty());
        for at in places {
            content[at] ^= 1;
        }
        std::fs::write(&file, content).unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_the_scrub_finds_is_brought_again_by_holding_it_once_more() {
        let dag = tree(raws(40, 3_000), 10);
        let leaf = &dag[7];
        let inner = &dag[41];
        let dir = tempfile::tempdir().unwrap();
        let blocks = open(dir.path());
        store(blocks.as_ref(), &dag).await;
        let before = blocks.totals().unwrap();
        drop(blocks);
        damage(dir.path(), leaf.data());
        damage(dir.path(), inner.data());

        let blocks = open(dir.path());
        step(&blocks, Duration::from_secs(1)).unwrap();
        until("the note", || blocks.damaged_holds(10).unwrap() == [(name(), 2)]).await;
        let source = Arc::new(MemoryBlocks::new());
        store(source.as_ref(), &dag).await;
        let source = Node::start(NodeConfig::loopback(), source).await.unwrap();
        let node = Node::start(NodeConfig::loopback(), blocks.clone()).await.unwrap();
        let time = Duration::from_secs(60);
        let limits =
            FetchLimits { bytes_max: u64::MAX, blocks_max: u64::MAX, find_time: time, stall_time: time };
        let origins = source.listen_addresses().await;
        let request = FetchRequest { root: *dag[dag.len() - 1].cid(), hold: name(), origins, limits };
        let held = node.fetch(request, Arc::default()).await.unwrap();

        assert_eq!(held.blocks, dag.len() as u64);
        assert_eq!(node.bitswap().stats().blocks_received, 2, "nothing else is fetched");
        assert!(blocks.damaged_holds(10).unwrap().is_empty());
        assert_eq!(blocks.verify(|_| true).unwrap().damaged, 0);
        let after = blocks.totals().unwrap();
        assert_eq!((after.blocks, after.held_bytes), (before.blocks, before.held_bytes));
        source.stop().await;
        node.stop().await;
    }
}
