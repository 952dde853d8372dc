//! Placements: what requests and background work share about them.
//!
//! The rows of the store are the work queue. [`Placements`] has what is in memory only: wake-ups of the loops,
//! notifications for waiting requests, permits for work, and the progress of work in this process. [`process`] works on
//! one leased placement, [`fast_path`] does so at once for content that is already local.

pub(crate) mod fast_path;
pub(crate) mod placement_events;
pub(crate) mod process;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pinfold_cluster::Progress;
use pinfold_model::{Backoff, Clock, PlacementId, Timestamp};
use pinfold_store::Store;
use tokio::sync::{Notify, Semaphore};

use self::fast_path::FAST_PATH_MAX;
use self::placement_events::{LastFailure, PlacementEvents};
use crate::clusters::cluster_set::ClusterSet;
use crate::lock::lock;
use crate::tasks::Tasks;

/// A clock that goes back by less is being adjusted and was not set back.
const SET_BACK_MIN: Duration = Duration::from_secs(1);

/// Bounds of the work on placements.
#[derive(Debug, Clone)]
pub(crate) struct PlacementLimits {
    /// How long to look for the first block.
    pub(crate) find_time: Duration,
    /// How long a fetch may go on without a new block.
    pub(crate) stall_time: Duration,
    /// Maximum distinct blocks of one pin.
    pub(crate) blocks_max: u64,
    /// Attempts before a placement fails.
    pub(crate) attempts_max: u32,
    pub(crate) retry: Backoff,
    /// Lease duration. Another worker may take a placement over when its lease expires.
    pub(crate) lease: Duration,
    /// Placements that are fetched at one time; as many are released.
    pub(crate) workers: usize,
}

/// Work on a placement in this process.
#[derive(Clone, Default)]
pub(crate) struct ActiveWork {
    /// Locked during the work, so that two tasks never work on one placement, whatever happens to leases.
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
    pub(crate) progress: Arc<Progress>,
}

/// The shared state of all placements.
pub(crate) struct Placements {
    pub(crate) store: Store,
    pub(crate) clusters: ClusterSet,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tasks: Tasks,
    pub(crate) limits: PlacementLimits,
    pub(crate) events: PlacementEvents,
    /// Signalled when a placement may have become due.
    pub(crate) work_added: Notify,
    /// Signalled when the next pin may expire sooner.
    pub(crate) expiry_changed: Notify,
    pub(crate) pin_permits: Arc<Semaphore>,
    pub(crate) release_permits: Arc<Semaphore>,
    pub(crate) fast_path_permits: Arc<Semaphore>,
    active: Mutex<HashMap<PlacementId, ActiveWork>>,
    /// The latest time that the clock has shown since it was last set back.
    latest: Mutex<Option<Timestamp>>,
}

impl Placements {
    pub(crate) fn new(
        store: Store,
        clusters: ClusterSet,
        clock: Arc<dyn Clock>,
        tasks: Tasks,
        limits: PlacementLimits,
    ) -> Self {
        let workers = limits.workers.max(1);
        Self {
            store,
            clusters,
            clock,
            tasks,
            limits,
            events: PlacementEvents::default(),
            work_added: Notify::new(),
            expiry_changed: Notify::new(),
            pin_permits: Arc::new(Semaphore::new(workers)),
            release_permits: Arc::new(Semaphore::new(workers)),
            fast_path_permits: Arc::new(Semaphore::new(FAST_PATH_MAX)),
            active: Mutex::default(),
            latest: Mutex::default(),
        }
    }

    /// Wakes the placement worker.
    pub(crate) fn wake_worker(&self) {
        self.work_added.notify_one();
    }

    /// Notifies waiting requests that a placement changed.
    pub(crate) fn notify(&self, id: PlacementId, failure: LastFailure) {
        self.events.notify(id, failure);
    }

    /// Whether the clock was set back since the last call.
    pub(crate) fn was_clock_set_back(&self, now: Timestamp) -> bool {
        let mut latest = lock(&self.latest);
        let set_back = latest.is_some_and(|latest| latest.since(now) > SET_BACK_MIN);
        *latest = if set_back { Some(now) } else { (*latest).max(Some(now)) };
        set_back
    }

    /// Registers work on a placement. End it with [`unregister`](Self::unregister).
    pub(crate) fn register(&self, id: PlacementId) -> ActiveWork {
        lock(&self.active).entry(id).or_default().clone()
    }

    pub(crate) fn unregister(&self, id: PlacementId, work: ActiveWork) {
        let mut all = lock(&self.active);
        drop(work);
        // Every task that works on the placement, or waits for its turn, has a clone besides the one in the map.
        if all.get(&id).is_some_and(|work| Arc::strong_count(&work.turn) == 1) {
            all.remove(&id);
        }
    }

    /// Progress of the work on a placement, if this process works on it.
    pub(crate) fn progress(&self, id: PlacementId) -> Option<Arc<Progress>> {
        lock(&self.active).get(&id).map(|work| Arc::clone(&work.progress))
    }
}
