//! What an operator can have done to a store: by the server that runs on it, or by a command that owns the
//! data folder because none runs.
//!
//! [`AdminOps`] has the operations; [`crate::control`] carries them over a socket, or within one process, so
//! that each of them is written once. None of them asks who calls: whoever can open the data folder may do
//! all of this.

pub(crate) mod backup;
pub(crate) mod blocks;
pub(crate) mod restore;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use cid::Cid;
use pinfold_model::{ClusterId, Email, PinName, PinOptions};
use pinfold_node::Blocks;
use pinfold_node::blocks::{OpenError, SegmentBlocks, SegmentConfig};
use pinfold_node::car::export::{ExportError, export_car};
use pinfold_service::{PinReceipt, Service, UploadRequest, Wait};
use pinfold_store::Store;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncRead;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::data_dir::DataDir;

/// A store that is open, and what is done to it.
pub(crate) struct AdminOps {
    pub(crate) dir: DataDir,
    pub(crate) blocks: Arc<SegmentBlocks>,
    pub(crate) store: Store,
    /// Absent where a command needs no pins.
    pub(crate) service: Option<Service>,
    /// How long a command waits until what it brought is pinned.
    pub(crate) wait: Wait,
    /// Ends what takes long.
    pub(crate) stopping: CancellationToken,
    /// Held while a backup is made.
    pub(crate) backing_up: Mutex<()>,
}

/// What to import a CAR as.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ImportOptions {
    /// Whose pins; the first account's if left out.
    pub(crate) email: Option<String>,
    /// A name for the pins.
    pub(crate) name: Option<String>,
    /// The cluster; the default one if left out.
    pub(crate) cl: Option<String>,
    /// The roots to pin, separated by commas; those that the CAR names if left out.
    pub(crate) roots: Option<String>,
    /// Whether to answer before the pins are settled.
    #[serde(default)]
    pub(crate) no_wait: bool,
}

/// What came of an import.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImportReport {
    /// Whose pins.
    pub(crate) email: String,
    /// Blocks that were read.
    pub(crate) blocks: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// What befell each root.
    pub(crate) roots: Vec<RootReport>,
}

/// What befell one root.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RootReport {
    /// The root.
    pub(crate) cid: String,
    /// The pin's state, if there is a pin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<String>,
    /// The pin's size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<u64>,
    /// Why it was not pinned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

impl AdminOps {
    /// The pieces of a CAR with the DAG under `root`.
    pub(crate) fn export(&self, root: Cid) -> mpsc::Receiver<Result<Bytes, ExportError>> {
        export_car(Arc::clone(&self.blocks) as Arc<dyn Blocks>, root)
    }

    /// Takes a CAR in and pins its roots.
    pub(crate) async fn import(
        &self,
        terms: ImportOptions,
        body: impl AsyncRead + Send + Unpin,
    ) -> anyhow::Result<ImportReport> {
        let service = self.service.as_ref().context("this command was started without pins")?;
        let email = match terms.email.as_deref() {
            Some(email) => Email::parse(email)?,
            None => service.accounts.oldest().await?.email,
        };
        let roots = terms.roots.as_deref().map_or_else(Vec::new, |roots| roots.split(',').collect());
        let roots: Vec<Cid> = roots
            .into_iter()
            .map(|root| Cid::try_from(root).with_context(|| format!("{root:?} is no CID")))
            .collect::<anyhow::Result<_>>()?;
        let custom_name = terms.name.as_deref().map(PinName::parse).transpose()?;
        let upload = UploadRequest {
            cluster: terms.cl.as_deref().map(ClusterId::parse).transpose()?,
            options: PinOptions { custom_name, ..PinOptions::default() },
        };
        let wait = if terms.no_wait { Wait::No } else { self.wait };
        let caller = service.accounts.caller(&email).await.with_context(|| email.to_string())?;
        let received = service.uploads.receive_car(&caller, &upload, body).await?;
        let (blocks, bytes) = (received.car().blocks, received.car().bytes);
        let kept = service.uploads.keep_car(&caller, received, roots, upload, wait).await?;
        let roots = kept.into_iter().map(|(cid, receipt)| RootReport::new(&cid, receipt)).collect();
        Ok(ImportReport { email: email.to_string(), blocks, bytes, roots })
    }
}

impl RootReport {
    fn new(cid: &Cid, receipt: Result<PinReceipt, pinfold_service::Error>) -> Self {
        let cid = cid.to_string();
        match receipt {
            Ok(PinReceipt { view, .. }) => {
                let status = Some(view.state.as_str().to_owned());
                Self { cid, status, size: Some(view.size_bytes), error: None }
            }
            Err(error) => Self { cid, status: None, size: None, error: Some(error.to_string()) },
        }
    }
}

/// Where a data folder's blocks are, and the engine's settings.
pub(crate) fn blocks_place(config: &Config, dir: &DataDir) -> (PathBuf, SegmentConfig) {
    let folder = if config.blocks.dir.is_empty() { dir.blocks() } else { PathBuf::from(&config.blocks.dir) };
    let segments = SegmentConfig {
        segment_bytes: config.blocks.segment_bytes,
        reserve_bytes: config.blocks.reserve_bytes,
    };
    (folder, segments)
}

/// Opens the blocks of a data folder that is locked.
pub(crate) async fn open_blocks(config: &Config, dir: &DataDir) -> anyhow::Result<Arc<SegmentBlocks>> {
    let (folder, segments) = blocks_place(config, dir);
    // Opening reads the tail of what was written last, so not on a thread that others wait for.
    let opened = tokio::task::spawn_blocking(move || SegmentBlocks::open(&folder, &segments)).await?;
    opened.map(Arc::new).map_err(|error| anyhow!("cannot open the blocks: {error}{}", advice(&error)))
}

/// What to do about blocks that cannot be opened.
fn advice(error: &OpenError) -> &'static str {
    match error {
        OpenError::NoIndex { .. } | OpenError::StaleIndex { .. } => {
            "; `pinfold blocks rebuild-index` does that"
        }
        OpenError::Index { .. } => "; if it is damaged, `pinfold blocks rebuild-index` makes it anew",
        OpenError::SegmentLost { .. } => "; `pinfold blocks repair` accepts it",
        OpenError::Io { .. } | OpenError::Version { .. } => "",
    }
}
