//! Uploads: content that comes with the request.
//!
//! An upload has two steps, because its terms may come after its bytes. *Receive* writes the blocks under a
//! guard; dropping what it gives releases them. *Keep* writes the wish, waits until the placement has them
//! under its own hold, and only then lets the guard go.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cid::Cid;
use futures::StreamExt as _;
use pinfold_cluster::{ClusterError, Imported, ImportedCar};
use pinfold_model::{ClusterId, Origin, PinName};
use tokio::io::AsyncRead;
use tokio::sync::oneshot;

use crate::core::{Core, UNREACHABLE, unavailable};
use crate::folder::Folder;
use crate::guard::Guard;
use crate::{Caller, ClusterSetup, Error, PinReceipt, PinRequest, PinView, Pins, UploadRequest, Wait};

/// Files of one directory: their names and roots are in memory until it is whole.
const ENTRIES_MAX: usize = 100_000;

/// The longest path inside a directory, in bytes.
const PATH_LEN_MAX: usize = 4_096;

/// Roots of one CAR that are pinned.
const ROOTS_MAX: usize = 1_000;

/// Roots of one CAR that are settled at one time.
const ROOTS_AT_ONCE: usize = 16;

/// Uploads. Cheap to clone.
#[derive(Clone)]
pub struct Uploads {
    pub(crate) core: Arc<Core>,
}

/// A file that was received and is not kept yet. Dropping it releases its blocks.
#[must_use = "what is not kept is released"]
pub struct Received {
    guard: Guard,
    imported: Imported,
}

impl Received {
    /// The file's root.
    #[must_use]
    pub fn cid(&self) -> &Cid {
        &self.imported.root
    }

    /// The file's length in bytes.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.imported.content_bytes
    }
}

/// A CAR that was received and is not kept yet. Dropping it releases its blocks.
#[must_use = "what is not kept is released"]
pub struct ReceivedCar {
    guard: Guard,
    car: ImportedCar,
}

impl ReceivedCar {
    /// What came.
    #[must_use]
    pub fn car(&self) -> &ImportedCar {
        &self.car
    }
}

/// How much may still come.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Of the account's storage.
    left_bytes: u64,
    /// In one file, by the plan.
    file_bytes_max: Option<u64>,
    /// In one directory, by the plan: what it may have in all, and what is left of that.
    directory: Option<(u64, u64)>,
}

impl Bounds {
    /// What the next file may have, and what it means when it has more.
    fn next_file(&self) -> (u64, Error) {
        let storage = (self.left_bytes, Error::QuotaExceeded);
        let file = self.file_bytes_max.map(|max| (max, Error::FileTooLarge { bytes_max: max }));
        let directory = self.directory.map(|(max, left)| (left, Error::DirectoryTooLarge { bytes_max: max }));
        // Of two that are alike, the plan's rule is the one that deleting something does not help.
        [file, directory, Some(storage)]
            .into_iter()
            .flatten()
            .min_by_key(|(bytes, _)| *bytes)
            .unwrap_or((0, Error::QuotaExceeded))
    }

    /// A file has come.
    fn take(&mut self, bytes: u64) {
        self.left_bytes = self.left_bytes.saturating_sub(bytes);
        if let Some((_, left)) = &mut self.directory {
            *left = left.saturating_sub(bytes);
        }
    }
}

/// What came of each root of a CAR.
pub type KeptRoots = Vec<(Cid, Result<PinReceipt, Error>)>;

/// One file of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedEntry {
    /// Its path inside the directory.
    pub path: String,
    /// Its root.
    pub cid: Cid,
    /// Its length in bytes.
    pub file_bytes: u64,
}

/// A directory that is being received. Dropping it releases its blocks.
#[must_use = "what is not kept is released"]
pub struct DirectoryDraft {
    guard: Guard,
    bounds: Bounds,
    paths: HashSet<String>,
    files: Vec<(String, Imported)>,
}

