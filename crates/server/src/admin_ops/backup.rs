//! Backup: copies the database, the blocks, the node key and the configuration into a new directory.
//!
//! A backup contains `segments/*.car`, `pinfold.db`, `identity.key`, `pinfold.toml` if it exists, and [`Manifest`] in
//! `backup.json`, which is written last. It is built in `NAME.partial` and renamed when complete.
//!
//! A backup of a running server is consistent: space reclamation pauses first, then the database is copied, then the
//! blocks. Every block that the copied database refers to is therefore in the copied segments, even if its pin is
//! removed during the backup.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use pinfold_model::{Clock, SystemClock};
use pinfold_node::Blocks;
use pinfold_node::blocks::Snapshot;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{AdminOps, run_blocking};
use crate::files::{copy_private, create_private_dir, sync_dir, write_private};

/// Backup format version that this program writes and reads.
const FORMAT: u32 = 1;
/// Maximum size of a manifest in bytes. A manifest has about a dozen numbers.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024;
/// Read buffer size for hashing, in bytes.
const READ_SIZE: usize = 1 << 20;

/// Names of the files and directories in a backup.
pub(crate) const SEGMENTS: &str = "segments";
pub(crate) const DATABASE: &str = "pinfold.db";
pub(crate) const IDENTITY: &str = "identity.key";
pub(crate) const CONFIG: &str = "pinfold.toml";
const MANIFEST: &str = "backup.json";

/// Content of `backup.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) format: u32,
    /// Version of Pinfold that made the backup.
    pub(crate) pinfold: String,
    /// RFC 3339.
    pub(crate) created_at: String,
    /// Number of segment files.
    pub(crate) segments: u64,
    /// Total size of the segment files.
    pub(crate) segment_bytes: u64,
    /// Approximate number of distinct blocks when the backup started.
    pub(crate) blocks: u64,
    /// Approximate size of these blocks.
    pub(crate) block_bytes: u64,
    pub(crate) database_bytes: u64,
    /// Hexadecimal SHA-256 of the database file.
    pub(crate) database_sha256: String,
}

/// Result of a backup.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackupReport {
    pub(crate) dir: PathBuf,
    /// Whether the segments are hard links to those of the block store.
    pub(crate) linked: bool,
    #[serde(flatten)]
    pub(crate) manifest: Manifest,
}

impl AdminOps {
    /// Makes a backup in `dir`, an absolute path at which there is nothing or an empty directory.
    ///
    /// # Errors
    /// Another backup is running, the path cannot be used, or a file could not be copied. The partial backup is then
    /// removed.
    pub(crate) async fn backup(&self, dir: PathBuf) -> anyhow::Result<BackupReport> {
        let Ok(_lock) = self.backup_lock.try_lock() else {
            bail!("another backup is in progress; try again when it has finished");
        };
        let data = self.dir.path().canonicalize()?;
        let prepared = run_blocking(move || prepare(&dir, &data).map(|partial| (partial, dir))).await;
        let (partial, dir) = prepared?;
        let made = self.copy_all(&partial, &dir).await;
        if made.is_err() {
            let partial = partial.clone();
            // The first error is the one to report. What cannot be removed is not named like a backup.
            let _ = run_blocking(move || Ok(fs::remove_dir_all(partial)?)).await;
        }
        made.with_context(|| format!("no backup was made in {}", dir.display()))
    }

    async fn copy_all(&self, partial: &Path, dir: &Path) -> anyhow::Result<BackupReport> {
        let segments = partial.join(SEGMENTS);
        create_private_dir(&segments)?;
        let reclaim_pause = self.blocks.pause_reclaim();
        let totals = tokio::task::spawn_blocking({
            let blocks = self.blocks.clone();
            move || blocks.totals()
        });
        let totals = totals.await??;
        self.store.snapshot(&partial.join(DATABASE)).await.context("cannot copy the database")?;
        let snapshot = self.blocks.snapshot(&segments).await.context("cannot copy the blocks")?;
        drop(reclaim_pause);
        let Snapshot { segments, bytes, linked } = snapshot;
        let manifest = Manifest {
            format: FORMAT,
            pinfold: env!("CARGO_PKG_VERSION").to_owned(),
            created_at: SystemClock.now().to_string(),
            segments,
            segment_bytes: bytes,
            blocks: totals.blocks,
            block_bytes: totals.bytes,
            database_bytes: 0,
            database_sha256: String::new(),
        };
        let (data, partial, dir) = (self.dir.path().to_owned(), partial.to_owned(), dir.to_owned());
        run_blocking(move || {
            let manifest = finish(&data, &partial, &dir, manifest)?;
            Ok(BackupReport { dir, linked, manifest })
        })
        .await
    }
}

