//! Gives back what nobody needs, one bounded step at a time, and goes on after a crash where it was.
//!
//! - **Free**: the edges of a released hold go, and blocks that nobody else keeps leave the index. One synced
//!   batch; larger blocks are noted in it as `dead`.
//! - **Give back**: segments without a live block are deleted; dead blocks in others become holes
//!   ([`super::punch`]), then their notes go. A crash between leaves the notes, and punching twice hurts nothing,
//!   since locations are never used twice.
//! - **Compact**: what is live in a segment that is mostly waste is appended anew, and the segment deleted. A
//!   block keeps its id, so that each move is one row of the index.
//!
//! The segment that is appended to is not compacted; when much of it is waste, it is ended before its time. Its dead
//! blocks become holes too, but for one in the page that is written next.

use std::collections::{BTreeSet, HashMap, VecDeque};

use bytes::Bytes;
use cid::multihash::Multihash;

use super::file;
use super::index::{Edge, Index, IndexError, Location, SegmentRecord, Stored};
use super::punch::{self, PUNCH_BYTES_MIN, Zeros};
use super::writer::{WriteError, Writer};
use crate::{Block, car};

/// Edges in a batch: some 10 ms of work, which is what a commit may have to wait for.
const BATCH_EDGES: usize = 1024;
/// Dead blocks that one step gives back.
const BATCH_DEAD: usize = 512;
/// What one step of compaction moves at most, for the same reason.
const MOVE_BYTES: u64 = 4 * 1024 * 1024;
const MOVE_BLOCKS: usize = 1024;
/// A segment is compacted when its waste is this part of what it takes…
const WASTE_PART: u64 = 4;
/// …or when what lives in it is less than this part of a whole segment, so that there are few files.
const SMALL_PART: u64 = 8;
/// The active segment is ended for its waste from this part of a whole segment on.
const ROLL_PART: u64 = 64;

/// What is to be tidied up.
pub(super) struct Tidy {
    segment_bytes: u64,
    /// Released holds whose edges are still there, and the last edge that is gone.
    going: VecDeque<(u64, Option<u64>)>,
    /// Segments with dead blocks that are to be given back.
    dead: BTreeSet<u32>,
    /// Segments to be compacted.
    wasteful: BTreeSet<u32>,
    /// The segment that is being compacted, and the offset up to which it is done.
    moving: Option<(u32, u64)>,
    /// Segments that cannot be compacted, because something in them is damaged.
    stuck: BTreeSet<u32>,
    zeros: Zeros,
}

impl Tidy {
    /// Finds everything that is to be tidied up.
    pub(super) fn load(index: &Index, segment_bytes: u64) -> Result<Self, IndexError> {
        let mut tidy = Self {
            segment_bytes,
            going: index.going()?.into_iter().map(|hold| (hold, None)).collect(),
            dead: index.dead_segments()?,
            wasteful: BTreeSet::new(),
            moving: None,
            stuck: BTreeSet::new(),
            zeros: Zeros::default(),
        };
        for (id, record) in index.segments()? {
            tidy.weigh(id, &record);
        }
        Ok(tidy)
    }

    /// A hold was released.
    pub(super) fn release(&mut self, hold: u64) {
        self.going.push_back((hold, None));
    }

    /// Blocks have left these places.
    pub(super) fn left(&mut self, places: &[Location]) {
        self.dead.extend(places.iter().map(|place| place.segment));
    }

    /// Blocks have left this segment. If that was not by compaction, what kept it from that may be gone.
    pub(super) fn shrunk(&mut self, id: u32, record: &SegmentRecord, by_tidying: bool) {
        if !by_tidying {
            self.stuck.remove(&id);
        }
        self.weigh(id, record);
    }

    fn weigh(&mut self, id: u32, record: &SegmentRecord) {
        let takes = record.end.saturating_sub(record.punched_bytes);
        let is_wasteful = record.waste_bytes() >= takes / WASTE_PART && record.waste_bytes() > 0;
        // Heads count: a segment full of the smallest blocks is mostly heads, and would be moved for ever.
        let is_small = record.live_space < self.segment_bytes / SMALL_PART;
        if (is_wasteful || is_small) && !self.stuck.contains(&id) {
            self.wasteful.insert(id);
        } else {
            self.wasteful.remove(&id);
        }
    }

