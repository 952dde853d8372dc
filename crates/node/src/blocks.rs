//! Block storage, and the holds that protect blocks from deletion.
//!
//! A **hold** is a named set of blocks, stored as (block, hold) edges. Adding and removing an edge are idempotent. A
//! block exists as long as at least one edge references it. A fetch or an upload *builds* a hold; once the whole DAG
//! is stored, the hold is *sealed*. An unsealed hold survives a restart with everything that was committed, so the
//! same work can continue, or the hold can be released as a whole.
//!
//! Blocks are stored under their multihash: CIDs that differ only in version or codec share the bytes. Blocks of
//! identity CIDs are never stored; [`Block::inline`] decodes them.

#[cfg(test)]
mod contract;
mod memory;
mod segments;

use async_trait::async_trait;
use cid::Cid;
use roaring::RoaringTreemap;

use crate::Block;

pub use memory::MemoryBlocks;
#[cfg(test)]
pub(crate) use segments::scrub_step;
pub use segments::{
    DamagedBlock, LostSegment, OpenError, ReclaimPause, ScrubStep, SegmentBlocks, SegmentConfig, Snapshot,
    VerifyProgress, scrub,
};

/// The name of a hold, chosen by the caller, such as `pin/bafy…`. 1 to 255 bytes long.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HoldName(String);

impl HoldName {
    /// The maximum length in bytes: room for a prefix and any CID in base32.
    pub const LEN_MAX: usize = 255;

    /// Checks the length; `None` if it is not 1 to [`Self::LEN_MAX`] bytes.
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

/// A handle on an open hold of one store. Valid until the hold is released, or until a write to the store fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HoldId(pub u64);

/// The size of a hold: its distinct blocks and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HoldStats {
    /// Distinct blocks, by multihash.
    pub blocks: u64,
    pub bytes: u64,
}

/// A hold as listed by [`Blocks::holds`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldInfo {
    pub name: HoldName,
    pub sealed: bool,
    /// Committed blocks only.
    pub stats: HoldStats,
}

/// Totals over a whole store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Segment files.
    pub segments: u64,
    /// Distinct blocks, by multihash.
    pub blocks: u64,
    /// Bytes of the distinct blocks.
    pub bytes: u64,
    /// Holds, including those that are being built.
    pub holds: u64,
    /// The sum of the blocks of all holds: a block counts once for each hold that references it.
    pub held_blocks: u64,
    /// The sum of the bytes of all holds.
    pub held_bytes: u64,
    /// Disk usage as the file system counts it; 0 for a store in memory.
    pub disk_bytes: u64,
    /// Blocks that are known to be damaged.
    pub damaged_blocks: u64,
}

/// Counts the distinct blocks of several holds of one store.
#[derive(Debug, Clone, Default)]
pub struct Distinct {
    /// The ids that the store assigned to its blocks.
    blocks: RoaringTreemap,
    bytes: u64,
}

impl Distinct {
    /// Counts a block, identified by its id in the store, unless it was counted before.
    pub fn add(&mut self, block: u64, bytes: u64) {
        if self.blocks.insert(block) {
            self.bytes += bytes;
        }
    }

    /// The bytes of the counted blocks.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Why an operation on a block store failed.
#[derive(Debug, thiserror::Error)]
pub enum BlocksError {
    /// The disk is full. Nothing was acknowledged. Writes succeed again once there is space.
    #[error("no disk space left for blocks")]
    Full,
    /// The stored bytes no longer match the CID.
    #[error("block {0} is damaged on disk")]
    Damaged(Cid),
    /// The hold does not exist: it was released.
    #[error("the hold does not exist")]
    NoSuchHold,
    /// Any other failure of the disk or the index. It is logged where it occurs.
    #[error("the block store failed: {0}")]
    Failed(String),
    /// The store is shutting down.
    #[error("the block store is closed")]
    Closed,
}

/// A durable store of blocks. Every implementation passes the contract suite in `blocks/contract.rs`.
///
/// `size` and `add_edge` only look into the index and are fast. `get` may read the disk, so async callers run it where
/// blocking is allowed. Operations that write may block for the moment in which the writer takes a full queue.
///
/// After a write returned [`BlocksError::Full`] or [`BlocksError::Failed`], everything that was added to the hold since
/// its last commit may be lost. Its [`HoldId`] fails from then on, and the hold must be [opened](Self::open) again.
#[async_trait]
pub trait Blocks: Send + Sync + 'static {
    /// The length of a stored block in bytes; `None` if it is not stored.
    fn size(&self, cid: &Cid) -> Result<Option<u64>, BlocksError>;

