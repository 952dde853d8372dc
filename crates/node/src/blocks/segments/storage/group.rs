//! A group: what is appended, kept and noted since the last commit, and who waits for it.

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
    /// Damaged blocks that it has kept all along and that stand anew.
    pub(crate) repaired: u64,
}

/// What is appended but not committed, and who waits for it.
#[derive(Default)]
pub(crate) struct Group {
    /// Blocks that are new, or stand somewhere else than before.
    pub(crate) blocks: HashMap<Multihash<64>, Stored>,
    /// Where blocks stood that stand somewhere else now, if that is to be given back for itself.
    pub(crate) vacated: Vec<Location>,
    /// Blocks that the file may not have yet, in its order.
    pub(crate) unwritten: VecDeque<(Multihash<64>, Location)>,
    pub(crate) edges: Vec<Edge>,
    pub(crate) holds: HashMap<u64, GroupHold>,
    pub(crate) names: HashMap<HoldName, Option<u64>>,
    /// Segments whose records change.
    pub(crate) segments: HashMap<u32, SegmentRecord>,
    pub(crate) damaged: HashMap<Multihash<64>, Damage>,
    /// Blocks that are not damaged any more.
    pub(crate) repaired: HashSet<Multihash<64>>,
    pub(crate) scrubbed: Option<(Option<Multihash<64>>, u64)>,
    /// Whether it may use the space that is kept in reserve: it gives back more than it takes.
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

    /// What all holds keep once the group is committed, if they kept this before.
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
    /// Writes everything down that the index gets.
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
