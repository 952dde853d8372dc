//! The writer: it appends blocks, applies queued operations to the current group, and commits the group.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use cid::Cid;
use cid::multihash::Multihash;

use super::super::index::{
    Damage, Edge, HoldRecord, HoldTotals, IndexError, Location, SegmentRecord, Stored,
};
use super::SegmentConfig;
use super::error::WriteError;
use super::file::{Appender, Readers};
use super::garbage::{Garbage, HOLE_BYTES_MIN};
use super::group::{Group, GroupHold};
use super::queue::{Op, Pending, Shared};
use super::watermark::Watermark;
use crate::car;

mod commit;
mod failure;

/// Edges in one group. Bounds the index batch and its memory, and lets the index work while more blocks are put.
const GROUP_EDGES_MAX: usize = 8 * 1024;

pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) readers: Arc<Readers>,
    /// The folder of the segments.
    pub(crate) dir: PathBuf,
    pub(crate) segment_bytes: u64,
    pub(crate) reserve_bytes: u64,
    /// The active segment: the one that is appended to.
    pub(crate) appender: Option<Appender>,
    /// The committed length of the active segment; `None` while it is not in the index.
    pub(crate) committed: Option<u64>,
    pub(crate) garbage: Garbage,
    pub(crate) group: Group,
    watermark: Watermark,
    /// Whether the index refuses writes until it is reopened.
    is_broken: bool,
    /// Holds whose release failed and may be in the index nevertheless, until the index can be read.
    in_doubt: BTreeSet<u64>,
    /// The id of the next block.
    next_block: u64,
    /// The committed totals over all holds.
    held: HoldTotals,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.writer_ended();
    }
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        readers: Arc<Readers>,
        dir: PathBuf,
        config: &SegmentConfig,
        watermark: Watermark,
    ) -> Result<Self, IndexError> {
        let index = &shared.index;
        Ok(Self {
            garbage: Garbage::load(index, config.segment_bytes)?,
            next_block: index.next_block()?,
            held: index.hold_totals()?,
            shared,
            readers,
            dir,
            segment_bytes: config.segment_bytes,
            reserve_bytes: config.reserve_bytes,
            appender: None,
            committed: None,
            group: Group::default(),
            watermark,
            is_broken: false,
            in_doubt: BTreeSet::new(),
        })
    }

    /// Whether the index must be reopened before anything else.
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Whether releases failed that may be in the index after all.
    #[cfg(test)]
    pub(crate) fn has_releases_in_doubt(&self) -> bool {
        !self.in_doubt.is_empty()
    }

    /// Whether the group is as large as it may be.
    pub(crate) fn is_group_full(&self) -> bool {
        self.group.edges.len() >= GROUP_EDGES_MAX
    }

    /// Whether a caller waits for the group, or it has notes (damage, scrub position).
    pub(crate) fn must_commit(&self) -> bool {
        !self.group.waiters.is_empty() || self.group.has_notes()
    }

    /// Ends the active segment without its padding.
    pub(crate) fn close(&mut self) {
        if let Some(appender) = self.appender.take()
            && let Err(error) = appender.finish()
        {
            tracing::warn!(%error, "failed to truncate the padding of the last segment");
        }
    }

    pub(crate) fn apply(&mut self, op: Op) -> Result<(), WriteError> {
        match op {
            Op::Open { hold, name } => {
                let record = HoldRecord::new(name.clone());
                self.group
                    .holds
                    .insert(hold, GroupHold { record, is_new: true, released: false, repaired: 0 });
                self.group.names.insert(name, Some(hold));
            }
            Op::Put { hold, has_edge, cid, data, permits } => {
                self.shared.permits.add_permits(permits);
                self.put((!has_edge).then_some(hold), &cid, &data)?;
                if has_edge && let Some(hold) = self.hold(hold)? {
                    hold.repaired += 1;
                }
            }
            Op::AddEdge { hold, hash } => {
                let stored = self.find(&hash)?.ok_or(WriteError::Dangling)?;
                self.add_edge(hold, hash, &stored)?;
                self.shared.state().edge_applied(&hash);
            }
            Op::Commit { hold, seal, reply } => {
                self.group.waiters.push((Some(hold), reply));
                if seal && let Some(hold) = self.hold(hold)? {
                    hold.record.sealed = true;
                }
            }
            Op::Release { hold, name, reply } => {
                self.group.waiters.push((None, reply));
                if let Some(hold) = self.hold(hold)? {
                    hold.released = true;
                    self.group.names.insert(name, None);
                }
            }
            Op::Repair { block, reply } => {
                // The waiter is added after the put, which may finish a segment and commit what was before.
                let (cid, data) = block.into_parts();
                let put = self.put(None, &cid, &data);
                self.group.waiters.push((None, reply));
                put?;
            }
            Op::Damaged { hash, at, damage } => self.note_damage(hash, at, damage)?,
            Op::Intact { hash } => {
                self.group.damaged.remove(&hash);
                self.group.repaired.insert(hash);
            }
            Op::Scrubbed { last, began_ms } => self.group.scrubbed = Some((last, began_ms)),
            Op::Barrier { reply } => self.group.waiters.push((None, reply)),
            Op::Rotate { reply } => match self.rotate() {
                // An error says that the caller no longer waits.
                Ok(segments) => drop(reply.send(Ok(segments))),
                Err(error) => {
                    let _ = reply.send(Err(error.failure().error()));
                    return Err(error);
                }
            },
        }
        Ok(())
    }

    fn note_damage(&mut self, hash: Multihash<64>, at: Location, damage: Damage) -> Result<(), WriteError> {
        if self.find(&hash)?.is_some_and(|stored| stored.at == at) {
            self.group.repaired.remove(&hash);
            self.group.damaged.insert(hash, damage);
        } else {
            // It was freed or moved in the meantime.
            self.shared.state().damaged.remove(&hash);
        }
        Ok(())
    }

    /// Finishes the active segment. Returns the ids of all segments with live blocks; nothing more is appended to them.
    fn rotate(&mut self) -> Result<Vec<u32>, WriteError> {
        self.finish_segment()?;
        let segments = self.shared.index.segments()?.into_iter();
        Ok(segments.filter(|(_, record)| record.live_blocks > 0).map(|(id, _)| id).collect())
    }

    /// The place of a block, including blocks of the group.
    fn find(&self, hash: &Multihash<64>) -> Result<Option<Stored>, WriteError> {
        match self.group.blocks.get(hash) {
            Some(stored) => Ok(Some(*stored)),
            None => Ok(self.shared.index.find(hash)?),
        }
    }

    /// Stores a block under a new id. A block that is stored already was damaged: it is rewritten under its own id. Without
    /// a hold only the latter is done, because the holds that referenced the block may have been released.
    fn put(&mut self, hold: Option<u64>, cid: &Cid, data: &Bytes) -> Result<(), WriteError> {
        let hash = *cid.hash();
        let stored = match (self.find(&hash)?, hold) {
            (Some(old), _) => {
                tracing::warn!(%cid, "rewriting a damaged block");
                let stored = self.relocate(cid, data, &old)?;
                self.group.damaged.remove(&hash);
                self.group.repaired.insert(hash);
                stored
            }
            (None, Some(_)) => {
                let at = self.append(cid, data)?;
                let id = self.next_block;
                self.next_block += 1;
                self.record_location(hash, Stored { id, at })
            }
            (None, None) => return Ok(()),
        };
        match hold {
            Some(hold) => self.add_edge(hold, hash, &stored),
            None => Ok(()),
        }
    }

    /// Writes a stored block again at a new place, and vacates the old one.
    pub(crate) fn relocate(&mut self, cid: &Cid, data: &Bytes, old: &Stored) -> Result<Stored, WriteError> {
        let at = self.append(cid, data)?;
        // The append may have started a new group; the record of the old segment is read for that group.
        self.segment(old.at.segment)?.remove(&old.at);
        if !self.group.is_compaction && old.at.length >= HOLE_BYTES_MIN {
            self.group.vacated.push(old.at);
        }
        Ok(self.record_location(*cid.hash(), Stored { id: old.id, at }))
    }

    fn record_location(&mut self, hash: Multihash<64>, stored: Stored) -> Stored {
        self.group.blocks.insert(hash, stored);
        self.group.unwritten.push_back((hash, stored.at));
        self.release_written();
        stored
    }

    /// Whether this is the segment that is appended to.
    pub(crate) fn is_active(&self, id: u32) -> bool {
        self.appender.as_ref().is_some_and(|appender| appender.id == id)
    }

    /// The record of a segment in the group, to be changed.
    fn segment(&mut self, id: u32) -> Result<&mut SegmentRecord, WriteError> {
        use std::collections::hash_map::Entry;
        match self.group.segments.entry(id) {
            Entry::Occupied(record) => Ok(record.into_mut()),
            Entry::Vacant(vacant) => Ok(vacant.insert(self.shared.index.segment(id)?.unwrap_or_default())),
        }
    }

    /// Commits, and finishes the active segment: at most one segment has uncommitted data.
    pub(crate) fn finish_segment(&mut self) -> Result<(), WriteError> {
        let is_compaction = self.group.is_compaction;
        self.commit()?;
        self.group.is_compaction = is_compaction;
        let Some(appender) = self.appender.take() else { return Ok(()) };
        let id = appender.id;
        appender.finish()?;
        self.garbage.finished(id);
        if let Some(record) = self.shared.index.segment(id)? {
            self.garbage.weigh(id, &record);
        }
        Ok(())
    }

    fn hold(&mut self, id: u64) -> Result<Option<&mut GroupHold>, WriteError> {
        use std::collections::hash_map::Entry;
        match self.group.holds.entry(id) {
            Entry::Occupied(hold) => Ok(Some(hold.into_mut())),
            Entry::Vacant(vacant) => {
                let record = self.shared.index.hold(id)?;
                let hold = |record| GroupHold { record, is_new: false, released: false, repaired: 0 };
                Ok(record.map(|record| vacant.insert(hold(record))))
            }
        }
    }

    fn add_edge(&mut self, hold: u64, hash: Multihash<64>, stored: &Stored) -> Result<(), WriteError> {
        let (block, length) = (stored.id, stored.at.length);
        if let Some(group_hold) = self.hold(hold)? {
            group_hold.record.stats.blocks += 1;
            group_hold.record.stats.bytes += u64::from(length);
            self.group.edges.push(Edge { hold, hash, block, length });
        }
        Ok(())
    }

    fn append(&mut self, cid: &Cid, data: &Bytes) -> Result<Location, WriteError> {
        let head = car::section_head(cid, data.len());
        let needed = (head.len() + data.len()) as u64;
        if self.appender.as_ref().is_some_and(|appender| appender.end() + needed > self.segment_bytes) {
            self.finish_segment()?;
        }
        let appender = match &mut self.appender {
            Some(appender) => appender,
            None => {
                self.committed = None;
                // The id comes from the index: after a failure it may have the last segment or not, and a skipped id
                // would look like an index from a backup at the next start.
                let id = self.shared.index.next_segment()?;
                let appender = Appender::create(&self.dir, id)?;
                self.readers.forget(id);
                self.appender.insert(appender)
            }
        };
        appender.fill(&head)?;
        let (segment, offset) = (appender.id, appender.end() as u32);
        appender.fill(data)?;
        let location = Location { segment, offset, length: data.len() as u32, head: head.len() as u8 };
        self.segment(segment)?.add(&location);
        Ok(location)
    }

    /// Releases the memory of blocks that were written to the file: they are read from there.
    fn release_written(&mut self) {
        let Some(written) = self.appender.as_ref().map(Appender::written) else { return };
        let ends_within = |(_, at): &(_, Location)| at.end() <= written;
        if !self.group.unwritten.front().is_some_and(ends_within) {
            return;
        }
        let mut state = self.shared.state();
        while let Some((hash, location)) = self.group.unwritten.pop_front_if(|block| ends_within(block)) {
            if let Some(pending) = state.blocks.get_mut(&hash) {
                *pending = Pending::Written(location);
            }
        }
    }
}
