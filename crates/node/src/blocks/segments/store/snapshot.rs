//! A consistent copy of the segments while the store is in use.
//!
//! While a [`ReclaimPause`] exists, no block is freed or moved. The active segment is finished. From then on, only the dead
//! blocks of a segment change, and not if the segment has another hard link. So a hard link is as good as a copy.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::super::storage::error::is_full;
use super::super::storage::file;
use super::super::storage::queue::{Op, Shared, failed};
use super::SegmentBlocks;
use crate::blocks::BlocksError;

/// A pause of space reclamation. While it exists, every committed block stays where it is, and no space is reclaimed. Keep
/// it only as long as a backup takes.
#[must_use = "dropping it resumes reclaim"]
pub struct ReclaimPause(Arc<Shared>);

impl std::fmt::Debug for ReclaimPause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReclaimPause").finish_non_exhaustive()
    }
}

impl Drop for ReclaimPause {
    fn drop(&mut self) {
        self.0.resume_reclaim();
    }
}

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub segments: u64,
    /// The sum of the lengths of the files.
    pub bytes: u64,
    /// Whether the files are hard links, which take no space of their own.
    pub linked: bool,
}

impl SegmentBlocks {
    /// Pauses space reclamation until the guard is dropped.
    pub fn pause_reclaim(&self) -> ReclaimPause {
        self.shared.pause_reclaim();
        ReclaimPause(Arc::clone(&self.shared))
    }

    /// Copies all segments that were committed before the call to `dir`, an empty folder, and syncs it. Uses hard links if the
    /// file system supports them. [`rebuild_index`](Self::rebuild_index) creates an index of the copy. Dropping the future
    /// may leave a part of the copy behind.
    ///
    /// # Errors
    /// As for [`Blocks::commit`](crate::Blocks::commit); [`BlocksError::Full`], [`BlocksError::Failed`] if the
    /// folder cannot be written.
    pub async fn snapshot(&self, dir: &Path) -> Result<Snapshot, BlocksError> {
        let pause = self.pause_reclaim();
        let (reply, rotated) = oneshot::channel();
        {
            let mut state = self.shared.state_with_room()?;
            self.shared.push(&mut state, Op::Rotate { reply });
        }
        let ids = rotated.await.unwrap_or(Err(BlocksError::Closed))?;
        let (from, to) = (self.dir.join("segments"), dir.to_owned());
        let copied = tokio::task::spawn_blocking(move || {
            let copied = copy(&from, &to, &ids);
            drop(pause);
            copied
        });
        let copied = copied.await.map_err(|_| BlocksError::Closed)?;
        copied.map_err(|error| if is_full(&error) { BlocksError::Full } else { failed(error) })
    }
}

fn copy(from: &Path, to: &Path, ids: &[u32]) -> io::Result<Snapshot> {
    let mut snapshot = Snapshot { linked: true, ..Snapshot::default() };
    for id in ids {
        let (source, target) = (file::path(from, *id), file::path(to, *id));
        if !snapshot.linked || fs::hard_link(&source, &target).is_err() {
            snapshot.linked = false;
            fs::copy(&source, &target)?;
            File::open(&target)?.sync_all()?;
        }
        snapshot.segments += 1;
        snapshot.bytes += fs::metadata(&target)?.len();
    }
    File::open(to)?.sync_all()?;
    Ok(snapshot)
}
