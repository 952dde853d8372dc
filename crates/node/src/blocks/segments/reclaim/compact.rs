//! Compaction: moves the live blocks of a segment to the active one, and deletes the segment.

use bytes::Bytes;
use cid::multihash::Multihash;

use super::super::index::{SegmentRecord, Stored};
use super::super::storage::error::WriteError;
use super::super::storage::file;
use super::super::storage::writer::Writer;
use super::delete_segment;
use crate::{Block, car};

/// What one step moves at most: some 10 ms of work, which is how long a commit may have to wait for it.
const MOVE_BYTES: u64 = 4 * 1024 * 1024;
const MOVE_BLOCKS: usize = 1024;

/// Moves some live blocks of a segment, and deletes the segment when none are left.
pub(super) fn compact(writer: &mut Writer, id: u32) -> Result<(), WriteError> {
    let from = match writer.garbage.compacting {
        Some((compacting, from)) if compacting == id => from,
        Some(_) | None => car::HEADER.len() as u64,
    };
    let Some(record) = writer.shared.index.segment(id)? else {
        writer.garbage.forget(id);
        return Ok(());
    };
    if record.live_blocks == 0 {
        return Ok(delete_segment(writer, id)?);
    }
    if file::free_bytes(&writer.dir)? < record.live_space + MOVE_BYTES {
        tracing::warn!(
            segment = id,
            "too little free space to compact a segment; retrying at the next start"
        );
        writer.garbage.exclude(id);
        return Ok(());
    }
    let live = match live_blocks(writer, id, from, &record) {
        Err(WriteError::Data(error)) => {
            // This costs space. It must not delay any caller that writes.
            tracing::error!(%error, segment = id, "failed to read a segment; it is not compacted");
            writer.garbage.exclude(id);
            return Ok(());
        }
        live => live?,
    };
    let (moved, next) = move_blocks(writer, &live)?;
    writer.commit()?;
    writer.garbage.compacting = Some((id, next.unwrap_or(record.end)));
    if next.is_some() && moved > 0 {
        return Ok(());
    }
    match writer.shared.index.segment(id)? {
        Some(record) if record.live_blocks > 0 => {
            let blocks = record.live_blocks;
            tracing::error!(segment = id, blocks, "segment not deleted: it contains damaged blocks");
            writer.garbage.exclude(id);
            Ok(())
        }
        Some(_) => Ok(delete_segment(writer, id)?),
        None => Ok(()),
    }
}

/// Some live blocks of a segment from an offset on, in the order of their offsets. Found by walking the segment, or by
/// scanning the whole index if the segment cannot be walked.
fn live_blocks(
    writer: &Writer,
    id: u32,
    from: u64,
    record: &SegmentRecord,
) -> Result<Vec<(Multihash<64>, Stored)>, WriteError> {
    let index = &writer.shared.index;
    let file = writer.readers.file(id)?;
    let mut live = Vec::new();
    let mut at = from;
    while at < record.end && live.len() < MOVE_BLOCKS {
        let head = match file::head_at(&file, at) {
            Err(error) if file::is_unreadable(&error) => None,
            head => head?,
        };
        let Some(head) = head else {
            tracing::warn!(segment = id, at, "failed to walk a segment; scanning the index for its blocks");
            return Ok(index.blocks_in(id, from as u32, MOVE_BLOCKS)?);
        };
        let offset = at + head.head_len as u64;
        if let Some(stored) = index.find(head.cid.hash())?
            && stored.at.segment == id
            && u64::from(stored.at.offset) == offset
        {
            live.push((*head.cid.hash(), stored));
        }
        at = offset + head.data_len as u64;
    }
    Ok(live)
}

/// Appends up to [`MOVE_BYTES`] of blocks to the active segment. Returns how many were moved, and the offset from which
/// to continue, if there may be more.
fn move_blocks(
    writer: &mut Writer,
    live: &[(Multihash<64>, Stored)],
) -> Result<(usize, Option<u64>), WriteError> {
    writer.group.is_compaction = true;
    let (mut moved, mut bytes) = (0, 0);
    for (hash, stored) in live {
        if bytes >= MOVE_BYTES {
            return Ok((moved, Some(stored.at.start())));
        }
        bytes += u64::from(stored.at.length);
        let section = writer.readers.read_section(&stored.at).ok();
        let block = section.and_then(|(cid, data)| {
            let cid = cid.filter(|cid| cid.hash() == hash)?;
            Block::verify(cid, Bytes::from(data)).ok()
        });
        // A damaged block stays where it is until it is repaired.
        let Some(block) = block else { continue };
        writer.relocate(block.cid(), block.data(), stored)?;
        moved += 1;
    }
    let next = live.last().filter(|_| live.len() == MOVE_BLOCKS).map(|(_, stored)| stored.at.end());
    Ok((moved, next))
}
