//! Uploads: content that is sent with the request.
//!
//! An upload has two steps, because its options may follow its bytes. *Receive* stores the blocks under an upload hold;
//! dropping the result releases them. *Keep* creates the pin, waits until the placement holds the blocks, and releases the
//! upload hold after that, even if the client is gone.

mod directory;
mod import;
mod path;
mod server_folder;
pub(crate) mod upload_hold;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cid::Cid;
use futures::StreamExt as _;
use pinfold_cluster::{Imported, ImportedCar};
use pinfold_model::{ClusterId, Origin, PinName};
use tokio::io::AsyncRead;

pub use self::directory::{DirectoryDraft, LooseFile, ReceivedEntry};
use self::directory::{ENTRIES_MAX, entry};
use self::import::{UploadLimits, import_error, import_file};
use self::server_folder::ServerFolder;
use self::upload_hold::{UploadHold, UploadHolds};
use crate::error::log_store_error;
use crate::pins::types::{PinReceipt, PinRequest, UploadRequest, Wait};
use crate::{Caller, Error, Pins};

/// Maximum roots of one CAR that are pinned.
const ROOTS_MAX: usize = 1_000;
/// Roots of one CAR whose pins are created at one time.
const ROOTS_CONCURRENCY: usize = 16;

/// Uploads. Cheap to clone.
#[derive(Clone)]
pub struct Uploads {
    pub(crate) pins: Pins,
    pub(crate) holds: Arc<UploadHolds>,
    pub(crate) limits: Arc<UploadSettings>,
}

/// Settings of uploads.
#[derive(Debug)]
pub(crate) struct UploadSettings {
    /// How long a request waits until the pin of its upload is active.
    pub(crate) wait: Duration,
    /// Folders on the server that clients may upload from.
    pub(crate) server_roots: Vec<PathBuf>,
}

/// A file that was received and is not pinned yet. Dropping it releases its blocks.
#[must_use = "dropping it releases its blocks"]
pub struct Received {
    hold: UploadHold,
    imported: Imported,
}

impl Received {
    /// The root of the file.
    #[must_use]
    pub fn cid(&self) -> &Cid {
        &self.imported.root
    }

    /// Length of the file in bytes.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.imported.content_bytes
    }
}

/// A CAR that was received and is not pinned yet. Dropping it releases its blocks.
#[must_use = "dropping it releases its blocks"]
pub struct ReceivedCar {
    hold: UploadHold,
    car: ImportedCar,
}

impl ReceivedCar {
    /// The contents of the CAR.
    #[must_use]
    pub fn car(&self) -> &ImportedCar {
        &self.car
    }
}

/// The result for each root of a CAR.
pub type KeptRoots = Vec<(Cid, Result<PinReceipt, Error>)>;

/// The result of a directory upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadReceipt {
    /// The pin of the directory.
    pub receipt: PinReceipt,
    /// Its files, in the order in which they were received.
    pub entries: Vec<ReceivedEntry>,
}

impl Uploads {
    /// Receives one file as UnixFS. `early` has the options that are known before the bytes, so that a forbidden upload
    /// fails before it is sent. Memory does not grow with the file.
    ///
    /// # Errors
    /// [`Error::UnknownCluster`], [`Error::ClusterNotAllowed`], [`Error::TimelockNotAllowed`],
    /// [`Error::RetentionNotAllowed`], [`Error::Lifetime`], [`Error::QuotaExceeded`], [`Error::FileTooLarge`],
    /// [`Error::StorageFull`], [`Error::Unavailable`], [`Error::UploadCutOff`].
    pub async fn receive(
        &self,
        caller: &Caller,
        early: &UploadRequest,
        body: impl AsyncRead + Send + Unpin,
    ) -> Result<Received, Error> {
        let (hold, limits) = self.begin(caller, early).await?;
        let imported = import_file(&hold, &limits, body).await?;
        Ok(Received { hold, imported })
    }

