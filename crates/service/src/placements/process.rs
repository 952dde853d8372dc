//! Work on one leased placement: hold or release its DAG, and record the outcome.
//!
//! The lease is renewed during the work. The work ends early if the lease is lost, the service stops, or no live pin wants
//! the placement any more; it is idempotent, so that another worker continues it.

use std::sync::Arc;
use std::time::Duration;

use pinfold_cluster::{Cluster, ClusterError, Held, HoldName, HoldOptions, ImportedKind};
use pinfold_model::{Failure, FailureCode, PinKind, PlacementId, PlacementState, Timestamp};
use pinfold_store::{CompleteOutcome, LeasedPlacement, PlacementOutcome};

use super::{ActiveWork, Placements};
use crate::clusters::cluster_set::placement_hold_name;

/// Delay before an outcome that the database did not accept is written again.
const COMPLETE_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Where the blocks of a placement come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Missing blocks are fetched.
    Network,
    /// All blocks are expected to be local. If any is missing, the placement goes back to the queue.
    Local,
}

/// Works on a leased placement until it completes, is interrupted, or the lease is lost.
pub(crate) async fn process(placements: Arc<Placements>, leased: LeasedPlacement, source: Source) {
    let work = placements.register(leased.placement.id);
    {
        let _turn = work.turn.lock().await;
        let is_fresh = is_fresh(&placements, &leased);
        // A task that waited long may have lost the lease, and would hold what no one releases.
        if is_fresh || renew_lease(&placements, &leased).await {
            tokio::select! {
                outcome = attempt(&placements, &leased, &work, source, is_fresh) => {
                    complete(&placements, &leased, outcome).await;
                }
                () = lease_lost(&placements, &leased) => {
                    tracing::warn!(placement = %leased, "lease lost to another worker");
                }
            }
        } else {
            tracing::warn!(placement = %leased, "lease expired before the work began");
        }
    }
    placements.unregister(leased.placement.id, work);
}

/// Whether more than two thirds of the lease are left.
fn is_fresh(placements: &Placements, leased: &LeasedPlacement) -> bool {
    let left = leased.placement.due_at.map(|end| end.since(placements.clock.now()));
    left.is_some_and(|left| left > placements.limits.lease / 3 * 2)
}

/// Renews the lease. Returns `false` if it is lost, or the store fails.
async fn renew_lease(placements: &Placements, leased: &LeasedPlacement) -> bool {
    let until = placements.clock.now().after(placements.limits.lease);
    match placements.store.renew_leases(vec![leased.lease], until).await {
        Ok(held) => !held.is_empty(),
        Err(error) => {
            tracing::warn!(placement = %leased, %error, "failed to renew lease");
            false
        }
    }
}

async fn attempt(
    placements: &Placements,
    leased: &LeasedPlacement,
    work: &ActiveWork,
    source: Source,
    is_fresh: bool,
) -> PlacementOutcome {
    let (cid, cluster) = (&leased.placement.cid, &leased.placement.cluster);
    let (Some(setup), Some(name)) = (placements.clusters.get(cluster), placement_hold_name(cluster, cid))
    else {
        let error = ClusterError::Unavailable(format!("the cluster {cluster} is not configured"));
        return failed(placements, leased, error);
    };
    let driver = setup.driver.as_ref();
    let done = async {
        if !leased.wanted {
            return release(placements, driver, &name, leased).await;
        }
        let options = hold_options(placements, leased);
        let held = match source {
            Source::Local => driver.hold_local(&name, cid, &options).await,
            Source::Network => driver.hold(&name, cid, &options, &work.progress).await.map(Some),
        };
        held_or_failed(placements, leased, held)
    };
    // A pin that was just created needs no look whether it is still wanted.
    let is_new = source == Source::Local && is_fresh;
    tokio::select! {
        outcome = done => outcome,
        () = placements.tasks.stopped() => interrupted(placements),
        () = unwanted(placements, leased.placement.id, is_new), if leased.wanted => interrupted(placements),
    }
}

fn hold_options(placements: &Placements, leased: &LeasedPlacement) -> HoldOptions {
    let limits = &placements.limits;
    HoldOptions {
        bytes_max: leased.budget_bytes,
        blocks_max: limits.blocks_max,
        find_time: limits.find_time,
        stall_time: limits.stall_time,
        origins: leased.origins.clone(),
    }
}

fn held_or_failed(
    placements: &Placements,
    leased: &LeasedPlacement,
    held: Result<Option<Held>, ClusterError>,
) -> PlacementOutcome {
    match held {
        Ok(Some(Held { bytes, blocks, kind })) => {
            tracing::info!(placement = %leased, bytes, blocks, "pin completed");
            PlacementOutcome::Held { bytes, blocks, kind: pin_kind(kind) }
        }
        // A block is not local.
        Ok(None) => interrupted(placements),
        Err(error) => failed(placements, leased, error),
    }
}

async fn release(
    placements: &Placements,
    driver: &dyn Cluster,
    name: &HoldName,
    leased: &LeasedPlacement,
) -> PlacementOutcome {
    match driver.release(name).await {
        Ok(()) => {
            tracing::info!(placement = %leased, "placement released");
            PlacementOutcome::Released
        }
        Err(error) => {
            tracing::warn!(placement = %leased, %error, "failed to release placement, retrying");
            let failure = Failure::new(FailureCode::Unavailable, error.to_string());
            PlacementOutcome::Postponed { failure: Some(failure), next_at: next_attempt(placements, leased) }
        }
    }
}

