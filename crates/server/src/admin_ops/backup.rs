//! Backups: a folder with everything that a Pinfold is made of, as it was at one moment.
//!
//! `segments/*.car`, `pinfold.db`, `identity.key`, `pinfold.toml` if there is one, and [`Manifest`] in
//! `backup.json`, which is written last. It is made under another name and renamed, so that what has its name
//! is whole.
//!
//! Consistent beside a server that goes on: freeing pauses first, then the database is copied, then the blocks.
//! So every block that the copied database promises is in the segments, whatever is removed meanwhile.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use pinfold_model::{Clock, SystemClock};
use pinfold_node::Blocks;
use pinfold_node::blocks::Snapshot;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::AdminOps;

/// The format of backups that this version makes and reads.
const FORMAT: u32 = 1;
/// The largest manifest that is read, in bytes: it has a dozen numbers.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024;
/// What is read at a time of a file that is hashed, in bytes.
const READ_SIZE: usize = 1 << 20;

/// The parts of a backup.
pub(crate) const SEGMENTS: &str = "segments";
pub(crate) const DATABASE: &str = "pinfold.db";
pub(crate) const IDENTITY: &str = "identity.key";
pub(crate) const SETTINGS: &str = "pinfold.toml";
const MANIFEST: &str = "backup.json";

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    /// Its format.
    pub(crate) format: u32,
    /// The version of Pinfold that made it.
    pub(crate) pinfold: String,
    /// When it was made.
    pub(crate) created_at: String,
    /// How many segments it has.
    pub(crate) segments: u64,
    /// Their lengths added up.
    pub(crate) segment_bytes: u64,
    /// The distinct blocks of the store at that time, about.
    pub(crate) blocks: u64,
    /// Their bytes.
    pub(crate) block_bytes: u64,
    /// The length of the database.
    pub(crate) database_bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub(crate) database_sha256: String,
}

/// What a backup came to.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackupReport {
    /// Where it is.
    pub(crate) dir: PathBuf,
    /// Whether its segments are hard links to those of the store.
    pub(crate) linked: bool,
    /// What it says of itself.
    #[serde(flatten)]
    pub(crate) manifest: Manifest,
}

impl AdminOps {
    /// Makes a backup in `dir`, an absolute path to a folder that is not there yet, or empty.
    pub(crate) async fn backup(&self, dir: PathBuf) -> anyhow::Result<BackupReport> {
        let Ok(_alone) = self.backing_up.try_lock() else {
            bail!("another backup is being made; wait for it to end");
        };
        let data = self.dir.path().canonicalize()?;
        let partial = on_a_thread(move || prepare(&dir, &data).map(|partial| (partial, dir))).await;
        let (partial, dir) = partial?;
        let made = self.fill(&partial, &dir).await;
        if made.is_err() {
            let left = partial.clone();
            // The error says what went wrong; what is left has another name than a backup.
            let _ = on_a_thread(move || Ok(fs::remove_dir_all(left)?)).await;
        }
        made.with_context(|| format!("no backup was made in {}", dir.display()))
    }

    async fn fill(&self, partial: &Path, dir: &Path) -> anyhow::Result<BackupReport> {
        let segments = partial.join(SEGMENTS);
        make_dir(&segments)?;
        let keep_all = self.blocks.pause_reclaim();
        let totals = tokio::task::spawn_blocking({
            let blocks = self.blocks.clone();
            move || blocks.totals()
        });
        let totals = totals.await??;
        self.store.snapshot(&partial.join(DATABASE)).await.context("copying the database")?;
        let snapshot = self.blocks.snapshot(&segments).await.context("copying the blocks")?;
        drop(keep_all);
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
        on_a_thread(move || {
            let manifest = finish(&data, &partial, &dir, manifest)?;
            Ok(BackupReport { dir, linked, manifest })
        })
        .await
    }
}

/// Makes the folder in which the backup grows.
fn prepare(dir: &Path, data: &Path) -> anyhow::Result<PathBuf> {
    ensure!(dir.is_absolute(), "{} is no absolute path", dir.display());
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        bail!("{} can't be the folder of a backup", dir.display());
    };
    let parent = parent.canonicalize().with_context(|| format!("cannot write in {}", parent.display()))?;
    ensure!(
        !parent.starts_with(data),
        "{} is inside the data folder, and would be lost with it; choose a place elsewhere",
        dir.display()
    );
    match fs::read_dir(dir) {
        Ok(mut entries) => {
            ensure!(entries.next().is_none(), "{} is not empty; name a new folder", dir.display());
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", dir.display())),
    }
    let mut partial = name.to_os_string();
    partial.push(".partial");
    let partial = parent.join(partial);
    remove_partial(&partial)?;
    make_dir(&partial)?;
    Ok(partial)
}

