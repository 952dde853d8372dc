//! The placement worker: leases due placements, and processes as many at one time as there are permits.

use std::sync::Arc;

use pinfold_model::{PlacementState, Timestamp};
use pinfold_store::{Capacity, LeasedPlacement};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::runner::Workers;
use crate::Error;
use crate::error::log_store_error;
use crate::placements::Placements;
use crate::placements::process::{Source, process};
use crate::schedule::wait_until_due;

/// Runs until the service stops.
pub(super) async fn run(workers: &Workers) {
    let placements = &workers.placements;
    while !placements.tasks.is_stopping() {
        let woken = placements.work_added.notified();
        let next_due = look(workers).await;
        tokio::select! {
            () = woken => {}
            () = wait_until_due(placements.clock.as_ref(), next_due) => {}
            () = placements.tasks.stopped() => {}
        }
    }
}

/// Processes once the placements that are due, and returns how many.
pub(super) async fn turn(placements: &Arc<Placements>) -> Result<usize, Error> {
    let leased = lease(placements).await?;
    let count = leased.len();
    let work = leased.into_iter().map(|(leased, permit)| async move {
        process(Arc::clone(placements), leased, Source::Network).await;
        drop(permit);
    });
    futures::future::join_all(work).await;
    Ok(count)
}

/// Begins all work that is due and for which there are permits. Returns when the next placement is due.
async fn look(workers: &Workers) -> Result<Option<Timestamp>, Error> {
    let placements = &workers.placements;
    for (leased, permit) in lease(placements).await? {
        let shared = Arc::clone(placements);
        placements.tasks.spawn(async move {
            process(Arc::clone(&shared), leased, Source::Network).await;
            drop(permit);
            shared.wake_worker();
        });
    }
    workers.holds.release_dropped().await;
    workers.auth.key_uses.flush().await;
    let free = |permits: &Semaphore| u32::try_from(permits.available_permits()).unwrap_or(u32::MAX);
    let capacity =
        Capacity { pins: free(&placements.pin_permits), releases: free(&placements.release_permits) };
    if capacity == Capacity::default() {
        // The next permit that becomes free wakes the worker.
        return Ok(None);
    }
    placements.store.next_placement_due(placements.clock.now(), capacity).await.map_err(log_store_error)
}

/// Leases as many due placements as there are permits, each with its permit.
async fn lease(placements: &Placements) -> Result<Vec<(LeasedPlacement, OwnedSemaphorePermit)>, Error> {
    let mut pins = take_all(&placements.pin_permits);
    let mut releases = take_all(&placements.release_permits);
    let count = |permits: &[_]| u32::try_from(permits.len()).unwrap_or(u32::MAX);
    let capacity = Capacity { pins: count(&pins), releases: count(&releases) };
    let (store, now) = (&placements.store, placements.clock.now());
    let lease_until = now.after(placements.limits.lease);
    if placements.was_clock_set_back(now) {
        tracing::warn!(%now, "the clock was set back, rescheduling placements that were due later");
        store.clamp_schedule(now, lease_until).await.map_err(log_store_error)?;
    }
    let due = store.next_placement_due(now, capacity).await.map_err(log_store_error)?;
    if capacity == Capacity::default() || due.is_none_or(|due| due > now) {
        return Ok(Vec::new());
    }
    let leased = store.lease_placements(capacity, now, lease_until).await.map_err(log_store_error)?;
    let with_permit = |leased: LeasedPlacement| {
        let is_release = leased.placement.state == PlacementState::Releasing;
        let permit = if is_release { releases.pop() } else { pins.pop() };
        permit.map(|permit| (leased, permit))
    };
    Ok(leased.into_iter().filter_map(with_permit).collect())
}

fn take_all(permits: &Arc<Semaphore>) -> Vec<OwnedSemaphorePermit> {
    std::iter::from_fn(|| Arc::clone(permits).try_acquire_owned().ok()).collect()
}