    /// Nothing more is appended to a segment: what is dead in its last page can be given back too.
    pub(super) fn ended(&mut self, id: u32) {
        self.dead.insert(id);
    }

    fn forget(&mut self, id: u32) {
        self.dead.remove(&id);
        self.wasteful.remove(&id);
        self.stuck.remove(&id);
        self.moving = self.moving.filter(|(moving, _)| *moving != id);
    }
}

/// What one batch of edges does to the index.
#[derive(Default)]
struct Batch {
    /// Blocks that leave the index.
    unlisted: Vec<(Multihash<64>, Location)>,
    segments: HashMap<u32, SegmentRecord>,
}

impl Writer {
    /// Whether anything can be tidied up.
    pub(super) fn has_to_tidy(&self) -> bool {
        let tidy = &self.tidy;
        !tidy.going.is_empty() || !tidy.dead.is_empty() || self.next_wasteful().is_some()
    }

    fn is_active(&self, id: u32) -> bool {
        self.appender.as_ref().is_some_and(|appender| appender.id == id)
    }

    fn next_wasteful(&self) -> Option<u32> {
        self.tidy.wasteful.iter().copied().find(|id| !self.is_active(*id))
    }

    /// One step. Nothing may be uncommitted.
    pub(super) fn tidy_some(&mut self) -> Result<(), WriteError> {
        if !self.tidy.going.is_empty() {
            return self.free_some();
        }
        if let Some(segment) = self.tidy.dead.first().copied() {
            return self.give_back(segment);
        }
        match self.next_wasteful() {
            Some(segment) => self.compact_some(segment),
            None => Ok(()),
        }
    }

    /// Weighs a segment whose record has changed, or that has just been ended.
    pub(super) fn look_at(&mut self, id: u32) -> Result<(), WriteError> {
        let Some(record) = self.shared.index.segment(id)? else { return Ok(()) };
        if record.live_blocks == 0 && !self.shared.is_frozen() {
            return self.delete_segment(id);
        }
        if !self.is_active(id) {
            self.tidy.weigh(id, &record);
            return Ok(());
        }
        let waste = record.waste_bytes();
        if waste >= self.segment_bytes / ROLL_PART && waste >= record.end / WASTE_PART {
            self.next_segment()?;
        }
        Ok(())
    }

    /// Frees one batch of the first released hold.
    fn free_some(&mut self) -> Result<(), WriteError> {
        let Some((hold, freed)) = self.tidy.going.front().copied() else { return Ok(()) };
        let edges = self.shared.index.edges(hold, freed, BATCH_EDGES)?;
        let batch = self.plan(&edges)?;
        if !self.claim(&batch) {
            // A queued edge counts on one of the blocks; it comes first.
            return Ok(());
        }
        let last = edges.len() < BATCH_EDGES;
        let done = self.shared.index.change(true, |changes| {
            edges.iter().for_each(|edge| changes.remove_edge(edge));
            for (hash, location) in &batch.unlisted {
                changes.remove_block(hash);
                if location.length >= PUNCH_BYTES_MIN {
                    changes.put_dead(location);
                }
            }
            for hash in self.unlisted_damage(&batch) {
                changes.remove_damaged(&hash);
            }
            for (id, record) in &batch.segments {
                changes.put_segment(*id, record);
            }
            if last {
                changes.remove_going(hold);
            }
        });
        let mut state = self.shared.state();
        state.freeing.clear();
        if done.is_ok() {
            for (hash, _) in &batch.unlisted {
                state.damaged.remove(hash);
            }
        }
        drop(state);
        done?;
        if last {
            self.tidy.going.pop_front();
        } else if let Some((_, freed)) = self.tidy.going.front_mut() {
            *freed = edges.last().map(|edge| edge.block);
        }
        let is_large = |(_, location): &&(_, Location)| location.length >= PUNCH_BYTES_MIN;
        let dead = batch.unlisted.iter().filter(is_large).map(|(_, location)| location.segment);
        self.tidy.dead.extend(dead);
        batch.segments.keys().try_for_each(|id| self.look_at(*id))
    }

