//! What an operator asks of the blocks: what there is, whether it is whole, and that it be mended.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use cid::Cid;
use pinfold_model::{Clock, ClusterId, SystemClock};
use pinfold_node::blocks::{DamagedBlock, VerifyProgress};
use pinfold_node::{Blocks, BlocksError, HoldName};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::AdminOps;

/// Damaged blocks in one answer.
pub(crate) const DAMAGED_MAX: usize = 200;
/// Accounts that are named for one pin.
const ACCOUNTS_MAX: u32 = 20;
/// How often progress is told.
const TELL_TIME: Duration = Duration::from_millis(200);

/// What the store has in all.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats {
    /// Distinct blocks.
    pub(crate) blocks: u64,
    /// Their bytes: each block counts once.
    pub(crate) bytes: u64,
    /// Holds: one for each pinned DAG, and one for each upload or fetch that is under way.
    pub(crate) holds: u64,
    /// The blocks of all holds added up.
    pub(crate) held_blocks: u64,
    /// Their bytes: each block counts as often as it is kept.
    pub(crate) held_bytes: u64,
    /// Segment files.
    pub(crate) segments: u64,
    /// What segments and index take on disk.
    pub(crate) disk_bytes: u64,
    /// Blocks that are known to be damaged.
    pub(crate) damaged_blocks: u64,
    /// Pinned DAGs that are to be walked again.
    pub(crate) reverify_counts: u64,
    /// Those of them of which blocks were missing when they were walked last.
    pub(crate) incomplete_pins: u64,
}

/// How far a look at everything is.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Verified {
    /// Blocks that were looked at.
    pub(crate) blocks: u64,
    /// How many there are, about.
    pub(crate) blocks_total: u64,
    /// The bytes of those that were looked at.
    pub(crate) bytes: u64,
    /// How many of them are bad.
    pub(crate) damaged: u64,
    /// Whether that was all.
    pub(crate) done: bool,
}

/// A page of damaged blocks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DamagedPage {
    /// The blocks.
    pub(crate) blocks: Vec<Damaged>,
    /// The CID after which the next page begins; none on the last.
    pub(crate) next: Option<String>,
}

/// A damaged block, and what is concerned by it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Damaged {
    /// Its CID.
    pub(crate) cid: String,
    /// Its length.
    pub(crate) bytes: u64,
    /// The pinned DAGs that it is in; at most 100.
    pub(crate) pins: Vec<DamagedPin>,
}

/// A pinned DAG with a damaged block.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DamagedPin {
    /// Its root.
    pub(crate) cid: String,
    /// Its cluster.
    pub(crate) cluster: String,
    /// Who has it pinned; at most 20.
    pub(crate) accounts: Vec<String>,
}

/// What was begun to mend damaged blocks.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Repair {
    /// Blocks that are damaged.
    pub(crate) damaged: u64,
    /// The pinned DAGs they are in, which are walked again, so that the blocks are fetched.
    pub(crate) pins: u64,
}

impl Verified {
    /// One reading.
    pub(crate) fn of(progress: &VerifyProgress, done: bool) -> Self {
        let VerifyProgress { blocks, blocks_total, bytes, damaged } = *progress;
        Self { blocks, blocks_total, bytes, damaged, done }
    }
}

impl AdminOps {
    /// What the store has in all.
    pub(crate) async fn stats(&self) -> anyhow::Result<Stats> {
        let blocks = Arc::clone(&self.blocks);
        let totals = tokio::task::spawn_blocking(move || blocks.totals()).await??;
        let reverify_counts = self.store.reverify_counts().await?;
        Ok(Stats {
            blocks: totals.blocks,
            bytes: totals.bytes,
            holds: totals.holds,
            held_blocks: totals.held_blocks,
            held_bytes: totals.held_bytes,
            segments: totals.segments,
            disk_bytes: totals.disk_bytes,
            damaged_blocks: totals.damaged_blocks,
            reverify_counts: reverify_counts.due,
            incomplete_pins: reverify_counts.failing,
        })
    }

