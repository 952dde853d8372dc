//! Uploads: content that comes with the request.
//!
//! An upload has two steps, because its terms may come after its bytes. *Receive* writes the blocks under a
//! guard; dropping what it gives releases them. *Keep* writes the wish, waits until the placement has them
//! under its own hold, and only then lets the guard go.

use std::sync::Arc;

use cid::Cid;
use pinfold_model::{ClusterId, PinName, Timelock};
use tokio::io::AsyncRead;

use crate::service::Core;
use crate::{Caller, Error, PinReceipt};

/// Uploads. Cheap to clone.
#[derive(Clone)]
pub struct Uploads {
    pub(crate) core: Arc<Core>,
}

/// What an upload shall become.
#[derive(Debug, Clone, Default)]
pub struct UploadTerms {
    /// What the content was called where it came from.
    pub original_name: Option<PinName>,
    /// What the account calls it.
    pub custom_name: Option<PinName>,
    /// Where it shall be; `None` for the default cluster.
    pub cluster: Option<ClusterId>,
    /// When it ends by itself.
    pub timelock: Option<Timelock>,
}

/// A file that was received and is not kept yet. Dropping it releases its blocks.
#[must_use = "what is not kept is released"]
pub struct Received {
    cid: Cid,
    size_bytes: u64,
}

impl Received {
    /// The file's root.
    #[must_use]
    pub fn cid(&self) -> &Cid {
        &self.cid
    }

    /// The file's length in bytes.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.size_bytes
    }
}

/// One file of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedEntry {
    /// Its path inside the directory.
    pub path: String,
    /// Its root.
    pub cid: Cid,
    /// Its length in bytes.
    pub file_bytes: u64,
}

/// A directory that is being received. Dropping it releases its blocks.
#[must_use = "what is not kept is released"]
pub struct DirectoryDraft {
    entries: Vec<ReceivedEntry>,
}

/// What came of a directory upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadReceipt {
    /// The pin of the directory.
    pub receipt: PinReceipt,
    /// Its files, in the order in which they came.
    pub entries: Vec<ReceivedEntry>,
}

impl Uploads {
    /// Receives one file as UnixFS. `early` is what is known of its terms before its bytes, so that what is
    /// not allowed fails before it is sent. Memory does not grow with the file.
    ///
    /// # Errors
    /// [`Error::UnknownCluster`], [`Error::ClusterNotAllowed`], [`Error::TimelockNotAllowed`],
    /// [`Error::QuotaExceeded`], [`Error::StorageFull`], [`Error::Unavailable`], [`Error::UploadCutOff`].
    pub async fn receive(
        &self,
        caller: &Caller,
        early: &UploadTerms,
        body: impl AsyncRead + Send + Unpin,
    ) -> Result<Received, Error> {
        let _ = (caller, early, body);
        Err(Error::Internal)
    }

    /// Keeps what was received, under all of its terms. The blocks must be in the cluster that the early
    /// terms named; if `terms` name another one, they are sent there.
    ///
    /// # Errors
    /// As [`Pins::pin`](crate::Pins::pin).
    pub async fn keep(&self, caller: &Caller, received: Received, terms: UploadTerms) -> Result<PinReceipt, Error> {
        let _ = (caller, received, terms);
        Err(Error::Internal)
    }

    /// Begins a directory.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub async fn directory(&self, caller: &Caller, early: &UploadTerms) -> Result<DirectoryDraft, Error> {
        let _ = (caller, early);
        Err(Error::Internal)
    }

    /// Keeps a directory, under all of its terms.
    ///
    /// # Errors
    /// As [`Pins::pin`](crate::Pins::pin); [`Error::InvalidRequest`] when it is empty.
    pub async fn keep_directory(
        &self,
        caller: &Caller,
        draft: DirectoryDraft,
        terms: UploadTerms,
    ) -> Result<UploadReceipt, Error> {
        let _ = (caller, draft, terms);
        Err(Error::Internal)
    }
}

impl DirectoryDraft {
    /// Adds one file. `path` is `/`-separated.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] names the path that is absolute, has `..`, an empty segment or NUL, or is
    /// there already; else as [`Uploads::receive`].
    pub async fn add(&mut self, path: &str, body: impl AsyncRead + Send + Unpin) -> Result<ReceivedEntry, Error> {
        let _ = (path, body, &self.entries);
        Err(Error::Internal)
    }
}
