//! Reclaims space, one bounded step at a time. After a crash the work continues where it stopped.
//!
//! - **Free** (`free`): removes the edges of a released hold, and from the index the blocks that no other hold
//!   references. Each step is one synced batch; larger blocks are recorded in it as dead.
//! - **Give back** (`hole_punch`): a segment without a live block is deleted. In others, dead blocks become holes, and
//!   then their records are removed. A crash in between leaves the records. Punching twice is harmless, because
//!   locations are never reused.
//! - **Compact** (`compact`): the live blocks of a segment that is mostly waste are appended to the active segment,
//!   and the old segment is deleted. A block keeps its id, so a move changes one row of the index.
//!
//! The active segment is not compacted. When a large part of it is waste, it is finished early. Its dead blocks become
//! holes too, except one that reaches into the page that is written next.

use super::index::IndexError;
use super::storage::error::WriteError;
use super::storage::file;
use super::storage::garbage::WASTE_PART;
use super::storage::writer::Writer;

mod compact;
mod free;
mod hole_punch;

use hole_punch::Zeros;

/// Dead blocks that one step gives back.
const DEAD_BATCH: usize = 512;
/// The active segment is finished early only when its waste is at least this part of a full segment.
const ROTATE_PART: u64 = 64;

/// Does the reclaim steps on a [`Writer`].
#[derive(Default)]
pub(crate) struct Reclaimer {
    zeros: Zeros,
}

impl Reclaimer {
    /// Whether anything can be reclaimed.
    pub(crate) fn has_work(writer: &Writer) -> bool {
        let garbage = &writer.garbage;
        !garbage.releasing.is_empty() || !garbage.dead.is_empty() || next_to_compact(writer).is_some()
    }

    /// Does one step. The writer must have nothing uncommitted.
    pub(crate) fn step(&mut self, writer: &mut Writer) -> Result<(), WriteError> {
        if !writer.garbage.releasing.is_empty() {
            return free::free_edges(writer);
        }
        if let Some(segment) = writer.garbage.dead.first().copied() {
            return self.give_back(writer, segment);
        }
        match next_to_compact(writer) {
            Some(segment) => compact::compact(writer, segment),
            None => Ok(()),
        }
    }

    /// Turns a batch of a segment's dead blocks into holes. A failure here costs space, not data.
    fn give_back(&mut self, writer: &mut Writer, segment: u32) -> Result<(), WriteError> {
        let index = &writer.shared.index;
        let mut dead = index.dead(segment, DEAD_BATCH)?;
        let is_last = dead.len() < DEAD_BATCH;
        if let Some(appender) = writer.appender.as_ref().filter(|appender| appender.id == segment) {
            // The page after these is written again. A block that reaches into it waits until the segment is finished.
            dead.retain(|location| location.end() <= appender.whole_pages());
        }
        let punched = hole_punch::punch(&writer.dir, segment, &dead, &mut self.zeros);
        let punched = punched.unwrap_or_else(|error| {
            tracing::warn!(%error, segment, "failed to punch holes; compaction will reclaim the space");
            0
        });
        let mut record = index.segment(segment)?;
        if let Some(record) = &mut record {
            record.punched_bytes += punched;
        }
        index.change(false, |changes| {
            dead.iter().for_each(|location| changes.remove_dead(location));
            if let Some(record) = &record {
                changes.put_segment(segment, record);
            }
        })?;
        if is_last {
            writer.garbage.dead.remove(&segment);
            reconsider(writer, segment)?;
        }
        Ok(())
    }
}

fn next_to_compact(writer: &Writer) -> Option<u32> {
    writer.garbage.to_compact.iter().copied().find(|id| !writer.is_active(*id))
}

/// Decides what to do with a segment whose record has changed: delete it, finish it, or compact it later.
fn reconsider(writer: &mut Writer, id: u32) -> Result<(), WriteError> {
    let Some(record) = writer.shared.index.segment(id)? else { return Ok(()) };
    if record.live_blocks == 0 && !writer.shared.is_reclaim_paused() {
        return Ok(delete_segment(writer, id)?);
    }
    if !writer.is_active(id) {
        writer.garbage.weigh(id, &record);
        return Ok(());
    }
    let waste = record.waste_bytes();
    if waste >= writer.segment_bytes / ROTATE_PART && waste >= record.end / WASTE_PART {
        writer.finish_segment()?;
    }
    Ok(())
}

/// Deletes a segment without live blocks. Its record is removed last, so that the next start repeats what a crash
/// interrupts.
fn delete_segment(writer: &mut Writer, id: u32) -> Result<(), IndexError> {
    if writer.is_active(id) {
        writer.appender = None;
        writer.committed = None;
    }
    let removed = std::fs::remove_file(file::path(&writer.dir, id));
    writer.readers.forget(id);
    writer.garbage.forget(id);
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, segment = id, "failed to delete a dead segment; retrying at the next start");
            return Ok(());
        }
        Ok(()) | Err(_) => {}
    }
    let index = &writer.shared.index;
    loop {
        let dead = index.dead(id, DEAD_BATCH)?;
        let is_last = dead.len() < DEAD_BATCH;
        index.change(false, |changes| {
            dead.iter().for_each(|location| changes.remove_dead(location));
            if is_last {
                changes.remove_segment(id);
            }
        })?;
        if is_last {
            return Ok(());
        }
    }
}
