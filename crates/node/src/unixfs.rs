//! UnixFS (<https://specs.ipfs.tech/unixfs/>): files and directories as DAGs, both ways.
//!
//! - [`import_file`] streams bytes into a hold and yields their root, with memory for a few chunks;
//! - [`DirectoryBuilder`] makes directories, plain or sharded, of what is imported already;
//! - [`read_file`] and [`list_directory`] read back what is stored, and never ask the network; [`walk_directory`]
//!   lists all that is inside a directory, page by page.
//!
//! A [`Profile`] fixes everything that a CID depends on, after IPIP-0499.

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

/// A file or a directory that is under a hold; durable once the hold is committed or sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imported {
    /// The root of its DAG.
    pub root: Cid,
    /// The bytes of its content; for a directory those of all files below it.
    pub size_bytes: u64,
    /// The bytes of all blocks of its DAG, repeated ones counted each time (what dag-pb calls `Tsize`).
    pub dag_bytes: u64,
}

/// Why something could not be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The source of the bytes failed.
    #[error("reading the content failed: {0}")]
    Source(#[from] std::io::Error),
    /// The block store failed.
    #[error(transparent)]
    Blocks(#[from] BlocksError),
    /// A path is empty, too deep, or has a part that is empty, `.`, `..` or too long.
    #[error("{0:?} is no path in a directory")]
    Path(String),
    /// A path is there already, or is below one that is a file.
    #[error("{0:?} is in the directory twice")]
    Conflict(String),
    /// A directory that cannot be sharded: names whose hashes are the same in all 64 bits.
    #[error("two names of the directory have the same hash")]
    Collision,
    /// A node came out too large for a block.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The runtime is shutting down.
    #[error("the import was stopped")]
    Stopped,
}

#[cfg(test)]
mod tests;