    fn plan(&self, edges: &[Edge]) -> Result<Batch, WriteError> {
        let index = &self.shared.index;
        let mut batch = Batch::default();
        for edge in edges {
            // Of any two one is somebody else's: a block that many keep costs no more than one that few do.
            let keepers = index.keepers(edge.block, 2)?;
            if keepers.iter().any(|keeper| *keeper != edge.hold) {
                continue;
            }
            // One that has another id was freed before, and stored again since.
            let Some(stored) = index.find(&edge.hash)?.filter(|stored| stored.id == edge.block) else {
                continue;
            };
            let segment = stored.at.segment;
            if let std::collections::hash_map::Entry::Vacant(vacant) = batch.segments.entry(segment) {
                vacant.insert(index.segment(segment)?.unwrap_or_default());
            }
            if let Some(record) = batch.segments.get_mut(&segment) {
                record.take(&stored.at);
            }
            batch.unlisted.push((edge.hash, stored.at));
        }
        Ok(batch)
    }

    fn unlisted_damage(&self, batch: &Batch) -> Vec<Multihash<64>> {
        let state = self.shared.state();
        let hashes = batch.unlisted.iter().map(|(hash, _)| *hash);
        hashes.filter(|hash| state.damaged.contains(hash)).collect()
    }

    /// From here on the blocks are gone for everybody else; false if a queued edge wants one of them.
    fn claim(&self, batch: &Batch) -> bool {
        let mut state = self.shared.state();
        if batch.unlisted.iter().any(|(hash, _)| state.wanted.contains_key(hash)) {
            return false;
        }
        state.freeing.extend(batch.unlisted.iter().map(|(hash, _)| *hash));
        true
    }

    /// Turns dead blocks of a segment into holes. What fails here costs space, no data.
    fn give_back(&mut self, segment: u32) -> Result<(), WriteError> {
        let mut dead = self.shared.index.dead(segment, BATCH_DEAD)?;
        let is_last = dead.len() < BATCH_DEAD;
        if let Some(appender) = self.appender.as_ref().filter(|appender| appender.id == segment) {
            // The page after these is written again. What reaches into it waits until the segment is ended.
            dead.retain(|location| location.end() <= appender.whole_pages());
        }
        let punched = punch::punch(&self.dir, segment, &dead, &mut self.tidy.zeros).unwrap_or_else(|error| {
            tracing::warn!(%error, segment, "space was not given back; compaction will do it");
            0
        });
        let record = self
            .shared
            .index
            .segment(segment)?
            .map(|record| SegmentRecord { punched_bytes: record.punched_bytes + punched, ..record });
        self.shared.index.change(false, |changes| {
            dead.iter().for_each(|location| changes.remove_dead(location));
            if let Some(record) = &record {
                changes.put_segment(segment, record);
            }
        })?;
        if is_last {
            self.tidy.dead.remove(&segment);
            self.look_at(segment)?;
        }
        Ok(())
    }

