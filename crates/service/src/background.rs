//! What goes on without a request: the reconciler.
//!
//! Several loops, so that none waits for another: one works on placements, one ends the pins whose time has come,
//! one asks the clusters for damage ([`mend`]), one counts what accounts share ([`sharing`]), one drops the oldest end of
//! the audit log ([`sweep`]), one the sessions that are over ([`logins`]), one tells webhooks what happened ([`webhook_delivery`]), one takes away what is too old of those and
//! of named requests. The first two register for the wake-up before they look, so none
//! is lost, and take no hints: what is to be done stands in the rows. Between wake-ups they rest until the next
//! row is due, with an eye on the clock alone: rows that wait cost nothing, however many they are.

mod webhook_delivery;

use std::sync::Arc;
use std::time::Duration;

use pinfold_model::{PlacementState, Timestamp};
use pinfold_store::{Capacity, LeasedPlacement};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::Error;
use crate::catalog;
use crate::core::{Core, unavailable};
use crate::logins;
use crate::mend;
use crate::reconcile::work;
use crate::removal;
use crate::sharing;
use crate::sweep;

/// The longest rest between two looks at the rows: another process may have changed them.
const REST_MAX: Duration = Duration::from_secs(60);
/// The longest sleep between two looks at the clock. A sleep does not notice when the system's clock is set, or
/// that the machine was suspended, and a pin must end within 5 s of its time all the same.
const NAP_MAX: Duration = Duration::from_secs(2);
/// The rest after a failure of the store.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Pins that end in one transaction: other writes wait so long.
const EXPIRE_MAX: u32 = 1_000;

/// Brings what is to what is wanted: fetches, releases, expires. Cheap to clone.
#[derive(Clone)]
pub struct PlacementWorker {
    pub(crate) core: Arc<Core>,
}

impl PlacementWorker {
    /// One turn: ends what is due, looks for damage, works once on the placements that are due (as many as may be worked on at
    /// once), and returns how many things changed. For tests and tools; a running service turns by itself.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`] when the store fails.
    pub async fn turn(&self) -> Result<usize, Error> {
        let core = &self.core;
        let ended = end_due(core).await?;
        let damaged = mend::look(core).await?;
        let claims = claim(core).await?;
        let worked = claims.len();
        let work = claims.into_iter().map(|(claim, permit)| async move {
            work(Arc::clone(core), claim).await;
            drop(permit);
        });
        futures::future::join_all(work).await;
        let removed = removal::look(core).await?;
        let released = core.sweep_guards().await;
        let mut counted = None;
        while let Some(account) = sharing::look(core, counted).await? {
            counted = Some(account);
        }
        sweep::look(core).await?;
        logins::sweep(core).await?;
        core.write_uses().await;
        let told = webhook_delivery::turn(core).await?;
        webhook_delivery::cleanup(core).await?;
        Ok(ended + damaged + worked + removed + released + told)
    }

