//! Work on one placement: hold it, or release it, and write down what came of it.

use std::sync::Arc;
use std::time::Duration;

use pinfold_cluster::{Cluster, ClusterError, Held, HoldName, HoldOptions, ImportedKind};
use pinfold_model::{Failure, FailureCode, PinKind, PlacementId, PlacementState, Timestamp};
use pinfold_store::{CompleteOutcome, LeasedPlacement, PlacementOutcome};

use crate::core::{Active, Core};

/// How long it rests before it writes down once more what the database did not take.
const SETTLE_PAUSE: Duration = Duration::from_secs(1);

/// Works on a claimed placement until it settles, is interrupted, or the lease is lost.
pub(crate) async fn work(core: Arc<Core>, claim: LeasedPlacement) {
    work_on(core, claim, false).await;
}

/// The same for a placement whose root is here: one that lacks blocks goes back into the queue, for those who fetch.
pub(crate) async fn work_local(core: Arc<Core>, claim: LeasedPlacement) {
    work_on(core, claim, true).await;
}

async fn work_on(core: Arc<Core>, claim: LeasedPlacement, here: bool) {
    let active = core.activate(claim.placement.id);
    {
        let _turn = active.turn.lock().await;
        let is_fresh = is_fresh(&core, &claim);
        // Who waited for long may have lost the lease, and would hold what nobody releases.
        if is_fresh || is_held(&core, &claim).await {
            tokio::select! {
                outcome = attempt(&core, &claim, &active, here, is_fresh) => {
                    settle(&core, &claim, outcome).await;
                }
                () = lease_lost(&core, &claim) => {
                    tracing::warn!(%claim, "somebody else took the placement over");
                }
            }
        } else {
            tracing::warn!(%claim, "the lease ran out before the work began");
        }
    }
    core.deactivate(claim.placement.id, active);
}

/// Whether most of a lease's time is left.
fn is_fresh(core: &Core, claim: &LeasedPlacement) -> bool {
    let left = claim.placement.due_at.map(|end| end.since(core.clock.now()));
    left.is_some_and(|left| left > core.settings.lease / 3 * 2)
}

/// Prolongs a lease, and says whether that was possible.
async fn is_held(core: &Core, claim: &LeasedPlacement) -> bool {
    let until = core.clock.now().after(core.settings.lease);
    match core.store.renew_leases(vec![claim.lease], until).await {
        Ok(held) => !held.is_empty(),
        Err(error) => {
            tracing::warn!(%error, "renewing a lease");
            false
        }
    }
}

async fn attempt(
    core: &Core,
    claim: &LeasedPlacement,
    active: &Active,
    here: bool,
    is_fresh: bool,
) -> PlacementOutcome {
    let (cid, cluster) = (&claim.placement.cid, &claim.placement.cluster);
    let (Some(setup), Some(name)) = (core.cluster(cluster), Core::hold_name(cluster, cid)) else {
        return failed(
            core,
            claim,
            ClusterError::Unavailable(format!("the cluster {cluster} is not set up")),
        );
    };
    let driver = setup.driver.as_ref();
    let work = async {
        match claim.wanted {
            true => {
                let terms = terms(core, claim);
                let held = match here {
                    true => driver.hold_local(&name, cid, &terms).await,
                    false => driver.hold(&name, cid, &terms, &active.progress).await.map(Some),
                };
                held_or_not(core, claim, held)
            }
            false => release(core, driver, &name, claim).await,
        }
    };
    tokio::select! {
        outcome = work => outcome,
        () = core.stop.cancelled() => interrupted(core),
        () = unwanted(core, claim.placement.id, here && is_fresh), if claim.wanted => interrupted(core),
    }
}

fn terms(core: &Core, claim: &LeasedPlacement) -> HoldOptions {
    let settings = &core.settings;
    HoldOptions {
        bytes_max: claim.budget_bytes,
        blocks_max: settings.blocks_max,
        find_time: settings.find_time,
        stall_time: settings.stall_time,
        origins: claim.origins.clone(),
    }
}

fn held_or_not(
    core: &Core,
    claim: &LeasedPlacement,
    held: Result<Option<Held>, ClusterError>,
) -> PlacementOutcome {
    match held {
        Ok(Some(Held { bytes, blocks, kind })) => {
            tracing::info!(%claim, bytes, blocks, "pinned");
            PlacementOutcome::Held { bytes, blocks, kind: pin_kind(kind) }
        }
        // Not all of it is here.
        Ok(None) => interrupted(core),
        Err(error) => failed(core, claim, error),
    }
}

async fn release(
    core: &Core,
    driver: &dyn Cluster,
    name: &HoldName,
    claim: &LeasedPlacement,
) -> PlacementOutcome {
    match driver.release(name).await {
        Ok(()) => {
            tracing::info!(%claim, "released");
            PlacementOutcome::Released
        }
        Err(error) => {
            tracing::warn!(%claim, %error, "releasing");
            let failure = Failure::new(FailureCode::Unavailable, error.to_string());
            PlacementOutcome::Postponed { failure: Some(failure), next_at: next_try(core, claim) }
        }
    }
}

