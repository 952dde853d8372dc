//! Recovers a store whose index or segments are lost. Works offline, on a store that is not open.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cid::Cid;
use cid::multihash::Multihash;

use super::super::index::{
    Damage, Edge, HoldRecord, HoldTotals, Index, IndexError, Location, SegmentRecord, Stored, now_ms,
};
use super::super::storage::error::OpenError;
use super::super::storage::file::{self, head_at};
use super::super::storage::open::{at, index_error, remove_dir, write_version};
use super::super::storage::watermark;
use super::super::store::SegmentBlocks;
use super::verify::VerifyProgress;
use crate::blocks::HoldName;
use crate::{Block, car, dag};

/// Blocks in one batch of the index.
const BATCH: usize = 4096;
/// Bytes that are searched at a time for the next section after an unreadable place.
const SEARCH_BYTES: usize = 1024 * 1024;
/// The id of the hold that references everything.
const GUARD: u64 = 1;

/// A segment that is shorter than its committed length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostSegment {
    pub path: PathBuf,
    /// The length of the file; 0 if it is missing.
    pub found_bytes: u64,
    /// The committed length.
    pub expected_bytes: u64,
    /// The blocks that are lost.
    pub blocks: u64,
}

impl SegmentBlocks {
    /// Rebuilds the index of the store in `dir` from its segments. Every block is verified. Intact blocks are referenced by
    /// one sealed hold named `guard`, which the caller releases once other holds reference what is needed. The old index is
    /// renamed to `index.old`, replacing an earlier one. After a crash the store is either unchanged or complete.
    ///
    /// # Errors
    /// [`OpenError::Io`], [`OpenError::Index`]; [`OpenError::Version`] never: the segments of all versions are CARs.
    pub fn rebuild_index(
        dir: &Path,
        guard: &HoldName,
        mut on_progress: impl FnMut(&VerifyProgress),
    ) -> Result<VerifyProgress, OpenError> {
        let (segments, new) = (dir.join("segments"), dir.join("index.new"));
        remove_dir(&new).map_err(at(&new))?;
        let mut rebuild = Rebuild {
            index: Index::open(&new).map_err(index_error(&new))?,
            dir: segments.clone(),
            batch: Batch::default(),
            next_block: 1,
            held: HoldTotals { holds: 1, ..HoldTotals::default() },
            progress: VerifyProgress::default(),
        };
        let mut ids = segment_ids(&segments).map_err(at(&segments))?;
        ids.sort_unstable();
        for id in &ids {
            rebuild.segment(*id).map_err(|error| error.at(&file::path(&segments, *id), &new))?;
            on_progress(&rebuild.progress);
        }
        let progress = rebuild.finish(&ids, guard).map_err(index_error(&new))?;
        let (index, old) = (dir.join("index"), dir.join("index.old"));
        swap(dir, &new, &index, &old).map_err(at(dir))?;
        write_version(dir).map_err(at(dir))?;
        Ok(progress)
    }

    /// Accepts that segments are missing or too short: records the lost blocks as damaged, so that they can be fetched again
    /// and the store can be opened. Returns the segments concerned; empty if nothing is lost.
    ///
    /// # Errors
    /// [`OpenError::Io`], [`OpenError::Index`]; [`OpenError::NoIndex`] if there is no index, which shows what is lost.
    pub fn accept_losses(dir: &Path) -> Result<Vec<LostSegment>, OpenError> {
        let (segments, index_path) = (dir.join("segments"), dir.join("index"));
        if !index_path.exists() {
            return Err(OpenError::NoIndex { path: dir.to_owned() });
        }
        let index = Index::open(&index_path).map_err(index_error(&index_path))?;
        let mut lost = BTreeMap::new();
        for (id, SegmentRecord { end, live_blocks, .. }) in
            index.segments().map_err(index_error(&index_path))?
        {
            let path = file::path(&segments, id);
            let found_bytes = length_of(&path).map_err(at(&path))?;
            if found_bytes < end && live_blocks > 0 {
                lost.insert(id, LostSegment { path, found_bytes, expected_bytes: end, blocks: 0 });
            }
        }
        if !lost.is_empty() {
            note_losses(&index, &mut lost).map_err(index_error(&index_path))?;
        }
        // What is lost is noted first: a crash here leaves segments that are still too short.
        for segment in lost.values() {
            lengthen(&segment.path, segment.expected_bytes).map_err(at(&segment.path))?;
        }
        Ok(lost.into_values().collect())
    }
}