/// The outcome of a failed hold: another attempt, or failure.
fn failed(placements: &Placements, leased: &LeasedPlacement, error: ClusterError) -> PlacementOutcome {
    if leased.placement.state == PlacementState::Pinned {
        tracing::warn!(placement = %leased, %error, "pinned content has missing blocks, retrying");
    } else {
        tracing::info!(placement = %leased, %error, "pin attempt failed");
    }
    let text = error.to_string();
    let (code, detail) = match error {
        ClusterError::NotFound => (FailureCode::NotFound, "CID not found".to_owned()),
        ClusterError::Stalled(detail) => (FailureCode::Stalled, detail),
        ClusterError::OverLimit => {
            let detail = "The content is larger than the storage that is left in your plan";
            (FailureCode::QuotaExceeded, detail.to_owned())
        }
        ClusterError::Unfit(detail) => (FailureCode::Unfit, detail),
        ClusterError::Full => (FailureCode::StorageFull, "The storage is full".to_owned()),
        ClusterError::Stopping if placements.tasks.is_stopping() => return interrupted(placements),
        // A cluster that stops while the service goes on can't be reached.
        ClusterError::Unavailable(_) | ClusterError::Source(_) | ClusterError::Stopping => {
            (FailureCode::Unavailable, format!("The cluster is temporarily unavailable: {text}"))
        }
    };
    let failure = Failure::new(code, detail);
    let next_at = next_attempt(placements, leased);
    let is_last = leased.placement.attempts.saturating_add(1) >= placements.limits.attempts_max;
    if code == FailureCode::Unavailable && (!is_last || !leased.wanted) {
        return PlacementOutcome::Postponed { failure: Some(failure), next_at };
    }
    let over_budget_bytes = (code == FailureCode::QuotaExceeded).then_some(leased.budget_bytes);
    PlacementOutcome::Failed { failure, over_budget_bytes, next_at }
}

/// Interrupted work does not count as an attempt and is due at once.
fn interrupted(placements: &Placements) -> PlacementOutcome {
    PlacementOutcome::Postponed { failure: None, next_at: placements.clock.now() }
}

fn next_attempt(placements: &Placements, leased: &LeasedPlacement) -> Timestamp {
    let failures = leased.placement.attempts.saturating_add(1);
    placements.clock.now().after(placements.limits.retry.delay(failures))
}

fn pin_kind(kind: ImportedKind) -> PinKind {
    match kind {
        ImportedKind::File => PinKind::File,
        ImportedKind::Directory => PinKind::Directory,
        ImportedKind::Other => PinKind::Unknown,
    }
}

/// Returns once no live pin wants the placement. A placement that `is_new` is looked at only after a change; if its pin was
/// removed before this subscribed, the renewal of the lease finds out.
async fn unwanted(placements: &Placements, id: PlacementId, is_new: bool) {
    let mut changes = placements.events.subscribe(id);
    if is_new {
        changes.changed().await;
    }
    loop {
        match placements.store.is_wanted(id).await {
            Ok(true) => {}
            Ok(false) => return,
            // The renewal of the lease asks again.
            Err(error) => tracing::warn!(placement = %id, %error, "failed to check whether a pin is live"),
        }
        changes.changed().await;
    }
}

/// Renews the lease periodically. Returns once it is lost.
async fn lease_lost(placements: &Placements, leased: &LeasedPlacement) {
    let pause = (placements.limits.lease / 3).max(Duration::from_millis(100));
    loop {
        tokio::time::sleep(pause).await;
        let until = placements.clock.now().after(placements.limits.lease);
        match placements.store.renew_leases(vec![leased.lease], until).await {
            Ok(held) if held.is_empty() => return,
            // Another process may have removed the last pin: `unwanted` looks again.
            Ok(held) if held.iter().any(|(_, wanted)| !wanted) => {
                placements.notify(leased.placement.id, None);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(placement = %leased, %error, "failed to renew lease"),
        }
    }
}

/// Records the outcome and notifies waiting requests. Retries while the database fails, so that requests need not wait until
/// the lease expires. If the service stops first, the work is done again by the next process.
async fn complete(placements: &Placements, leased: &LeasedPlacement, outcome: PlacementOutcome) {
    let failure = match &outcome {
        PlacementOutcome::Failed { failure, .. } => Some(failure.clone()),
        PlacementOutcome::Held { .. } | PlacementOutcome::Postponed { .. } | PlacementOutcome::Released => {
            None
        }
    };
    loop {
        let now = placements.clock.now();
        match placements.store.complete_placement(leased.lease, outcome.clone(), now).await {
            Ok(CompleteOutcome::Now { work, .. }) => {
                placements.notify(leased.placement.id, failure);
                if work {
                    placements.wake_worker();
                }
                return;
            }
            Ok(CompleteOutcome::LeaseLost) => {
                return tracing::warn!(placement = %leased, "lease lost to another worker");
            }
            Err(error) => {
                tracing::error!(placement = %leased, %error, "failed to record placement outcome, retrying");
            }
        }
        if !placements.tasks.sleep(COMPLETE_RETRY_DELAY).await {
            return;
        }
    }
}
