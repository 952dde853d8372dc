//! Restore: creates a data directory from a backup while no server runs on it.
//!
//! While a restore runs, a marker file in the data directory prevents other commands from using it. An interrupted
//! restore can be repeated: it first removes the files of the previous attempt, using the path in the marker file.
//!
//! Holds are not part of a backup. The index is rebuilt from the segments with one hold on all blocks, and every pinned
//! placement is scheduled for verification. The server verifies them in the background while their pins stay `pinned`,
//! and releases that hold when all of them are complete.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use pinfold_cluster::UPLOAD_PREFIX;
use pinfold_model::{Clock, SystemClock};
use pinfold_node::HoldName;
use pinfold_node::blocks::{SegmentBlocks, VerifyProgress};
use pinfold_store::Store;

use super::backup::{CONFIG, DATABASE, IDENTITY, Manifest, SEGMENTS, segments_of};
use super::run_blocking;
use crate::config::{Config, settings};
use crate::data_dir::{DataDir, DataDirLock};
use crate::files::{copy_private, create_private_dir, sync_dir};

/// Entries that an otherwise empty data directory may contain: the lock, the configuration file, and the directory that
/// ext4 creates at its root.
const IGNORED: [&str; 3] = ["pinfold.lock", CONFIG, "lost+found"];

/// Parameters of a restore.
pub(crate) struct Restore {
    pub(crate) backup: PathBuf,
    pub(crate) dir: DataDir,
    /// Configuration file given on the command line.
    pub(crate) config: Option<PathBuf>,
    /// Copy segments even where hard links are possible.
    pub(crate) copy: bool,
}

/// Result of a restore.
pub(crate) struct RestoreReport {
    pub(crate) manifest: Manifest,
    /// Whether the segments are hard links to those of the backup.
    pub(crate) linked: bool,
    pub(crate) rebuilt: RebuildReport,
}

/// Result of rebuilding the index.
pub(crate) struct RebuildReport {
    pub(crate) verified: VerifyProgress,
    /// Number of pinned DAGs that are scheduled for verification.
    pub(crate) pins_to_verify: u64,
}

impl Restore {
    /// Runs the restore and calls `on_progress` while blocks are verified. The data directory must be locked.
    ///
    /// # Errors
    /// The backup is incomplete, the data directory is not empty, or a file could not be written. The data directory
    /// is then unusable until the restore is repeated.
    pub(crate) async fn run(
        self,
        _lock: &DataDirLock,
        on_progress: impl FnMut(&VerifyProgress) + Send + 'static,
    ) -> anyhow::Result<RestoreReport> {
        let (manifest, blocks, linked, restore) = run_blocking(move || {
            let manifest = Manifest::check(&self.backup)?;
            let blocks = self.blocks_dir()?;
            self.prepare(&blocks)?;
            let linked = self.copy_files(&blocks)?;
            Ok((manifest, blocks, linked, self))
        })
        .await?;
        let rebuilt = rebuild_index(&restore.dir, blocks, on_progress).await?;
        run_blocking(move || restore.finish()).await?;
        Ok(RestoreReport { manifest, linked, rebuilt })
    }

    /// Directory of the block store according to the configuration that the restored server will use.
    fn blocks_dir(&self) -> anyhow::Result<PathBuf> {
        let given = self.dir.config_file(self.config.as_deref());
        let saved = Some(self.backup.join(CONFIG)).filter(|saved| saved.exists());
        let config = Config::load(given.or(saved).as_deref())?;
        Ok(settings::blocks(&config, &self.dir).0)
    }

    /// Checks that nothing would be overwritten, and creates the marker file.
    fn prepare(&self, blocks: &Path) -> anyhow::Result<()> {
        ignore_missing(fs::remove_file(self.draft()))?;
        self.remove_previous_attempt()?;
        let data = self.dir.path();
        for entry in fs::read_dir(data)? {
            let name = entry?.file_name();
            ensure!(
                IGNORED.iter().any(|ignored| name.as_os_str() == *ignored),
                "{} is not empty: it contains {}; restore into a new directory with --data-dir, or empty this one",
                data.display(),
                name.display()
            );
        }
        let found = contents(blocks).with_context(|| format!("cannot read {}", blocks.display()))?;
        ensure!(
            found.is_empty(),
            "the block directory {} is not empty; empty it, or set blocks.dir to another path",
            blocks.display()
        );
        let text = blocks.to_str().with_context(|| format!("{} is not UTF-8", blocks.display()))?;
        // Written under another name and renamed, so that the marker never exists without its content.
        let draft = self.draft();
        fs::write(&draft, text)?;
        File::open(&draft)?.sync_all()?;
        fs::rename(&draft, self.dir.unfinished())?;
        sync_dir(data)
    }

