//! Importing the body of an upload into a cluster, within the account's and the plan's limits.

use pinfold_cluster::{ClusterError, Imported};
use tokio::io::AsyncRead;

use super::upload_hold::UploadHold;
use crate::Error;
use crate::error::UNREACHABLE;

/// Bytes that an upload may still have.
#[derive(Debug, Clone, Copy)]
pub(super) struct UploadLimits {
    /// Of the account's storage.
    pub(super) left_bytes: u64,
    /// Of one file, by the plan.
    pub(super) file_bytes_max: Option<u64>,
    /// Of one directory, by the plan: the maximum, and what is left of it.
    pub(super) directory: Option<(u64, u64)>,
}

impl UploadLimits {
    /// The maximum size of the next file, and the error if it is larger.
    fn next_file(&self) -> (u64, Error) {
        let storage = (self.left_bytes, Error::QuotaExceeded);
        let file = self.file_bytes_max.map(|max| (max, Error::FileTooLarge { bytes_max: max }));
        let directory = self.directory.map(|(max, left)| (left, Error::DirectoryTooLarge { bytes_max: max }));
        // Of two equal limits, report the plan's: removing pins does not help against it.
        [file, directory, Some(storage)]
            .into_iter()
            .flatten()
            .min_by_key(|(bytes, _)| *bytes)
            .unwrap_or((0, Error::QuotaExceeded))
    }

    /// Subtracts a file that was received.
    pub(super) fn take(&mut self, bytes: u64) {
        self.left_bytes = self.left_bytes.saturating_sub(bytes);
        if let Some((_, left)) = &mut self.directory {
            *left = left.saturating_sub(bytes);
        }
    }
}

/// Imports one file, and returns once it is durable.
pub(super) async fn import_file(
    hold: &UploadHold,
    limits: &UploadLimits,
    mut body: impl AsyncRead + Send + Unpin,
) -> Result<Imported, Error> {
    let (bytes_max, over) = limits.next_file();
    let imported = hold.setup()?.driver.import_file(hold.name(), bytes_max, &mut body).await;
    imported.map_err(|error| over_limit_or(error, over))
}

/// As [`import_file`], for a file that becomes durable together with its directory.
pub(super) async fn import_entry(
    hold: &UploadHold,
    limits: &UploadLimits,
    mut body: impl AsyncRead + Send + Unpin,
) -> Result<Imported, Error> {
    let (bytes_max, over) = limits.next_file();
    let imported = hold.setup()?.driver.import_entry(hold.name(), bytes_max, &mut body).await;
    imported.map_err(|error| over_limit_or(error, over))
}

fn over_limit_or(error: ClusterError, over: Error) -> Error {
    match error {
        ClusterError::OverLimit => over,
        other @ (ClusterError::NotFound
        | ClusterError::Stalled(_)
        | ClusterError::Unfit(_)
        | ClusterError::Full
        | ClusterError::Source(_)
        | ClusterError::Unavailable(_)
        | ClusterError::Stopping) => import_error(other),
    }
}

pub(super) fn import_error(error: ClusterError) -> Error {
    match error {
        ClusterError::OverLimit => Error::QuotaExceeded,
        ClusterError::Full => Error::StorageFull,
        ClusterError::Unfit(reason) => Error::InvalidRequest(reason),
        ClusterError::Source(reason) => {
            tracing::info!(reason, "upload interrupted by the client");
            Error::UploadCutOff
        }
        ClusterError::NotFound
        | ClusterError::Stalled(_)
        | ClusterError::Unavailable(_)
        | ClusterError::Stopping => {
            tracing::warn!(%error, "failed to import upload");
            UNREACHABLE
        }
    }
}
