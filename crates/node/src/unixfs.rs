//! UnixFS (<https://specs.ipfs.tech/unixfs/>): imports and reads files and directories.
//!
//! - [`import_file`] streams bytes into a hold and returns their root, with memory for a few chunks;
//! - [`DirectoryBuilder`] builds directories, plain or sharded, from imported files;
//! - [`read_file`] and [`list_directory`] read from the local store and never use the network; [`walk_directory`] lists a
//!   directory recursively, page by page.
//!
//! A [`Profile`] defines everything that a CID depends on, as in IPIP-0499.

mod directory;
mod file;
mod message;
mod murmur;
mod profile;
mod read;
mod walk;

use cid::Cid;

pub use directory::{DirectoryBuilder, PATH_DEPTH_MAX};
pub use file::import_file;
pub use message::{Kind, kind};
pub use profile::Profile;
pub use read::{DIRECTORY_ENTRIES_MAX, DirectoryEntry, ReadError, list_directory, read_file};
pub use walk::{EntryKind, Position, PositionError, WalkEntry, WalkPage, WalkRequest, walk_directory};

use crate::{BlockError, BlocksError};

/// A file or directory that was imported into a hold. Durable once the hold is committed or sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imported {
    pub root: Cid,
    /// The bytes of the content; for a directory, of all files in it.
    pub size_bytes: u64,
    /// The bytes of all blocks of the DAG, repeated blocks counted each time (`Tsize` in dag-pb).
    pub dag_bytes: u64,
}

/// Why an import failed.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Reading the source failed.
    #[error("reading the content failed: {0}")]
    Source(#[from] std::io::Error),
    /// The block store failed.
    #[error(transparent)]
    Blocks(#[from] BlocksError),
    /// A path is empty, too deep, or has a part that is empty, `.`, `..` or too long.
    #[error("{0:?} is not a valid path in a directory")]
    Path(String),
    /// A path exists already, or its parent is a file.
    #[error("{0:?} is in the directory twice")]
    Conflict(String),
    /// The directory cannot be sharded: two names have the same 64-bit hash.
    #[error("two names of the directory have the same hash")]
    Collision,
    /// A node is too large for a block.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The runtime is shutting down.
    #[error("the import was stopped")]
    Stopped,
}

#[cfg(test)]
mod tests;
