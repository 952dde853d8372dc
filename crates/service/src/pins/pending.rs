//! A pin whose outcome is not known yet, and the request that waits for it.
//!
//! If the pin fails while a request waits, the request gets the error and the pin is removed. If the request stops waiting
//! ([`PendingPin::detach`]), the pin stays, and its status has the error.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pinfold_model::{PinPhase, PlacementState};
use pinfold_store::PinRecord;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::types::{PinReceipt, PinView};
use super::{deadline, failure_to_error};
use crate::Error;
use crate::error::log_store_error;
use crate::placements::Placements;
use crate::placements::placement_events::Subscription;

/// A pin that was written. Dropping it stops the wait, as [`detach`](Self::detach) does, unless a task waits for it.
#[must_use = "wait for the outcome, or detach from the pin"]
pub struct PendingPin {
    placements: Arc<Placements>,
    /// The pin as it was read last.
    pin: PinRecord,
    created: bool,
    /// The number of requests for the pin so far: if it grows, another request wants the pin.
    requests: u64,
    /// Receives the changes of the placement.
    changes: Option<Subscription>,
    /// Whether the subscription is older than the work: then there is nothing to read before the first change.
    is_work_new: bool,
    /// Whether `pin` may be out of date, because a wait for the outcome was interrupted.
    is_stale: bool,
    /// Set if a task waits for the outcome.
    task: Option<TaskOutcome>,
}

/// The outcome that a task waits for, and whether the request still waits for the task.
struct TaskOutcome {
    outcome: oneshot::Receiver<Result<PinRecord, Error>>,
    /// Set by the request when it detaches, or by the task when it removes the failed pin: the first of them decides.
    decided: Arc<AtomicBool>,
}

impl PendingPin {
    /// A pin that was just written. Subscribes at once: another waiting request may remove the pin as soon as it fails.
    pub(super) fn new(placements: Arc<Placements>, pin: PinRecord, created: bool) -> Self {
        let changes = match pin.phase {
            PinPhase::Pending => Some(placements.events.subscribe(pin.placement.id)),
            PinPhase::Active | PinPhase::Failed => None,
        };
        let requests = pin.request_count;
        Self { placements, pin, created, requests, changes, is_work_new: false, is_stale: false, task: None }
    }

    /// A pin that was just written, with the changes of the work that began after it.
    pub(super) fn on_fast_path(
        placements: Arc<Placements>,
        pin: PinRecord,
        created: bool,
        changes: Subscription,
    ) -> Self {
        let (requests, changes) = (pin.request_count, Some(changes));
        Self { placements, pin, created, requests, changes, is_work_new: true, is_stale: false, task: None }
    }

    /// The pin as it was read last.
    #[must_use]
    pub fn receipt(&self) -> PinReceipt {
        PinReceipt { view: PinView::from(&self.pin), created: self.created }
    }

    /// Waits for the outcome; `None` if the time is over first. Cancel-safe.
    ///
    /// # Errors
    /// Why the pin failed: [`Error::QuotaExceeded`], [`Error::CidNotFound`], [`Error::Stalled`], [`Error::Unfit`],
    /// [`Error::StorageFull`], [`Error::Unavailable`]; then nothing is left of it. [`Error::PinNotFound`] if it was removed
    /// meanwhile.
    pub async fn outcome(&mut self, time: Duration) -> Option<Result<PinReceipt, Error>> {
        self.is_stale = true;
        let settled = match &mut self.task {
            Some(task) => {
                let outcome = tokio::time::timeout(time, &mut task.outcome).await.ok()?;
                self.task = None;
                // The sender is dropped if the service stops first.
                outcome.ok()?
            }
            None => self.settled(deadline(time), || true).await?,
        };
        Some(settled.map(|pin| {
            self.pin = pin;
            self.receipt()
        }))
    }

    /// Stops waiting. The pin stays, also if it fails later.
    ///
    /// # Errors
    /// As [`outcome`](Self::outcome), if the pin has failed already.
    pub async fn detach(mut self) -> Result<PinReceipt, Error> {
        if let Some(task) = self.task.take()
            && task.decided.swap(true, Ordering::AcqRel)
            && let Ok(outcome) = task.outcome.await
        {
            self.pin = outcome?;
            return Ok(self.receipt());
        }
        if self.is_stale {
            let pin = self.placements.store.pin(self.pin.id).await.map_err(log_store_error)?;
            self.pin = pin.ok_or(Error::PinNotFound)?;
        }
        Ok(self.receipt())
    }

