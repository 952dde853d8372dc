//! Frees what released holds kept, a bounded batch at a time, and goes on after a crash where it was.
//!
//! One batch, in this order, so that a crash between any two steps is healed by doing the batch again:
//!
//! 1. *Index, synced*: the edges go from `keepers`, dead blocks from `blocks`, and their bytes from the
//!    counts of their segments. The edges stay in `kept`, as the note of what is being done.
//! 2. *Files*: holes are punched, segments without a live block are deleted.
//! 3. *Index*: the edges go from `kept`.
//!
//! Locations are never used twice, so that punching one again can hit nothing else.

use std::collections::HashMap;

use super::file;
use super::index::{Edge, Location, SegmentRecord};
use super::writer::{WriteError, Writer};

/// Edges in a batch: some 10 ms of work, which is what a commit may have to wait for.
const BATCH_EDGES: usize = 1024;

/// A released hold whose space is still to be freed.
#[derive(Clone, Copy)]
pub(super) struct Going {
    hold: u64,
    /// The last edge that is done with, since the start.
    freed: Option<Location>,
}

impl From<u64> for Going {
    fn from(hold: u64) -> Self {
        Self { hold, freed: None }
    }
}

/// What one batch does to the index, segments and files.
#[derive(Default)]
struct Batch {
    /// Edges that are still in `keepers`.
    own: Vec<Edge>,
    /// Blocks that leave the index.
    unlisted: Vec<Edge>,
    /// Bytes that nobody keeps, by segment.
    dead: HashMap<u32, Vec<Location>>,
    segments: HashMap<u32, SegmentRecord>,
}

impl Writer {
    /// Frees one batch of the first released hold. Nothing may be uncommitted.
    pub(super) fn free_some(&mut self) -> Result<(), WriteError> {
        let Some(Going { hold, freed }) = self.going.front().copied() else { return Ok(()) };
        let edges = self.shared.index.edges(hold, freed.as_ref(), BATCH_EDGES)?;
        let batch = self.plan(&edges)?;
        if !self.claim(&batch) {
            // A queued edge counts on one of the blocks; it comes first.
            return Ok(());
        }
        let unlisted = self.shared.index.change(true, |changes| {
            for edge in &batch.own {
                changes.remove_keeper(edge);
            }
            for edge in &batch.unlisted {
                changes.remove_block(&edge.hash);
            }
            for (id, record) in &batch.segments {
                changes.put_segment(*id, record);
            }
        });
        self.shared.state().freeing.clear();
        unlisted?;
        let deleted = self.free_files(&batch);
        let last = edges.len() < BATCH_EDGES;
        self.shared.index.change(false, |changes| {
            for edge in &edges {
                changes.remove_kept(edge);
            }
            for id in &deleted {
                changes.remove_segment(*id);
            }
            if last {
                changes.remove_going(hold);
            }
        })?;
        if last {
            self.going.pop_front();
        } else if let Some(going) = self.going.front_mut() {
            going.freed = edges.last().map(|edge| edge.location);
        }
        Ok(())
    }

    fn plan(&self, edges: &[Edge]) -> Result<Batch, WriteError> {
        let index = &self.shared.index;
        let mut batch = Batch::default();
        for edge in edges {
            let (own, other) = index.keepers(&edge.location, edge.hold)?;
            if own {
                batch.own.push(*edge);
            }
            if other {
                continue;
            }
            let segment = edge.location.segment;
            batch.dead.entry(segment).or_default().push(edge.location);
            if !own {
                continue;
            }
            batch.unlisted.push(*edge);
            let record = match batch.segments.entry(segment) {
                std::collections::hash_map::Entry::Occupied(record) => record.into_mut(),
                std::collections::hash_map::Entry::Vacant(vacant) => {
                    let Some(record) = index.segment(segment)? else { continue };
                    vacant.insert(record)
                }
            };
            record.live_blocks = record.live_blocks.saturating_sub(1);
            record.live_bytes = record.live_bytes.saturating_sub(u64::from(edge.location.length));
        }
        Ok(batch)
    }

    /// From here on the blocks are gone for everybody else; false if a queued edge wants one of them.
    fn claim(&self, batch: &Batch) -> bool {
        let mut state = self.shared.state();
        if batch.unlisted.iter().any(|edge| state.wanted.contains_key(&edge.hash)) {
            return false;
        }
        state.freeing.extend(batch.unlisted.iter().map(|edge| edge.hash));
        true
    }

    /// Punches and deletes; returns the segments that are gone. What fails here costs space, no data.
    fn free_files(&mut self, batch: &Batch) -> Vec<u32> {
        let mut deleted = Vec::new();
        for (id, dead) in &batch.dead {
            let is_dead = batch.segments.get(id).is_some_and(|record| record.live_blocks == 0);
            let freed = if is_dead { self.delete_segment(*id) } else { file::punch(&self.dir, *id, dead) };
            match freed {
                Ok(()) if is_dead => deleted.push(*id),
                Ok(()) => {}
                Err(error) => tracing::warn!(%error, segment = id, "space was not given back"),
            }
        }
        deleted
    }

    fn delete_segment(&mut self, id: u32) -> std::io::Result<()> {
        if self.appender.as_ref().is_some_and(|appender| appender.id == id) {
            self.appender = None;
            self.committed = None;
        }
        let removed = std::fs::remove_file(file::path(&self.dir, id));
        self.readers.forget(id);
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}
