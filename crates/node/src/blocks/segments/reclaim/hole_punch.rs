//! Gives the space of dead blocks inside a segment back to the file system.
//!
//! The segment remains a valid CAR: the section of a dead block is rewritten as one of zeros, whose whole pages are
//! holes. A segment with another hard link (a backup) is never changed in place; its space is reclaimed by
//! compaction.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use bytes::Bytes;
use cid::{Cid, Version};

use super::super::index::Location;
use super::super::storage::file::{PAGE_BYTES, path};
use crate::{Block, car, dag};

/// The most lengths whose CID of zeros is cached.
const ZEROS_MAX: usize = 64;
const SHA2_256: u64 = 0x12;

/// A cache of the CIDs of blocks of zeros, because each costs a hash.
#[derive(Default)]
pub(crate) struct Zeros(HashMap<usize, Cid>);

impl Zeros {
    fn cid(&mut self, length: usize) -> Option<Cid> {
        if let Some(cid) = self.0.get(&length) {
            return Some(*cid);
        }
        let block = Block::hash(Version::V1, dag::RAW, SHA2_256, Bytes::from(vec![0; length])).ok()?;
        if self.0.len() >= ZEROS_MAX {
            self.0.clear();
        }
        self.0.insert(length, *block.cid());
        Some(*block.cid())
    }

    /// The head that turns the section of a dead block into one of zeros: a length and a raw CID. `None` if the section
    /// is too short for it.
    fn head(&mut self, location: &Location) -> Option<Vec<u8>> {
        let section = (location.end() - location.start()) as usize;
        let cid_len = car::ZEROS_CID_LEN;
        let data_len = (1..=4).find_map(|length_len| {
            let data_len = section.checked_sub(length_len + cid_len)?;
            (car::varint_len(cid_len + data_len) == length_len).then_some(data_len)
        })?;
        Some(car::section_head(&self.cid(data_len)?, data_len))
    }
}

/// Turns dead blocks of one segment into zeros and punches holes for their pages. Returns the bytes that were given back:
/// 0 if the file system does not support holes, if the segment has another hard link, or if it does not exist.
pub(crate) fn punch(dir: &Path, segment: u32, dead: &[Location], zeros: &mut Zeros) -> io::Result<u64> {
    let file = match OpenOptions::new().write(true).open(path(dir, segment)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    if metadata.nlink() > 1 {
        return Ok(0);
    }
    let mut freed_bytes = 0;
    for location in dead.iter().filter(|location| location.end() <= metadata.len()) {
        match punch_one(&file, location, zeros) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(freed_bytes),
            punched => freed_bytes += punched?,
        }
    }
    Ok(freed_bytes)
}

fn punch_one(file: &File, location: &Location, zeros: &mut Zeros) -> io::Result<u64> {
    let Some(mut front) = zeros.head(location) else { return Ok(0) };
    let page = PAGE_BYTES as u64;
    let first = (location.start() + front.len() as u64).next_multiple_of(page);
    let last = location.end() - location.end() % page;
    if first >= last {
        return Ok(0);
    }
    punch_hole(file, first, last - first)?;
    front.resize((first - location.start()) as usize, 0);
    file.write_all_at(&front, location.start())?;
    file.write_all_at(&vec![0; (location.end() - last) as usize], last)?;
    Ok(last - first)
}

/// Punches a hole; `Unsupported` if the file system has none.
#[cfg(target_os = "linux")]
fn punch_hole(file: &File, start: u64, length: u64) -> io::Result<()> {
    use rustix::fs::FallocateFlags;
    Ok(rustix::fs::fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, start, length)?)
}

#[cfg(not(target_os = "linux"))]
fn punch_hole(_: &File, _: u64, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
