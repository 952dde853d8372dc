//! Pins: made, listed, watched, removed.

mod batch;
mod dry_run;

use std::sync::Arc;

use cid::Cid;
use pinfold_model::{
    ClusterId, Failure, FailureCode, Lifetime, PinId, PinName, PinOptions, PinPhase, PinState, PlacementId,
    PlacementState,
};
use pinfold_store::{CreatePin, CreatePinOutcome, PinFilter, PinRecord, RemovePinOutcome};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

pub use self::batch::{BATCH_ITEMS_MAX, BatchError, ItemFault, RemovedPin};
pub use self::dry_run::{DryRun, QuotaEffect};
use crate::core::{Core, UNREACHABLE, unavailable};
use crate::reconcile::work_local;
use crate::signals::{Last, Subscription};
use crate::{
    Caller, Error, ListQuery, PinPage, PinProgress, PinReceipt, PinRequest, PinStatus, PinView, Wait,
};

/// Pins on one page.
const LIMIT_MAX: u32 = 100;
/// The longest text to search for, in bytes.
const SEARCH_LEN_MAX: usize = 255;

/// A wish that is written.
pub(crate) struct Written {
    pin: PinRecord,
    created: bool,
    /// Hears what comes of it, if the work began at once.
    begun: Option<Subscription>,
}

impl Written {
    pub(crate) fn receipt(&self) -> PinReceipt {
        PinReceipt { view: PinView::from(&self.pin), created: self.created }
    }
}

/// The pins of all accounts. Cheap to clone.
#[derive(Clone)]
pub struct Pins {
    pub(crate) core: Arc<Core>,
}

impl Pins {
    /// Pins a CID. Waits for the outcome as long as `wait` says; then the receipt's state is still queued or
    /// pinning, and the work goes on in the background, over restarts.
    ///
    /// When it fails while somebody waits, nothing is left behind. Cancel-safe: once the wish is written, it
    /// stays, also when the future is dropped; asking again with [`Wait::No`] gives its receipt.
    ///
    /// # Errors
    /// What the request breaks: [`Error::UnknownCluster`], [`Error::ClusterNotAllowed`],
    /// [`Error::TimelockNotAllowed`], [`Error::RetentionNotAllowed`], [`Error::Lifetime`], [`Error::InvalidRequest`],
    /// [`Error::TooManyInFlight`]; how it failed:
    /// [`Error::QuotaExceeded`], [`Error::CidNotFound`], [`Error::Stalled`], [`Error::Unfit`],
    /// [`Error::StorageFull`], [`Error::Unavailable`]; [`Error::PinNotFound`] if it was removed meanwhile.
    pub async fn pin(&self, caller: &Caller, wish: PinRequest, wait: Wait) -> Result<PinReceipt, Error> {
        let cluster = self.core.target(caller, wish.cluster.as_ref(), &wish.options)?;
        let written = self.wish(caller, wish, cluster, "pin.create").await?;
        let until = match wait {
            Wait::For(time) => Instant::now().checked_add(time),
            Wait::No => return Ok(written.receipt()),
        };
        let created = written.created;
        let pin = self.settled(written, until).await?;
        Ok(PinReceipt { view: PinView::from(&pin), created })
    }

    /// Writes the wish. `action` is what the audit log calls a new pin.
    pub(crate) async fn wish(
        &self,
        caller: &Caller,
        wish: PinRequest,
        cluster: ClusterId,
        action: &'static str,
    ) -> Result<Written, Error> {
        let in_flight_max = caller.plan.limits.in_flight_pins_max;
        let now = self.core.clock.now();
        let quick = self.core.quick(&cluster, &wish.cid);
        let lease_until = quick.is_some().then(|| now.after(self.core.settings.lease));
        let wish = CreatePin { action, lease_until, ..self.row(caller, wish, cluster) };
        let has_expiry = wish.options.timelock.is_some();
        let core = Arc::clone(&self.core);
        let written = async move {
            match core.store.create_pin(wish, now).await.map_err(unavailable)? {
                CreatePinOutcome::Done { pin, created, work, lease: claim } => {
                    if work {
                        core.wake.notify_one();
                    }
                    if has_expiry {
                        core.wake_expiry.notify_one();
                    }
                    let begun = claim.map(|claim| {
                        let changes = core.signals.subscribe(claim.placement.id);
                        let tasks = core.tasks.clone();
                        tasks.spawn(async move {
                            work_local(core, *claim).await;
                            drop(quick);
                        });
                        changes
                    });
                    Ok(Written { pin: *pin, created, begun })
                }
                CreatePinOutcome::OverQuota => Err(Error::QuotaExceeded),
                CreatePinOutcome::TooManyInFlight => {
                    Err(Error::TooManyInFlight { limit: in_flight_max, at: now })
                }
                CreatePinOutcome::Refused(error) => Err(Error::Lifetime(error)),
            }
        };
        self.core.see_through(written).await?
    }

