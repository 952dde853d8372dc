//! Verifies stored blocks against their CIDs.
//!
//! Blocks are taken from the index in batches ordered by multihash, and each batch is read in the order of locations. The
//! position is therefore one multihash, even if blocks move in the meantime. Damage is recorded in the index. From then on
//! no edge can be added to the block, and putting it again repairs it.

use std::io;

use bytes::Bytes;
use cid::Cid;
use cid::multihash::Multihash;

use super::super::index::{Location, Stored, now_ms};
use super::super::storage::file;
use super::super::storage::queue::{Op, failed};
use super::super::store::SegmentBlocks;
use crate::blocks::BlocksError;
use crate::{Block, dag};

/// Blocks in a batch of [`SegmentBlocks::verify`]: 100 bytes each.
const VERIFY_BATCH: usize = 64 * 1024;
/// Blocks that a scrub step verifies between two checks of its budget.
const SCRUB_BATCH: usize = 256;
/// The progress of a verification or a rebuild.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Verified blocks.
    pub blocks: u64,
    /// The approximate number of all blocks.
    pub blocks_total: u64,
    /// Verified bytes.
    pub bytes: u64,
    /// Damaged blocks, or places of a segment that cannot be read.
    pub damaged: u64,
}

/// The result of one scrub step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubStep {
    /// Verified blocks.
    pub blocks: u64,
    /// Verified bytes.
    pub bytes: u64,
    /// Damaged blocks.
    pub damaged: u64,
    /// The start of this round through the store, in Unix milliseconds.
    pub began_at_ms: u64,
    /// Whether the round is complete.
    pub is_round_over: bool,
}

impl SegmentBlocks {
    /// Reads and verifies every block once. `on_progress` is called regularly; if it returns false, the verification ends
    /// early. Damage is recorded, see [`damaged`](Self::damaged). Blocks the thread for as long as reading the store takes.
    ///
    /// # Errors
    /// [`BlocksError::Failed`] if the index cannot be read; [`BlocksError::Closed`].
    pub fn verify(
        &self,
        mut on_progress: impl FnMut(&VerifyProgress) -> bool,
    ) -> Result<VerifyProgress, BlocksError> {
        let mut progress =
            VerifyProgress { blocks_total: self.compute_totals()?.blocks, ..VerifyProgress::default() };
        let mut last = None;
        loop {
            let batch = self.shared.index.blocks(last.as_ref(), VERIFY_BATCH).map_err(failed)?;
            let is_end = batch.len() < VERIFY_BATCH;
            last = batch.last().map(|(hash, _)| *hash);
            for blocks in sorted_by_location(batch).chunks(SCRUB_BATCH) {
                for (hash, stored) in blocks {
                    progress.blocks += 1;
                    progress.bytes += u64::from(stored.at.length);
                    progress.damaged += u64::from(!self.is_whole(hash, stored)?);
                }
                if !on_progress(&progress) {
                    return Ok(progress);
                }
            }
            if is_end {
                progress.blocks_total = progress.blocks;
                on_progress(&progress);
                return Ok(progress);
            }
        }
    }

    /// Continues the scrub, which verifies the store again and again, for about `bytes_max` bytes. The position survives a
    /// restart. Blocks on the disk.
    ///
    /// # Errors
    /// [`BlocksError::Failed`] if the index cannot be read; [`BlocksError::Closed`].
    pub fn scrub(&self, bytes_max: u64) -> Result<ScrubStep, BlocksError> {
        let scrubbed = self.shared.index.scrubbed().map_err(failed)?;
        let (mut last, began_ms) = scrubbed.map_or_else(|| (None, now_ms()), |(last, at)| (Some(last), at));
        let mut step = ScrubStep { began_at_ms: began_ms, ..ScrubStep::default() };
        while step.bytes < bytes_max && !step.is_round_over {
            let batch = self.shared.index.blocks(last.as_ref(), SCRUB_BATCH).map_err(failed)?;
            step.is_round_over = batch.len() < SCRUB_BATCH;
            last = batch.last().map(|(hash, _)| *hash).or(last);
            for (hash, stored) in sorted_by_location(batch) {
                step.blocks += 1;
                step.bytes += u64::from(stored.at.length);
                step.damaged += u64::from(!self.is_whole(&hash, &stored)?);
            }
        }
        let last = last.filter(|_| !step.is_round_over);
        let mut state = self.shared.state_with_room()?;
        self.shared.push(&mut state, Op::Scrubbed { last, began_ms });
        Ok(step)
    }

    /// Whether a block and its section head are intact. Records damage if they are not.
    fn is_whole(&self, hash: &Multihash<64>, stored: &Stored) -> Result<bool, BlocksError> {
        let mut at = stored.at;
        loop {
            let outcome = self.verify_at(hash, &at);
            if let Ok(true) = outcome {
                self.note_intact(hash)?;
                return Ok(true);
            }
            match self.shared.index.find(hash).map_err(failed)? {
                // Freed in the meantime.
                None => return Ok(true),
                Some(again) if again.at == at => match outcome {
                    // This error says nothing about the block.
                    Err(error) if !file::is_unreadable(&error) && error.kind() != io::ErrorKind::NotFound => {
                        return Err(failed(error));
                    }
                    Ok(_) | Err(_) => break,
                },
                Some(moved) => at = moved.at,
            }
        }
        let raw = || Cid::new_v1(dag::RAW, *hash);
        let head = self.readers.read_section(&at).ok().and_then(|(cid, _)| cid);
        self.note_damage(head.filter(|cid| cid.hash() == hash).unwrap_or_else(raw), at)?;
        Ok(false)
    }

    fn verify_at(&self, hash: &Multihash<64>, at: &Location) -> io::Result<bool> {
        let (cid, data) = self.readers.read_section(at)?;
        let cid = cid.filter(|cid| cid.hash() == hash);
        Ok(cid.is_some_and(|cid| Block::verify(cid, Bytes::from(data)).is_ok()))
    }
}

fn sorted_by_location(mut batch: Vec<(Multihash<64>, Stored)>) -> Vec<(Multihash<64>, Stored)> {
    batch.sort_unstable_by_key(|(_, stored)| stored.at);
    batch
}
