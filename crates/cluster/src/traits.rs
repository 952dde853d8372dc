//! The cluster trait, and its request and reply types.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cid::Cid;
use pinfold_node::car::import::ImportedCar;
use pinfold_node::{HoldName, Progress};

pub use pinfold_node::blocks::{Distinct, Totals as Usage};
pub use pinfold_node::unixfs::{EntryKind, Position, WalkEntry, WalkPage, WalkRequest};
pub use pinfold_node::{Cut, Reach, Survey};
use tokio::io::AsyncRead;

/// Prefix of the names of upload holds, which keep an upload until its placement holds it.
pub const UPLOAD_PREFIX: &str = "upload/";

/// The bytes of an upload.
pub type Body<'a> = &'a mut (dyn AsyncRead + Send + Unpin);

/// Limits and hints of a fetch.
#[derive(Debug, Clone)]
pub struct HoldOptions {
    /// Maximum total size of distinct blocks.
    pub bytes_max: u64,
    /// Maximum number of distinct blocks.
    pub blocks_max: u64,
    /// How long to look for the first block.
    pub find_time: Duration,
    /// How long to go on without a new block.
    pub stall_time: Duration,
    /// Multiaddrs (`/…/p2p/ID`) of peers that may have the DAG. Invalid ones are ignored.
    pub origins: Vec<String>,
}

/// Limits and hints of a survey.
#[derive(Debug, Clone)]
pub struct SurveyOptions {
    /// Maximum number of blocks to visit.
    pub blocks_max: u64,
    /// Time limit, including the search for providers of the root.
    pub time: Duration,
    /// As in [`HoldOptions`].
    pub origins: Vec<String>,
}

/// The kind of a DAG, by its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportedKind {
    File,
    Directory,
    /// Neither, or unknown.
    Other,
}

/// A DAG that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Total size of its distinct blocks.
    pub bytes: u64,
    /// Number of its distinct blocks.
    pub blocks: u64,
    pub kind: ImportedKind,
}

/// A DAG that was imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imported {
    pub root: Cid,
    /// Size of the content.
    pub content_bytes: u64,
    /// Total size of all blocks, with repeated blocks counted each time.
    pub dag_bytes: u64,
}

/// A peer of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    pub id: String,
    /// Multiaddrs with `/p2p/…`.
    pub addresses: Vec<String>,
    /// Whether it is the cluster itself, or one of its members.
    pub is_self: bool,
    pub connected: bool,
    /// Name and version of the peer's software.
    pub agent: Option<String>,
}

/// Errors of a cluster, split by what the caller can do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// No peer delivered the root within the find time.
    #[error("no peer delivered the root within the find time")]
    NotFound,
    /// The fetch made no progress for too long.
    #[error("{0}")]
    Stalled(String),
    /// The content is larger than a limit.
    #[error("the content is larger than the limit")]
    OverLimit,
    /// The content can never be held.
    #[error("{0}")]
    Unfit(String),
    #[error("no space left")]
    Full,
    /// The body of an upload failed.
    #[error("the upload was interrupted: {0}")]
    Source(String),
    /// The cluster can't be reached, or failed: a retry may succeed.
    #[error("{0}")]
    Unavailable(String),
    #[error("the cluster is stopping")]
    Stopping,
}

