//! Segment files: appending to the active one, reading from all.
//!
//! Appends go through one aligned buffer, which is written with `O_DIRECT` if the file system supports it, and through
//! the page cache otherwise. A tail that is not a whole page is padded with zeros to the end of the page, and written
//! again when more data follows. The bytes committed before are the same in both writes, so a torn write cannot damage
//! them. Only the length that the index records counts.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cid::Cid;
use lru::LruCache;

use super::super::index::Location;
use crate::car;

/// Bytes of one write. Larger writes gain nothing.
const CHUNK_BYTES: usize = 4 * 1024 * 1024;
/// The alignment of `O_DIRECT`, and the unit in which holes are punched.
pub(crate) const PAGE_BYTES: usize = 4096;
/// Reads of at least this length are announced to the kernel.
const READ_AHEAD_BYTES: u32 = 128 * 1024;
/// Files kept open for reading.
const OPEN_FILES_MAX: std::num::NonZeroUsize = std::num::NonZeroUsize::MIN.saturating_add(63);

/// A page-aligned buffer of whole pages.
struct Pages {
    memory: Vec<u8>,
    start: usize,
}

impl Pages {
    fn new() -> Self {
        let memory = vec![0; CHUNK_BYTES + PAGE_BYTES];
        let start = memory.as_ptr().align_offset(PAGE_BYTES).min(PAGE_BYTES);
        Self { memory, start }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + CHUNK_BYTES]
    }
}

/// The end of the active segment.
pub(crate) struct Appender {
    pub(crate) id: u32,
    path: PathBuf,
    file: File,
    is_direct: bool,
    pages: Pages,
    /// Bytes of `pages` that are filled.
    filled: usize,
    /// The file offset of `pages`; a multiple of the page size.
    base: u64,
    /// Whether `pages` has data that has not been written to the file.
    dirty: bool,
    unsynced: bool,
}

impl Appender {
    /// Creates a segment. An existing file of that name was never committed and is overwritten.
    pub(crate) fn create(dir: &Path, id: u32) -> io::Result<Self> {
        let mut appender = Self::with_file(dir, id, OpenOptions::new().create(true).truncate(true))?;
        File::open(dir)?.sync_all()?;
        appender.fill(car::HEADER)?;
        Ok(appender)
    }

    /// Continues a segment that is committed up to `end`.
    pub(crate) fn resume(dir: &Path, id: u32, end: u64) -> io::Result<Self> {
        let mut appender = Self::with_file(dir, id, &mut OpenOptions::new())?;
        appender.filled = (end % PAGE_BYTES as u64) as usize;
        appender.base = end - appender.filled as u64;
        let (base, filled) = (appender.base, appender.filled);
        File::open(&appender.path)?.read_exact_at(&mut appender.pages.bytes()[..filled], base)?;
        Ok(appender)
    }

    fn with_file(dir: &Path, id: u32, options: &mut OpenOptions) -> io::Result<Self> {
        let path = path(dir, id);
        options.write(true);
        let (file, is_direct) = match open_direct(options, &path) {
            Ok(file) => (file, true),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => (options.open(&path)?, false),
            Err(error) => return Err(error),
        };
        let pages = Pages::new();
        Ok(Self { id, path, file, is_direct, pages, filled: 0, base: 0, dirty: false, unsynced: false })
    }

    /// The offset of the next byte.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.filled as u64
    }

    /// The offset up to which no page is written again.
    pub(crate) fn whole_pages(&self) -> u64 {
        self.base
    }

    /// The offset up to which everything was written to the file, synced or not.
    pub(crate) fn written(&self) -> u64 {
        if self.dirty { self.base } else { self.end() }
    }

    /// Appends bytes, and writes the buffer whenever it is full.
    pub(crate) fn fill(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let filled = self.filled;
            let room = &mut self.pages.bytes()[filled..];
            let (now, later) = bytes.split_at(bytes.len().min(room.len()));
            room[..now.len()].copy_from_slice(now);
            self.filled += now.len();
            self.dirty = true;
            bytes = later;
            if self.filled == CHUNK_BYTES {
                self.write_pages()?;
            }
        }
        Ok(())
    }

    /// Writes the tail and syncs the file.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if self.dirty {
            self.write_pages()?;
        }
        if self.unsynced {
            self.file.sync_data()?;
            self.unsynced = false;
        }
        Ok(())
    }

    fn write_pages(&mut self) -> io::Result<()> {
        let (base, filled) = (self.base, self.filled);
        let padded = filled.next_multiple_of(PAGE_BYTES);
        let pages = self.pages.bytes();
        pages[filled..padded].fill(0);
        self.unsynced = true;
        match self.file.write_all_at(&pages[..padded], base) {
            // Some file systems accept the flag at open and refuse the write.
            Err(error) if self.is_direct && error.kind() == io::ErrorKind::InvalidInput => {
                self.file = OpenOptions::new().write(true).open(&self.path)?;
                self.is_direct = false;
                self.file.write_all_at(&pages[..padded], base)?;
            }
            written => written?,
        }
        let whole = filled - filled % PAGE_BYTES;
        pages.copy_within(whole..padded, 0);
        self.base += whole as u64;
        self.filled -= whole;
        self.dirty = false;
        Ok(())
    }

    /// Truncates the padding of a segment that is finished.
    pub(crate) fn finish(self) -> io::Result<()> {
        let end = self.end();
        self.file.set_len(end)
    }

    /// Truncates what was appended after `committed`. Deletes a segment of which nothing was committed.
    pub(crate) fn abandon(self, committed: Option<u64>) -> io::Result<()> {
        match committed {
            Some(end) => self.file.set_len(end),
            None => std::fs::remove_file(&self.path),
        }
    }
}

