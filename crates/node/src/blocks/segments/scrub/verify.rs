//! Looks at what is stored: what it sums up to, whether it is still what was put, and what is not.
//!
//! Blocks are looked at in the order of their multihashes, many at a time, and those read in the order of the
//! disk: so a place to go on from is one multihash, whatever moves meanwhile. What is bad is noted in the index;
//! from then on nobody counts on it, and whoever brings it again mends it.

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

/// Blocks that are read in the order of the disk by [`SegmentBlocks::verify`]: 100 bytes each.
const VERIFY_BATCH: usize = 64 * 1024;
/// Blocks that a step of the scrub looks at before it looks at its budget again.
const SCRUB_BATCH: usize = 256;
/// How far a look at everything is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Blocks that were looked at.
    pub blocks: u64,
    /// How many there are, about.
    pub blocks_total: u64,
    /// The bytes of those that were looked at.
    pub bytes: u64,
    /// How many of them are bad, or how many places of a segment cannot be read.
    pub damaged: u64,
}

/// What one step of the scrub did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubStep {
    /// Blocks that were looked at.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many of them are bad.
    pub damaged: u64,
    /// When this round through the store began, in Unix milliseconds.
    pub began_at_ms: u64,
    /// Whether it came to its end.
    pub is_round_over: bool,
}

impl SegmentBlocks {
    /// Reads and verifies every block once. `tell` hears how far it is, and ends it early by `false`. What is bad
    /// is noted; see [`damaged`](Self::damaged). Blocks the thread for as long as it takes to read the store.
    ///
    /// # Errors
    /// [`BlocksError::Failed`] when the index can't be read; [`BlocksError::Closed`].
    pub fn verify(
        &self,
        mut tell: impl FnMut(&VerifyProgress) -> bool,
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
                if !tell(&progress) {
                    return Ok(progress);
                }
            }
            if is_end {
                progress.blocks_total = progress.blocks;
                tell(&progress);
                return Ok(progress);
            }
        }
    }

    /// Goes on with the scrub, an endless round through the store, for about `bytes_max` bytes. Where it is
    /// survives a restart. Blocks on the disk.
    ///
    /// # Errors
    /// [`BlocksError::Failed`] when the index can't be read; [`BlocksError::Closed`].
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

    /// Whether a block is what was put, together with its head. Notes it if it is not.
    fn is_whole(&self, hash: &Multihash<64>, stored: &Stored) -> Result<bool, BlocksError> {
        let mut at = stored.at;
        loop {
            let looked = self.look(hash, &at);
            if let Ok(true) = looked {
                self.note_intact(hash)?;
                return Ok(true);
            }
            match self.shared.index.find(hash).map_err(failed)? {
                // Freed meanwhile.
                None => return Ok(true),
                Some(again) if again.at == at => match looked {
                    // That says nothing about the block.
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

    fn look(&self, hash: &Multihash<64>, at: &Location) -> io::Result<bool> {
        let (cid, data) = self.readers.read_section(at)?;
        let cid = cid.filter(|cid| cid.hash() == hash);
        Ok(cid.is_some_and(|cid| Block::verify(cid, Bytes::from(data)).is_ok()))
    }
}

fn sorted_by_location(mut batch: Vec<(Multihash<64>, Stored)>) -> Vec<(Multihash<64>, Stored)> {
    batch.sort_unstable_by_key(|(_, stored)| stored.at);
    batch
}
