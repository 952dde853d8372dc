//! The mark: up to where segments were committed, noted beside the index.
//!
//! After a crash, segments may have more than the index knows: what was never committed, which is cut off. An
//! index from an older backup looks just the same. The mark tells the two apart: it is written after the
//! index was synced, so that it can never be ahead of the index that it belongs to. It is not synced each time;
//! when a power cut sets it back, it only says less.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

const NAME: &str = "WATERMARK";
const LENGTH: usize = 24;

/// The open mark.
pub(crate) struct Watermark(File);

/// What it says: a segment, and how much of it was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CommitPoint {
    pub(crate) segment: u32,
    pub(crate) end: u64,
}

impl Watermark {
    /// Opens the mark of the store in `dir`, and reads it; `None` if there was none, or half of one.
    pub(crate) fn open(dir: &Path) -> io::Result<(Self, Option<CommitPoint>)> {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(dir.join(NAME))?;
        let mut bytes = [0; LENGTH];
        let committed = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => decode(&bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => return Err(error),
        };
        Ok((Self(file), committed))
    }

    /// Notes what was committed. A failure costs nothing but the check at the next start.
    pub(crate) fn write(&self, committed: CommitPoint) {
        if let Err(error) = self.0.write_all_at(&encode(committed), 0) {
            tracing::debug!(%error, "the mark was not written");
        }
    }
}

/// Takes the mark of a store away that is made whole again.
pub(crate) fn remove(dir: &Path) -> io::Result<()> {
    match std::fs::remove_file(dir.join(NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Each number and its complement, so that half a mark is none.
fn encode(CommitPoint { segment, end }: CommitPoint) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[..4].copy_from_slice(&segment.to_be_bytes());
    bytes[4..12].copy_from_slice(&end.to_be_bytes());
    bytes[12..16].copy_from_slice(&(!segment).to_be_bytes());
    bytes[16..].copy_from_slice(&(!end).to_be_bytes());
    bytes
}

fn decode(bytes: &[u8; LENGTH]) -> Option<CommitPoint> {
    let (segment, rest) = bytes.split_first_chunk()?;
    let (end, _) = rest.split_first_chunk()?;
    let committed = CommitPoint { segment: u32::from_be_bytes(*segment), end: u64::from_be_bytes(*end) };
    (encode(committed) == *bytes).then_some(committed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_back_and_half_of_it_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (watermark, before) = Watermark::open(dir.path()).unwrap();
        assert_eq!(before, None);
        let committed = CommitPoint { segment: 7, end: 1 << 40 };
        watermark.write(committed);
        assert_eq!(Watermark::open(dir.path()).unwrap().1, Some(committed));
        watermark.0.write_all_at(&[9], 3).unwrap();
        assert_eq!(Watermark::open(dir.path()).unwrap().1, None);
    }
}