    /// A wish as it is written.
    fn row(&self, caller: &Caller, wish: PinRequest, cluster: ClusterId) -> CreatePin {
        CreatePin {
            account: caller.account.id,
            actor: caller.by(),
            action: "pin.create",
            cid: wish.cid,
            cluster,
            options: wish.options,
            in_flight_max: caller.plan.limits.in_flight_pins_max,
            lease_until: None,
        }
    }

    /// Waits until the pin is kept, at most until `until` (`None`: without end), and gives it as it is then.
    /// If it failed, it is removed and the reason is the error.
    pub(crate) async fn settled(&self, written: Written, until: Option<Instant>) -> Result<PinRecord, Error> {
        let Written { pin, begun, .. } = written;
        if pin.phase == PinPhase::Active {
            return Ok(pin);
        }
        let wishes = pin.request_count;
        let (mut changes, mut in_time) = match begun {
            // Nothing came of it before this was heard.
            Some(mut changes) => {
                let in_time = changed(&mut changes, until).await;
                (changes, in_time)
            }
            None => (self.core.signals.subscribe(pin.placement.id), true),
        };
        loop {
            let now = self.core.store.pin(pin.id).await.map_err(unavailable)?;
            let Some(now) = now else { return Err(gone(&changes)) };
            match now.phase {
                PinPhase::Active => return Ok(now),
                PinPhase::Failed => return Err(self.give_up(now, wishes).await?),
                PinPhase::Pending if !in_time => return Ok(now),
                PinPhase::Pending => {}
            }
            // When the time is over it is looked at once more: that work began is told to nobody.
            in_time = changed(&mut changes, until).await;
        }
    }

    /// Has the placement of a kept pin walked again at once, if it waits for that: blocks that it lacks may be here
    /// now, and whoever brought them must not let go of them before. Returns when that was done, or has failed.
    pub(crate) async fn walked(&self, pin: &PinRecord) -> Result<(), Error> {
        let (id, core) = (pin.placement.id, &self.core);
        if pin.placement.due_at.is_none() {
            return Ok(());
        }
        let mut changes = core.signals.subscribe(id);
        let mut is_begun = false;
        loop {
            let now = core.store.placement(id).await.map_err(unavailable)?;
            match now.filter(|now| now.due_at.is_some() && now.state == PlacementState::Pinned) {
                None => return Ok(()),
                Some(now) if now.leased => {}
                Some(now) if is_begun && now.attempts > 0 => return Ok(()),
                Some(now) if !is_begun => {
                    let at = core.clock.now();
                    is_begun = core.store.reverify(&now.cid, &now.cluster, at).await.map_err(unavailable)?;
                    core.wake.notify_one();
                }
                Some(_) => {}
            }
            changes.changed().await;
        }
    }

    /// Removes a pin whose failure somebody was told, and gives the failure.
    async fn give_up(&self, pin: PinRecord, wishes: u64) -> Result<Error, Error> {
        let now = self.core.clock.now();
        let ended = self.core.store.cancel_pin(pin.id, wishes, now).await.map_err(unavailable)?;
        if ended.is_some_and(|ended| ended.work) {
            self.core.wake.notify_one();
        }
        Ok(pin.error.map_or(Error::Internal, failed))
    }

