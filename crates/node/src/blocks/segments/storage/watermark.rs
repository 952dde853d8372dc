//! The commit watermark: how far segments were committed, recorded outside the index.
//!
//! After a crash, segments may contain more than the index records: data that was never committed, which is truncated.
//! An index restored from an older backup looks the same. The watermark tells the two apart. It is written after the
//! index was synced, so it is never ahead of the index that it belongs to. It is not synced itself: when power is lost,
//! an older watermark is still correct, but detects less.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

const NAME: &str = "WATERMARK";
const LENGTH: usize = 24;

/// The open watermark file.
pub(crate) struct Watermark(File);

/// The contents: a segment, and its committed length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CommitPoint {
    pub(crate) segment: u32,
    pub(crate) end: u64,
}

impl Watermark {
    /// Opens and reads the watermark of the store in `dir`. `None` if there was none, or if it was torn.
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

    /// Records a commit. A failure only weakens the check at the next start.
    pub(crate) fn write(&self, committed: CommitPoint) {
        if let Err(error) = self.0.write_all_at(&encode(committed), 0) {
            tracing::debug!(%error, "failed to write the commit watermark");
        }
    }
}

/// Removes the watermark of a store whose index is rebuilt.
pub(crate) fn remove(dir: &Path) -> io::Result<()> {
    match std::fs::remove_file(dir.join(NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Each number and its complement, so that a torn write is detected.
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
    fn a_torn_watermark_is_ignored() {
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
