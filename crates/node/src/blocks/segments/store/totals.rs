//! Totals over the store.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::super::storage::queue::failed;
use super::SegmentBlocks;
use crate::blocks::{BlocksError, Totals};

impl SegmentBlocks {
    /// The bytes of all distinct blocks. Unlike [`totals`], it does not ask the file system.
    ///
    /// [`totals`]: crate::Blocks::totals
    pub(crate) fn live_bytes(&self) -> Result<u64, BlocksError> {
        let segments = self.shared.index.segments().map_err(failed)?;
        Ok(segments.iter().map(|(_, record)| record.live_bytes).sum())
    }

    pub(crate) fn compute_totals(&self) -> Result<Totals, BlocksError> {
        let index = &self.shared.index;
        let segments = index.segments().map_err(failed)?;
        let held = index.hold_totals().map_err(failed)?;
        Ok(Totals {
            segments: segments.len() as u64,
            blocks: segments.iter().map(|(_, record)| record.live_blocks).sum(),
            bytes: segments.iter().map(|(_, record)| record.live_bytes).sum(),
            holds: held.holds,
            held_blocks: held.stats.blocks,
            held_bytes: held.stats.bytes,
            disk_bytes: disk_bytes(&self.dir).map_err(failed)?,
            damaged_blocks: self.shared.state().damaged.len() as u64,
        })
    }
}

/// The disk usage of a folder, as the file system counts it.
fn disk_bytes(path: &Path) -> io::Result<u64> {
    let count = || -> io::Result<u64> {
        let metadata = path.symlink_metadata()?;
        let mut bytes = metadata.blocks() * 512;
        if metadata.is_dir() {
            for entry in std::fs::read_dir(path)? {
                bytes += disk_bytes(&entry?.path())?;
            }
        }
        Ok(bytes)
    };
    match count() {
        // It was deleted while its folder was read.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        counted => counted,
    }
}