    /// Name under which the marker file is written before it is renamed.
    fn draft(&self) -> PathBuf {
        self.dir.unfinished().with_extension("new")
    }

    /// Removes the files of an interrupted restore.
    fn remove_previous_attempt(&self) -> anyhow::Result<()> {
        let unfinished = self.dir.unfinished();
        let blocks = match fs::read_to_string(&unfinished) {
            Ok(blocks) => PathBuf::from(blocks),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", unfinished.display())),
        };
        let database = self.dir.database();
        let with_suffix = |suffix: &str| {
            let mut name = database.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        };
        for part in [database.clone(), with_suffix("-wal"), with_suffix("-shm"), self.dir.identity()] {
            ignore_missing(fs::remove_file(&part))
                .with_context(|| format!("cannot remove {}", part.display()))?;
        }
        empty(&blocks).with_context(|| format!("cannot empty {}", blocks.display()))?;
        // A mount point cannot be removed, and need not be.
        if let Err(error) = fs::remove_dir(&blocks) {
            tracing::debug!(%error, "failed to remove the block directory");
        }
        ignore_missing(fs::remove_file(&unfinished))?;
        sync_dir(self.dir.path())
    }

    /// Copies or links the files of the backup into the data directory. Returns whether the segments were linked.
    fn copy_files(&self, blocks: &Path) -> anyhow::Result<bool> {
        let (from, data) = (&self.backup, self.dir.path());
        let config = data.join(CONFIG);
        if from.join(CONFIG).exists() && !config.exists() {
            copy_private(&from.join(CONFIG), &config)?;
        }
        copy_private(&from.join(IDENTITY), &self.dir.identity())?;
        copy_private(&from.join(DATABASE), &self.dir.database())?;
        if !blocks.exists() {
            create_private_dir(blocks)?;
        }
        let segments = blocks.join(SEGMENTS);
        create_private_dir(&segments)?;
        let mut linked = !self.copy;
        for segment in segments_of(&from.join(SEGMENTS))? {
            let name = segment.file_name().with_context(|| format!("{} has no name", segment.display()))?;
            let target = segments.join(name);
            // If one link fails, all would: the backup is on another file system, or the file system has no links.
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

    /// Removes the marker file, which makes the data directory usable.
    fn finish(&self) -> anyhow::Result<()> {
        sync_dir(self.dir.path())?;
        fs::remove_file(self.dir.unfinished())?;
        sync_dir(self.dir.path())
    }
}

/// Rebuilds the index of the block store from its segments and schedules every pin for verification. The data directory
/// must be locked.
pub(crate) async fn rebuild_index(
    dir: &DataDir,
    blocks: PathBuf,
    mut on_progress: impl FnMut(&VerifyProgress) + Send + 'static,
) -> anyhow::Result<RebuildReport> {
    let hold = HoldName::parse(format!("{UPLOAD_PREFIX}rebuilt")).context("invalid hold name")?;
    // The pins must be scheduled before the index exists: otherwise a start could release the hold on all blocks while
    // no pin has a hold of its own.
    let store = Store::open(&dir.database()).await.context("cannot open the database")?;
    let pins_to_verify = store.reverify_all(SystemClock.now()).await;
    store.close().await;
    let pins_to_verify = pins_to_verify.context("cannot schedule the pins for verification")?;
    let verified = run_blocking(move || {
        if !blocks.join(SEGMENTS).is_dir() {
            bail!("{} has no segments to rebuild the index from", blocks.display());
        }
        SegmentBlocks::rebuild_index(&blocks, &hold, |progress| on_progress(progress)).map_err(Into::into)
    });
    let verified = verified.await.context("cannot rebuild the index")?;
    Ok(RebuildReport { verified, pins_to_verify })
}

/// The entries of a directory except `lost+found`; empty if the directory does not exist.
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

/// Removes everything in a directory.
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

/// Turns "not found" into success.
fn ignore_missing(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