/// A file that was received for a [`DirectoryDraft`] and has no path in it yet.
#[must_use = "a file without a path is not in the directory"]
#[derive(Debug)]
pub struct LooseFile(Imported);

/// What came of a directory upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadReceipt {
    /// The pin of the directory.
    pub receipt: PinReceipt,
    /// Its files, in the order in which they came.
    pub entries: Vec<ReceivedEntry>,
}

impl Uploads {
    /// Receives one file as UnixFS. `early` is what is known of its terms before its bytes, so that what is
    /// not allowed fails before it is sent. Memory does not grow with the file.
    ///
    /// # Errors
    /// [`Error::UnknownCluster`], [`Error::ClusterNotAllowed`], [`Error::TimelockNotAllowed`],
    /// [`Error::RetentionNotAllowed`], [`Error::Lifetime`], [`Error::QuotaExceeded`], [`Error::StorageFull`],
    /// [`Error::Unavailable`], [`Error::UploadCutOff`].
    pub async fn receive(
        &self,
        caller: &Caller,
        early: &UploadRequest,
        body: impl AsyncRead + Send + Unpin,
    ) -> Result<Received, Error> {
        let (guard, bounds) = self.begin(caller, early).await?;
        let imported = import(&self.core, &guard, &bounds, body).await?;
        Ok(Received { guard, imported })
    }

    /// Checks what is known, and opens a guard. Gives also how much may come.
    async fn begin(&self, caller: &Caller, early: &UploadRequest) -> Result<(Guard, Bounds), Error> {
        let cluster = self.core.target(caller, early.cluster.as_ref(), &early.options)?;
        let account = self.core.store.account(caller.account.id).await.map_err(unavailable)?;
        let left_bytes = account.ok_or(Error::AccountNotFound)?.remaining_bytes();
        if left_bytes == 0 {
            return Err(Error::QuotaExceeded);
        }
        let limits = &caller.plan.limits;
        let bounds = Bounds { left_bytes, file_bytes_max: limits.file_bytes_max, directory: None };
        Ok((Guard::new(&self.core, cluster)?, bounds))
    }

    /// Keeps what was received, under all of its terms. If they name another cluster than the early ones did,
    /// that cluster fetches it from the one that received it.
    ///
    /// # Errors
    /// As [`Pins::pin`](crate::Pins::pin).
    pub async fn keep(
        &self,
        caller: &Caller,
        received: Received,
        request: UploadRequest,
    ) -> Result<PinReceipt, Error> {
        let Received { guard, imported } = received;
        let wait = Wait::For(self.core.settings.upload_wait);
        self.settle(caller, Arc::new(guard), imported.root, request, wait, "file.upload").await
    }

    /// Receives the blocks of a CAR, each of them verified. Memory does not grow with it.
    ///
    /// # Errors
    /// As [`receive`](Self::receive), and [`Error::InvalidRequest`] when it is no good CAR.
    pub async fn receive_car(
        &self,
        caller: &Caller,
        early: &UploadRequest,
        mut body: impl AsyncRead + Send + Unpin,
    ) -> Result<ReceivedCar, Error> {
        let (guard, bounds) = self.begin(caller, early).await?;
        let driver = &driver(&self.core, &guard)?.driver;
        let car = driver.import_car(guard.name(), bounds.left_bytes, &mut body).await.map_err(refused)?;
        Ok(ReceivedCar { guard, car })
    }

    /// Pins `roots` (or, when there are none, those that the CAR names), each of them under these terms and as
    /// any pin is: what the CAR lacks is fetched.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] when there is no root, or too many. What befalls one root stands beside it,
    /// as from [`Pins::pin`](crate::Pins::pin).
    pub async fn keep_car(
        &self,
        caller: &Caller,
        received: ReceivedCar,
        roots: Vec<Cid>,
        request: UploadRequest,
        wait: Wait,
    ) -> Result<KeptRoots, Error> {
        let ReceivedCar { guard, car } = received;
        let roots = roots_of(if roots.is_empty() { car.roots } else { roots })?;
        let guard = Arc::new(guard);
        let kept = roots.into_iter().map(|root| {
            let (guard, request) = (Arc::clone(&guard), request.clone());
            async move { (root, self.settle(caller, guard, root, request, wait, "car.import").await) }
        });
        Ok(futures::stream::iter(kept).buffered(ROOTS_AT_ONCE).collect().await)
    }

