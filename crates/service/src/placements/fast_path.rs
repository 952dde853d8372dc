//! The fast path: a pin whose content is already local completes at once, without the queue.
//!
//! If the cluster has the root, the request that creates the pin also leases the placement, in the same transaction, and
//! holds the local blocks at once. These pins do not take the worker's permits, because they fetch nothing; many at a time
//! share the syncs of the stores. If a block turns out to be missing, the placement goes back to the queue, and the worker
//! fetches it.

use std::sync::Arc;

use cid::Cid;
use futures::StreamExt as _;
use pinfold_model::{ClusterId, Timestamp};
use pinfold_store::{CreatePin, LeasedPlacement};
use tokio::sync::OwnedSemaphorePermit;

use super::Placements;
use super::placement_events::Subscription;
use super::process::{Source, process};
use crate::Error;

/// Pins that take the fast path at one time; more of them are queued.
pub(super) const FAST_PATH_MAX: usize = 128;

/// Pins of one batch that take the fast path at one time.
const BATCH_CONCURRENCY: usize = 64;

/// The right to take the fast path.
pub(crate) struct Admission {
    permit: OwnedSemaphorePermit,
    /// When the lease ends that the pin's transaction takes.
    pub(crate) lease_until: Timestamp,
}

/// Admits a new pin to the fast path if its root is local and not too many pins are on it.
pub(crate) fn admit(
    placements: &Placements,
    cluster: &ClusterId,
    cid: &Cid,
    now: Timestamp,
) -> Option<Admission> {
    if !is_local(placements, cluster, cid) {
        return None;
    }
    let permit = Arc::clone(&placements.fast_path_permits).try_acquire_owned().ok()?;
    Some(Admission { permit, lease_until: now.after(placements.limits.lease) })
}

/// Begins the work on a pin that was admitted, and subscribes to its outcome before that.
pub(crate) fn start(
    placements: &Arc<Placements>,
    leased: LeasedPlacement,
    admission: Option<Admission>,
) -> Subscription {
    let changes = placements.events.subscribe(leased.placement.id);
    let shared = Arc::clone(placements);
    placements.tasks.spawn(async move {
        process(shared, leased, Source::Local).await;
        drop(admission.map(|admission| admission.permit));
    });
    changes
}

/// Marks the pins of a batch whose root is local: their transaction leases the placement. Reads the block index.
///
/// # Errors
/// [`Error::Internal`].
pub(crate) async fn mark_local(
    placements: &Arc<Placements>,
    mut pins: Vec<CreatePin>,
    now: Timestamp,
) -> Result<Vec<CreatePin>, Error> {
    let shared = Arc::clone(placements);
    let marked = tokio::task::spawn_blocking(move || {
        for pin in &mut pins {
            let is_local = is_local(&shared, &pin.cluster, &pin.cid);
            pin.lease_until = is_local.then(|| now.after(shared.limits.lease));
        }
        pins
    });
    marked.await.map_err(|_| Error::Internal)
}

/// Begins the work on the leased placements of a batch. A lease that expires before its turn comes is left to the worker.
pub(crate) fn start_batch(placements: &Arc<Placements>, leased: Vec<LeasedPlacement>) {
    if leased.is_empty() {
        return;
    }
    let shared = Arc::clone(placements);
    placements.tasks.spawn(async move {
        let work = futures::stream::iter(leased).for_each_concurrent(BATCH_CONCURRENCY, |leased| {
            let placements = Arc::clone(&shared);
            async move {
                // The semaphore is never closed.
                let _permit = Arc::clone(&placements.fast_path_permits).acquire_owned().await.ok();
                process(placements, leased, Source::Local).await;
            }
        });
        work.await;
    });
}

fn is_local(placements: &Placements, cluster: &ClusterId, cid: &Cid) -> bool {
    placements.clusters.get(cluster).is_some_and(|setup| setup.driver.has(cid))
}
