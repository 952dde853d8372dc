//! Looks at what is stored: what it sums up to, whether it is still what was put, and what is not.
//!
//! Blocks are looked at in the order of their multihashes, many at a time, and those read in the order of the
//! disk: so a place to go on from is one multihash, whatever moves meanwhile. What is bad is noted in the index;
//! from then on nobody counts on it, and whoever brings it again mends it.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use cid::Cid;
use cid::multihash::Multihash;

use super::SegmentBlocks;
use super::index::{Damage, IndexError, Location, Stored};
use super::state::{Op, failed};
use crate::blocks::{BlocksError, HoldName, Totals};
use crate::{Block, dag};

/// Blocks that are read in the order of the disk by [`SegmentBlocks::verify`]: 100 bytes each.
const VERIFY_BATCH: usize = 64 * 1024;
/// Blocks that a step of the scrub looks at before it looks at its budget again.
const SCRUB_BATCH: usize = 256;
/// Holds that are named for one damaged block.
const HOLDS_MAX: usize = 100;

/// A block that is not what was put any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedBlock {
    /// Its CID as it was put; as a raw block if that cannot be read any more.
    pub cid: Cid,
    /// Its length.
    pub bytes: u64,
    /// When it was found, in Unix milliseconds.
    pub found_at_ms: u64,
    /// Who keeps it; at most 100 of them.
    pub holds: Vec<HoldName>,
}

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
    /// The bytes of all blocks, each counted once: without asking the file system, as [`totals`] does.
    ///
    /// [`totals`]: crate::Blocks::totals
    pub(crate) fn live_bytes(&self) -> Result<u64, BlocksError> {
        let segments = self.shared.index.segments().map_err(failed)?;
        Ok(segments.iter().map(|(_, record)| record.live_bytes).sum())
    }

    pub(super) fn add_up(&self) -> Result<Totals, BlocksError> {
        let index = &self.shared.index;
        let segments = index.segments().map_err(failed)?;
        let held = index.held().map_err(failed)?;
        Ok(Totals {
            segments: segments.len() as u64,
            blocks: segments.iter().map(|(_, record)| record.live_blocks).sum(),
            bytes: segments.iter().map(|(_, record)| record.live_bytes).sum(),
            holds: held.holds,
            held_blocks: held.stats.blocks,
            held_bytes: held.stats.bytes,
            disk_bytes: disk_bytes(&self.dir).map_err(failed)?,
            damaged_blocks: self.shared.state().damaged.len() as u64,
        })
    }

    /// Blocks that are known to be damaged, in the order of their multihashes, at most `limit` from after
    /// `after`.
    ///
    /// # Errors
    /// [`BlocksError::Failed`] when the index can't be read.
    pub fn damaged(
        &self,
        after: Option<&Multihash<64>>,
        limit: usize,
    ) -> Result<Vec<DamagedBlock>, BlocksError> {
        let index = &self.shared.index;
        let mut found = Vec::new();
        for (hash, Damage { cid, found_at_ms }) in index.damaged(after, limit).map_err(failed)? {
            let Some(stored) = index.find(&hash).map_err(failed)? else { continue };
            let mut holds = Vec::new();
            for hold in index.keepers(stored.id, HOLDS_MAX).map_err(failed)? {
                holds.extend(index.hold(hold).map_err(failed)?.map(|record| record.name));
            }
            found.push(DamagedBlock { cid, bytes: u64::from(stored.at.length), found_at_ms, holds });
        }
        Ok(found)
    }

    /// Whether any block of a committed hold is known to be damaged. Costs as much as there is damage, or as the
    /// hold is large, whichever is less.
    pub(super) fn has_damage(&self, hold: u64, blocks: u64) -> Result<bool, IndexError> {
        let damaged = {
            let state = self.shared.state();
            if state.damaged.is_empty() {
                return Ok(false);
            }
            state.damaged.clone()
        };
        let index = &self.shared.index;
        if damaged.len() as u64 <= blocks {
            for hash in &damaged {
                if let Some(stored) = index.find(hash)?
                    && index.has_edge(hold, stored.id)?
                {
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        let edges = index.edges(hold, None, usize::try_from(blocks).unwrap_or(usize::MAX))?;
        Ok(edges.iter().any(|edge| damaged.contains(&edge.hash)))
    }

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
            VerifyProgress { blocks_total: self.add_up()?.blocks, ..VerifyProgress::default() };
        let mut last = None;
        loop {
            let batch = self.shared.index.blocks(last.as_ref(), VERIFY_BATCH).map_err(failed)?;
            let is_end = batch.len() < VERIFY_BATCH;
            last = batch.last().map(|(hash, _)| *hash);
            for blocks in in_order_of_the_disk(batch).chunks(SCRUB_BATCH) {
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
            for (hash, stored) in in_order_of_the_disk(batch) {
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
                self.note_sound(hash)?;
                return Ok(true);
            }
            match self.shared.index.find(hash).map_err(failed)? {
                // Freed meanwhile.
                None => return Ok(true),
                Some(again) if again.at == at => match looked {
                    // That says nothing about the block.
                    Err(error) if !is_of_the_file(&error) && error.kind() != io::ErrorKind::NotFound => {
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

    /// Notes that a block is damaged where it was read; soon nobody counts on it any more.
    pub(super) fn note_damage(&self, cid: Cid, at: Location) -> Result<(), BlocksError> {
        let hash = *cid.hash();
        let mut state = self.shared.state_with_room()?;
        if state.damaged.contains(&hash) || state.blocks.contains_key(&hash) {
            return Ok(());
        }
        tracing::error!(%cid, "a stored block is damaged");
        if state.damaged.len() < super::writer::DAMAGED_MAX {
            state.damaged.insert(hash);
            let damage = Damage { cid, found_at_ms: now_ms() };
            self.shared.push(&mut state, Op::Damaged { hash, at, damage });
        }
        Ok(())
    }
}

impl SegmentBlocks {
    /// Notes that a block is whole after all: the disk may have failed for a while.
    fn note_sound(&self, hash: &Multihash<64>) -> Result<(), BlocksError> {
        if !self.shared.state().damaged.contains(hash) {
            return Ok(());
        }
        let mut state = self.shared.state_with_room()?;
        self.shared.push(&mut state, Op::Sound { hash: *hash });
        Ok(())
    }
}

/// Whether a read failed because the file has no such bytes, or the disk can't give them: not for want of memory
/// or files.
pub(super) fn is_of_the_file(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    error.kind() == io::ErrorKind::UnexpectedEof || error.raw_os_error() == Some(EIO)
}

fn in_order_of_the_disk(mut batch: Vec<(Multihash<64>, Stored)>) -> Vec<(Multihash<64>, Stored)> {
    batch.sort_unstable_by_key(|(_, stored)| stored.at);
    batch
}

pub(super) fn now_ms() -> u64 {
    // Only shown to people: a clock before 1970 does no harm.
    #[expect(clippy::disallowed_methods, reason = "the node stands alone and has no clock of its own")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// What a folder takes, as the file system counts it.
fn disk_bytes(path: &Path) -> io::Result<u64> {
    let count = || -> io::Result<u64> {
        let metadata = path.symlink_metadata()?;
        let mut bytes = metadata.blocks() * 512;
        if metadata.is_dir() {
            for entry in std::fs::read_dir(path)? {
                bytes += disk_bytes(&entry?.path())?;
            }
        }
        Ok(bytes)
    };
    match count() {
        // It went while the folder above was read.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        counted => counted,
    }
}