    /// Begins a directory.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub async fn directory(&self, caller: &Caller, early: &UploadRequest) -> Result<DirectoryDraft, Error> {
        let (guard, bounds) = self.begin(caller, early).await?;
        let directory = caller.plan.limits.directory_bytes_max.map(|max| (max, max));
        let bounds = Bounds { directory, ..bounds };
        Ok(DirectoryDraft { guard, bounds, paths: HashSet::new(), files: Vec::new() })
    }

    /// Receives a folder on the server, below one of the roots that the operator set up: all of its files, and
    /// folders without any. Says also what the folder is called.
    ///
    /// # Errors
    /// [`Error::FolderNotAllowed`]; [`Error::InvalidRequest`] when it can't be read or is too large, and when
    /// something in it is neither a file nor a folder (the sentence names it); else as [`receive`](Self::receive).
    pub async fn folder(
        &self,
        caller: &Caller,
        early: &UploadRequest,
        path: &str,
    ) -> Result<(DirectoryDraft, Option<PinName>), Error> {
        let mut draft = self.directory(caller, early).await?;
        let (core, path) = (Arc::clone(&self.core), path.to_owned());
        let open = move || Folder::open(&core.settings.server_roots, &path, ENTRIES_MAX);
        let folder = tokio::task::spawn_blocking(open).await.map_err(|_| Error::Internal)??;
        for path in &folder.files {
            draft.add(path, folder.file(path).await?).await?;
        }
        for path in &folder.empty_folders {
            draft.add_empty(path).await?;
        }
        Ok((draft, PinName::parse(&folder.name).ok()))
    }

    /// Keeps a directory, under all of its terms.
    ///
    /// # Errors
    /// As [`Pins::pin`](crate::Pins::pin); [`Error::InvalidRequest`] when it is empty.
    pub async fn keep_directory(
        &self,
        caller: &Caller,
        draft: DirectoryDraft,
        request: UploadRequest,
    ) -> Result<UploadReceipt, Error> {
        let DirectoryDraft { guard, files, .. } = draft;
        if files.is_empty() {
            return Err(Error::InvalidRequest("The directory has no files".to_owned()));
        }
        let driver = &driver(&self.core, &guard)?.driver;
        let imported = driver.import_directory(guard.name(), &files).await.map_err(refused)?;
        let wait = Wait::For(self.core.settings.upload_wait);
        let (guard, root) = (Arc::new(guard), imported.root);
        let receipt = self.settle(caller, guard, root, request, wait, "directory.upload").await?;
        Ok(UploadReceipt { receipt, entries: files.into_iter().map(entry).collect() })
    }

    /// Writes the wish for what is under the guard, and lets the guard go once the placement has settled:
    /// also when nobody waits for that any more.
    async fn settle(
        &self,
        caller: &Caller,
        guard: Arc<Guard>,
        root: Cid,
        request: UploadRequest,
        wait: Wait,
        action: &'static str,
    ) -> Result<PinReceipt, Error> {
        let UploadRequest { cluster, mut options } = request;
        let cluster = self.core.target(caller, cluster.as_ref().or(Some(guard.cluster())), &options)?;
        options.origins = self.origins(&guard, &cluster).await;
        let wish = PinRequest { cid: root, cluster: Some(cluster.clone()), options };
        let (wished, receipt) = oneshot::channel();
        let (done, outcome) = oneshot::channel();
        let pins = Pins { core: Arc::clone(&self.core) };
        let stop = self.core.stop.clone();
        let own = (pins.clone(), caller.clone(), wish.clone());
        // A task of its own, so that the guard outlives a client that goes away.
        self.core.tasks.spawn(async move {
            let (pins, caller, wish) = own;
            let written = match pins.wish(&caller, wish, cluster, action).await {
                Ok(written) => written,
                Err(error) => return drop(wished.send(Err(error))),
            };
            let _ = wished.send(Ok(written.receipt()));
            let settled = async {
                let pin = pins.settled(written, None).await?;
                pins.walked(&pin).await?;
                Ok(pin)
            };
            tokio::select! {
                settled = settled => {
                    drop(guard);
                    let _ = done.send(settled);
                }
                () = stop.cancelled() => guard.leave(),
            }
        });
        let created = receipt.await.map_err(|_| Error::Internal)??.created;
        let time = match wait {
            Wait::For(time) => time,
            Wait::No => Duration::ZERO,
        };
        match tokio::time::timeout(time, outcome).await {
            Ok(Ok(settled)) => Ok(PinReceipt { view: PinView::from(&settled?), created }),
            // The time is over, or the service stops: it goes on in the background, or after the next start.
            // The second wish makes it one that nobody waits for: should it fail, the pin stays and says why.
            Ok(Err(_)) | Err(_) => {
                let PinReceipt { view, .. } = pins.pin(caller, wish, Wait::No).await?;
                Ok(PinReceipt { view, created })
            }
        }
    }

    /// Where another cluster can fetch what this guard keeps.
    async fn origins(&self, guard: &Guard, cluster: &ClusterId) -> Vec<Origin> {
        let Some(setup) = self.core.cluster(guard.cluster()).filter(|setup| setup.info.id != *cluster) else {
            return Vec::new();
        };
        let peers = setup.driver.peers(4).await.unwrap_or_default();
        let addresses = peers.into_iter().filter(|peer| peer.is_self).flat_map(|peer| peer.addresses);
        addresses.filter_map(|address| Origin::parse(address).ok()).take(8).collect()
    }
}

