//! What goes on without a request: the reconciler.
//!
//! It registers for the wake-up before it looks for work, so none is lost, and takes no hints: what is to be
//! done stands in the rows. Between wake-ups it sleeps until the next row is due.

use std::sync::Arc;
use std::time::Duration;

use pinfold_store::Claim;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use crate::Error;
use crate::core::{Core, unavailable};
use crate::reconcile::work;

/// The longest sleep: the system's clock may be set meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// The sleep after a failure of the store, and while all hands are busy.
const SLEEP_BUSY: Duration = Duration::from_secs(1);
/// Pins that end in one transaction.
const EXPIRE_MAX: u32 = 200;

/// Brings what is to what is wanted: fetches, releases, expires. Cheap to clone.
#[derive(Clone)]
pub struct Reconciler {
    pub(crate) core: Arc<Core>,
}

impl Reconciler {
    /// One turn: ends what is due, works once on the placements that are due (as many as may be worked on at
    /// once), and returns how many things changed. For tests and tools; a running service turns by itself.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`] when the store fails.
    pub async fn turn(&self) -> Result<usize, Error> {
        let core = &self.core;
        let ended = end_due(core).await?;
        let claims = claim(core).await?;
        let worked = claims.len();
        let work = claims.into_iter().map(|(claim, permit)| async move {
            work(Arc::clone(core), claim).await;
            drop(permit);
        });
        futures::future::join_all(work).await;
        let released = core.sweep_guards().await;
        core.write_uses().await;
        Ok(ended + worked + released)
    }

    /// Takes over what a process before this one worked on when it was killed, so that it goes on now and not
    /// when the leases end. Only for a process that is alone with the store; call it before
    /// [`run`](crate::Service::run).
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`] when the store fails.
    pub async fn take_over(&self) -> Result<(), Error> {
        let taken = self.core.store.drop_leases(self.core.clock.now()).await.map_err(unavailable)?;
        if taken > 0 {
            tracing::info!(taken, "going on with what the last run left unfinished");
        }
        Ok(())
    }

    /// Makes the running service look at once, such as after a test moved the clock.
    pub fn wake(&self) {
        self.core.wake.notify_one();
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
    while !core.stop.is_cancelled() {
        let woken = core.wake.notified();
        let sleep = match look(&core).await {
            Ok(sleep) => sleep,
            Err(error) => {
                tracing::error!(%error, "looking for work");
                SLEEP_BUSY
            }
        };
        tokio::select! {
            () = woken => {}
            () = tokio::time::sleep(sleep) => {}
            () = core.stop.cancelled() => {}
        }
    }
}

/// Begins all work that is due and for which there are hands, and says how long there is none.
async fn look(core: &Arc<Core>) -> Result<Duration, Error> {
    end_due(core).await?;
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
    let next = core.store.next_due().await.map_err(unavailable)?;
    let sleep = next.map_or(SLEEP_MAX, |due| due.since(core.clock.now()) + Duration::from_millis(1));
    let least = if core.slots.available_permits() == 0 { SLEEP_BUSY } else { Duration::ZERO };
    Ok(sleep.clamp(least, SLEEP_MAX))
}

/// Claims as many due placements as there are hands.
async fn claim(core: &Core) -> Result<Vec<(Claim, OwnedSemaphorePermit)>, Error> {
    let mut permits = Vec::new();
    while let Ok(permit) = Arc::clone(&core.slots).try_acquire_owned() {
        permits.push(permit);
    }
    let limit = u32::try_from(permits.len()).unwrap_or(u32::MAX);
    let now = core.clock.now();
    let due = core.store.next_due().await.map_err(unavailable)?;
    if limit == 0 || due.is_none_or(|due| due > now) {
        return Ok(Vec::new());
    }
    let until = now.after(core.settings.lease);
    let claims = core.store.claim(limit, now, until).await.map_err(unavailable)?;
    Ok(claims.into_iter().zip(permits).collect())
}

/// Ends the pins whose time has come.
async fn end_due(core: &Core) -> Result<usize, Error> {
    let mut ended = 0;
    loop {
        let now = core.clock.now();
        if core.store.next_expiry().await.map_err(unavailable)?.is_none_or(|due| due > now) {
            return Ok(ended);
        }
        let pins = core.store.expire(now, EXPIRE_MAX).await.map_err(unavailable)?;
        if pins.is_empty() {
            return Ok(ended);
        }
        ended += pins.len();
        for pin in pins {
            core.tell(pin.placement, None);
        }
    }
}
