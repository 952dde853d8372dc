//! Where blocks live, and the holds that keep them.
//!
//! A **hold** is a named set of blocks, kept as (block, hold) edges: adding and removing are idempotent. A
//! block lives while one edge names it. A fetch or an upload *builds* a hold; once all of the DAG is in,
//! the hold is *sealed*. An unsealed hold survives a restart with all that was committed, so that the
//! same work can go on, or be released whole.
//!
//! Blocks are stored under their multihash: CIDs that differ in version or codec alone share the bytes.
//! Identity CIDs are never stored; [`Block::inline`] has them.

#[cfg(test)]
mod contract;
mod memory;
mod segments;

use async_trait::async_trait;
use cid::Cid;
use roaring::RoaringTreemap;

use crate::Block;

pub use memory::MemoryBlocks;
pub use segments::{
    DamagedBlock, KeepAll, LostSegment, OpenError, ScrubStep, SegmentBlocks, SegmentConfig, Snapshot,
    VerifyProgress,
};

/// The name of a hold, chosen by the caller, such as `pin/bafy…`. 1 to 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HoldName(String);

impl HoldName {
    /// The longest name, in bytes: room for a prefix and any CID in base32.
    pub const LEN_MAX: usize = 255;

    /// Takes a name of 1 to [`Self::LEN_MAX`] bytes; `None` for any other.
    #[must_use]
    pub fn parse(name: impl Into<String>) -> Option<Self> {
        let name = name.into();
        (1..=Self::LEN_MAX).contains(&name.len()).then_some(Self(name))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A hold's number inside its store; valid until the hold is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HoldId(pub u64);

/// How much a hold keeps: its distinct blocks and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HoldStats {
    /// Distinct blocks, by multihash.
    pub blocks: u64,
    /// The sum of their lengths.
    pub bytes: u64,
}

/// A hold as [`Blocks::holds`] lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldInfo {
    /// Its name.
    pub name: HoldName,
    /// Whether it was sealed.
    pub sealed: bool,
    /// What it keeps, as far as it is committed.
    pub stats: HoldStats,
}

/// What a store has in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Files that blocks lie in.
    pub segments: u64,
    /// Distinct blocks, by multihash.
    pub blocks: u64,
    /// Their bytes: each block counts once.
    pub bytes: u64,
    /// Holds, also those that are being built.
    pub holds: u64,
    /// The blocks of all holds added up: each counts as often as it is kept.
    pub held_blocks: u64,
    /// The bytes of all holds added up.
    pub held_bytes: u64,
    /// What all of it takes on disk, as the file system counts it; 0 where there is no disk.
    pub disk_bytes: u64,
    /// Blocks that are known to be damaged.
    pub damaged_blocks: u64,
}

/// Counts the blocks of several holds of one store, each once.
#[derive(Debug, Clone, Default)]
pub struct Distinct {
    /// The numbers that the store has given its blocks.
    blocks: RoaringTreemap,
    bytes: u64,
}

impl Distinct {
    /// Counts a block, by its number in its store, unless it was counted before.
    pub fn add(&mut self, block: u64, bytes: u64) {
        if self.blocks.insert(block) {
            self.bytes += bytes;
        }
    }

    /// The bytes of all that was counted.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// What went wrong in a block store.
#[derive(Debug, thiserror::Error)]
pub enum BlocksError {
    /// The disk is full; nothing was acknowledged, and writing works again once there is space.
    #[error("no space left for blocks")]
    Full,
    /// The stored bytes do not match the CID any more.
    #[error("block {0} is damaged on disk")]
    Damaged(Cid),
    /// The hold was released meanwhile.
    #[error("the hold is gone")]
    NoSuchHold,
    /// Any other failure of the disk or the index, which is logged where it arose.
    #[error("the block store failed: {0}")]
    Failed(String),
    /// The store is shutting down.
    #[error("the block store is closed")]
    Closed,
}

/// A durable store of blocks. One contract suite (`blocks/contract.rs`) holds for every implementation.
///
/// `size` and `keep` look into the index and are quick; `get` may read the disk, so async callers run it
/// where blocking is allowed. Whatever writes may block for the moment in which the writer takes a full
/// queue.
///
/// After [`BlocksError::Full`] or [`BlocksError::Failed`] from a write, what the hold was given since its last
/// commit may be lost: its [`HoldId`] fails from then on, and the hold has to be [opened](Self::open) again.
#[async_trait]
pub trait Blocks: Send + Sync + 'static {
    /// The length of a stored block in bytes, `None` if it is not here.
    fn size(&self, cid: &Cid) -> Result<Option<u64>, BlocksError>;

