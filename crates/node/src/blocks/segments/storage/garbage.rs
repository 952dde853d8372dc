//! What can be reclaimed. The writer keeps these sets up to date; [`super::super::reclaim`] works them off.

use std::collections::{BTreeSet, VecDeque};

use super::super::index::{Index, IndexError, Location, SegmentRecord};

/// Smaller dead blocks are left to compaction. Punching one costs two writes of pages that must be read first,
/// which is more than moving its neighbours.
pub(crate) const HOLE_BYTES_MIN: u32 = 32 * 1024;
/// A segment is compacted when `1 / WASTE_PART` of the space that it takes is waste…
pub(crate) const WASTE_PART: u64 = 4;
/// …or when its live blocks take less than `1 / SMALL_PART` of a full segment, which keeps the number of files low.
const SMALL_PART: u64 = 8;

/// What can be reclaimed.
pub(crate) struct Garbage {
    segment_bytes: u64,
    /// Released holds that still have edges, and the last edge that was removed.
    pub(crate) releasing: VecDeque<(u64, Option<u64>)>,
    /// Segments with dead blocks whose space has not been given back.
    pub(crate) dead: BTreeSet<u32>,
    pub(crate) to_compact: BTreeSet<u32>,
    /// The segment that is being compacted, and the offset up to which that is done.
    pub(crate) compacting: Option<(u32, u64)>,
    /// Segments that cannot be compacted, because a block in them is damaged or they cannot be read.
    excluded: BTreeSet<u32>,
}

impl Garbage {
    /// Reads from the index what can be reclaimed.
    pub(crate) fn load(index: &Index, segment_bytes: u64) -> Result<Self, IndexError> {
        let mut garbage = Self {
            segment_bytes,
            releasing: index.releasing()?.into_iter().map(|hold| (hold, None)).collect(),
            dead: index.dead_segments()?,
            to_compact: BTreeSet::new(),
            compacting: None,
            excluded: BTreeSet::new(),
        };
        for (id, record) in index.segments()? {
            garbage.weigh(id, &record);
        }
        Ok(garbage)
    }

    /// A hold was released.
    pub(crate) fn released(&mut self, hold: u64) {
        self.releasing.push_back((hold, None));
    }

    /// Blocks were moved away from these places.
    pub(crate) fn vacated(&mut self, places: &[Location]) {
        self.dead.extend(places.iter().map(|place| place.segment));
    }

    /// The record of a finished segment changed. If compaction did not change it, the reason for which the segment
    /// was excluded may be gone.
    pub(crate) fn segment_changed(&mut self, id: u32, record: &SegmentRecord, by_compaction: bool) {
        if !by_compaction {
            self.excluded.remove(&id);
        }
        self.weigh(id, record);
    }

    /// Decides whether a segment is to be compacted.
    pub(crate) fn weigh(&mut self, id: u32, record: &SegmentRecord) {
        let takes = record.end.saturating_sub(record.punched_bytes);
        let is_wasteful = record.waste_bytes() >= takes / WASTE_PART && record.waste_bytes() > 0;
        // Section heads count as live: a segment full of the smallest blocks is mostly heads, and would be compacted
        // again and again.
        let is_small = record.live_space < self.segment_bytes / SMALL_PART;
        if (is_wasteful || is_small) && !self.excluded.contains(&id) {
            self.to_compact.insert(id);
        } else {
            self.to_compact.remove(&id);
        }
    }

    /// A segment is finished: dead blocks in its last page can be given back too.
    pub(crate) fn finished(&mut self, id: u32) {
        self.dead.insert(id);
    }

    /// Excludes a segment from compaction until its record changes.
    pub(crate) fn exclude(&mut self, id: u32) {
        self.to_compact.remove(&id);
        self.excluded.insert(id);
        self.compacting = None;
    }

    /// Removes a deleted segment from all sets.
    pub(crate) fn forget(&mut self, id: u32) {
        self.dead.remove(&id);
        self.to_compact.remove(&id);
        self.excluded.remove(&id);
        self.compacting = self.compacting.filter(|(compacting, _)| *compacting != id);
    }
}