/// What a failed hold comes to: another try, or none.
fn failed(core: &Core, claim: &LeasedPlacement, error: ClusterError) -> PlacementOutcome {
    if claim.placement.state == PlacementState::Pinned {
        tracing::warn!(%claim, %error, "blocks of what is pinned are not here; it is tried again");
    } else {
        tracing::info!(%claim, %error, "not pinned");
    }
    let text = error.to_string();
    let (code, detail) = match error {
        ClusterError::NotFound => (FailureCode::NotFound, "CID not found".to_owned()),
        ClusterError::Stalled(detail) => (FailureCode::Stalled, detail),
        ClusterError::OverLimit => {
            (FailureCode::QuotaExceeded, "It is larger than what is left of your storage".to_owned())
        }
        ClusterError::Unfit(detail) => (FailureCode::Unfit, detail),
        ClusterError::Full => (FailureCode::StorageFull, "The storage is full".to_owned()),
        ClusterError::Stopping if core.stop.is_cancelled() => return interrupted(core),
        // A cluster that stops while the service goes on is a cluster that can't be reached.
        ClusterError::Unavailable(_) | ClusterError::Source(_) | ClusterError::Stopping => {
            (FailureCode::Unavailable, format!("The cluster can't do it right now: {text}"))
        }
    };
    let failure = Failure::new(code, detail);
    let next_at = next_try(core, claim);
    let is_last = claim.placement.attempts.saturating_add(1) >= core.settings.attempts_max;
    if code == FailureCode::Unavailable && (!is_last || !claim.wanted) {
        return PlacementOutcome::Postponed { failure: Some(failure), next_at };
    }
    let over_budget_bytes = (code == FailureCode::QuotaExceeded).then_some(claim.budget_bytes);
    PlacementOutcome::Failed { failure, over_budget_bytes, next_at }
}

/// Interrupted work counts as no try, and is due at once.
fn interrupted(core: &Core) -> PlacementOutcome {
    PlacementOutcome::Postponed { failure: None, next_at: core.clock.now() }
}

/// The pause grows twofold with each try, up to its bound.
fn next_try(core: &Core, claim: &LeasedPlacement) -> Timestamp {
    let settings = &core.settings;
    let factor = 1_u32 << claim.placement.attempts.min(20);
    let pause = settings.retry_first.saturating_mul(factor).min(settings.retry_max);
    core.clock.now().after(pause)
}

fn pin_kind(kind: ImportedKind) -> PinKind {
    match kind {
        ImportedKind::File => PinKind::File,
        ImportedKind::Directory => PinKind::Directory,
        ImportedKind::Other => PinKind::Unknown,
    }
}

/// Returns once no live pin wants the placement any more. Of one that `is_new` that is asked after a change: if its pin
/// went before this hears of changes, the lease's renewal tells.
async fn unwanted(core: &Core, id: PlacementId, is_new: bool) {
    let mut changes = core.signals.subscribe(id);
    if is_new {
        changes.changed().await;
    }
    loop {
        match core.store.is_wanted(id).await {
            Ok(true) => {}
            Ok(false) => return,
            // The lease's renewal asks again.
            Err(error) => tracing::warn!(%error, "asking whether a placement is wanted"),
        }
        changes.changed().await;
    }
}

/// Renews the lease for as long as it is held; returns once it is lost.
async fn lease_lost(core: &Core, claim: &LeasedPlacement) {
    let pause = (core.settings.lease / 3).max(Duration::from_millis(100));
    loop {
        tokio::time::sleep(pause).await;
        let until = core.clock.now().after(core.settings.lease);
        match core.store.renew_leases(vec![claim.lease], until).await {
            Ok(held) if held.is_empty() => return,
            // Another process may have removed the last pin; whoever watches for that looks again.
            Ok(held) if held.iter().any(|(_, wanted)| !wanted) => core.tell(claim.placement.id, None),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "renewing a lease"),
        }
    }
}

/// Writes down what came of the work, and tells those who wait. While the database fails it is tried again:
/// whoever waits need not wait until the lease runs out. After a stop that happens, and the work is done
/// again; it is idempotent.
async fn settle(core: &Core, claim: &LeasedPlacement, outcome: PlacementOutcome) {
    let failure = match &outcome {
        PlacementOutcome::Failed { failure, .. } => Some(failure.clone()),
        PlacementOutcome::Held { .. } | PlacementOutcome::Postponed { .. } | PlacementOutcome::Released => {
            None
        }
    };
    loop {
        match core.store.complete_placement(claim.lease, outcome.clone(), core.clock.now()).await {
            Ok(CompleteOutcome::Now { work, .. }) => {
                core.tell(claim.placement.id, failure);
                if work {
                    core.wake.notify_one();
                }
                return;
            }
            Ok(CompleteOutcome::LeaseLost) => {
                return tracing::warn!(%claim, "somebody else took the placement over");
            }
            Err(error) => tracing::error!(%claim, %error, "writing down what came of a placement"),
        }
        tokio::select! {
            () = tokio::time::sleep(SETTLE_PAUSE) => {}
            () = core.stop.cancelled() => return,
        }
    }
}
