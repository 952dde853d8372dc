//! Statistics, verification and repair of the block store.

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

/// Maximum number of damaged blocks in one page.
pub(crate) const DAMAGED_MAX: usize = 200;
/// Maximum number of accounts that are listed for one pin.
const ACCOUNTS_MAX: u32 = 20;
/// Minimum interval between two progress reports.
const REPORT_INTERVAL: Duration = Duration::from_millis(200);

/// Totals of the block store.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats {
    /// Number of distinct blocks.
    pub(crate) blocks: u64,
    /// Size of the distinct blocks: each counts once.
    pub(crate) bytes: u64,
    /// Number of holds: one for each pinned DAG, and one for each upload or fetch in progress.
    pub(crate) holds: u64,
    /// Sum of the number of blocks of all holds.
    pub(crate) held_blocks: u64,
    /// Sum of the sizes of all holds: a block counts once for each hold.
    pub(crate) held_bytes: u64,
    /// Number of segment files.
    pub(crate) segments: u64,
    /// Disk space of segments and index.
    pub(crate) disk_bytes: u64,
    /// Number of blocks that are known to be damaged.
    pub(crate) damaged_blocks: u64,
    /// Number of pinned DAGs that are scheduled to be verified.
    pub(crate) pins_to_verify: u64,
    /// Number of these that lacked blocks when they were last verified.
    pub(crate) incomplete_pins: u64,
}

/// Progress of a verification of all blocks.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VerifyReport {
    /// Number of blocks verified so far.
    pub(crate) blocks: u64,
    /// Approximate number of blocks in the store.
    pub(crate) blocks_total: u64,
    /// Size of the blocks verified so far.
    pub(crate) bytes: u64,
    /// Number of damaged blocks found so far.
    pub(crate) damaged: u64,
    /// Set in the last report, when all blocks are verified.
    pub(crate) done: bool,
}

/// A page of damaged blocks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DamagedPage {
    pub(crate) blocks: Vec<Damaged>,
    /// CID to pass as `after` for the next page; `None` on the last page.
    pub(crate) next: Option<String>,
}

/// A damaged block and the pins that it belongs to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Damaged {
    pub(crate) cid: String,
    pub(crate) bytes: u64,
    /// At most 100.
    pub(crate) pins: Vec<DamagedPin>,
}

/// A pinned DAG that contains a damaged block.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DamagedPin {
    /// Root of the DAG.
    pub(crate) cid: String,
    pub(crate) cluster: String,
    /// E-mail addresses of accounts that pin it; at most 20.
    pub(crate) accounts: Vec<String>,
}

/// Result of scheduling a repair.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct RepairReport {
    /// Number of damaged blocks.
    pub(crate) damaged: u64,
    /// Number of pinned DAGs that were scheduled for verification, which fetches their damaged blocks.
    pub(crate) pins: u64,
}

impl VerifyReport {
    pub(crate) fn new(progress: &VerifyProgress, done: bool) -> Self {
        let VerifyProgress { blocks, blocks_total, bytes, damaged } = *progress;
        Self { blocks, blocks_total, bytes, damaged, done }
    }
}

impl AdminOps {
    /// Totals of the block store.
    pub(crate) async fn stats(&self) -> anyhow::Result<Stats> {
        let blocks = Arc::clone(&self.blocks);
        let totals = tokio::task::spawn_blocking(move || blocks.totals()).await??;
        let reverify = self.store.reverify_counts().await?;
        Ok(Stats {
            blocks: totals.blocks,
            bytes: totals.bytes,
            holds: totals.holds,
            held_blocks: totals.held_blocks,
            held_bytes: totals.held_bytes,
            segments: totals.segments,
            disk_bytes: totals.disk_bytes,
            damaged_blocks: totals.damaged_blocks,
            pins_to_verify: reverify.due,
            incomplete_pins: reverify.failing,
        })
    }

    /// Reads and verifies every block. The last item is a report with `done` set, or an error. Dropping the receiver
    /// cancels the verification.
    pub(crate) fn verify(&self) -> mpsc::Receiver<Result<VerifyReport, BlocksError>> {
        let (sender, receiver) = mpsc::channel(1);
        let (blocks, stopping) = (Arc::clone(&self.blocks), self.stopping.clone());
        tokio::task::spawn_blocking(move || {
            let mut last_report = Instant::now();
            let verified = blocks.verify(|progress| {
                if last_report.elapsed() < REPORT_INTERVAL {
                    return !sender.is_closed() && !stopping.is_cancelled();
                }
                last_report = Instant::now();
                sender.blocking_send(Ok(VerifyReport::new(progress, false))).is_ok()
            });
            let verified = verified.and_then(|progress| {
                if progress.damaged > 0 {
                    tokio::runtime::Handle::current().block_on(blocks.flush())?;
                }
                Ok(progress)
            });
            let last = match verified {
                Ok(_) if stopping.is_cancelled() => Err(BlocksError::Closed),
                verified => verified.map(|progress| VerifyReport::new(&progress, true)),
            };
            // The receiver may have been dropped.
            let _ = sender.blocking_send(last);
        });
        receiver
    }

    /// A page of the blocks that are known to be damaged, starting after `after`.
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

    /// Schedules every pinned DAG with damaged blocks for verification, which fetches the damaged blocks from the
    /// network. Returns when this is recorded in the database.
    pub(crate) async fn repair(&self) -> anyhow::Result<RepairReport> {
        let (mut report, mut after, mut scheduled) = (RepairReport::default(), None, BTreeSet::new());
        loop {
            let found = self.damaged_blocks(after, DAMAGED_MAX).await?;
            report.damaged += found.len() as u64;
            for (root, cluster) in found.iter().flat_map(|block| &block.holds).filter_map(pin_of) {
                let now = SystemClock.now();
                if scheduled.insert((root, cluster.to_string()))
                    && self.store.reverify(&root, &cluster, now).await?
                {
                    report.pins += 1;
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
        Ok(report)
    }

    async fn damaged_blocks(&self, after: Option<Cid>, limit: usize) -> anyhow::Result<Vec<DamagedBlock>> {
        let blocks = Arc::clone(&self.blocks);
        let found =
            tokio::task::spawn_blocking(move || blocks.damaged(after.as_ref().map(Cid::hash), limit)).await?;
        found.context("cannot list damaged blocks")
    }
}

/// The placement that a hold named `pin/CLUSTER/CID` belongs to; `None` for other holds.
fn pin_of(hold: &HoldName) -> Option<(Cid, ClusterId)> {
    let (cluster, cid) = hold.as_str().strip_prefix("pin/")?.split_once('/')?;
    Some((Cid::try_from(cid).ok()?, ClusterId::parse(cluster).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placement_is_parsed_from_hold_name() {
        let cid = "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq";
        let of = |name: &str| pin_of(&HoldName::parse(name).unwrap());
        let (found, cluster) = of(&format!("pin/cl0-global/{cid}")).unwrap();
        assert_eq!((found.to_string().as_str(), cluster.as_str()), (cid, "cl0-global"));
        for other in ["upload/1", "pin/cl0-global", "pin/cl0-global/nonsense", "pin//"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
