//! Why a store cannot be opened, and why a write to it fails.

use std::io;
use std::path::PathBuf;

use super::super::index::IndexError;
use super::queue::Failure;

/// Why a store cannot be opened. The store was not changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file or folder cannot be read or written.
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    /// The store was written by a version with another format.
    #[error(
        "{path} has blocks in format {found:?}, but this version of Pinfold reads {expected:?}: use the version that \
         wrote it"
    )]
    Version { path: PathBuf, found: String, expected: &'static str },
    /// There are segments, but no index or no `VERSION`.
    #[error("{path} has segments but no index: rebuild the index")]
    NoIndex { path: PathBuf },
    /// The segments are newer than the index.
    #[error("{path} is newer than the index, so the index is outdated: rebuild it")]
    StaleIndex {
        /// A segment that is newer than the index.
        path: PathBuf,
    },
    /// A segment is missing, or shorter than its committed length.
    #[error(
        "{path} has {found} bytes, but {expected} were committed: restore it from a backup, or accept that its blocks \
         are lost and must be fetched again"
    )]
    SegmentLost {
        path: PathBuf,
        /// Its length in bytes; 0 if it is missing.
        found: u64,
        /// Its committed length in bytes.
        expected: u64,
    },
    /// The index cannot be opened or read.
    #[error("{path}: {reason}")]
    Index { path: PathBuf, reason: String },
}

/// Why a group cannot be committed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("segments: {0}")]
    Data(#[from] io::Error),
    #[error("less than {0} bytes are free")]
    Reserve(u64),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("a queued edge references a block that is not stored")]
    Dangling,
}

impl WriteError {
    pub(crate) fn failure(&self) -> Failure {
        match self {
            Self::Reserve(_) => Failure::Full,
            Self::Data(error) if is_full(error) => Failure::Full,
            Self::Index(IndexError::Fjall(fjall::Error::Io(error))) if is_full(error) => Failure::Full,
            Self::Index(IndexError::Io(error)) if is_full(error) => Failure::Full,
            Self::Data(_) | Self::Index(_) | Self::Dangling => Failure::Failed(self.to_string()),
        }
    }
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