    /// Ends a pin. Returns when that is durable; its space comes back in the background, over restarts.
    ///
    /// # Errors
    /// [`Error::PinNotFound`]; [`Error::RetentionLocked`]; [`Error::InvalidRequest`] when no cluster is given and the
    /// CID is pinned in several.
    pub async fn remove(&self, caller: &Caller, cid: &Cid, cluster: Option<&ClusterId>) -> Result<(), Error> {
        let (core, now) = (Arc::clone(&self.core), self.core.clock.now());
        let (account, by, cid, cluster) = (caller.account.id, caller.by(), *cid, cluster.cloned());
        let removed = async move {
            match core
                .store
                .remove_pin(account, &cid, cluster.as_ref(), by, now)
                .await
                .map_err(unavailable)?
            {
                RemovePinOutcome::Done(ended) => {
                    core.signals.tell(ended.placement, None);
                    core.wake.notify_one();
                    Ok(())
                }
                RemovePinOutcome::NotFound => Err(Error::PinNotFound),
                RemovePinOutcome::Ambiguous => Err(ambiguous()),
                RemovePinOutcome::Locked { until } => Err(Error::RetentionLocked { until }),
            }
        };
        self.core.see_through(removed).await?
    }

    /// Lists pins, newest first.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`], [`Error::Unavailable`].
    pub async fn list(&self, caller: &Caller, query: ListQuery) -> Result<PinPage, Error> {
        if query.search.as_ref().is_some_and(|text| text.len() > SEARCH_LEN_MAX) {
            return Err(Error::InvalidRequest(format!("The search text has at most {SEARCH_LEN_MAX} bytes")));
        }
        let limit = query.limit.clamp(1, LIMIT_MAX);
        let skip = match query.cursor {
            Some(_) => 0,
            None => u64::from(query.page.max(1) - 1) * u64::from(limit),
        };
        let filter = PinFilter {
            cid: query.cid,
            search: query.search.filter(|text| !text.is_empty()),
            state: query.state,
            cluster: query.cluster,
            has_expiry: query.has_expiry,
        };
        let (account, store) = (caller.account.id, &self.core.store);
        // One more than asked for says whether there is a next page.
        let list =
            store.list_pins(account, &filter, query.cursor, skip, limit + 1).await.map_err(unavailable)?;
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        let pins: Vec<PinView> = list.pins.iter().take(wanted).map(PinView::from).collect();
        let has_more = list.pins.len() > wanted;
        let next_cursor = pins.last().filter(|_| has_more).map(|pin| pin.upload_id);
        Ok(PinPage { pins, total: list.total, next_cursor })
    }

    /// All that is known of the caller's pin of this CID.
    ///
    /// # Errors
    /// [`Error::PinNotFound`]; [`Error::InvalidRequest`] when no cluster is given and the CID is pinned in
    /// several.
    pub async fn status(
        &self,
        caller: &Caller,
        cid: &Cid,
        cluster: Option<&ClusterId>,
    ) -> Result<PinStatus, Error> {
        let pin = self.record(caller, cid, cluster).await?;
        let view = PinView::from(&pin);
        let allocations = self.core.allocations(&pin).await;
        Ok(PinStatus {
            progress: self.core.pin_progress(&pin),
            // A pinned placement has one only when it was walked again and blocks were not there.
            error: pin.error.clone().or_else(|| pin.placement.error.clone()),
            attempts: pin.placement.attempts,
            next_try_at: pin.placement.due_at.filter(|_| match view.state {
                PinState::Queued => true,
                PinState::Pinned => pin.placement.error.is_some() && !pin.placement.leased,
                PinState::Pinning | PinState::Failed | PinState::Unpinned => false,
            }),
            damaged_blocks: pin.placement.damaged_blocks,
            allocations,
            updated_at: pin.placement.updated_at.max(pin.created_at),
            view,
        })
    }

    /// The caller's one pin of this CID.
    pub(crate) async fn record(
        &self,
        caller: &Caller,
        cid: &Cid,
        cluster: Option<&ClusterId>,
    ) -> Result<PinRecord, Error> {
        let mut pins = self.core.store.pins_of_cid(caller.account.id, cid).await.map_err(unavailable)?;
        pins.retain(|pin| cluster.is_none_or(|cluster| pin.placement.cluster == *cluster));
        if pins.len() > 1 {
            return Err(ambiguous());
        }
        pins.pop().ok_or(Error::PinNotFound)
    }

    /// Gives one of the caller's pins another name.
    ///
    /// # Errors
    /// [`Error::UploadNotFound`].
    pub async fn rename(&self, caller: &Caller, pin: PinId, name: PinName) -> Result<PinView, Error> {
        let (account, by, now) = (caller.account.id, caller.by(), self.core.clock.now());
        let renamed = self.core.store.rename_pin(account, pin, name, by, now).await.map_err(unavailable)?;
        renamed.as_ref().map(PinView::from).ok_or(Error::UploadNotFound)
    }
}