    /// Reads and verifies a block, also one that is put but not committed yet. May block on the disk.
    fn get(&self, cid: &Cid) -> Result<Option<Block>, BlocksError>;

    /// Opens the hold of this name for building; creates it if need be. Opening a hold that is there
    /// (from a run before, or sealed) goes on with what it has.
    fn open(&self, name: &HoldName) -> Result<HoldId, BlocksError>;

    /// Adds a block and its edge. Waits while too much is unwritten; durable only after
    /// [`commit`](Self::commit) or [`seal`](Self::seal). Cancel-safe: the block is in or it is not.
    async fn put(&self, hold: HoldId, block: Block) -> Result<(), BlocksError>;

    /// Stores a block anew, durably, that is stored and damaged; everything that kept it keeps it. Does nothing if
    /// it is not stored. Dropping the future does not stop it.
    async fn repair(&self, block: Block) -> Result<(), BlocksError>;

    /// Adds an edge to a block that is stored already; false if it is not.
    fn keep(&self, hold: HoldId, cid: &Cid) -> Result<bool, BlocksError>;

    /// Whether the hold has an edge to this block.
    fn is_kept(&self, hold: HoldId, cid: &Cid) -> Result<bool, BlocksError>;

    /// What the hold keeps by now, uncommitted edges included.
    fn stats(&self, hold: HoldId) -> Result<HoldStats, BlocksError>;

    /// Returns once everything that this hold was given before the call survives power loss.
    async fn commit(&self, hold: HoldId) -> Result<HoldStats, BlocksError>;

    /// [`commit`](Self::commit), and marks the hold as complete in the same step.
    async fn seal(&self, hold: HoldId) -> Result<HoldStats, BlocksError>;

    /// Durably removes the hold, and frees the space of every block that no other hold keeps. The space
    /// is given back in the background, also after a restart. A name that is not there is fine.
    async fn release(&self, name: &HoldName) -> Result<(), BlocksError>;

    /// The holds whose name starts with `prefix`, in the order of names, at most `limit` of them after
    /// `after`.
    fn holds(
        &self,
        prefix: &str,
        after: Option<&HoldName>,
        limit: usize,
    ) -> Result<Vec<HoldInfo>, BlocksError>;

    /// Whether a block of this hold is known to be damaged: [`keep`](Self::keep) is false for it, as if it were not
    /// stored, until it is [put](Self::put) or [repaired](Self::repair).
    fn is_damaged(&self, _name: &HoldName) -> Result<bool, BlocksError> {
        Ok(false)
    }

    /// The holds with blocks that are known to be damaged, and how many each has, in the order of names. Looks at
    /// `limit` damaged blocks at most.
    fn damaged_holds(&self, _limit: usize) -> Result<Vec<(HoldName, u64)>, BlocksError> {
        Ok(Vec::new())
    }

    /// Counts the committed blocks of a hold, besides those that were counted before. Costs as much as the hold is
    /// large. A name that is not there counts nothing.
    fn count(&self, name: &HoldName, counted: &mut Distinct) -> Result<(), BlocksError>;

    /// What the store has in all, as far as it is committed. May ask the file system for the size of each file.
    fn totals(&self) -> Result<Totals, BlocksError>;

    /// The hold of this name, if there is one.
    fn hold(&self, name: &HoldName) -> Result<Option<HoldInfo>, BlocksError>;
}