    /// Reads and verifies everything. The last of what comes is done, or an error. Dropping the receiver ends it.
    pub(crate) fn verify(&self) -> mpsc::Receiver<Result<Verified, BlocksError>> {
        let (told, heard) = mpsc::channel(1);
        let (blocks, stopping) = (Arc::clone(&self.blocks), self.stopping.clone());
        tokio::task::spawn_blocking(move || {
            let mut last = Instant::now();
            let verified = blocks.verify(|progress| {
                if last.elapsed() < TELL_TIME {
                    return !told.is_closed() && !stopping.is_cancelled();
                }
                last = Instant::now();
                told.blocking_send(Ok(Verified::of(progress, false))).is_ok()
            });
            let verified = verified.and_then(|progress| {
                if progress.damaged > 0 {
                    tokio::runtime::Handle::current().block_on(blocks.flush())?;
                }
                Ok(progress)
            });
            let last = match verified {
                Ok(_) if stopping.is_cancelled() => Err(BlocksError::Closed),
                verified => verified.map(|progress| Verified::of(&progress, true)),
            };
            // Nobody may listen any more.
            let _ = told.blocking_send(last);
        });
        heard
    }

    /// Blocks that are known to be damaged, after `after`.
    pub(crate) async fn damaged(&self, after: Option<Cid>) -> anyhow::Result<DamagedPage> {
        let found = self.damaged_blocks(after, DAMAGED_MAX).await?;
        let next = found.last().filter(|_| found.len() == DAMAGED_MAX).map(|block| block.cid.to_string());
        let mut blocks = Vec::with_capacity(found.len());
        for DamagedBlock { cid, bytes, holds, .. } in found {
            let mut pins = Vec::new();
            for (root, cluster) in holds.iter().filter_map(pin_of) {
                let owners = self.store.owner_emails(&root, &cluster, ACCOUNTS_MAX).await?;
                let accounts = owners.iter().map(ToString::to_string).collect();
                pins.push(DamagedPin { cid: root.to_string(), cluster: cluster.to_string(), accounts });
            }
            blocks.push(Damaged { cid: cid.to_string(), bytes, pins });
        }
        Ok(DamagedPage { blocks, next })
    }

    /// Has every pinned DAG that has damaged blocks walked again: a hold that has such blocks fetches them. Returns
    /// when that is durably begun.
    pub(crate) async fn repair(&self) -> anyhow::Result<Repair> {
        let (mut repair, mut after, mut begun) = (Repair::default(), None, BTreeSet::new());
        loop {
            let found = self.damaged_blocks(after, DAMAGED_MAX).await?;
            repair.damaged += found.len() as u64;
            for (root, cluster) in found.iter().flat_map(|block| &block.holds).filter_map(pin_of) {
                let now = SystemClock.now();
                if begun.insert((root, cluster.to_string()))
                    && self.store.reverify(&root, &cluster, now).await?
                {
                    repair.pins += 1;
                }
            }
            after = found.last().map(|block| block.cid);
            if found.len() < DAMAGED_MAX {
                break;
            }
        }
        if let Some(service) = &self.service {
            service.workers.wake();
        }
        Ok(repair)
    }

    async fn damaged_blocks(&self, after: Option<Cid>, limit: usize) -> anyhow::Result<Vec<DamagedBlock>> {
        let blocks = Arc::clone(&self.blocks);
        let found =
            tokio::task::spawn_blocking(move || blocks.damaged(after.as_ref().map(Cid::hash), limit)).await?;
        found.context("cannot list damaged blocks")
    }
}

/// The placement that a hold is of, if it is of one: `pin/CLUSTER/CID`.
fn pin_of(hold: &HoldName) -> Option<(Cid, ClusterId)> {
    let (cluster, cid) = hold.as_str().strip_prefix("pin/")?.split_once('/')?;
    Some((Cid::try_from(cid).ok()?, ClusterId::parse(cluster).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_names_its_placement() {
        let cid = "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq";
        let of = |name: &str| pin_of(&HoldName::parse(name).unwrap());
        let (found, cluster) = of(&format!("pin/cl0-global/{cid}")).unwrap();
        assert_eq!((found.to_string().as_str(), cluster.as_str()), (cid, "cl0-global"));
        for other in ["upload/1", "pin/cl0-global", "pin/cl0-global/nonsense", "pin//"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