    /// Has a task wait for the outcome, even if the request goes away. `after` runs when the pin has completed or failed;
    /// `stopped` runs instead if the service stops first.
    pub(crate) fn wait_in_task<A: Send + 'static>(
        mut self,
        held: A,
        stopped: impl FnOnce(&A) + Send + 'static,
    ) -> Self {
        let (send, outcome) = oneshot::channel();
        let decided = Arc::new(AtomicBool::new(false));
        let request = Self {
            placements: Arc::clone(&self.placements),
            pin: self.pin.clone(),
            created: self.created,
            requests: self.requests,
            changes: None,
            is_work_new: false,
            is_stale: true,
            task: Some(TaskOutcome { outcome, decided: Arc::clone(&decided) }),
        };
        let placements = Arc::clone(&self.placements);
        placements.tasks.clone().spawn(async move {
            let settled = async {
                let pin = self.settled(None, || !decided.swap(true, Ordering::AcqRel)).await;
                let pin = pin.unwrap_or(Err(Error::Internal))?;
                self.rewalked(&pin).await?;
                Ok(pin)
            };
            tokio::select! {
                settled = settled => {
                    drop(held);
                    // The request may be gone.
                    let _ = send.send(settled);
                }
                () = placements.tasks.stopped() => stopped(&held),
            }
        });
        request
    }

    /// Waits until the pin is active or failed; `None` when `until` is over first. A failed pin is removed if
    /// `may_remove` allows it.
    async fn settled(
        &mut self,
        until: Option<Instant>,
        may_remove: impl FnOnce() -> bool,
    ) -> Option<Result<PinRecord, Error>> {
        if self.pin.phase == PinPhase::Active {
            return Some(Ok(self.pin.clone()));
        }
        let placement = self.pin.placement.id;
        let changes = self.changes.get_or_insert_with(|| self.placements.events.subscribe(placement));
        let mut in_time = true;
        if self.is_work_new {
            in_time = changed(changes, until).await;
            self.is_work_new = false;
        }
        loop {
            let pin = match self.placements.store.pin(self.pin.id).await {
                Ok(Some(pin)) => pin,
                // The pin failed and another waiting request removed it, or it was removed by its owner.
                Ok(None) => {
                    return Some(Err(changes.last_failure().map_or(Error::PinNotFound, failure_to_error)));
                }
                Err(error) => return Some(Err(log_store_error(error))),
            };
            self.pin = pin;
            match self.pin.phase {
                PinPhase::Active => return Some(Ok(self.pin.clone())),
                PinPhase::Failed => {
                    let remove = may_remove();
                    return Some(Err(self.failed(remove).await));
                }
                PinPhase::Pending if !in_time => return None,
                PinPhase::Pending => {}
            }
            // When the time is over, the row is read once more: the beginning of the work sends no notification.
            in_time = changed(changes, until).await;
        }
    }

    /// The error of a failed pin. Removes the pin, unless another request has asked for it since.
    async fn failed(&self, remove: bool) -> Error {
        if remove {
            let now = self.placements.clock.now();
            match self.placements.store.cancel_pin(self.pin.id, self.requests, now).await {
                Ok(ended) if ended.as_ref().is_some_and(|ended| ended.work) => self.placements.wake_worker(),
                Ok(_) => {}
                Err(error) => return log_store_error(error),
            }
        }
        self.pin.error.clone().map_or(Error::Internal, failure_to_error)
    }

    /// Has the worker walk an active pin's placement again at once, if that is due: its missing blocks may be local now,
    /// and must be held before their upload's hold is released. Returns when that is done, or has failed.
    async fn rewalked(&self, pin: &PinRecord) -> Result<(), Error> {
        let (id, placements) = (pin.placement.id, &self.placements);
        if pin.placement.due_at.is_none() {
            return Ok(());
        }
        let mut changes = placements.events.subscribe(id);
        let mut is_requested = false;
        loop {
            let now = placements.store.placement(id).await.map_err(log_store_error)?;
            match now.filter(|now| now.due_at.is_some() && now.state == PlacementState::Pinned) {
                None => return Ok(()),
                Some(now) if now.leased => {}
                Some(now) if is_requested && now.attempts > 0 => return Ok(()),
                Some(now) if !is_requested => {
                    let at = placements.clock.now();
                    let requested = placements.store.reverify(&now.cid, &now.cluster, at).await;
                    is_requested = requested.map_err(log_store_error)?;
                    placements.wake_worker();
                }
                Some(_) => {}
            }
            changes.changed().await;
        }
    }
}

/// Waits for a change; `false` if `until` is over first.
async fn changed(changes: &mut Subscription, until: Option<Instant>) -> bool {
    match until {
        Some(until) => tokio::time::timeout_at(until, changes.changed()).await.is_ok(),
        None => {
            changes.changed().await;
            true
        }
    }
}
