//! The import profiles of IPIP-0499: everything that the CID of some content depends on.

use bytes::Bytes;
use cid::Version;

use crate::dag::{DAG_PB, RAW};
use crate::{Block, BlockError};

const SHA2_256: u64 = 0x12;

/// How the size of a directory is estimated, which decides whether it is sharded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DirectorySize {
    /// The bytes of all names and CIDs.
    Links,
    /// The size of the directory's block.
    Block,
}

/// The parameters of importing files and directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    name: &'static str,
    version: Version,
    raw_leaves: bool,
    chunk_bytes: usize,
    links_max: usize,
    directory_size: DirectorySize,
}

impl Profile {
    /// CIDv1, raw leaves of 1 MiB, 1024 links: recommended for new content. The default.
    pub const UNIXFS_V1_2025: Self = Self {
        name: "unixfs-v1-2025",
        version: Version::V1,
        raw_leaves: true,
        chunk_bytes: 1024 * 1024,
        links_max: 1024,
        directory_size: DirectorySize::Block,
    };

    /// CIDv0, dag-pb leaves of 256 KiB: the default of Kubo for ten years.
    pub const UNIXFS_V0_2015: Self = Self {
        name: "unixfs-v0-2015",
        version: Version::V0,
        raw_leaves: false,
        chunk_bytes: 256 * 1024,
        links_max: 174,
        directory_size: DirectorySize::Links,
    };

    /// `ipfs add --cid-version=1` up to Kubo 0.39.
    pub const KUBO_LEGACY_CIDV1: Self =
        Self { name: "kubo-legacy-cidv1", version: Version::V1, raw_leaves: true, ..Self::UNIXFS_V0_2015 };

    /// All profiles.
    pub const ALL: [Self; 3] = [Self::UNIXFS_V1_2025, Self::UNIXFS_V0_2015, Self::KUBO_LEGACY_CIDV1];

    /// Directories larger than this many bytes are sharded.
    pub(super) const DIRECTORY_BYTES_MAX: usize = 256 * 1024;

    /// The profile with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.name == name)
    }

    /// The name in IPIP-0499.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The size of a file's chunks in bytes.
    #[must_use]
    pub fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    pub(super) fn links_max(&self) -> usize {
        self.links_max
    }

    pub(super) fn raw_leaves(&self) -> bool {
        self.raw_leaves
    }

    pub(super) fn directory_size(&self) -> DirectorySize {
        self.directory_size
    }

    /// A raw block.
    pub(super) fn raw(&self, data: Bytes) -> Result<Block, BlockError> {
        Block::hash(Version::V1, RAW, SHA2_256, data)
    }

    /// A dag-pb block.
    pub(super) fn node(&self, data: Bytes) -> Result<Block, BlockError> {
        Block::hash(self.version, DAG_PB, SHA2_256, data)
    }
}

impl Default for Profile {
    fn default() -> Self {
        Self::UNIXFS_V1_2025
    }
}