/// Records every block as damaged that extends beyond what is left of its segment, and counts them. Scans the index once,
/// however many segments are lost.
fn note_losses(index: &Index, lost: &mut BTreeMap<u32, LostSegment>) -> Result<(), IndexError> {
    let mut last = None;
    loop {
        let blocks = index.blocks(last.as_ref(), BATCH)?;
        let mut noted = Vec::new();
        for (hash, Stored { at, .. }) in &blocks {
            if let Some(segment) = lost.get_mut(&at.segment)
                && at.end() > segment.found_bytes
            {
                segment.blocks += 1;
                noted.push(*hash);
            }
        }
        if !noted.is_empty() {
            index.change(true, |changes| {
                for hash in noted {
                    let cid = Cid::new_v1(dag::RAW, hash);
                    changes.put_damaged(&hash, &Damage { cid, found_at_ms: now_ms() });
                }
            })?;
        }
        last = blocks.last().map(|(hash, _)| *hash);
        if blocks.len() < BATCH {
            return Ok(());
        }
    }
}

/// Restores the committed length of a segment; the lost part reads as zeros.
fn lengthen(path: &Path, end: u64) -> io::Result<()> {
    let file = File::options().write(true).create(true).truncate(false).open(path)?;
    if file.metadata()?.len() < car::HEADER.len() as u64 {
        file.write_all_at(car::HEADER, 0)?;
    }
    file.set_len(end)?;
    file.sync_all()
}

fn length_of(path: &Path) -> io::Result<u64> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

fn segment_ids(dir: &Path) -> io::Result<Vec<u32>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(dir)? {
        ids.extend(entry?.file_name().to_str().and_then(file::id_of));
    }
    Ok(ids)
}

/// Replaces the old index with the new one. A crash in between leaves no index, which the next start reports.
fn swap(dir: &Path, new: &Path, index: &Path, old: &Path) -> io::Result<()> {
    // Committed data that can no longer be read would make the new index look outdated.
    watermark::remove(dir)?;
    if index.exists() {
        remove_dir(old)?;
        fs::rename(index, old)?;
    }
    fs::rename(new, index)?;
    File::open(dir)?.sync_all()
}

/// Why reading a segment failed.
enum RebuildError {
    Io(io::Error),
    Index(IndexError),
}

impl RebuildError {
    fn at(self, segment: &Path, index: &Path) -> OpenError {
        match self {
            Self::Io(error) => at(segment)(error),
            Self::Index(error) => index_error(index)(error),
        }
    }
}

impl From<io::Error> for RebuildError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<IndexError> for RebuildError {
    fn from(error: IndexError) -> Self {
        Self::Index(error)
    }
}

/// Blocks that were found and are not in the index yet.
#[derive(Default)]
struct Batch(std::collections::HashMap<Multihash<64>, Stored>);

struct Rebuild {
    index: Index,
    dir: PathBuf,
    batch: Batch,
    next_block: u64,
    held: HoldTotals,
    progress: VerifyProgress,
}

impl Rebuild {
    /// Reads one segment completely.
    fn segment(&mut self, id: u32) -> Result<(), RebuildError> {
        let path = file::path(&self.dir, id);
        let file = File::open(&path)?;
        let mut record = SegmentRecord { end: car::HEADER.len() as u64, ..SegmentRecord::default() };
        let mut from = record.end;
        while let Some((cid, location)) = self.next_block(&file, id, from)? {
            from = location.end();
            record.end = from;
            self.progress.blocks += 1;
            self.progress.bytes += u64::from(location.length);
            if self.add(*cid.hash(), location)? {
                record.add(&location);
            }
        }
        self.write_batch(Some((id, record)))?;
        Ok(())
    }