    /// Deletes a segment in which nothing lives. Its record goes last, so that the next start does what a crash
    /// prevents.
    fn delete_segment(&mut self, id: u32) -> Result<(), WriteError> {
        if self.is_active(id) {
            self.appender = None;
            self.committed = None;
        }
        let removed = std::fs::remove_file(file::path(&self.dir, id));
        self.readers.forget(id);
        self.tidy.forget(id);
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, segment = id, "a dead segment was not deleted; the next start will");
                return Ok(());
            }
            Ok(()) | Err(_) => {}
        }
        loop {
            let dead = self.shared.index.dead(id, BATCH_DEAD)?;
            let last = dead.len() < BATCH_DEAD;
            self.shared.index.change(false, |changes| {
                dead.iter().for_each(|location| changes.remove_dead(location));
                if last {
                    changes.remove_segment(id);
                }
            })?;
            if last {
                return Ok(());
            }
        }
    }

    /// Moves some of what lives in a segment.
    fn compact_some(&mut self, id: u32) -> Result<(), WriteError> {
        let from = match self.tidy.moving {
            Some((moving, from)) if moving == id => from,
            Some(_) | None => car::HEADER.len() as u64,
        };
        let Some(record) = self.shared.index.segment(id)? else {
            self.tidy.forget(id);
            return Ok(());
        };
        if record.live_blocks == 0 {
            return self.delete_segment(id);
        }
        if file::free_bytes(&self.dir)? < record.live_space + MOVE_BYTES {
            tracing::warn!(
                segment = id,
                "too little space to compact a segment; it is tried at the next start"
            );
            self.leave_alone(id);
            return Ok(());
        }
        let live = match self.live_blocks(id, from, &record) {
            Err(WriteError::Data(error)) => {
                // It costs space. Nobody who writes shall wait for it.
                tracing::error!(%error, segment = id, "a segment cannot be read, and is not compacted");
                self.leave_alone(id);
                return Ok(());
            }
            live => live?,
        };
        let (moved, next) = self.move_blocks(&live)?;
        self.commit()?;
        self.tidy.moving = Some((id, next.unwrap_or(record.end)));
        if next.is_some() && moved > 0 {
            return Ok(());
        }
        match self.shared.index.segment(id)? {
            Some(record) if record.live_blocks > 0 => {
                tracing::error!(
                    segment = id,
                    blocks = record.live_blocks,
                    "damaged blocks stay in a segment"
                );
                self.leave_alone(id);
                Ok(())
            }
            Some(_) => self.delete_segment(id),
            None => Ok(()),
        }
    }

    fn leave_alone(&mut self, id: u32) {
        self.tidy.wasteful.remove(&id);
        self.tidy.stuck.insert(id);
        self.tidy.moving = None;
    }

    /// Some live blocks of a segment from an offset on, in their order: read off the segment, or off the whole
    /// index if the segment cannot be walked.
    fn live_blocks(
        &self,
        id: u32,
        from: u64,
        record: &SegmentRecord,
    ) -> Result<Vec<(Multihash<64>, Stored)>, WriteError> {
        let file = self.readers.file(id)?;
        let mut live = Vec::new();
        let mut at = from;
        while at < record.end && live.len() < MOVE_BLOCKS {
            let head = match file::head_at(&file, at) {
                Err(error) if super::check::is_of_the_file(&error) => None,
                head => head?,
            };
            let Some(head) = head else {
                tracing::warn!(segment = id, at, "a segment cannot be walked; its blocks are looked up");
                return Ok(self.shared.index.blocks_in(id, from as u32, MOVE_BLOCKS)?);
            };
            let offset = at + head.head_len as u64;
            if let Some(stored) = self.shared.index.find(head.cid.hash())?
                && stored.at.segment == id
                && u64::from(stored.at.offset) == offset
            {
                live.push((*head.cid.hash(), stored));
            }
            at = offset + head.data_len as u64;
        }
        Ok(live)
    }

    /// Appends blocks anew, up to [`MOVE_BYTES`]; returns how many, and where to go on if that may be needed.
    fn move_blocks(&mut self, live: &[(Multihash<64>, Stored)]) -> Result<(usize, Option<u64>), WriteError> {
        self.group.is_tidying = true;
        let (mut moved, mut bytes) = (0, 0);
        for (hash, stored) in live {
            if bytes >= MOVE_BYTES {
                return Ok((moved, Some(stored.at.start())));
            }
            bytes += u64::from(stored.at.length);
            let section = self.readers.read_section(&stored.at).ok();
            let block = section.and_then(|(cid, data)| {
                let cid = cid.filter(|cid| cid.hash() == hash)?;
                Block::verify(cid, Bytes::from(data)).ok()
            });
            // What is damaged stays where it is, until it is repaired.
            let Some(block) = block else { continue };
            self.relocate(block.cid(), block.data(), stored)?;
            moved += 1;
        }
        let next = live.last().filter(|_| live.len() == MOVE_BLOCKS).map(|(_, stored)| stored.at.end());
        Ok((moved, next))
    }
}
