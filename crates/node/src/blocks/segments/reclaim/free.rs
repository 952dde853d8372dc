//! Removes the edges of released holds, and the blocks that no hold references any more.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use cid::multihash::Multihash;

use super::super::index::{Edge, Location, SegmentRecord};
use super::super::storage::error::WriteError;
use super::super::storage::garbage::HOLE_BYTES_MIN;
use super::super::storage::writer::Writer;

/// Edges in a batch: some 10 ms of work, which is how long a commit may have to wait for it.
const EDGE_BATCH: usize = 1024;

/// What removing one batch of edges does to the index.
#[derive(Default)]
struct Batch {
    /// Blocks that leave the index.
    freed: Vec<(Multihash<64>, Location)>,
    segments: HashMap<u32, SegmentRecord>,
}

/// Removes one batch of edges of the first released hold.
pub(super) fn free_edges(writer: &mut Writer) -> Result<(), WriteError> {
    let Some((hold, last_freed)) = writer.garbage.releasing.front().copied() else { return Ok(()) };
    let edges = writer.shared.index.edges(hold, last_freed, EDGE_BATCH)?;
    let batch = plan(writer, &edges)?;
    if !mark_freeing(writer, &batch) {
        // A queued edge references one of the blocks, and must be applied first.
        return Ok(());
    }
    let is_last = edges.len() < EDGE_BATCH;
    let outcome = commit(writer, hold, &edges, &batch, is_last);
    let mut state = writer.shared.state();
    state.freeing.clear();
    if outcome.is_ok() {
        for (hash, _) in &batch.freed {
            state.damaged.remove(hash);
        }
    }
    drop(state);
    outcome?;
    if is_last {
        writer.garbage.releasing.pop_front();
    } else if let Some((_, last_freed)) = writer.garbage.releasing.front_mut() {
        *last_freed = edges.last().map(|edge| edge.block);
    }
    let is_large = |(_, location): &&(_, Location)| location.length >= HOLE_BYTES_MIN;
    let dead = batch.freed.iter().filter(is_large).map(|(_, location)| location.segment);
    writer.garbage.dead.extend(dead);
    batch.segments.keys().try_for_each(|id| super::reconsider(writer, *id))
}

/// Finds out which blocks only this hold references.
fn plan(writer: &Writer, edges: &[Edge]) -> Result<Batch, WriteError> {
    let index = &writer.shared.index;
    let mut batch = Batch::default();
    for edge in edges {
        // Of two holds, at least one is another one: a block with many holds costs no more than one with few.
        let holds = index.holds_of(edge.block, 2)?;
        if holds.iter().any(|hold| *hold != edge.hold) {
            continue;
        }
        // A block with another id was freed before, and has been stored again since.
        let Some(stored) = index.find(&edge.hash)?.filter(|stored| stored.id == edge.block) else {
            continue;
        };
        let segment = stored.at.segment;
        if let Entry::Vacant(vacant) = batch.segments.entry(segment) {
            vacant.insert(index.segment(segment)?.unwrap_or_default());
        }
        if let Some(record) = batch.segments.get_mut(&segment) {
            record.remove(&stored.at);
        }
        batch.freed.push((edge.hash, stored.at));
    }
    Ok(batch)
}

/// From here on the blocks are gone for every other caller; false if a queued edge references one of them.
fn mark_freeing(writer: &Writer, batch: &Batch) -> bool {
    let mut state = writer.shared.state();
    if batch.freed.iter().any(|(hash, _)| state.referenced.contains_key(hash)) {
        return false;
    }
    state.freeing.extend(batch.freed.iter().map(|(hash, _)| *hash));
    true
}

fn commit(
    writer: &Writer,
    hold: u64,
    edges: &[Edge],
    batch: &Batch,
    is_last: bool,
) -> Result<(), WriteError> {
    let damaged = damaged_in(writer, batch);
    Ok(writer.shared.index.change(true, |changes| {
        edges.iter().for_each(|edge| changes.remove_edge(edge));
        for (hash, location) in &batch.freed {
            changes.remove_block(hash);
            if location.length >= HOLE_BYTES_MIN {
                changes.put_dead(location);
            }
        }
        for hash in &damaged {
            changes.remove_damaged(hash);
        }
        for (id, record) in &batch.segments {
            changes.put_segment(*id, record);
        }
        if is_last {
            changes.remove_releasing(hold);
        }
    })?)
}

fn damaged_in(writer: &Writer, batch: &Batch) -> Vec<Multihash<64>> {
    let state = writer.shared.state();
    let hashes = batch.freed.iter().map(|(hash, _)| *hash);
    hashes.filter(|hash| state.damaged.contains(hash)).collect()
}