impl DirectoryDraft {
    /// Adds one file. `path` is `/`-separated.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] names the path that is absolute, has `..`, an empty segment or NUL, or is
    /// there already; else as [`Uploads::receive`].
    pub async fn add(
        &mut self,
        path: &str,
        body: impl AsyncRead + Send + Unpin,
    ) -> Result<ReceivedEntry, Error> {
        self.check(path)?;
        let file = self.receive(body).await?;
        self.place(path, file)
    }

    /// Receives a file whose path is not known yet.
    ///
    /// # Errors
    /// As [`Uploads::receive`].
    pub async fn receive(&mut self, body: impl AsyncRead + Send + Unpin) -> Result<LooseFile, Error> {
        let core = self.guard.core();
        let imported = import_entry(&core, &self.guard, &self.bounds, body).await?;
        self.bounds.take(imported.content_bytes);
        Ok(LooseFile(imported))
    }

    /// Gives a received file its path.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`], as from [`add`](Self::add).
    pub fn place(&mut self, path: &str, file: LooseFile) -> Result<ReceivedEntry, Error> {
        self.check(path)?;
        self.paths.insert(path.to_owned());
        let file = (path.to_owned(), file.0);
        self.files.push(file.clone());
        Ok(entry(file))
    }

    /// Whether a file is at this path already.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.paths.contains(path)
    }

    /// Adds a directory that has nothing in it.
    async fn add_empty(&mut self, path: &str) -> Result<(), Error> {
        self.check(path)?;
        let core = self.guard.core();
        let driver = &driver(&core, &self.guard)?.driver;
        let empty = driver.import_directory(self.guard.name(), &[]).await.map_err(refused)?;
        self.place(path, LooseFile(empty)).map(drop)
    }

    fn check(&self, path: &str) -> Result<(), Error> {
        check_path(path)?;
        if self.files.len() >= ENTRIES_MAX {
            return Err(Error::InvalidRequest(format!("A directory can have {ENTRIES_MAX} files")));
        }
        if self.has(path) {
            return Err(Error::InvalidRequest(format!("{path:?} is in the directory twice")));
        }
        Ok(())
    }
}

