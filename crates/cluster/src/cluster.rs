//! What a cluster can be asked for.

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

/// What the name of every hold begins with that keeps an upload until its placement has it.
pub const UPLOAD_PREFIX: &str = "upload/";

/// The bytes of an upload.
pub type Body<'a> = &'a mut (dyn AsyncRead + Send + Unpin);

/// Within which bounds a DAG is brought in.
#[derive(Debug, Clone)]
pub struct HoldOptions {
    /// The most bytes of distinct blocks.
    pub bytes_max: u64,
    /// The most distinct blocks.
    pub blocks_max: u64,
    /// How long to look for the first block.
    pub find_time: Duration,
    /// How long to go on without a new one.
    pub stall_time: Duration,
    /// Multiaddrs (`/…/p2p/ID`) of peers that are said to have it. Those that make no sense are left out.
    pub origins: Vec<String>,
}

/// Within which bounds a DAG is looked at.
#[derive(Debug, Clone)]
pub struct SurveyOptions {
    /// The most blocks to visit.
    pub blocks_max: u64,
    /// How long it may take, with the question who has the root.
    pub time: Duration,
    /// Multiaddrs of peers that are said to have it, as in [`HoldOptions`].
    pub origins: Vec<String>,
}

/// What the root of a DAG is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportedKind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// Neither, or not known.
    Other,
}

/// A DAG that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The bytes of its distinct blocks.
    pub bytes: u64,
    /// How many there are.
    pub blocks: u64,
    /// What its root is.
    pub kind: ImportedKind,
}

/// Something that was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imported {
    /// The root of its DAG.
    pub root: Cid,
    /// The bytes of its content.
    pub content_bytes: u64,
    /// The bytes of all blocks, repeated ones counted each time.
    pub dag_bytes: u64,
}

/// A peer that a cluster knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// Its peer id.
    pub id: String,
    /// Multiaddrs with `/p2p/…`.
    pub addresses: Vec<String>,
    /// Whether it is the cluster itself, or one of its members.
    pub is_self: bool,
    /// Whether there is a connection.
    pub connected: bool,
    /// What it calls its software.
    pub agent: Option<String>,
}

/// Why a cluster did not do it, split by what can be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// Nobody delivered the root within the find time.
    #[error("nobody delivered it within the time to find it")]
    NotFound,
    /// It stopped coming.
    #[error("{0}")]
    Stalled(String),
    /// It is larger than allowed.
    #[error("it is larger than allowed")]
    OverLimit,
    /// It can never be held.
    #[error("{0}")]
    Unfit(String),
    /// There is no space left.
    #[error("no space left")]
    Full,
    /// The source of an upload broke off.
    #[error("the upload broke off: {0}")]
    Source(String),
    /// The cluster can't be reached, or failed: another try may do.
    #[error("{0}")]
    Unavailable(String),
    /// The cluster is being stopped.
    #[error("the cluster is stopping")]
    Stopping,
}

/// A place where DAGs are held.
///
/// Every future may be dropped: what was begun stays under its name, and asking again goes on from there.
#[async_trait]
pub trait Cluster: Send + Sync + 'static {
    /// Holds the whole DAG under `name`; returns once every block is verified and durable. Goes on with what
    /// is there. On an error, what came so far stays under the name until it is released. A name that was held
    /// whole is answered as it is, so each root wants a name of its own.
    async fn hold(
        &self,
        name: &HoldName,
        root: &Cid,
        terms: &HoldOptions,
        progress: &Arc<Progress>,
    ) -> Result<Held, ClusterError>;

    /// Whether the root is here, as far as can be told at once: then [`hold_local`](Self::hold_local) is worth a try.
    fn has(&self, _root: &Cid) -> bool {
        false
    }

    /// Holds a DAG as [`hold`](Self::hold) does, if all of it is here and it is not large; `None` if not, which is soon
    /// known. Never asks the network. What it has kept by then stays under the name, and `hold` goes on from there.
    async fn hold_local(
        &self,
        _name: &HoldName,
        _root: &Cid,
        _terms: &HoldOptions,
    ) -> Result<Option<Held>, ClusterError> {
        Ok(None)
    }

    /// Looks how much of a DAG is here and, if that is not all, whether anybody has its root. Holds nothing and leaves
    /// nothing, and asks the network for no block but the root.
    async fn survey(&self, root: &Cid, terms: &SurveyOptions) -> Result<Survey, ClusterError>;

    /// Durably gives the name up; blocks that no other name holds are freed, be it a little later. An unknown
    /// name is fine.
    async fn release(&self, name: &HoldName) -> Result<(), ClusterError>;

    /// Takes a file of at most `bytes_max` bytes in, under `name`, and returns once it is durable. Several
    /// may come under one name. Memory does not grow with the file.
    async fn import_file(
        &self,
        name: &HoldName,
        bytes_max: u64,
        body: Body<'_>,
    ) -> Result<Imported, ClusterError>;

    /// Takes a file in as [`import_file`](Self::import_file) does, but need not be durable before
    /// [`import_directory`](Self::import_directory) has made a directory of it.
    async fn import_entry(
        &self,
        name: &HoldName,
        bytes_max: u64,
        body: Body<'_>,
    ) -> Result<Imported, ClusterError> {
        self.import_file(name, bytes_max, body).await
    }

    /// Makes a directory out of files that were taken in under `name`, by their paths, and returns once it is durable
    /// with all of them.
    async fn import_directory(
        &self,
        name: &HoldName,
        files: &[(String, Imported)],
    ) -> Result<Imported, ClusterError>;

    /// Takes the blocks of a CAR in, under `name`, each of them verified, and returns once they are durable.
    /// Distinct blocks may have `bytes_max` bytes together. Memory does not grow with the CAR.
    async fn import_car(
        &self,
        name: &HoldName,
        bytes_max: u64,
        body: Body<'_>,
    ) -> Result<ImportedCar, ClusterError>;

    /// Reads a block that is held; `None` if it is not here. Never asks the network.
    async fn block(&self, cid: &Cid) -> Result<Option<bytes::Bytes>, ClusterError>;

    /// Lists what is inside a directory that is held, nested ones too, each directory before what is in it; in an order
    /// that is the same for ever. Never asks the network. A page may have fewer entries than asked for and say where
    /// to go on all the same.
    ///
    /// # Errors
    /// [`ClusterError::Unfit`] when it is no directory, or there is no such position in it.
    async fn entries(&self, root: &Cid, request: WalkRequest) -> Result<WalkPage, ClusterError>;

    /// Names that begin with `prefix`, in their order, at most `limit` of them after `after`.
    async fn names(
        &self,
        prefix: &str,
        after: Option<&HoldName>,
        limit: usize,
    ) -> Result<Vec<HoldName>, ClusterError>;

    /// Names under which blocks are held that are known to be damaged, and how many; looks at `limit` damaged blocks
    /// at most. To [`hold`](Self::hold) such a name once more brings them again.
    async fn damaged(&self, limit: usize) -> Result<Vec<(HoldName, u64)>, ClusterError>;

    /// Counts the blocks under some names, besides those that were counted before.
    async fn distinct(&self, names: Vec<HoldName>, counted: Distinct) -> Result<Distinct, ClusterError>;

    /// What it holds in all.
    async fn usage(&self) -> Result<Usage, ClusterError>;

    /// The peers, the cluster itself first; at most `limit`.
    async fn peers(&self, limit: usize) -> Result<Vec<PeerInfo>, ClusterError>;

    /// Whether it can do its job; the error says what is wrong.
    async fn health(&self) -> Result<(), ClusterError>;
}