impl Core {
    /// How far a pin is.
    pub(crate) fn pin_progress(&self, pin: &PinRecord) -> PinProgress {
        let placement = &pin.placement;
        match pin.state() {
            PinState::Pinned => PinProgress {
                blocks: placement.blocks,
                bytes: pin.charged_bytes,
                total_bytes: Some(pin.charged_bytes),
                peers: 0,
            },
            PinState::Queued | PinState::Pinning => {
                let now = self.progress(placement.id).map(|progress| progress.read()).unwrap_or_default();
                PinProgress { blocks: now.blocks, bytes: now.bytes, total_bytes: None, peers: now.peers }
            }
            PinState::Failed | PinState::Unpinned => PinProgress::default(),
        }
    }

    /// The right to settle a pin at once, if its content seems to be here and not too many have it.
    fn quick(&self, cluster: &ClusterId, cid: &Cid) -> Option<OwnedSemaphorePermit> {
        let is_here = self.cluster(cluster).is_some_and(|setup| setup.driver.has(cid));
        if is_here { Arc::clone(&self.quick).try_acquire_owned().ok() } else { None }
    }

    /// Selects the cluster of a pin. Checks the options against the caller's plan.
    pub(crate) fn target(
        &self,
        caller: &Caller,
        cluster: Option<&ClusterId>,
        options: &PinOptions,
    ) -> Result<ClusterId, Error> {
        if options.origins.len() > PinOptions::ORIGINS_MAX {
            let text = format!("A pin can have at most {} origins", PinOptions::ORIGINS_MAX);
            return Err(Error::InvalidRequest(text));
        }
        let setup = match cluster {
            Some(id) => self.cluster(id),
            None => self.clusters.first(),
        };
        let id = &setup.ok_or(Error::UnknownCluster)?.info.id;
        if !caller.plan.allows(id) {
            return Err(Error::ClusterNotAllowed);
        }
        let limits = &caller.plan.limits;
        if options.timelock.is_some() && !limits.timelock {
            return Err(Error::TimelockNotAllowed);
        }
        if options.retention.is_some() && !limits.retention_lock {
            return Err(Error::RetentionNotAllowed);
        }
        // As for a pin that is new; what it is at odds with otherwise is found when it is written.
        Lifetime::default().renewed(options.lifetime(), self.clock.now()).map_err(Error::Lifetime)?;
        Ok(id.clone())
    }

    /// The peer ids that hold a pin.
    async fn allocations(&self, pin: &PinRecord) -> Vec<String> {
        let Some(setup) = self.cluster(&pin.placement.cluster).filter(|_| pin.state() == PinState::Pinned)
        else {
            return Vec::new();
        };
        match setup.driver.peers(16).await {
            Ok(peers) => peers.into_iter().filter(|peer| peer.is_self).map(|peer| peer.id).collect(),
            Err(error) => {
                tracing::warn!(cluster = %setup.info.id, %error, "asking who holds a pin");
                Vec::new()
            }
        }
    }

    /// Tells those who wait that a placement changed.
    pub(crate) fn tell(&self, id: PlacementId, failure: Last) {
        self.signals.tell(id, failure);
    }
}

/// Waits for a change; false when the time is over first.
async fn changed(changes: &mut Subscription, until: Option<Instant>) -> bool {
    match until {
        Some(until) => tokio::time::timeout_at(until, changes.changed()).await.is_ok(),
        None => {
            changes.changed().await;
            true
        }
    }
}

/// Why a pin that somebody waits for is gone: it failed and another who waited removed it, or it was removed.
fn gone(changes: &Subscription) -> Error {
    changes.last().map_or(Error::PinNotFound, failed)
}

fn failed(failure: Failure) -> Error {
    match failure.code {
        FailureCode::NotFound => Error::CidNotFound,
        FailureCode::Stalled => Error::Stalled(failure.detail),
        FailureCode::QuotaExceeded => Error::QuotaExceeded,
        FailureCode::Unfit => Error::Unfit(failure.detail),
        FailureCode::StorageFull => Error::StorageFull,
        FailureCode::Unavailable => UNREACHABLE,
    }
}

fn ambiguous() -> Error {
    Error::InvalidRequest("This CID is pinned in several clusters; name one with cl".to_owned())
}
