//! Import and export of CAR files.

use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use cid::Cid;
use pinfold_model::{ClusterId, Email, PinName, PinOptions};
use pinfold_node::Blocks;
use pinfold_node::car::export::{ExportError, export_car};
use pinfold_service::{PinReceipt, UploadRequest, Wait};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncRead;
use tokio::sync::mpsc;

use super::AdminOps;

/// Options of an import.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ImportOptions {
    /// Account that gets the pins. Default: the oldest account.
    pub(crate) email: Option<String>,
    /// Custom name of the pins.
    pub(crate) name: Option<String>,
    /// Cluster id. Default: the default cluster.
    pub(crate) cl: Option<String>,
    /// Comma-separated CIDs to pin. Default: the roots in the CAR header.
    pub(crate) roots: Option<String>,
    /// Return once the blocks are stored, without waiting for the pins.
    #[serde(default)]
    pub(crate) no_wait: bool,
}

/// Result of an import.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImportReport {
    pub(crate) email: String,
    /// Number of blocks in the CAR.
    pub(crate) blocks: u64,
    /// Size of the blocks in the CAR, in bytes.
    pub(crate) bytes: u64,
    pub(crate) roots: Vec<RootReport>,
}

/// Result for one root. Either `status` or `error` is set.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RootReport {
    pub(crate) cid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<String>,
    /// Size of the pinned DAG in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

impl AdminOps {
    /// Streams the DAG under `root` as a CAR.
    pub(crate) fn export(&self, root: Cid) -> mpsc::Receiver<Result<Bytes, ExportError>> {
        export_car(Arc::clone(&self.blocks) as Arc<dyn Blocks>, root)
    }

    /// Stores the blocks of a CAR and pins its roots.
    ///
    /// # Errors
    /// An option or the CAR is invalid, or the account does not exist or lacks storage. A root that could not be pinned
    /// is not an error of the import but of its [`RootReport`].
    pub(crate) async fn import(
        &self,
        options: ImportOptions,
        body: impl AsyncRead + Send + Unpin,
    ) -> anyhow::Result<ImportReport> {
        let service =
            self.service.as_ref().context("import requires the pin service, which is not running")?;
        let email = match options.email.as_deref() {
            Some(email) => Email::parse(email)?,
            None => service.accounts.oldest().await?.email,
        };
        let roots = options.roots.as_deref().map_or_else(Vec::new, |roots| roots.split(',').collect());
        let roots: Vec<Cid> = roots
            .into_iter()
            .map(|root| Cid::try_from(root).with_context(|| format!("{root:?} is not a CID")))
            .collect::<anyhow::Result<_>>()?;
        let custom_name = options.name.as_deref().map(PinName::parse).transpose()?;
        let upload = UploadRequest {
            cluster: options.cl.as_deref().map(ClusterId::parse).transpose()?,
            options: PinOptions { custom_name, ..PinOptions::default() },
        };
        let wait = if options.no_wait { Wait::No } else { self.wait };
        let caller = service.accounts.caller(&email).await.with_context(|| email.to_string())?;
        let received = service.uploads.receive_car(&caller, &upload, body).await?;
        let (blocks, bytes) = (received.car().blocks, received.car().bytes);
        let pinned = service.uploads.keep_car(&caller, received, roots, upload, wait).await?;
        let roots = pinned.into_iter().map(|(cid, receipt)| RootReport::new(&cid, receipt)).collect();
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
