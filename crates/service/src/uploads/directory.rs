//! Uploads of a directory: its files are received one by one, each with its path.

use std::collections::HashSet;

use cid::Cid;
use pinfold_cluster::Imported;
use tokio::io::AsyncRead;

use super::import::{UploadLimits, import_entry, import_error};
use super::path::check_path;
use super::upload_hold::UploadHold;
use crate::Error;

/// Maximum files of one directory: their names and roots are in memory until the directory is complete.
pub(super) const ENTRIES_MAX: usize = 100_000;

/// One file of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedEntry {
    /// Path inside the directory.
    pub path: String,
    pub cid: Cid,
    /// Length of the file in bytes.
    pub file_bytes: u64,
}

/// A directory that is being received. Dropping it releases its blocks.
#[must_use = "dropping it releases its blocks"]
pub struct DirectoryDraft {
    pub(super) hold: UploadHold,
    limits: UploadLimits,
    paths: HashSet<String>,
    pub(super) files: Vec<(String, Imported)>,
}

/// A file that was received for a [`DirectoryDraft`] and has no path yet.
#[must_use = "a file without a path is not in the directory"]
#[derive(Debug)]
pub struct LooseFile(Imported);

impl DirectoryDraft {
    pub(super) fn new(hold: UploadHold, limits: UploadLimits) -> Self {
        Self { hold, limits, paths: HashSet::new(), files: Vec::new() }
    }

    /// Receives one file. `path` is separated by `/`.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] names a path that is absolute, has `..`, an empty segment or NUL, or is already in the
    /// directory; else as [`Uploads::receive`](crate::Uploads::receive).
    pub async fn add(
        &mut self,
        path: &str,
        body: impl AsyncRead + Send + Unpin,
    ) -> Result<ReceivedEntry, Error> {
        self.check(path)?;
        let file = self.receive(body).await?;
        self.place(path, file)
    }

    /// Receives a file whose path is not known yet.
    ///
    /// # Errors
    /// As [`Uploads::receive`](crate::Uploads::receive).
    pub async fn receive(&mut self, body: impl AsyncRead + Send + Unpin) -> Result<LooseFile, Error> {
        let imported = import_entry(&self.hold, &self.limits, body).await?;
        self.limits.take(imported.content_bytes);
        Ok(LooseFile(imported))
    }

    /// Sets the path of a received file.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`], as [`add`](Self::add).
    pub fn place(&mut self, path: &str, file: LooseFile) -> Result<ReceivedEntry, Error> {
        self.check(path)?;
        self.paths.insert(path.to_owned());
        let file = (path.to_owned(), file.0);
        self.files.push(file.clone());
        Ok(entry(file))
    }

    /// Whether the directory has a file at this path.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.paths.contains(path)
    }

    /// Adds an empty directory.
    pub(super) async fn add_empty(&mut self, path: &str) -> Result<(), Error> {
        self.check(path)?;
        let driver = &self.hold.setup()?.driver;
        let empty = driver.import_directory(self.hold.name(), &[]).await.map_err(import_error)?;
        self.place(path, LooseFile(empty)).map(drop)
    }

    fn check(&self, path: &str) -> Result<(), Error> {
        check_path(path)?;
        if self.files.len() >= ENTRIES_MAX {
            return Err(Error::InvalidRequest(format!("A directory can have at most {ENTRIES_MAX} files")));
        }
        if self.has(path) {
            return Err(Error::InvalidRequest(format!("{path:?} is in the directory twice")));
        }
        Ok(())
    }
}

pub(super) fn entry((path, imported): (String, Imported)) -> ReceivedEntry {
    ReceivedEntry { path, cid: imported.root, file_bytes: imported.content_bytes }
}