    /// Takes over what a process before this one worked on when it was killed, so that it goes on now and not
    /// when the leases end. Only for a process that is alone with the store; call it before
    /// [`run`](crate::Service::run).
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`] when the store fails.
    pub async fn take_over(&self) -> Result<(), Error> {
        let now = self.core.clock.now();
        let latest = now.after(self.core.settings.retry_max);
        let taken = self.core.store.reset_placement_leases(now, latest).await.map_err(unavailable)?;
        if taken > 0 {
            tracing::info!(taken, "going on with what the last run left unfinished");
        }
        self.core.store.reset_webhook_leases(now).await.map_err(unavailable)?;
        self.core.store.reset_reservations().await.map_err(unavailable)?;
        Ok(())
    }

    /// Makes the running service look at once, such as after a test moved the clock.
    pub fn wake(&self) {
        self.core.wake.notify_one();
        self.core.wake_expiry.notify_one();
        self.core.wake_webhooks.notify_one();
    }
}

/// The running background work.
#[must_use = "without it nothing is fetched"]
pub struct Background {
    core: Arc<Core>,
    task: JoinHandle<()>,
}

impl Background {
    pub(crate) fn start(core: &Arc<Core>) -> Self {
        Self { core: Arc::clone(core), task: tokio::spawn(run(Arc::clone(core))) }
    }

    /// Stops it: no new work is begun, what runs is told to stop and left for the next start, and nothing
    /// runs any more when this returns.
    pub async fn stop(self) {
        self.core.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the reconciler ended badly");
        }
        self.core.tasks.close();
        self.core.tasks.wait().await;
        self.core.write_uses().await;
    }
}

async fn run(core: Arc<Core>) {
    tokio::join!(
        run_work(&core),
        run_expiry(&core),
        mend::run(&core),
        sharing::run(&core),
        catalog::run(&core),
        removal::run(&core),
        sweep::run(&core),
        logins::run(&core),
        webhook_delivery::run(&core),
        webhook_delivery::run_cleanup(&core),
    );
}

async fn run_work(core: &Arc<Core>) {
    while !core.stop.is_cancelled() {
        let woken = core.wake.notified();
        let looked = look(core).await;
        tokio::select! {
            () = woken => {}
            () = rest(core, looked) => {}
            () = core.stop.cancelled() => {}
        }
    }
}

async fn run_expiry(core: &Core) {
    while !core.stop.is_cancelled() {
        let woken = core.wake_expiry.notified();
        let looked = async {
            end_due(core).await?;
            core.store.next_expiry().await.map_err(unavailable)
        };
        let looked = looked.await;
        tokio::select! {
            () = woken => {}
            () = rest(core, looked) => {}
            () = core.stop.cancelled() => {}
        }
    }
}

/// Returns when there may be something to do after a look that said when the next row is due.
pub(crate) async fn rest(core: &Core, looked: Result<Option<Timestamp>, Error>) {
    match looked {
        Ok(due) => until(core, due).await,
        Err(error) => {
            tracing::error!(%error, "looking for work");
            tokio::time::sleep(REST_AFTER_FAILURE).await;
        }
    }
}

/// Returns when the clock has reached `due`, was set back, or was not looked at for long.
async fn until(core: &Core, due: Option<Timestamp>) {
    let mut now = core.clock.now();
    let end = now.after(REST_MAX);
    let due = due.map_or(end, |due| due.min(end));
    while now < due {
        tokio::time::sleep(due.since(now).min(NAP_MAX)).await;
        let before = std::mem::replace(&mut now, core.clock.now());
        if now < before {
            return;
        }
    }
}

/// Begins all work that is due and for which there are hands, and says when there is more.
async fn look(core: &Arc<Core>) -> Result<Option<Timestamp>, Error> {
    for (claim, permit) in claim(core).await? {
        let core = Arc::clone(core);
        let tasks = core.tasks.clone();
        tasks.spawn(async move {
            work(Arc::clone(&core), claim).await;
            drop(permit);
            core.wake.notify_one();
        });
    }
    core.sweep_guards().await;
    core.write_uses().await;
    let free = |slots: &Semaphore| u32::try_from(slots.available_permits()).unwrap_or(u32::MAX);
    let hands = Capacity { pins: free(&core.slots), releases: free(&core.release_slots) };
    if hands == Capacity::default() {
        // The first hand that is free again wakes it.
        return Ok(None);
    }
    core.store.next_placement_due(core.clock.now(), hands).await.map_err(unavailable)
}

/// Claims as many due placements as there are hands, each with the hand that works on it.
async fn claim(core: &Core) -> Result<Vec<(LeasedPlacement, OwnedSemaphorePermit)>, Error> {
    let mut pins = take_all(&core.slots);
    let mut releases = take_all(&core.release_slots);
    let count = |permits: &[_]| u32::try_from(permits.len()).unwrap_or(u32::MAX);
    let hands = Capacity { pins: count(&pins), releases: count(&releases) };
    let now = core.clock.now();
    if core.was_set_back(now) {
        tracing::warn!(%now, "the clock was set back; what was due later is due now");
        core.store.clamp_schedule(now, now.after(core.settings.lease)).await.map_err(unavailable)?;
    }
    let due = core.store.next_placement_due(now, hands).await.map_err(unavailable)?;
    if hands == Capacity::default() || due.is_none_or(|due| due > now) {
        return Ok(Vec::new());
    }
    let until = now.after(core.settings.lease);
    let claims = core.store.lease_placements(hands, now, until).await.map_err(unavailable)?;
    let with_permit = |claim: LeasedPlacement| {
        let is_release = claim.placement.state == PlacementState::Releasing;
        let permit = if is_release { releases.pop() } else { pins.pop() };
        permit.map(|permit| (claim, permit))
    };
    Ok(claims.into_iter().filter_map(with_permit).collect())
}

fn take_all(slots: &Arc<Semaphore>) -> Vec<OwnedSemaphorePermit> {
    std::iter::from_fn(|| Arc::clone(slots).try_acquire_owned().ok()).collect()
}

/// Ends the pins whose time has come, those too that came due while nothing ran.
async fn end_due(core: &Core) -> Result<usize, Error> {
    let mut ended = 0;
    while !core.stop.is_cancelled() {
        let now = core.clock.now();
        if core.store.next_expiry().await.map_err(unavailable)?.is_none_or(|due| due > now) {
            break;
        }
        let pins = core.store.expire_pins(now, EXPIRE_MAX).await.map_err(unavailable)?;
        if pins.is_empty() {
            break;
        }
        ended += pins.len();
        for pin in pins {
            core.tell(pin.placement, None);
        }
        core.wake.notify_one();
    }
    Ok(ended)
}