    /// The next section at or after `from` whose bytes match its CID. Everything in between counts as one damaged place.
    fn next_block(
        &mut self,
        file: &File,
        segment: u32,
        from: u64,
    ) -> Result<Option<(Cid, Location)>, RebuildError> {
        if let Some(found) = block_at(file, segment, from)? {
            return Ok(Some(found));
        }
        let length = file.metadata()?.len();
        // If the section's bytes are damaged and its head is not, the next section is where the head says.
        let next = head_at(file, from)?.map(|head| from + (head.head_len + head.data_len) as u64);
        let next = next.filter(|next| *next <= length);
        let mut found = None;
        if let Some(next) = next {
            found = block_at(file, segment, next)?;
        }
        if found.is_none() {
            found = search(file, segment, from + 1, length)?;
        }
        // After the last section there may be padding, or data that was never committed.
        if found.is_some() || next.is_some() {
            self.damage(segment, from);
        }
        Ok(found)
    }

    fn damage(&mut self, segment: u32, at: u64) {
        tracing::warn!(segment, at, "failed to read a block in a segment; it is skipped");
        self.progress.damaged += 1;
    }

    /// Adds a block, unless it was added already: a crash during a move may have left two copies.
    fn add(&mut self, hash: Multihash<64>, location: Location) -> Result<bool, RebuildError> {
        if self.batch.0.contains_key(&hash) || self.index.find(&hash)?.is_some() {
            return Ok(false);
        }
        self.batch.0.insert(hash, Stored { id: self.next_block, at: location });
        self.next_block += 1;
        self.held.stats.blocks += 1;
        self.held.stats.bytes += u64::from(location.length);
        if self.batch.0.len() >= BATCH {
            self.write_batch(None)?;
        }
        Ok(true)
    }

    fn write_batch(&mut self, segment: Option<(u32, SegmentRecord)>) -> Result<(), IndexError> {
        let batch = std::mem::take(&mut self.batch);
        self.index.change(false, |changes| {
            for (hash, stored) in batch.0 {
                changes.put_block(&hash, &stored);
                let (block, length) = (stored.id, stored.at.length);
                changes.put_edge(&Edge { hold: GUARD, hash, block, length });
            }
            if let Some((id, record)) = segment {
                changes.put_segment(id, &record);
            }
        })
    }

    /// Writes the hold and the totals, and makes the index durable.
    fn finish(mut self, ids: &[u32], guard: &HoldName) -> Result<VerifyProgress, IndexError> {
        self.progress.blocks_total = self.progress.blocks;
        let record = HoldRecord { name: guard.clone(), sealed: true, stats: self.held.stats };
        self.index.change(true, |changes| {
            changes.put_hold(GUARD, &record);
            changes.name_hold(guard, Some(GUARD));
            changes.set_hold_totals(&self.held);
            changes.set_next_block(self.next_block);
            changes.set_next_segment(ids.last().map_or(1, |last| last + 1));
        })?;
        self.index.flush()?;
        Ok(self.progress)
    }
}

/// The section at an offset, if there is one and its bytes match its CID.
fn block_at(file: &File, segment: u32, at: u64) -> io::Result<Option<(Cid, Location)>> {
    let Some(head) = head_at(file, at)? else { return Ok(None) };
    let offset = at + head.head_len as u64;
    let mut data = vec![0; head.data_len];
    match file.read_exact_at(&mut data, offset) {
        Err(error) if file::is_unreadable(&error) => return Ok(None),
        read => read?,
    }
    let Ok(offset) = u32::try_from(offset) else { return Ok(None) };
    let location = Location { segment, offset, length: head.data_len as u32, head: head.head_len as u8 };
    Ok(Block::verify(head.cid, Bytes::from(data)).is_ok().then_some((head.cid, location)))
}

/// Searches byte by byte for the next section whose bytes match its CID. Only what looks like a section head is verified,
/// so that this costs little more than reading the file.
fn search(file: &File, segment: u32, from: u64, length: u64) -> io::Result<Option<(Cid, Location)>> {
    let mut reader = file.try_clone()?;
    let mut base = from;
    let mut bytes = Vec::new();
    while base < length {
        reader.seek(io::SeekFrom::Start(base))?;
        bytes.clear();
        reader.by_ref().take((SEARCH_BYTES + car::SECTION_HEAD_MAX) as u64).read_to_end(&mut bytes)?;
        for at in 0..bytes.len().min(SEARCH_BYTES) {
            let is_head = car::read_head(&bytes[at..]).is_some_and(|head| head.cid.hash().size() >= 32);
            if is_head && let Some(found) = block_at(file, segment, base + at as u64)? {
                return Ok(Some(found));
            }
        }
        base += SEARCH_BYTES as u64;
    }
    Ok(None)
}