    /// Checks the options that are known, and opens a hold.
    async fn begin(
        &self,
        caller: &Caller,
        early: &UploadRequest,
    ) -> Result<(UploadHold, UploadLimits), Error> {
        let cluster = self.pins.select_cluster(caller, early.cluster.as_ref(), &early.options)?;
        let account = self.pins.placements.store.account(caller.account.id).await.map_err(log_store_error)?;
        let left_bytes = account.ok_or(Error::AccountNotFound)?.remaining_bytes();
        if left_bytes == 0 {
            return Err(Error::QuotaExceeded);
        }
        let limits = &caller.plan.limits;
        let limits = UploadLimits { left_bytes, file_bytes_max: limits.file_bytes_max, directory: None };
        Ok((self.holds.open(cluster)?, limits))
    }

    /// Pins a received file with all of its options. If they name another cluster than the early ones did, that cluster
    /// fetches the file from the one that received it.
    ///
    /// # Errors
    /// As [`Pins::pin`].
    pub async fn keep(
        &self,
        caller: &Caller,
        received: Received,
        request: UploadRequest,
    ) -> Result<PinReceipt, Error> {
        let Received { hold, imported } = received;
        let wait = Wait::For(self.limits.wait);
        self.pin(caller, Arc::new(hold), imported.root, request, wait, "file.upload").await
    }

    /// Receives the blocks of a CAR and verifies each. Memory does not grow with the CAR.
    ///
    /// # Errors
    /// As [`receive`](Self::receive), and [`Error::InvalidRequest`] if the CAR is invalid.
    pub async fn receive_car(
        &self,
        caller: &Caller,
        early: &UploadRequest,
        mut body: impl AsyncRead + Send + Unpin,
    ) -> Result<ReceivedCar, Error> {
        let (hold, limits) = self.begin(caller, early).await?;
        let imported = hold.setup()?.driver.import_car(hold.name(), limits.left_bytes, &mut body).await;
        Ok(ReceivedCar { car: imported.map_err(import_error)?, hold })
    }

    /// Pins `roots`, or the roots that the CAR names if there are none. Blocks that the CAR lacks are fetched.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] if there is no root, or there are too many. Each root has its own result, as from
    /// [`Pins::pin`].
    pub async fn keep_car(
        &self,
        caller: &Caller,
        received: ReceivedCar,
        roots: Vec<Cid>,
        request: UploadRequest,
        wait: Wait,
    ) -> Result<KeptRoots, Error> {
        let ReceivedCar { hold, car } = received;
        let roots = check_roots(if roots.is_empty() { car.roots } else { roots })?;
        let hold = Arc::new(hold);
        let kept = roots.into_iter().map(|root| {
            let (hold, request) = (Arc::clone(&hold), request.clone());
            async move { (root, self.pin(caller, hold, root, request, wait, "car.import").await) }
        });
        Ok(futures::stream::iter(kept).buffered(ROOTS_CONCURRENCY).collect().await)
    }

