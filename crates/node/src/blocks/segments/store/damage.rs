//! Blocks that are known to be damaged.

use cid::Cid;
use cid::multihash::Multihash;

use super::super::index::{Damage, IndexError, Location, now_ms};
use super::super::storage::queue::{DAMAGED_MAX, Op, failed};
use super::SegmentBlocks;
use crate::blocks::{BlocksError, HoldName};

/// Holds that are listed for one damaged block.
const HOLDS_MAX: usize = 100;

/// A stored block whose bytes no longer match its CID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedBlock {
    /// The CID under which it was put, or a raw CID if that cannot be read any more.
    pub cid: Cid,
    pub bytes: u64,
    /// The time of detection in Unix milliseconds.
    pub found_at_ms: u64,
    /// The holds that reference it, at most 100.
    pub holds: Vec<HoldName>,
}

impl SegmentBlocks {
    /// Up to `limit` blocks that are known to be damaged, ordered by multihash, starting after `after`.
    ///
    /// # Errors
    /// [`BlocksError::Failed`] if the index cannot be read.
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
            for hold in index.holds_of(stored.id, HOLDS_MAX).map_err(failed)? {
                holds.extend(index.hold(hold).map_err(failed)?.map(|record| record.name));
            }
            found.push(DamagedBlock { cid, bytes: u64::from(stored.at.length), found_at_ms, holds });
        }
        Ok(found)
    }

    /// Whether any block of a committed hold is known to be damaged. The cost is proportional to the number of damaged blocks
    /// or to the size of the hold, whichever is smaller.
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

    /// Records that a block is damaged at the place where it was read. From then on no edge can be added to it.
    pub(crate) fn note_damage(&self, cid: Cid, at: Location) -> Result<(), BlocksError> {
        let hash = *cid.hash();
        let mut state = self.shared.state_with_room()?;
        if state.damaged.contains(&hash) || state.blocks.contains_key(&hash) {
            return Ok(());
        }
        tracing::error!(%cid, "stored block is damaged");
        if state.damaged.len() < DAMAGED_MAX {
            state.damaged.insert(hash);
            let damage = Damage { cid, found_at_ms: now_ms() };
            self.shared.push(&mut state, Op::Damaged { hash, at, damage });
        }
        Ok(())
    }

    /// Records that a block is intact after all: the disk may have failed temporarily.
    pub(crate) fn note_intact(&self, hash: &Multihash<64>) -> Result<(), BlocksError> {
        if !self.shared.state().damaged.contains(hash) {
            return Ok(());
        }
        let mut state = self.shared.state_with_room()?;
        self.shared.push(&mut state, Op::Intact { hash: *hash });
        Ok(())
    }
}
