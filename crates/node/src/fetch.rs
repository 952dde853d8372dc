//! Fetches whole DAGs into holds.
//!
//! A [`Fetcher`] walks the DAG (`walk`), adds stored blocks to the hold, and requests the others from a bitswap session
//! within a window of bytes (`window`). At the same time it searches for providers (`search`). A block is stored before
//! the walk continues with its links. The hold is sealed when no block is missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cid::Cid;
use libp2p::Multiaddr;
use tokio_util::task::TaskTracker;

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
    /// The walks that run on blocking threads.
    walks: TaskTracker,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").field("sources", &self.sources.len()).finish_non_exhaustive()
    }
}

impl Fetcher {
    /// A fetcher that stores into `blocks` and requests from the peers of `bitswap`. `dial` connects to the providers that
    /// `sources` find.
    #[must_use]
    pub fn new(
        blocks: Arc<dyn Blocks>,
        bitswap: Bitswap,
        dial: Arc<dyn Dial>,
        sources: Vec<Arc<dyn Source>>,
    ) -> Self {
        Self { blocks, bitswap, dial, sources, walks: TaskTracker::new() }
    }

    /// Fetches the DAG: returns once every block of it is stored and the hold is sealed and durable. A hold that is sealed
    /// already is complete and returned unchanged, except that blocks known to be damaged are fetched again.
    ///
    /// Dropping the future is safe: its wants are cancelled, and the hold stays unsealed with the blocks received so far.
    /// Another fetch of the same hold continues from there.
    ///
    /// # Errors
    /// See [`FetchError`]. Blocks received before the error stay in the unsealed hold.
    pub async fn fetch(
        &self,
        request: FetchRequest,
        progress: Arc<Progress>,
    ) -> Result<HoldStats, FetchError> {
        run::fetch(self, request, progress).await
    }

    /// Holds the DAG like [`fetch`](Self::fetch), if it is small and every block of it is stored locally; `None` otherwise.
    /// Does not use the network. Edges added so far stay in the unsealed hold, from which a fetch continues.
    ///
    /// # Errors
    /// [`FetchError::OverLimit`], [`FetchError::Unfit`], [`FetchError::Blocks`].
    pub async fn hold_local(&self, request: FetchRequest) -> Result<Option<HoldStats>, FetchError> {
        run::hold_local(self, request).await
    }

    /// Waits until no walk runs on a blocking thread. The futures of all fetches must have ended or been dropped before.
    pub async fn stopped(&self) {
        self.walks.close();
        self.walks.wait().await;
    }

    /// Determines how much of a DAG is stored locally and, if that is not all, whether the root can be found. Stores nothing,
    /// and requests only the root from the network. Dropping the future ends the survey.
    ///
    /// # Errors
    /// [`FetchError::Unfit`], [`FetchError::Blocks`], [`FetchError::Stopping`].
    pub async fn survey(&self, request: SurveyRequest) -> Result<Survey, FetchError> {
        survey::survey(self, request).await
    }
}

/// What to fetch, and within which limits.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    pub root: Cid,
    /// The hold for the DAG. Blocks that it has already are not fetched again.
    pub hold: HoldName,
    /// Addresses of peers that are said to have the content (`/…/p2p/ID`). They are dialled at once.
    pub origins: Vec<Multiaddr>,
    pub limits: FetchLimits,
}

/// The limits of one fetch.
#[derive(Debug, Clone)]
pub struct FetchLimits {
    /// Bytes of the distinct blocks of the DAG.
    pub bytes_max: u64,
    /// Distinct blocks of the DAG.
    pub blocks_max: u64,
    /// How long to wait for the first block.
    pub find_time: Duration,
    /// How long to wait for each further block.
    pub stall_time: Duration,
}

/// The progress of a fetch. The fetch updates it, any task may read it.
#[derive(Debug, Default)]
pub struct Progress {
    blocks: AtomicU64,
    bytes: AtomicU64,
    peers: AtomicU64,
}

/// One reading of a [`Progress`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProgressReading {
    /// Distinct blocks in the hold, including those that were stored before.
    pub blocks: u64,
    /// Bytes of these blocks.
    pub bytes: u64,
    /// Peers that delivered at least one block to this fetch.
    pub peers: u64,
}

impl Progress {
    /// Sets the size of the hold.
    pub fn set_held(&self, blocks: u64, bytes: u64) {
        self.blocks.store(blocks, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Sets the number of peers that delivered a block.
    pub fn set_peers(&self, peers: u64) {
        self.peers.store(peers, Ordering::Relaxed);
    }

    /// The current values.
    #[must_use]
    pub fn read(&self) -> ProgressReading {
        ProgressReading {
            blocks: self.blocks.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            peers: self.peers.load(Ordering::Relaxed),
        }
    }
}

/// Why a DAG could not be fetched. The hold stays unsealed; the caller releases it or tries again.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No peer delivered the root within the find time.
    #[error("no provider delivered {0}")]
    NotFound(Cid),
    /// No block arrived within the stall time.
    #[error("no progress for {after:?}; {missing} is missing")]
    Stalled {
        /// One of the blocks that are still missing.
        missing: Cid,
        after: Duration,
    },
    /// The DAG exceeds a limit.
    #[error("the DAG is larger than {bytes_max} bytes or {blocks_max} blocks")]
    OverLimit { bytes_max: u64, blocks_max: u64 },
    /// The DAG can never be held: a block cannot be decoded, has an unsupported codec or hash, or is too large. The error is
    /// permanent.
    #[error("{cid} cannot be pinned: {reason}")]
    Unfit { cid: Cid, reason: String },
    /// The block store failed.
    #[error(transparent)]
    Blocks(#[from] BlocksError),
    /// The node is shutting down.
    #[error("the node is stopping")]
    Stopping,
}
