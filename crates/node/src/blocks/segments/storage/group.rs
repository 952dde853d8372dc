//! A group: everything that was applied since the last commit, and the callers that wait for it.

use std::collections::{HashMap, HashSet, VecDeque};

use cid::multihash::Multihash;

use super::super::index::{Changes, Damage, Edge, HoldRecord, HoldTotals, Location, SegmentRecord, Stored};
use super::queue::Reply;
use crate::blocks::HoldName;

/// A hold that the group changes.
pub(crate) struct GroupHold {
    pub(crate) record: HoldRecord,
    pub(crate) is_new: bool,
    pub(crate) released: bool,
    /// Damaged blocks that it already referenced and that were rewritten.
    pub(crate) repaired: u64,
}

/// What was applied and not committed.
#[derive(Default)]
pub(crate) struct Group {
    /// Blocks that are new or have moved.
    pub(crate) blocks: HashMap<Multihash<64>, Stored>,
    /// Previous places of blocks that have moved, if they are large enough to be punched.
    pub(crate) vacated: Vec<Location>,
    /// Blocks that may not have been written to the file yet, in file order.
    pub(crate) unwritten: VecDeque<(Multihash<64>, Location)>,
    pub(crate) edges: Vec<Edge>,
    pub(crate) holds: HashMap<u64, GroupHold>,
    pub(crate) names: HashMap<HoldName, Option<u64>>,
    /// Segments whose records change.
    pub(crate) segments: HashMap<u32, SegmentRecord>,
    pub(crate) damaged: HashMap<Multihash<64>, Damage>,
    /// Blocks that are no longer damaged.
    pub(crate) repaired: HashSet<Multihash<64>>,
    pub(crate) scrubbed: Option<(Option<Multihash<64>>, u64)>,
    /// Whether this is compaction, which may use the reserved space because it frees more than it takes.
    pub(crate) is_compaction: bool,
    pub(crate) waiters: Vec<(Option<u64>, Reply)>,
}

impl Group {
    pub(crate) fn is_clean(&self) -> bool {
        self.edges.is_empty()
            && self.holds.is_empty()
            && self.names.is_empty()
            && self.segments.is_empty()
            && !self.has_notes()
    }

    pub(crate) fn has_notes(&self) -> bool {
        !self.damaged.is_empty() || !self.repaired.is_empty() || self.scrubbed.is_some()
    }

    /// The totals over all holds after the group is committed, given those before.
    pub(crate) fn totals_after(&self, before: HoldTotals) -> HoldTotals {
        let mut held = before;
        for edge in &self.edges {
            held.stats.blocks += 1;
            held.stats.bytes += u64::from(edge.length);
        }
        held.holds += self.holds.values().filter(|hold| hold.is_new).count() as u64;
        for hold in self.holds.values().filter(|hold| hold.released) {
            held.holds = held.holds.saturating_sub(1);
            held.stats.blocks = held.stats.blocks.saturating_sub(hold.record.stats.blocks);
            held.stats.bytes = held.stats.bytes.saturating_sub(hold.record.stats.bytes);
        }
        held
    }
}

impl Group {
    /// Records all changes to the index.
    pub(crate) fn write(&self, changes: &mut Changes<'_>) {
        for (hash, stored) in &self.blocks {
            changes.put_block(hash, stored);
        }
        for location in &self.vacated {
            changes.put_dead(location);
        }
        for edge in &self.edges {
            changes.put_edge(edge);
        }
        for (id, hold) in &self.holds {
            if hold.released {
                changes.remove_hold(*id);
                changes.put_releasing(*id);
            } else {
                changes.put_hold(*id, &hold.record);
            }
        }
        for (name, id) in &self.names {
            changes.name_hold(name, *id);
        }
        for (id, record) in &self.segments {
            changes.put_segment(*id, record);
        }
        for (hash, damage) in &self.damaged {
            changes.put_damaged(hash, damage);
        }
        for hash in &self.repaired {
            changes.remove_damaged(hash);
        }
        if let Some((last, began_ms)) = &self.scrubbed {
            changes.set_scrubbed(last.as_ref(), *began_ms);
        }
    }
}