/// Creates `NAME.partial`, in which the backup is built, and returns its path.
fn prepare(dir: &Path, data: &Path) -> anyhow::Result<PathBuf> {
    ensure!(dir.is_absolute(), "{} is not an absolute path", dir.display());
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        bail!("{} cannot be used as a backup directory", dir.display());
    };
    let parent = parent.canonicalize().with_context(|| format!("cannot write in {}", parent.display()))?;
    ensure!(
        !parent.starts_with(data),
        "{} is inside the data directory and would be lost with it; choose another path",
        dir.display()
    );
    match fs::read_dir(dir) {
        Ok(mut entries) => {
            ensure!(entries.next().is_none(), "{} is not empty; choose a new directory", dir.display());
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", dir.display())),
    }
    let mut partial = name.to_os_string();
    partial.push(".partial");
    let partial = parent.join(partial);
    remove_partial(&partial)?;
    create_private_dir(&partial)?;
    Ok(partial)
}

/// Removes the remains of an interrupted backup, and refuses to remove anything else.
fn remove_partial(partial: &Path) -> anyhow::Result<()> {
    let entries = match fs::read_dir(partial) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("cannot read {}", partial.display()))?,
    };
    for entry in entries {
        let name = entry?.file_name();
        let is_ours =
            [SEGMENTS, DATABASE, IDENTITY, CONFIG, MANIFEST].iter().any(|part| name.as_os_str() == *part);
        // SQLite's temporary files.
        let is_ours = is_ours || name.to_str().is_some_and(|name| name.starts_with("pinfold.db-"));
        ensure!(
            is_ours,
            "{} contains files that are not part of a backup; move them elsewhere",
            partial.display()
        );
    }
    fs::remove_dir_all(partial).with_context(|| format!("cannot remove {}", partial.display()))
}

/// Copies the small files, writes the manifest, and renames the directory to its final name.
fn finish(data: &Path, partial: &Path, dir: &Path, manifest: Manifest) -> anyhow::Result<Manifest> {
    copy_private(&data.join(IDENTITY), &partial.join(IDENTITY))?;
    let config = data.join(CONFIG);
    if config.exists() {
        copy_private(&config, &partial.join(CONFIG))?;
    }
    let (database_bytes, database_sha256) = hash(&partial.join(DATABASE))?;
    let manifest = Manifest { database_bytes, database_sha256, ..manifest };
    sync_dir(partial)?;
    write_private(&partial.join(MANIFEST), &serde_json::to_vec_pretty(&manifest)?)?;
    sync_dir(partial)?;
    // The rename replaces an empty directory.
    fs::rename(partial, dir).with_context(|| format!("cannot rename the backup to {}", dir.display()))?;
    sync_dir(dir.parent().unwrap_or(dir))?;
    Ok(manifest)
}

impl Manifest {
    /// Reads the manifest of a backup and verifies the database and the segments against it.
    ///
    /// # Errors
    /// The directory is not a complete backup, its files do not match the manifest, or its format is not supported.
    pub(crate) fn check(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(MANIFEST);
        let file = File::open(&path)
            .with_context(|| format!("{} is not a complete backup: cannot read {MANIFEST}", dir.display()))?;
        let mut text = String::new();
        file.take(MANIFEST_BYTES_MAX).read_to_string(&mut text)?;
        let header: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
        ensure!(
            header["format"] == FORMAT,
            "this backup has format {}, but this version of Pinfold supports format {FORMAT}; use version {}, which \
             made it",
            header["format"],
            header["pinfold"].as_str().unwrap_or("unknown")
        );
        let manifest: Self =
            serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
        let (bytes, sha256) = hash(&dir.join(DATABASE))?;
        ensure!(
            (bytes, &sha256) == (manifest.database_bytes, &manifest.database_sha256),
            "{} does not match its checksum in the manifest",
            dir.join(DATABASE).display()
        );
        let (mut segments, mut segment_bytes) = (0, 0);
        for segment in segments_of(&dir.join(SEGMENTS))? {
            segments += 1;
            segment_bytes += fs::metadata(&segment)?.len();
        }
        ensure!(
            (segments, segment_bytes) == (manifest.segments, manifest.segment_bytes),
            "{} has {segments} segments of {segment_bytes} bytes, expected {} segments of {} bytes",
            dir.join(SEGMENTS).display(),
            manifest.segments,
            manifest.segment_bytes
        );
        Ok(manifest)
    }
}