    /// Reads and verifies a block, including one that was put but not committed yet. May block on the disk.
    fn get(&self, cid: &Cid) -> Result<Option<Block>, BlocksError>;

    /// Opens the hold of this name for building, and creates it if it does not exist. A hold that exists (from an
    /// earlier run, or sealed) keeps its blocks.
    fn open(&self, name: &HoldName) -> Result<HoldId, BlocksError>;

    /// Adds a block and its edge. Waits while too many bytes are queued. Durable only after
    /// [`commit`](Self::commit) or [`seal`](Self::seal). Cancel-safe: the block is either added or not.
    async fn put(&self, hold: HoldId, block: Block) -> Result<(), BlocksError>;

    /// Durably rewrites a stored block that is damaged. All its edges stay. Does nothing if the block is not stored.
    /// Dropping the future does not stop the write.
    async fn repair(&self, block: Block) -> Result<(), BlocksError>;

    /// Adds an edge to a block that is stored already; false if it is not stored.
    fn add_edge(&self, hold: HoldId, cid: &Cid) -> Result<bool, BlocksError>;

    /// Whether the hold has an edge to this block.
    fn has_edge(&self, hold: HoldId, cid: &Cid) -> Result<bool, BlocksError>;

    /// The size of the hold, including uncommitted edges.
    fn stats(&self, hold: HoldId) -> Result<HoldStats, BlocksError>;

    /// Returns once everything that was added to this hold before the call survives power loss.
    async fn commit(&self, hold: HoldId) -> Result<HoldStats, BlocksError>;

    /// [`commit`](Self::commit), and marks the hold as complete in the same batch.
    async fn seal(&self, hold: HoldId) -> Result<HoldStats, BlocksError>;

    /// Durably removes the hold. The space of every block that no other hold references is reclaimed in the background,
    /// also after a restart. Succeeds if there is no hold of this name.
    async fn release(&self, name: &HoldName) -> Result<(), BlocksError>;

    /// The holds whose name starts with `prefix`, ordered by name, starting after `after`, at most `limit`.
    fn holds(
        &self,
        prefix: &str,
        after: Option<&HoldName>,
        limit: usize,
    ) -> Result<Vec<HoldInfo>, BlocksError>;

    /// Whether a block of this hold is known to be damaged. For such a block [`add_edge`](Self::add_edge) returns false,
    /// as if it were not stored, until it is [put](Self::put) or [repaired](Self::repair).
    fn is_damaged(&self, _name: &HoldName) -> Result<bool, BlocksError> {
        Ok(false)
    }

    /// The holds with blocks that are known to be damaged, and how many each has, ordered by name. Considers at most
    /// `limit` damaged blocks.
    fn damaged_holds(&self, _limit: usize) -> Result<Vec<(HoldName, u64)>, BlocksError> {
        Ok(Vec::new())
    }

    /// Adds the committed blocks of a hold to `counted`. The cost is proportional to the size of the hold. Does nothing
    /// if there is no hold of this name.
    fn count(&self, name: &HoldName, counted: &mut Distinct) -> Result<(), BlocksError>;

    /// The totals of the store, committed data only. May ask the file system for the size of each file.
    fn totals(&self) -> Result<Totals, BlocksError>;

    /// The hold of this name, if there is one.
    fn hold(&self, name: &HoldName) -> Result<Option<HoldInfo>, BlocksError>;
}
