//! What the parts of the service share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pinfold_cluster::{HoldName, Progress};
use pinfold_model::{Clock, ClusterId, PlacementId, Timestamp, TokenId};
use pinfold_outbound::Sender;
use pinfold_store::{AuditEvent, Store, StoreError};
use tokio::sync::{Notify, OnceCell, Semaphore, SemaphorePermit, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::catalog::Catalog;
use crate::entries::Listings;
use crate::guard::Guards;
use crate::logins::SessionKey;
use crate::password::Hasher;
use crate::signals::Signals;
use crate::watch::Watches;
use crate::{ClusterSetup, Error, Settings};

/// Uses of keys that wait to be written; more of them are forgotten, since the next use comes soon.
const USES_MAX: usize = 10_000;

/// Entries of the audit log that wait to be written without anybody waiting for them.
const NOTES_MAX: usize = 64;

/// A clock that goes back by less is only being adjusted.
const SET_BACK_MIN: Duration = Duration::from_secs(1);

/// Pins of content that is here that are settled at once at one time; more of them queue up. They share the syncs of
/// the stores, so that many at once are quicker than a few, and none of them fetches anything.
const QUICK_MAX: usize = 128;

/// DAGs that are looked at for dry runs at one time; more of them wait, within their time.
const SURVEYS_MAX: usize = 8;

/// How long a batch waits for those before it.
const BATCH_WAIT: Duration = Duration::from_secs(20);

/// What is worked on in this process, by placement.
#[derive(Clone, Default)]
pub(crate) struct Active {
    /// Whoever works on the placement holds this: two never do, whatever happens to leases.
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
    /// How far the fetch is.
    pub(crate) progress: Arc<Progress>,
}

/// What the parts of the service share.
pub(crate) struct Core {
    pub(crate) store: Store,
    pub(crate) clusters: Vec<ClusterSetup>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: Settings,
    /// What is on offer now.
    pub(crate) catalog: Catalog,
    /// Tells those who wait for a placement that it changed.
    pub(crate) signals: Signals,
    /// Who watches pins.
    pub(crate) watches: Watches,
    /// Listings of directories.
    pub(crate) listings: Listings,
    /// Tells those who go on for long that a credential may be good no more.
    pub(crate) revoked: watch::Sender<()>,
    /// Tells the reconciler that there may be work on a placement.
    pub(crate) wake: Notify,
    /// Tells the reconciler that the next pin may end sooner.
    pub(crate) wake_expiry: Notify,
    /// Tells those who remove accounts that there is one to go.
    pub(crate) wake_removal: Notify,
    /// Wakes the webhook delivery loop.
    pub(crate) wake_webhooks: Notify,
    /// Permits for webhook deliveries.
    pub(crate) delivery_permits: Arc<Semaphore>,
    /// Sends webhook requests.
    pub(crate) sender: Sender,
    /// Permits for work on placements.
    pub(crate) slots: Arc<Semaphore>,
    /// As many releases have hands of their own.
    pub(crate) release_slots: Arc<Semaphore>,
    /// Permits for those who settle at once what is here.
    pub(crate) quick: Arc<Semaphore>,
    /// The right to write a batch: other writes come between two of them.
    pub(crate) batches: Semaphore,
    /// Permits to look at a DAG for a dry run.
    pub(crate) surveys: Semaphore,
    pub(crate) guards: Arc<Guards>,
    /// Hashes passwords.
    pub(crate) hasher: Hasher,
    /// Signs session tokens; made when it is first needed.
    pub(crate) session_key: OnceCell<SessionKey>,
    /// Permits for entries of the audit log that nobody waits for.
    notes: Arc<Semaphore>,
    /// Cancelled when the service stops.
    pub(crate) stop: CancellationToken,
    /// Everything that runs in the background.
    pub(crate) tasks: TaskTracker,
    /// The latest time that the clock has shown, since it was set back last.
    latest: Mutex<Option<Timestamp>>,
    active: Mutex<HashMap<PlacementId, Active>>,
    uses: Mutex<HashMap<TokenId, Timestamp>>,
}

impl Core {
    pub(crate) fn new(
        store: Store,
        clusters: Vec<ClusterSetup>,
        clock: Arc<dyn Clock>,
        settings: Settings,
    ) -> Self {
        let catalog = Catalog::new(&settings.plans, &clusters);
        let slots = Arc::new(Semaphore::new(settings.placements_at_once.max(1)));
        let release_slots = Arc::new(Semaphore::new(settings.placements_at_once.max(1)));
        let delivery_permits = Arc::new(Semaphore::new(settings.webhooks_at_once.max(1)));
        let sender = Sender::new(settings.webhook_targets);
        Self {
            store,
            clusters,
            clock,
            settings,
            catalog,
            signals: Signals::default(),
            watches: Watches::default(),
            listings: Listings::default(),
            revoked: watch::Sender::new(()),
            wake: Notify::new(),
            wake_expiry: Notify::new(),
            wake_removal: Notify::new(),
            wake_webhooks: Notify::new(),
            delivery_permits,
            sender,
            slots,
            release_slots,
            quick: Arc::new(Semaphore::new(QUICK_MAX)),
            batches: Semaphore::new(1),
            surveys: Semaphore::new(SURVEYS_MAX),
            guards: Arc::default(),
            hasher: Hasher::default(),
            session_key: OnceCell::new(),
            notes: Arc::new(Semaphore::new(NOTES_MAX)),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            latest: Mutex::default(),
            active: Mutex::default(),
            uses: Mutex::default(),
        }
    }

    /// The cluster with this id.
    pub(crate) fn cluster(&self, id: &ClusterId) -> Option<&ClusterSetup> {
        self.clusters.iter().find(|setup| setup.info.id == *id)
    }

    /// The name under which a placement's blocks are held.
    pub(crate) fn hold_name(cluster: &ClusterId, cid: &cid::Cid) -> Option<HoldName> {
        HoldName::parse(format!("pin/{cluster}/{cid}"))
    }

    /// Whether the clock was set back since this was asked last.
    pub(crate) fn was_set_back(&self, now: Timestamp) -> bool {
        let mut latest = lock(&self.latest);
        let set_back = latest.is_some_and(|latest| latest.since(now) > SET_BACK_MIN);
        *latest = if set_back { Some(now) } else { (*latest).max(Some(now)) };
        set_back
    }

    /// The right to write a batch, once those before it are written.
    pub(crate) async fn batch_turn(&self) -> Result<SemaphorePermit<'_>, Error> {
        let busy = Error::Unavailable { retry_after: Some(Duration::from_secs(1)) };
        match tokio::time::timeout(BATCH_WAIT, self.batches.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(busy),
        }
    }

    /// Registers work on a placement.
    pub(crate) fn activate(&self, id: PlacementId) -> Active {
        lock(&self.active).entry(id).or_default().clone()
    }

    /// Ends what [`activate`](Self::activate) began.
    pub(crate) fn deactivate(&self, id: PlacementId, active: Active) {
        let mut all = lock(&self.active);
        drop(active);
        // Each worker, and each that waits for its turn, has a clone beside the one in the map.
        if all.get(&id).is_some_and(|active| Arc::strong_count(&active.turn) == 1) {
            all.remove(&id);
        }
    }

    /// How far the work on a placement is, if there is any here.
    pub(crate) fn progress(&self, id: PlacementId) -> Option<Arc<Progress>> {
        lock(&self.active).get(&id).map(|active| Arc::clone(&active.progress))
    }

    /// Writes to the audit log behind the answer, which so takes the same time whether there is anything to write or
    /// not. When too many wait, the entry is only logged.
    pub(crate) fn log_later(&self, act: AuditEvent) {
        let Ok(permit) = Arc::clone(&self.notes).try_acquire_owned() else {
            tracing::warn!(?act, "too many entries of the audit log at one time");
            return;
        };
        let (store, now) = (self.store.clone(), self.clock.now());
        self.tasks.spawn(async move {
            if let Err(error) = store.record_audit_event(act, now).await {
                tracing::warn!(%error, "writing the audit log");
            }
            drop(permit);
        });
    }

    /// Notes that a key was used; written later.
    pub(crate) fn note_use(&self, token: TokenId, now: Timestamp) {
        let mut uses = lock(&self.uses);
        if uses.len() < USES_MAX || uses.contains_key(&token) {
            uses.insert(token, now);
        }
    }

    /// Writes when keys were used.
    pub(crate) async fn write_uses(&self) {
        let uses: Vec<_> = std::mem::take(&mut *lock(&self.uses)).into_iter().collect();
        if uses.is_empty() {
            return;
        }
        if let Err(error) = self.store.record_token_use(uses).await {
            tracing::warn!(%error, "writing when keys were used");
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    /// Does something to its end, also when whoever waits for it goes away: what is written is then also begun and told.
    pub(crate) async fn see_through<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        self.tasks.spawn(work).await.map_err(|_| Error::Internal)
    }
}

/// What a cluster that can't be reached is to a caller.
pub(crate) const UNREACHABLE: Error = Error::Unavailable { retry_after: Some(Duration::from_secs(30)) };

/// What a fault of the database is to a caller. Logged here, once.
pub(crate) fn unavailable(error: StoreError) -> Error {
    tracing::error!(%error, "the database");
    match error {
        StoreError::Full => Error::StorageFull,
        StoreError::Busy => Error::Unavailable { retry_after: Some(Duration::from_secs(1)) },
        StoreError::Closed | StoreError::Disk(_) => Error::Unavailable { retry_after: None },
        StoreError::Strange { .. } | StoreError::Failed(_) => Error::Internal,
    }
}