/// The segment files in a directory, sorted by name.
pub(crate) fn segments_of(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        segments.push(entry?.path());
    }
    segments.sort();
    Ok(segments)
}

/// The length of a file in bytes and its SHA-256 in hexadecimal.
fn hash(path: &Path) -> anyhow::Result<(u64, String)> {
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (mut hasher, mut length, mut buffer) = (Sha256::new(), 0, vec![0; READ_SIZE]);
    loop {
        let read = file.read(&mut buffer).with_context(|| format!("cannot read {}", path.display()))?;
        if read == 0 {
            break;
        }
        length += read as u64;
        hasher.update(&buffer[..read]);
    }
    let hex = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((length, hex))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_backup(dir: &Path) -> Manifest {
        create_private_dir(&dir.join(SEGMENTS)).unwrap();
        fs::write(dir.join(SEGMENTS).join("0000000001.car"), "segment").unwrap();
        fs::write(dir.join(DATABASE), "database").unwrap();
        let (database_bytes, database_sha256) = hash(&dir.join(DATABASE)).unwrap();
        let manifest = Manifest {
            format: FORMAT,
            pinfold: "1".to_owned(),
            created_at: String::new(),
            segments: 1,
            segment_bytes: 7,
            blocks: 1,
            block_bytes: 1,
            database_bytes,
            database_sha256,
        };
        fs::write(dir.join(MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
        manifest
    }

    #[test]
    fn incomplete_or_altered_backup_is_rejected() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        assert!(Manifest::check(dir).is_err(), "an empty directory is not a backup");
        let manifest = write_backup(dir);
        assert_eq!(Manifest::check(dir).unwrap(), manifest);

        fs::write(dir.join(SEGMENTS).join("0000000001.car"), "segmen").unwrap();
        assert!(Manifest::check(dir).unwrap_err().to_string().contains("1 segments of 6 bytes"));
        fs::write(dir.join(SEGMENTS).join("0000000001.car"), "segment").unwrap();
        fs::write(dir.join(DATABASE), "databasE").unwrap();
        assert!(Manifest::check(dir).unwrap_err().to_string().contains("pinfold.db"));
        fs::write(dir.join(DATABASE), "database").unwrap();
        assert!(Manifest::check(dir).is_ok());
        fs::write(dir.join(MANIFEST), r#"{"format": 2, "pinfold": "9.9"}"#).unwrap();
        let message = Manifest::check(dir).unwrap_err().to_string();
        assert!(message.contains("format 2") && message.contains("9.9"), "{message}");
    }

    #[test]
    fn only_remains_of_a_backup_are_removed() {
        let temp = tempfile::tempdir().unwrap();
        let (data, dir) = (temp.path().join("data"), temp.path().join("backup"));
        create_private_dir(&data).unwrap();
        let partial = prepare(&dir, &data).unwrap();
        assert_eq!(partial, temp.path().canonicalize().unwrap().join("backup.partial"));
        fs::write(partial.join(DATABASE), "half").unwrap();
        prepare(&dir, &data).unwrap();
        assert!(!partial.join(DATABASE).exists());
        fs::write(partial.join("thesis.txt"), "mine").unwrap();
        assert!(prepare(&dir, &data).is_err());
        assert!(partial.join("thesis.txt").exists());
        assert!(prepare(&data.join("backup"), &data).unwrap_err().to_string().contains("inside"));
    }
}
