//! Opens a store: checks that index and segments belong together, and truncates data that was never committed.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::super::index::{Index, IndexError, SegmentRecord};
use super::SegmentConfig;
use super::error::OpenError;
use super::file::{self, Appender, Readers};
use super::queue::{Shared, damaged_in};
use super::watermark::{CommitPoint, Watermark};
use super::writer::Writer;

const VERSION: &str = "pinfold blocks 3\n";
/// Offsets have 32 bits. This leaves room for a block that extends past the end.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;

pub(crate) fn open(
    dir: &Path,
    config: &SegmentConfig,
) -> Result<(Arc<Shared>, Arc<Readers>, Writer), OpenError> {
    let segments = dir.join("segments");
    let index_path = dir.join("index");
    let failed = |error| index_error(&index_path)(error);
    let is_new = check_version(dir, &segments, &index_path)?;
    if is_new {
        // Left behind by an earlier start that did not complete.
        remove_dir(&index_path).map_err(at(&index_path))?;
    }
    fs::create_dir_all(&segments).map_err(at(&segments))?;
    let index = Index::open(&index_path).map_err(failed)?;
    let (watermark, committed) = Watermark::open(dir).map_err(at(dir))?;
    if is_new {
        write_version(dir).map_err(at(dir))?;
    }
    let records = index.segments().map_err(failed)?;
    let next_segment = index.next_segment().map_err(failed)?;
    check_watermark(&segments, committed, &records, next_segment)?;
    remove_unknown(&segments, &records, next_segment)?;
    for (id, record) in &records {
        if record.live_blocks > 0 {
            check_segment(&segments, *id, record)?;
        }
    }
    let last_hold = index.last_hold().map_err(failed)?;
    let damaged = damaged_in(&index).map_err(failed)?;
    let shared = Arc::new(Shared::new(index, last_hold, damaged));
    let readers = Arc::new(Readers::new(&segments));
    let config = SegmentConfig { segment_bytes: config.segment_bytes.min(SEGMENT_BYTES_MAX), ..*config };
    let mut writer =
        Writer::new(Arc::clone(&shared), Arc::clone(&readers), segments.clone(), &config, watermark)
            .map_err(failed)?;
    if let Some((id, record)) = records.last()
        && record.live_blocks > 0
        && record.end < config.segment_bytes
        && has_one_link(&segments, *id)
    {
        let appender = Appender::resume(&segments, *id, record.end).map_err(at(&segments))?;
        writer.appender = Some(appender);
        writer.committed = Some(record.end);
    }
    Ok((shared, readers, writer))
}

/// Whether a segment has no other hard link: a backup that links to it must not change.
fn has_one_link(dir: &Path, id: u32) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(file::path(dir, id)).is_ok_and(|metadata| metadata.nlink() == 1)
}

/// Refuses an index that is older than the watermark.
fn check_watermark(
    dir: &Path,
    committed: Option<CommitPoint>,
    records: &[(u32, SegmentRecord)],
    next_segment: u32,
) -> Result<(), OpenError> {
    let Some(CommitPoint { segment, end }) = committed else { return Ok(()) };
    let known = records.binary_search_by_key(&segment, |(id, _)| *id).map(|at| records[at].1.end);
    // A segment that is missing in the index, although its id was used, has been freed since.
    let is_stale = known.map_or(segment >= next_segment, |known| known < end);
    if is_stale { Err(OpenError::StaleIndex { path: file::path(dir, segment) }) } else { Ok(()) }
}

/// Whether the store has to be created.
fn check_version(dir: &Path, segments: &Path, index: &Path) -> Result<bool, OpenError> {
    let path = dir.join("VERSION");
    let has_segments = match fs::read_dir(segments) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(at(segments)(error)),
    };
    match fs::read_to_string(&path) {
        Ok(found) if found != VERSION => {
            Err(OpenError::Version { path: dir.to_owned(), found, expected: VERSION })
        }
        Ok(_) if has_segments && !index.exists() => Err(OpenError::NoIndex { path: dir.to_owned() }),
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if has_segments {
                Err(OpenError::NoIndex { path: dir.to_owned() })
            } else {
                Ok(true)
            }
        }
        Err(error) => Err(at(&path)(error)),
    }
}

/// Written last, so that a store whose creation was interrupted is created again.
pub(crate) fn write_version(dir: &Path) -> io::Result<()> {
    let half = dir.join("VERSION.new");
    fs::write(&half, VERSION)?;
    File::open(&half)?.sync_all()?;
    fs::rename(&half, dir.join("VERSION"))?;
    File::open(dir)?.sync_all()?;
    // The folder itself may be new: if its directory entry is lost, so are its contents.
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Removes segments that were created and never committed. At most one of them can follow the last committed one.
fn remove_unknown(dir: &Path, records: &[(u32, SegmentRecord)], next_segment: u32) -> Result<(), OpenError> {
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let entry = entry.map_err(at(dir))?;
        let Some(id) = entry.file_name().to_str().and_then(file::id_of) else { continue };
        if records.binary_search_by_key(&id, |(id, _)| *id).is_ok() {
            continue;
        }
        if id > next_segment {
            return Err(OpenError::StaleIndex { path: entry.path() });
        }
        tracing::info!(segment = id, "removed a segment that was never committed");
        remove(dir, id)?;
    }
    Ok(())
}

/// Removes a folder and its contents, if it exists.
pub(crate) fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn remove(dir: &Path, id: u32) -> Result<(), OpenError> {
    let path = file::path(dir, id);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Checks that a segment has its committed length, and truncates the rest.
fn check_segment(dir: &Path, id: u32, record: &SegmentRecord) -> Result<(), OpenError> {
    let path = file::path(dir, id);
    let found = match fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(at(&path)(error)),
    };
    if found < record.end {
        return Err(OpenError::SegmentLost { path, found, expected: record.end });
    }
    // A file with another hard link, which may be a backup's, is left unchanged. Nothing is appended to it.
    if found > record.end && has_one_link(dir, id) {
        tracing::info!(segment = id, bytes = found - record.end, "truncating an uncommitted tail");
        let file = File::options().write(true).open(&path).map_err(at(&path))?;
        file.set_len(record.end).map_err(at(&path))?;
    }
    Ok(())
}

pub(crate) fn at(path: &Path) -> impl Fn(io::Error) -> OpenError {
    move |error| OpenError::Io { path: path.to_owned(), error }
}

pub(crate) fn index_error(path: &Path) -> impl Fn(IndexError) -> OpenError {
    move |error| OpenError::Index { path: path.to_owned(), reason: error.to_string() }
}