/// A place that holds DAGs.
///
/// Every future is cancel-safe: the blocks that were stored stay under their name, and a repeated call continues.
#[async_trait]
pub trait Cluster: Send + Sync + 'static {
    /// Holds the whole DAG under `name`, and returns once every block is verified and durable. Blocks that are local are not
    /// fetched. On an error, the blocks that were stored stay under the name until it is released. A name that is complete is
    /// returned as it is, so each root needs a name of its own.
    async fn hold(
        &self,
        name: &HoldName,
        root: &Cid,
        options: &HoldOptions,
        progress: &Arc<Progress>,
    ) -> Result<Held, ClusterError>;

    /// Whether the root appears to be local, by a lookup of this block alone. Then [`hold_local`](Self::hold_local) may succeed.
    /// Drivers without local blocks need not implement either.
    fn has(&self, _root: &Cid) -> bool {
        false
    }

    /// Holds a DAG as [`hold`](Self::hold) does, if all of its blocks are local and it is not large; otherwise returns `None`
    /// soon. Never uses the network. The blocks that it has held by then stay under the name, and `hold` continues.
    async fn hold_local(
        &self,
        _name: &HoldName,
        _root: &Cid,
        _options: &HoldOptions,
    ) -> Result<Option<Held>, ClusterError> {
        Ok(None)
    }

    /// Counts the local blocks of a DAG and, if some are missing, looks for providers of its root. Holds and stores nothing,
    /// and fetches no block but the root.
    async fn survey(&self, root: &Cid, options: &SurveyOptions) -> Result<Survey, ClusterError>;

    /// Removes the name durably. Blocks that no other name holds are freed, possibly later. An unknown name is not an error.
    async fn release(&self, name: &HoldName) -> Result<(), ClusterError>;

    /// Imports a file of at most `bytes_max` bytes under `name`, and returns once it is durable. A name can hold several files.
    /// Memory does not grow with the file.
    async fn import_file(
        &self,
        name: &HoldName,
        bytes_max: u64,
        body: Body<'_>,
    ) -> Result<Imported, ClusterError>;

    /// As [`import_file`](Self::import_file), but the file need not be durable before
    /// [`import_directory`](Self::import_directory) returns.
    async fn import_entry(
        &self,
        name: &HoldName,
        bytes_max: u64,
        body: Body<'_>,
    ) -> Result<Imported, ClusterError> {
        self.import_file(name, bytes_max, body).await
    }

    /// Creates a directory of files that were imported under `name`, by their paths, and returns once all of it is durable.
    async fn import_directory(
        &self,
        name: &HoldName,
        files: &[(String, Imported)],
    ) -> Result<Imported, ClusterError>;

    /// Imports the blocks of a CAR under `name`, verifies each, and returns once they are durable. Distinct blocks can have
    /// `bytes_max` bytes in total. Memory does not grow with the CAR.
    async fn import_car(
        &self,
        name: &HoldName,
        bytes_max: u64,
        body: Body<'_>,
    ) -> Result<ImportedCar, ClusterError>;

    /// Reads a block that is held; `None` if it is not local. Never uses the network.
    async fn block(&self, cid: &Cid) -> Result<Option<bytes::Bytes>, ClusterError>;

    /// Lists a directory that is held, including nested directories. Each directory precedes its entries, and the order never
    /// changes. Never uses the network. A page with fewer entries than requested may not be the last.
    ///
    /// # Errors
    /// [`ClusterError::Unfit`] if it is not a directory, or the position does not exist.
    async fn entries(&self, root: &Cid, request: WalkRequest) -> Result<WalkPage, ClusterError>;

    /// Lists at most `limit` names that begin with `prefix`, sorted, after `after`.
    async fn names(
        &self,
        prefix: &str,
        after: Option<&HoldName>,
        limit: usize,
    ) -> Result<Vec<HoldName>, ClusterError>;

    /// Lists the names that hold damaged blocks, with the number of those blocks; reads at most `limit` damaged blocks. Holding
    /// such a name again ([`hold`](Self::hold)) repairs it.
    async fn damaged(&self, limit: usize) -> Result<Vec<(HoldName, u64)>, ClusterError>;

    /// Adds the blocks under these names to `counted`, each distinct block once.
    async fn distinct(&self, names: Vec<HoldName>, counted: Distinct) -> Result<Distinct, ClusterError>;

    /// Total usage.
    async fn usage(&self) -> Result<Usage, ClusterError>;

    /// Lists at most `limit` peers, the cluster itself first.
    async fn peers(&self, limit: usize) -> Result<Vec<PeerInfo>, ClusterError>;

    /// Checks the health; the error describes the problem.
    async fn health(&self) -> Result<(), ClusterError>;
}