/// Takes what an interrupted backup left away, and nothing else.
fn remove_partial(partial: &Path) -> anyhow::Result<()> {
    let entries = match fs::read_dir(partial) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("cannot read {}", partial.display()))?,
    };
    for entry in entries {
        let name = entry?.file_name();
        let is_ours =
            [SEGMENTS, DATABASE, IDENTITY, SETTINGS, MANIFEST].iter().any(|part| name.as_os_str() == *part);
        // SQLite's own, while it writes.
        let is_ours = is_ours || name.to_str().is_some_and(|name| name.starts_with("pinfold.db-"));
        ensure!(is_ours, "{} has something else in it; move it away", partial.display());
    }
    fs::remove_dir_all(partial).with_context(|| format!("cannot remove {}", partial.display()))
}

/// Adds the small files and the manifest, and gives the backup its name.
fn finish(data: &Path, partial: &Path, dir: &Path, manifest: Manifest) -> anyhow::Result<Manifest> {
    copy_private(&data.join(IDENTITY), &partial.join(IDENTITY))?;
    let settings = data.join(SETTINGS);
    if settings.exists() {
        copy_private(&settings, &partial.join(SETTINGS))?;
    }
    let (database_bytes, database_sha256) = hash(&partial.join(DATABASE))?;
    let manifest = Manifest { database_bytes, database_sha256, ..manifest };
    sync_dir(partial)?;
    let mut file = create_private(&partial.join(MANIFEST))?;
    file.write_all(&serde_json::to_vec_pretty(&manifest)?)?;
    file.sync_all()?;
    sync_dir(partial)?;
    // An empty folder of that name gives way.
    fs::rename(partial, dir).with_context(|| format!("cannot name the backup {}", dir.display()))?;
    sync_dir(dir.parent().unwrap_or(dir))?;
    Ok(manifest)
}

impl Manifest {
    /// Reads the manifest of a backup, and makes sure that all that it speaks of is there.
    ///
    /// # Errors
    /// It is no backup, half of one, or one that is damaged or of a newer version.
    pub(crate) fn check(dir: &Path) -> anyhow::Result<Self> {
        let place = dir.join(MANIFEST);
        let file = File::open(&place)
            .with_context(|| format!("{} is no whole backup: {MANIFEST} cannot be read", dir.display()))?;
        let mut text = String::new();
        file.take(MANIFEST_BYTES_MAX).read_to_string(&mut text)?;
        let head: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("{} is damaged", place.display()))?;
        ensure!(
            head["format"] == FORMAT,
            "this backup has format {}, and this Pinfold reads {FORMAT}: use the version that made it ({})",
            head["format"],
            head["pinfold"].as_str().unwrap_or("unknown")
        );
        let manifest: Self =
            serde_json::from_str(&text).with_context(|| format!("{} is damaged", place.display()))?;
        let (bytes, sha256) = hash(&dir.join(DATABASE))?;
        ensure!(
            (bytes, &sha256) == (manifest.database_bytes, &manifest.database_sha256),
            "{} is not what was backed up",
            dir.join(DATABASE).display()
        );
        let (mut segments, mut segment_bytes) = (0, 0);
        for segment in segments_of(&dir.join(SEGMENTS))? {
            segments += 1;
            segment_bytes += fs::metadata(&segment)?.len();
        }
        ensure!(
            (segments, segment_bytes) == (manifest.segments, manifest.segment_bytes),
            "{} has {segments} segments of {segment_bytes} bytes, and should have {} of {}",
            dir.join(SEGMENTS).display(),
            manifest.segments,
            manifest.segment_bytes
        );
        Ok(manifest)
    }
}

/// The segments in a folder.
pub(crate) fn segments_of(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        segments.push(entry?.path());
    }
    segments.sort();
    Ok(segments)
}

/// Copies a small file, for its owner alone, durably.
pub(crate) fn copy_private(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut source = File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
    let mut target = create_private(to)?;
    std::io::copy(&mut source, &mut target).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(target.sync_all()?)
}

/// Makes a file that its owner alone can read.
pub(crate) fn create_private(path: &Path) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(path).with_context(|| format!("cannot make {}", path.display()))
}

/// Makes a folder that its owner alone can read.
pub(crate) fn make_dir(path: &Path) -> anyhow::Result<()> {
    let mut builder = fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).with_context(|| format!("cannot make {}", path.display()))
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(path: &Path) -> anyhow::Result<()> {
    let sync = || File::open(path)?.sync_all();
    sync().with_context(|| format!("cannot sync {}", path.display()))
}

/// The length of a file and its SHA-256.
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

/// Runs what waits for the disk where that is allowed.
pub(crate) async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup_in(dir: &Path) -> Manifest {
        make_dir(&dir.join(SEGMENTS)).unwrap();
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
    fn a_backup_is_taken_only_when_it_is_whole() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        assert!(Manifest::check(dir).is_err(), "an empty folder is none");
        let manifest = backup_in(dir);
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
    fn only_what_a_backup_left_is_taken_away() {
        let temp = tempfile::tempdir().unwrap();
        let (data, dir) = (temp.path().join("data"), temp.path().join("backup"));
        make_dir(&data).unwrap();
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
