//! Brings a whole DAG under a hold: finds it, fetches it, verifies it, stores it, and walks on.
//!
//! A [`Fetcher`] walks the DAG (`walk`), keeps what is here, wants the rest from a bitswap session within
//! a window of bytes (`window`), and meanwhile looks for whoever has it (`search`). Blocks reach the
//! store before the walk goes on from them; the hold is sealed when nothing is missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cid::Cid;
use libp2p::Multiaddr;

use crate::exchange::Bitswap;
use crate::sources::Source;
use crate::{Blocks, BlocksError, HoldName, HoldStats};

mod run;
mod search;
mod survey;
#[cfg(test)]
mod tests;
mod walk;
mod window;

pub use search::Dial;
pub use survey::{Cut, Reach, Survey, SurveyRequest};

/// Fetches DAGs. Cheap to clone.
#[derive(Clone)]
pub struct Fetcher {
    blocks: Arc<dyn Blocks>,
    bitswap: Bitswap,
    dial: Arc<dyn Dial>,
    sources: Vec<Arc<dyn Source>>,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").field("sources", &self.sources.len()).finish_non_exhaustive()
    }
}

impl Fetcher {
    /// A fetcher into `blocks` from the peers of `bitswap`, which `dial` connects to as `sources` find
    /// them.
    #[must_use]
    pub fn new(
        blocks: Arc<dyn Blocks>,
        bitswap: Bitswap,
        dial: Arc<dyn Dial>,
        sources: Vec<Arc<dyn Source>>,
    ) -> Self {
        Self { blocks, bitswap, dial, sources }
    }

    /// Holds the DAG: returns once every block of it is stored and the hold is sealed and durable. A hold
    /// that is sealed already is complete, and returned as it is, unless blocks of it are known to be damaged:
    /// those are fetched again.
    ///
    /// Dropping the future is safe: its wants are taken back, and the hold stays unsealed with what came,
    /// so that another fetch of the same hold goes on from there.
    ///
    /// # Errors
    /// See [`FetchError`]. What came before the error stays in the unsealed hold.
    pub async fn fetch(
        &self,
        request: FetchRequest,
        progress: Arc<Progress>,
    ) -> Result<HoldStats, FetchError> {
        run::fetch(self, request, progress).await
    }

    /// Holds the DAG as [`fetch`](Self::fetch) does, if it is small and every block of it is here; `None` if not. Asks
    /// nobody. What it has kept by then stays in the unsealed hold, for a fetch to go on from.
    ///
    /// # Errors
    /// [`FetchError::OverLimit`], [`FetchError::Unfit`], [`FetchError::Blocks`].
    pub async fn hold_local(&self, request: FetchRequest) -> Result<Option<HoldStats>, FetchError> {
        run::hold_local(self.blocks.clone(), request).await
    }

    /// Looks how much of a DAG is here and, if that is not all, whether anybody has its root. Keeps nothing, and asks
    /// the network for the root alone. Dropping the future ends the look.
    ///
    /// # Errors
    /// [`FetchError::Unfit`], [`FetchError::Blocks`], [`FetchError::Stopping`].
    pub async fn survey(&self, request: SurveyRequest) -> Result<Survey, FetchError> {
        survey::survey(self, request).await
    }
}

/// What to fetch, and within which bounds.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    /// The root of the DAG.
    pub root: Cid,
    /// The hold that shall keep it. Blocks that it has already are not fetched again.
    pub hold: HoldName,
    /// Peers that are said to have the content (`/…/p2p/ID`); dialled at once.
    pub origins: Vec<Multiaddr>,
    /// The bounds of this fetch.
    pub limits: FetchLimits,
}

/// The bounds of one fetch.
#[derive(Debug, Clone)]
pub struct FetchLimits {
    /// The most bytes of distinct blocks that the DAG may have.
    pub bytes_max: u64,
    /// The most distinct blocks that the DAG may have.
    pub blocks_max: u64,
    /// How long to look for the first block.
    pub find_time: Duration,
    /// How long to go on without a new block after the first.
    pub stall_time: Duration,
}

/// What a fetch has reached. Shared: the fetch counts, anyone reads.
#[derive(Debug, Default)]
pub struct Progress {
    blocks: AtomicU64,
    bytes: AtomicU64,
    peers: AtomicU64,
}

/// One reading of a [`Progress`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProgressReading {
    /// Distinct blocks that are held, also those that were here before.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Peers that delivered at least one block to this fetch.
    pub peers: u64,
}

impl Progress {
    /// Sets what is held by now.
    pub fn set_held(&self, blocks: u64, bytes: u64) {
        self.blocks.store(blocks, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Sets how many peers have delivered.
    pub fn set_peers(&self, peers: u64) {
        self.peers.store(peers, Ordering::Relaxed);
    }

    /// Reads it.
    #[must_use]
    pub fn read(&self) -> ProgressReading {
        ProgressReading {
            blocks: self.blocks.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            peers: self.peers.load(Ordering::Relaxed),
        }
    }
}

/// Why a DAG could not be held. The hold stays as it is, unsealed; the caller releases it or tries again.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody delivered the root within the find time.
    #[error("no provider delivered {0}")]
    NotFound(Cid),
    /// No new block came within the stall time.
    #[error("no progress for {after:?}; {missing} is missing")]
    Stalled {
        /// One of the blocks that are waited for.
        missing: Cid,
        /// How long nothing came.
        after: Duration,
    },
    /// The DAG has more bytes or blocks than allowed.
    #[error("the DAG is larger than {bytes_max} bytes or {blocks_max} blocks")]
    OverLimit {
        /// The limit in bytes.
        bytes_max: u64,
        /// The limit in blocks.
        blocks_max: u64,
    },
    /// The DAG can never be held: a block that cannot be decoded, an unknown codec or hash, or a block
    /// that is too large. Trying again is of no use.
    #[error("{cid} cannot be pinned: {reason}")]
    Unfit {
        /// The block at fault.
        cid: Cid,
        /// What is wrong with it.
        reason: String,
    },
    /// The block store failed.
    #[error(transparent)]
    Blocks(#[from] BlocksError),
    /// The node is shutting down.
    #[error("the node is stopping")]
    Stopping,
}
