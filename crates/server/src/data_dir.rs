//! The data folder: where everything lives, and the lock that makes one process its owner.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// A data folder, which need not exist yet.
#[derive(Debug, Clone)]
pub(crate) struct DataDir(PathBuf);

/// The right to run a node on a data folder; ends with this value or with the process.
#[derive(Debug)]
pub(crate) struct DataDirLock(File);

/// Who owns a data folder.
#[derive(Debug)]
pub(crate) enum Locked {
    /// Whoever asked.
    Owned(DataDirLock),
    /// Another process; ` (process 123)`, if it says so.
    InUse(String),
}

/// The name of the file that says that a folder is not whole.
const UNFINISHED: &str = "restore.unfinished";

impl DataDir {
    /// The folder that was asked for, else the platform's own, such as `~/.local/share/pinfold`.
    ///
    /// # Errors
    /// There is no home folder to put it in.
    pub(crate) fn choose(asked: Option<PathBuf>) -> anyhow::Result<Self> {
        if let Some(path) = asked {
            return Ok(Self(path));
        }
        let dirs = directories::ProjectDirs::from("", "", "pinfold")
            .context("this user has no home folder; name a place with --data-dir")?;
        Ok(Self(dirs.data_dir().to_owned()))
    }

    /// Makes the folder, for this user alone.
    pub(crate) fn create(&self) -> anyhow::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .with_context(|| format!("cannot make the data folder {}", self.0.display()))
    }

    /// Takes the lock, and leaves this process's number in it for whoever comes second.
    ///
    /// # Errors
    /// Another process has it; the message names the folder and that process.
    pub(crate) fn lock(&self) -> anyhow::Result<DataDirLock> {
        match self.try_lock()? {
            Locked::Owned(lock) => Ok(lock),
            Locked::InUse(owner) => bail!(
                "the data folder {} is in use by another pinfold{owner}; stop that one, or give this one \
                 its own folder with --data-dir",
                self.0.display()
            ),
        }
    }

    /// Takes the lock if nobody has it.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(crate) fn try_lock(&self) -> anyhow::Result<Locked> {
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
            Err(TryLockError::WouldBlock) => return Ok(Locked::InUse(owner(&mut file))),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Locked::Owned(DataDirLock(file)))
    }

    /// Makes sure that there is a Pinfold here, so that a mistyped folder is not made, and that it is whole.
    ///
    /// # Errors
    /// There is no database, or a restore was not finished.
    pub(crate) fn expect_pinfold(&self) -> anyhow::Result<()> {
        self.expect_whole()?;
        if !self.database().exists() {
            bail!(
                "{} holds no Pinfold yet; start one there with `pinfold serve`, or name another folder with \
                 --data-dir",
                self.0.display()
            );
        }
        Ok(())
    }

    /// Makes sure that no restore into this folder was interrupted.
    ///
    /// # Errors
    /// One was.
    pub(crate) fn expect_whole(&self) -> anyhow::Result<()> {
        if self.unfinished().exists() {
            bail!(
                "a restore into {} was not finished; run `pinfold restore` once more, or empty the folder",
                self.0.display()
            );
        }
        Ok(())
    }

    /// The file that is here while a restore goes on.
    pub(crate) fn unfinished(&self) -> PathBuf {
        self.0.join(UNFINISHED)
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The node's secret key.
    pub(crate) fn identity(&self) -> PathBuf {
        self.0.join("identity.key")
    }

    /// The socket on which a running server answers its operator.
    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("pinfold.sock")
    }

    /// The database.
    pub(crate) fn database(&self) -> PathBuf {
        self.0.join("pinfold.db")
    }

    /// The blocks, unless the configuration puts them elsewhere.
    pub(crate) fn blocks(&self) -> PathBuf {
        self.0.join("blocks")
    }

    /// The configuration file: the one that is named, else `pinfold.toml` in the folder if it is there.
    pub(crate) fn config_file(&self, named: Option<&Path>) -> Option<PathBuf> {
        let own = self.0.join("pinfold.toml");
        named.map(Path::to_owned).or_else(|| own.exists().then_some(own))
    }
}

impl Drop for DataDirLock {
    fn drop(&mut self) {
        // The number would mislead once the process is gone; the lock itself ends with the file.
        if let Err(error) = self.0.set_len(0) {
            tracing::debug!(%error, "could not clear the lock file");
        }
    }
}

/// ` (process 123)`, if the lock file says so.
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
    fn a_second_owner_is_told_who_the_first_is() {
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
    fn the_folder_is_for_its_user_alone() {
        use std::os::unix::fs::PermissionsExt;
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::choose(Some(temp.path().join("a/b"))).unwrap();
        dir.create().unwrap();
        assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
