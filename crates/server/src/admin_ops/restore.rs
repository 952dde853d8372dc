//! Restores: a data folder made from a backup, offline.
//!
//! While it goes on, a file in the data folder says so, and nothing else takes the folder for a Pinfold. A
//! restore that was interrupted is run again; it takes away what the first one made, which that file names.
//!
//! Holds are not in a backup: the index is made anew from the segments, all blocks are kept by one guard, and
//! every pinned placement is walked again, which the running service does while its pins stay pinned. The
//! guard goes when all of them have settled.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use pinfold_cluster::UPLOAD_PREFIX;
use pinfold_model::{Clock, SystemClock};
use pinfold_node::HoldName;
use pinfold_node::blocks::{SegmentBlocks, VerifyProgress};
use pinfold_store::Store;

use super::backup::{
    self, DATABASE, IDENTITY, Manifest, SEGMENTS, SETTINGS, copy_private, make_dir, on_a_thread, segments_of,
    sync_dir,
};
use super::blocks_place;
use crate::config::Config;
use crate::data_dir::{DataDir, DataDirLock};

/// What may lie in a data folder that counts as empty: the lock, settings that the operator put there, and what a
/// file system has at its top.
const HARMLESS: [&str; 3] = ["pinfold.lock", SETTINGS, "lost+found"];

/// A restore that is about to begin.
pub(crate) struct Restore {
    pub(crate) backup: PathBuf,
    pub(crate) dir: DataDir,
    /// The configuration file that was named, if one was.
    pub(crate) config: Option<PathBuf>,
    /// Whether segments are copied even where they could be linked.
    pub(crate) copy: bool,
}

/// What a restore came to.
pub(crate) struct Restored {
    pub(crate) manifest: Manifest,
    /// Whether segments are hard links to those of the backup.
    pub(crate) linked: bool,
    pub(crate) verified: VerifyProgress,
    /// How many pinned placements are walked again.
    pub(crate) reverify_counts: u64,
}

impl Restore {
    /// Does it; `tell` hears how far the blocks are. The data folder must be locked.
    ///
    /// # Errors
    /// The backup is not whole, the data folder is not empty, or a file could not be written: the data folder is
    /// then no Pinfold, and the restore can be run again.
    pub(crate) async fn run(
        self,
        _lock: &DataDirLock,
        tell: impl FnMut(&VerifyProgress) + Send + 'static,
    ) -> anyhow::Result<Restored> {
        let (manifest, blocks, linked, restore) = on_a_thread(move || {
            let manifest = Manifest::check(&self.backup)?;
            let blocks = self.place()?;
            self.begin(&blocks)?;
            let linked = self.put_files(&blocks)?;
            Ok((manifest, blocks, linked, self))
        })
        .await?;
        let (verified, reverify_counts) = rebuild(&restore.dir, blocks, tell).await?;
        on_a_thread(move || restore.end()).await?;
        Ok(Restored { manifest, linked, verified, reverify_counts })
    }

    /// Where the blocks go, after the settings that will count.
    fn place(&self) -> anyhow::Result<PathBuf> {
        let named = self.dir.config_file(self.config.as_deref());
        let saved = Some(self.backup.join(SETTINGS)).filter(|saved| saved.exists());
        let config = Config::load(named.or(saved).as_deref())?;
        Ok(blocks_place(&config, &self.dir).0)
    }

    /// Makes sure that nothing is written over, and notes that a restore goes on.
    fn begin(&self, blocks: &Path) -> anyhow::Result<()> {
        gone(fs::remove_file(self.half()))?;
        self.clean()?;
        let data = self.dir.path();
        for entry in fs::read_dir(data)? {
            let name = entry?.file_name();
            ensure!(
                HARMLESS.iter().any(|harmless| name.as_os_str() == *harmless),
                "{} is not empty ({}); restore into a new folder with --data-dir, or empty this one",
                data.display(),
                name.display()
            );
        }
        let found = contents(blocks).with_context(|| format!("cannot read {}", blocks.display()))?;
        ensure!(
            found.is_empty(),
            "the folder of the blocks, {}, is not empty; empty it, or set blocks.dir to another",
            blocks.display()
        );
        let place = blocks.to_str().with_context(|| format!("{} is not UTF-8", blocks.display()))?;
        // Renamed, so that it is never there without its text.
        let half = self.half();
        fs::write(&half, place)?;
        File::open(&half)?.sync_all()?;
        fs::rename(&half, self.dir.unfinished())?;
        sync_dir(data)
    }