/// Opens a file for writes that bypass the page cache; `InvalidInput` if that is not supported.
#[cfg(target_os = "linux")]
fn open_direct(options: &OpenOptions, path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let direct = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    options.clone().custom_flags(direct).open(path)
}

#[cfg(not(target_os = "linux"))]
fn open_direct(_: &OpenOptions, _: &Path) -> io::Result<File> {
    Err(io::ErrorKind::InvalidInput.into())
}

/// A hint to the kernel about a section: read it at once instead of in the small steps of its own read-ahead, or drop it
/// from the page cache.
#[derive(Clone, Copy)]
enum Advice {
    WillNeed,
    DontNeed,
}

#[cfg(target_os = "linux")]
fn advise(file: &File, location: &Location, advice: Advice) {
    let length = std::num::NonZeroU64::new(location.end() - location.start());
    let advice = match advice {
        Advice::WillNeed => rustix::fs::Advice::WillNeed,
        Advice::DontNeed => rustix::fs::Advice::DontNeed,
    };
    let _ = rustix::fs::fadvise(file, location.start(), length, advice);
}

#[cfg(not(target_os = "linux"))]
fn advise(_: &File, _: &Location, _: Advice) {}

/// The path of a segment's file.
pub(crate) fn path(dir: &Path, id: u32) -> PathBuf {
    dir.join(format!("{id:010}.car"))
}

/// The id of a segment from its file name.
pub(crate) fn id_of(name: &str) -> Option<u32> {
    name.strip_suffix(".car")?.parse().ok()
}

/// Reads from segments, and caches some open files.
pub(crate) struct Readers {
    dir: PathBuf,
    open: Mutex<LruCache<u32, Arc<File>>>,
}

impl Readers {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), open: Mutex::new(LruCache::new(OPEN_FILES_MAX)) }
    }

    /// Reads a block's bytes.
    pub(crate) fn read(&self, location: &Location) -> io::Result<Vec<u8>> {
        let file = self.file(location.segment)?;
        let mut bytes = vec![0; location.length as usize];
        if location.length >= READ_AHEAD_BYTES {
            advise(&file, location, Advice::WillNeed);
        }
        file.read_exact_at(&mut bytes, u64::from(location.offset))?;
        Ok(bytes)
    }

    /// Reads the CID in the head of a block's section, and the block's bytes. Reads from the disk instead of the page cache,
    /// and leaves nothing in the page cache. The CID is `None` if the head is malformed.
    pub(crate) fn read_section(&self, location: &Location) -> io::Result<(Option<Cid>, Vec<u8>)> {
        let file = self.file(location.segment)?;
        let mut bytes = vec![0; (location.end() - location.start()) as usize];
        advise(&file, location, Advice::DontNeed);
        file.read_exact_at(&mut bytes, location.start())?;
        advise(&file, location, Advice::DontNeed);
        let data = bytes.split_off(usize::from(location.head));
        let head = car::read_head(&bytes);
        let cid = head.filter(|head| head.data_len == data.len() && head.head_len == bytes.len());
        Ok((cid.map(|head| head.cid), data))
    }

    /// The open file of a segment.
    pub(crate) fn file(&self, id: u32) -> io::Result<Arc<File>> {
        // Opened under the lock, so that no file enters the cache after it was removed from it.
        let mut cache = self.cache();
        if let Some(file) = cache.get(&id) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(File::open(path(&self.dir, id))?);
        cache.put(id, Arc::clone(&file));
        Ok(file)
    }

    /// Removes a deleted segment from the cache, so that an open file does not keep its space allocated and is not mistaken
    /// for a new file of the same id.
    pub(crate) fn forget(&self, id: u32) {
        self.cache().pop(&id);
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, LruCache<u32, Arc<File>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The head of the section at an offset; `None` if there is no section.
pub(crate) fn head_at(file: &File, at: u64) -> io::Result<Option<car::SectionHead>> {
    let mut bytes = [0; car::SECTION_HEAD_MAX];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], at + filled as u64)? {
            0 => break,
            more => filled += more,
        }
    }
    Ok(car::read_head(&bytes[..filled]))
}

/// Whether a read failed because the file is too short or the disk failed, and not because memory or file descriptors
/// ran out.
pub(crate) fn is_unreadable(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    error.kind() == io::ErrorKind::UnexpectedEof || error.raw_os_error() == Some(EIO)
}

/// Bytes that an unprivileged process can write to the file system of `dir`.
pub(crate) fn free_bytes(dir: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appended_bytes_are_read_back_after_each_sync() {
        let dir = tempfile::tempdir().unwrap();
        let mut appender = Appender::create(dir.path(), 7).unwrap();
        let mut expected = car::HEADER.to_vec();
        for (round, length) in
            [1, 4095, 4096, 1, 70_000, CHUNK_BYTES, 5 * 1024 * 1024 + 3].into_iter().enumerate()
        {
            let piece: Vec<u8> = (0..length).map(|at| (at + round) as u8).collect();
            appender.fill(&piece).unwrap();
            expected.extend(&piece);
            appender.sync().unwrap();
            assert_eq!(appender.end(), expected.len() as u64);
            let file = std::fs::read(path(dir.path(), 7)).unwrap();
            assert!(file.starts_with(&expected), "round {round}");
            if round == 3 {
                appender = Appender::resume(dir.path(), 7, expected.len() as u64).unwrap();
            }
        }
        appender.finish().unwrap();
        assert!(std::fs::read(path(dir.path(), 7)).unwrap() == expected, "finished without padding");
    }
}
