//! Administrative operations on the block store and the database: import, export, backup, restore, verification and
//! repair.
//!
//! [`AdminOps`] implements each operation once. It runs in the server, which exposes it on the administration socket
//! ([`crate::admin_socket`]), or in a command that has locked the data directory ([`crate::admin_client`]). It does not
//! authenticate its caller: anyone who can open the data directory may use it.

pub(crate) mod backup;
pub(crate) mod blocks;
pub(crate) mod car;
pub(crate) mod restore;

use std::sync::Arc;

use pinfold_node::blocks::SegmentBlocks;
use pinfold_service::{Service, Wait};
use pinfold_store::Store;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::data_dir::DataDir;

/// The open stores of a data directory, and what the operations need to work on them.
pub(crate) struct AdminOps {
    pub(crate) dir: DataDir,
    pub(crate) blocks: Arc<SegmentBlocks>,
    pub(crate) store: Store,
    /// `None` in a command that opened only the stores.
    pub(crate) service: Option<Service>,
    /// How long an import waits until its roots are pinned.
    pub(crate) wait: Wait,
    /// Cancels long operations.
    pub(crate) stopping: CancellationToken,
    /// Held while a backup is made, so that there is at most one.
    pub(crate) backup_lock: Mutex<()>,
}

/// Runs blocking file operations on the blocking thread pool.
pub(crate) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}
