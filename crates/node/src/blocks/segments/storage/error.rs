//! Why a store cannot be opened, and why a write to it fails.

use std::io;
use std::path::PathBuf;

use super::super::index::IndexError;
use super::queue::Failure;

/// Why a store cannot be opened. Nothing was changed in it, unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be read or written.
    #[error("{path}: {error}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Another version made it.
    #[error(
        "{path} holds blocks in format {found:?}, this Pinfold reads {expected:?}: use the version that wrote it"
    )]
    Version {
        /// The store's folder.
        path: PathBuf,
        /// What its `VERSION` says.
        found: String,
        /// What it should say.
        expected: &'static str,
    },
    /// There are segments, but no index or no `VERSION` that belongs to them.
    #[error("{path} has segments without their index: it has to be made anew from them")]
    NoIndex {
        /// The store's folder.
        path: PathBuf,
    },
    /// The segments are newer than the index.
    #[error("{path} is newer than the index: the index is an old one, and has to be made anew")]
    StaleIndex {
        /// A segment that the index cannot know yet.
        path: PathBuf,
    },
    /// A segment is not there, or shorter than what was committed.
    #[error(
        "{path} has {found} bytes of the {expected} that were committed: restore it from a backup, or accept \
         that its blocks are lost and have to be fetched again"
    )]
    SegmentLost {
        /// The segment.
        path: PathBuf,
        /// Its length; 0 if it is not there.
        found: u64,
        /// What was committed.
        expected: u64,
    },
    /// The index cannot be read.
    #[error("{path}: {reason}")]
    Index {
        /// The folder of the index.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
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
    #[error("a block that a hold counted on is gone")]
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