    /// Begins a directory.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub async fn directory(&self, caller: &Caller, early: &UploadRequest) -> Result<DirectoryDraft, Error> {
        let (hold, limits) = self.begin(caller, early).await?;
        let directory = caller.plan.limits.directory_bytes_max.map(|max| (max, max));
        Ok(DirectoryDraft::new(hold, UploadLimits { directory, ..limits }))
    }

    /// Receives a folder on the server below one of the configured roots: all of its files and empty folders. Also returns
    /// the folder's name.
    ///
    /// # Errors
    /// [`Error::FolderNotAllowed`]; [`Error::InvalidRequest`] if the folder can't be read or is too large, or names the
    /// entries that are neither files nor folders; else as [`receive`](Self::receive).
    pub async fn folder(
        &self,
        caller: &Caller,
        early: &UploadRequest,
        path: &str,
    ) -> Result<(DirectoryDraft, Option<PinName>), Error> {
        let mut draft = self.directory(caller, early).await?;
        let (limits, path) = (Arc::clone(&self.limits), path.to_owned());
        let open = move || ServerFolder::open(&limits.server_roots, &path, ENTRIES_MAX);
        let folder = tokio::task::spawn_blocking(open).await.map_err(|_| Error::Internal)??;
        for path in &folder.files {
            draft.add(path, folder.file(path).await?).await?;
        }
        for path in &folder.empty_folders {
            draft.add_empty(path).await?;
        }
        Ok((draft, PinName::parse(&folder.name).ok()))
    }

    /// Pins a directory with all of its options.
    ///
    /// # Errors
    /// As [`Pins::pin`]; [`Error::InvalidRequest`] if the directory is empty.
    pub async fn keep_directory(
        &self,
        caller: &Caller,
        draft: DirectoryDraft,
        request: UploadRequest,
    ) -> Result<UploadReceipt, Error> {
        let DirectoryDraft { hold, files, .. } = draft;
        if files.is_empty() {
            return Err(Error::InvalidRequest("The directory has no files".to_owned()));
        }
        let imported = hold.setup()?.driver.import_directory(hold.name(), &files).await;
        let root = imported.map_err(import_error)?.root;
        let wait = Wait::For(self.limits.wait);
        let receipt = self.pin(caller, Arc::new(hold), root, request, wait, "directory.upload").await?;
        Ok(UploadReceipt { receipt, entries: files.into_iter().map(entry).collect() })
    }

    /// Creates the pin of what is under the hold, and releases the hold once the pin is active or failed.
    async fn pin(
        &self,
        caller: &Caller,
        hold: Arc<UploadHold>,
        root: Cid,
        request: UploadRequest,
        wait: Wait,
        action: &'static str,
    ) -> Result<PinReceipt, Error> {
        let UploadRequest { cluster, mut options } = request;
        let cluster = cluster.as_ref().unwrap_or(hold.cluster());
        let cluster = self.pins.select_cluster(caller, Some(cluster), &options)?;
        options.origins = self.origins(&hold, &cluster).await;
        let request = PinRequest { cid: root, cluster: Some(cluster.clone()), options };
        // The write and the wait are tasks, so that the hold outlives a client that goes away.
        let (pins, caller) = (self.pins.clone(), caller.clone());
        let written = async move {
            let pending = pins.write(&caller, request, cluster, action).await?;
            Ok::<_, Error>(pending.wait_in_task(hold, |hold| hold.leave()))
        };
        let mut pending = self.pins.placements.tasks.run_to_end(written).await??;
        let time = match wait {
            Wait::For(time) => time,
            Wait::No => Duration::ZERO,
        };
        match pending.outcome(time).await {
            Some(outcome) => outcome,
            // The wait continues in the background, or after the next start.
            None => pending.detach().await,
        }
    }

    /// Addresses from which another cluster can fetch what this hold keeps.
    async fn origins(&self, hold: &UploadHold, cluster: &ClusterId) -> Vec<Origin> {
        let setup = self.pins.placements.clusters.get(hold.cluster());
        let Some(setup) = setup.filter(|setup| setup.info.id != *cluster) else { return Vec::new() };
        let peers = setup.driver.peers(4).await.unwrap_or_default();
        let addresses = peers.into_iter().filter(|peer| peer.is_self).flat_map(|peer| peer.addresses);
        addresses.filter_map(|address| Origin::parse(address).ok()).take(8).collect()
    }
}

/// The roots to pin, without duplicates and empty CIDs. The empty identity CID means "no root" in CARs whose writer had
/// none, such as Pinfold's own segments.
fn check_roots(mut roots: Vec<Cid>) -> Result<Vec<Cid>, Error> {
    let mut seen = HashSet::new();
    roots.retain(|root| root.hash().size() > 0 && seen.insert(*root));
    if roots.is_empty() {
        let text = "The CAR names no root; name the CIDs to pin";
        return Err(Error::InvalidRequest(text.to_owned()));
    }
    if roots.len() > ROOTS_MAX {
        return Err(Error::InvalidRequest(format!(
            "The CAR names {} roots, and at most {ROOTS_MAX} can be pinned at once; name the CIDs to pin",
            roots.len()
        )));
    }
    Ok(roots)
}
