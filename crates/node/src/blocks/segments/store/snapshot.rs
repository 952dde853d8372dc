//! A consistent copy of the segments beside a store that goes on.
//!
//! While a [`ReclaimPause`] lives nothing is freed, moved or given back. The segment that is appended to is ended; all
//! others never change from then on but for their dead blocks, and those of a segment with another name are left
//! alone ([`super::punch`]). So a hard link is as good as a copy.

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

/// While it lives, every block that was committed stays where it is. Space waits to be given back, so keep it for
/// as long as a backup takes and no longer.
#[must_use = "dropping it lets freeing go on"]
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
    /// Segment files.
    pub segments: u64,
    /// Their lengths added up.
    pub bytes: u64,
    /// Whether they are hard links, and take no space of their own for now.
    pub linked: bool,
}

impl SegmentBlocks {
    /// Keeps everything that is committed where it is, until the guard is dropped.
    pub fn pause_reclaim(&self) -> ReclaimPause {
        self.shared.pause_reclaim();
        ReclaimPause(Arc::clone(&self.shared))
    }

    /// Puts all that was committed before the call into `dir`, an empty folder: segments as they are, by hard links
    /// where the file system makes them, else as copies; synced. An index can be made of them by
    /// [`rebuild_index`](Self::rebuild_index). Dropping the future may leave some of it behind.
    ///
    /// # Errors
    /// As for [`Blocks::commit`](crate::Blocks::commit); [`BlocksError::Full`], [`BlocksError::Failed`] when the
    /// folder can't be written.
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
