//! The data directory: the paths inside it, and the lock that gives it to one process at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The path of a data directory. The directory need not exist.
#[derive(Debug, Clone)]
pub(crate) struct DataDir(PathBuf);

/// An exclusive lock on a data directory. It ends when this value is dropped or the process exits.
#[derive(Debug)]
pub(crate) struct DataDirLock(File);

/// Result of an attempt to lock a data directory.
#[derive(Debug)]
pub(crate) enum LockAttempt {
    Acquired(DataDirLock),
    /// Another process holds the lock. The text is ` (process 123)`, or empty if the process is not known.
    InUse(String),
}

/// File that marks a data directory as incomplete while a restore runs.
const UNFINISHED: &str = "restore.unfinished";

impl DataDir {
    /// The given path, or the platform's default such as `~/.local/share/pinfold`.
    ///
    /// # Errors
    /// No path is given and the user has no home directory.
    pub(crate) fn choose(path: Option<PathBuf>) -> anyhow::Result<Self> {
        if let Some(path) = path {
            return Ok(Self(path));
        }
        let dirs = directories::ProjectDirs::from("", "", "pinfold")
            .context("this user has no home directory; set the data directory with --data-dir")?;
        Ok(Self(dirs.data_dir().to_owned()))
    }

    /// Creates the directory with mode 0700 if it does not exist.
    pub(crate) fn create(&self) -> anyhow::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .with_context(|| format!("cannot create the data directory {}", self.0.display()))
    }

    /// Acquires the lock and records this process's id in the lock file.
    ///
    /// # Errors
    /// Another process holds the lock; the message names the directory and the process.
    pub(crate) fn lock(&self) -> anyhow::Result<DataDirLock> {
        match self.try_lock()? {
            LockAttempt::Acquired(lock) => Ok(lock),
            LockAttempt::InUse(owner) => bail!(
                "the data directory {} is in use by another pinfold{owner}; stop it, or use another data \
                 directory with --data-dir",
                self.0.display()
            ),
        }
    }

    /// Acquires the lock if no other process holds it.
    ///
    /// # Errors
    /// The lock file cannot be written.
    pub(crate) fn try_lock(&self) -> anyhow::Result<LockAttempt> {
        let path = self.0.join("pinfold.lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(LockAttempt::InUse(owner(&mut file))),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(LockAttempt::Acquired(DataDirLock(file)))
    }

    /// Checks that the directory contains a complete Pinfold database, so that a mistyped path creates nothing.
    ///
    /// # Errors
    /// There is no database, or a restore did not finish.
    pub(crate) fn expect_database(&self) -> anyhow::Result<()> {
        self.expect_complete()?;
        if !self.database().exists() {
            bail!(
                "{} contains no Pinfold data; create it with `pinfold serve`, or use another data directory with \
                 --data-dir",
                self.0.display()
            );
        }
        Ok(())
    }

    /// Checks that no restore into this directory was interrupted.
    ///
    /// # Errors
    /// A restore was interrupted.
    pub(crate) fn expect_complete(&self) -> anyhow::Result<()> {
        if self.unfinished().exists() {
            bail!(
                "a restore into {} did not finish; run `pinfold restore` again, or empty the directory",
                self.0.display()
            );
        }
        Ok(())
    }

    /// The file that exists while a restore runs.
    pub(crate) fn unfinished(&self) -> PathBuf {
        self.0.join(UNFINISHED)
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The secret key of the IPFS node.
    pub(crate) fn identity(&self) -> PathBuf {
        self.0.join("identity.key")
    }

    /// The administration socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("pinfold.sock")
    }

    /// The SQLite database.
    pub(crate) fn database(&self) -> PathBuf {
        self.0.join("pinfold.db")
    }

    /// The block store, unless `blocks.dir` sets another path.
    pub(crate) fn blocks(&self) -> PathBuf {
        self.0.join("blocks")
    }

    /// The configuration file: the given one, otherwise `pinfold.toml` in the directory if it exists.
    pub(crate) fn config_file(&self, given: Option<&Path>) -> Option<PathBuf> {
        let own = self.0.join("pinfold.toml");
        given.map(Path::to_owned).or_else(|| own.exists().then_some(own))
    }
}

impl Drop for DataDirLock {
    fn drop(&mut self) {
        // A stale process id would mislead. The lock itself is released when the file closes.
        if let Err(error) = self.0.set_len(0) {
            tracing::debug!(%error, "failed to clear the lock file");
        }
    }
}

/// ` (process 123)`, or an empty string if the lock file has no process id.
fn owner(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(32).read_to_string(&mut text) {
        Ok(_) => text.trim().parse::<u32>().map_or_else(|_| String::new(), |pid| format!(" (process {pid})")),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_lock_is_refused_and_names_the_owner() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::choose(Some(temp.path().join("data"))).unwrap();
        dir.create().unwrap();
        let first = dir.lock().unwrap();
        let refused = dir.lock().unwrap_err().to_string();
        assert!(refused.contains(&dir.path().display().to_string()), "{refused}");
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        dir.lock().unwrap();
    }

    #[test]
    fn directory_is_created_with_mode_0700() {
        use std::os::unix::fs::PermissionsExt;
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::choose(Some(temp.path().join("a/b"))).unwrap();
        dir.create().unwrap();
        assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