fn entry((path, imported): (String, Imported)) -> ReceivedEntry {
    ReceivedEntry { path, cid: imported.root, file_bytes: imported.content_bytes }
}

/// The roots to pin: each of them once, and none of them empty. The empty identity CID stands for "no root" in
/// CARs whose writer had none, as Pinfold's own segments have it.
fn roots_of(mut roots: Vec<Cid>) -> Result<Vec<Cid>, Error> {
    let mut seen = HashSet::new();
    roots.retain(|root| root.hash().size() > 0 && seen.insert(*root));
    if roots.is_empty() {
        let text = "The CAR names no root, so that nothing says what to pin; name the CID yourself";
        return Err(Error::InvalidRequest(text.to_owned()));
    }
    if roots.len() > ROOTS_MAX {
        return Err(Error::InvalidRequest(format!(
            "The CAR names {} roots; at most {ROOTS_MAX} are pinned at once, so name those that you want",
            roots.len()
        )));
    }
    Ok(roots)
}

fn driver<'a>(core: &'a Core, guard: &Guard) -> Result<&'a ClusterSetup, Error> {
    core.cluster(guard.cluster()).ok_or(Error::UnknownCluster)
}

async fn import(
    core: &Core,
    guard: &Guard,
    bounds: &Bounds,
    mut body: impl AsyncRead + Send + Unpin,
) -> Result<Imported, Error> {
    let driver = &driver(core, guard)?.driver;
    let (bytes_max, over) = bounds.next_file();
    let imported = driver.import_file(guard.name(), bytes_max, &mut body).await;
    imported.map_err(|error| too_large_or(error, over))
}

/// As [`import`], for a file that becomes durable with its directory.
async fn import_entry(
    core: &Core,
    guard: &Guard,
    bounds: &Bounds,
    mut body: impl AsyncRead + Send + Unpin,
) -> Result<Imported, Error> {
    let driver = &driver(core, guard)?.driver;
    let (bytes_max, over) = bounds.next_file();
    let imported = driver.import_entry(guard.name(), bytes_max, &mut body).await;
    imported.map_err(|error| too_large_or(error, over))
}

fn too_large_or(error: ClusterError, over: Error) -> Error {
    match error {
        ClusterError::OverLimit => over,
        other @ (ClusterError::NotFound
        | ClusterError::Stalled(_)
        | ClusterError::Unfit(_)
        | ClusterError::Full
        | ClusterError::Source(_)
        | ClusterError::Unavailable(_)
        | ClusterError::Stopping) => refused(other),
    }
}

fn refused(error: ClusterError) -> Error {
    match error {
        ClusterError::OverLimit => Error::QuotaExceeded,
        ClusterError::Full => Error::StorageFull,
        ClusterError::Unfit(reason) => Error::InvalidRequest(reason),
        ClusterError::Source(reason) => {
            tracing::info!(reason, "an upload broke off");
            Error::UploadCutOff
        }
        ClusterError::NotFound
        | ClusterError::Stalled(_)
        | ClusterError::Unavailable(_)
        | ClusterError::Stopping => {
            tracing::warn!(%error, "taking an upload in");
            UNREACHABLE
        }
    }
}

pub(crate) fn check_path(path: &str) -> Result<(), Error> {
    let plain =
        |part: &str| !part.is_empty() && part != "." && part != ".." && !part.chars().any(char::is_control);
    if path.len() <= PATH_LEN_MAX && path.split('/').all(plain) {
        return Ok(());
    }
    let shown: String = path.chars().take(200).collect();
    Err(Error::InvalidRequest(format!("{shown:?} can't be a path in a directory")))
}