    /// The name under which the file is written that says that a restore goes on.
    fn half(&self) -> PathBuf {
        self.dir.unfinished().with_extension("new")
    }

    /// Takes away what an interrupted restore made.
    fn clean(&self) -> anyhow::Result<()> {
        let unfinished = self.dir.unfinished();
        let blocks = match fs::read_to_string(&unfinished) {
            Ok(blocks) => PathBuf::from(blocks),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", unfinished.display())),
        };
        let database = self.dir.database();
        let beside = |suffix: &str| {
            let mut name = database.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        };
        for part in [database.clone(), beside("-wal"), beside("-shm"), self.dir.identity()] {
            gone(fs::remove_file(&part)).with_context(|| format!("cannot remove {}", part.display()))?;
        }
        empty(&blocks).with_context(|| format!("cannot empty {}", blocks.display()))?;
        // It stays where another file system is mounted.
        if let Err(error) = fs::remove_dir(&blocks) {
            tracing::debug!(%error, "keeping the folder of the blocks");
        }
        gone(fs::remove_file(&unfinished))?;
        sync_dir(self.dir.path())
    }

    /// Puts the backup's files where they belong; says whether segments were linked.
    fn put_files(&self, blocks: &Path) -> anyhow::Result<bool> {
        let (from, data) = (&self.backup, self.dir.path());
        let settings = data.join(SETTINGS);
        if from.join(SETTINGS).exists() && !settings.exists() {
            copy_private(&from.join(SETTINGS), &settings)?;
        }
        copy_private(&from.join(IDENTITY), &self.dir.identity())?;
        copy_private(&from.join(DATABASE), &self.dir.database())?;
        if !blocks.exists() {
            make_dir(blocks)?;
        }
        let segments = blocks.join(SEGMENTS);
        make_dir(&segments)?;
        let mut linked = !self.copy;
        for segment in segments_of(&from.join(SEGMENTS))? {
            let name = segment.file_name().with_context(|| format!("{} has no name", segment.display()))?;
            let target = segments.join(name);
            // Where one can't be linked (another file system, or one without links), none can.
            linked = linked && fs::hard_link(&segment, &target).is_ok();
            if !linked {
                copy_private(&segment, &target)?;
            }
        }
        for dir in [&segments, blocks, data] {
            sync_dir(dir)?;
        }
        Ok(linked)
    }

    /// From here on the folder is a Pinfold.
    fn end(&self) -> anyhow::Result<()> {
        sync_dir(self.dir.path())?;
        fs::remove_file(self.dir.unfinished())?;
        sync_dir(self.dir.path())
    }
}

/// Makes the index of a data folder's blocks anew, offline, and has every pin walked again. Gives what was found,
/// and how many pins that are.
pub(crate) async fn rebuild(
    dir: &DataDir,
    blocks: PathBuf,
    mut tell: impl FnMut(&VerifyProgress) + Send + 'static,
) -> anyhow::Result<(VerifyProgress, u64)> {
    let guard = HoldName::parse(format!("{UPLOAD_PREFIX}rebuilt")).context("the guard has no name")?;
    // Before the index: without this, a start would let go of the guard while no pin has a hold of its own.
    let store = Store::open(&dir.database()).await.context("cannot open the database")?;
    let reverify_counts = store.reverify_all(SystemClock.now()).await;
    store.close().await;
    let reverify_counts = reverify_counts.context("cannot have the pins walked again")?;
    let verified = backup::on_a_thread(move || {
        if !blocks.join(SEGMENTS).is_dir() {
            bail!("{} has no segments to make an index from", blocks.display());
        }
        SegmentBlocks::rebuild_index(&blocks, &guard, |progress| tell(progress)).map_err(Into::into)
    });
    Ok((verified.await.context("cannot make the index")?, reverify_counts))
}

/// What is in a folder that may not be there, but for what a file system has at its top.
fn contents(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name() != "lost+found" {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Empties a folder.
fn empty(dir: &Path) -> std::io::Result<()> {
    for path in contents(dir)? {
        if path.symlink_metadata()?.is_dir() {
            fs::remove_dir_all(path)?;
        } else {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// What is not there is as good as removed.
fn gone(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
