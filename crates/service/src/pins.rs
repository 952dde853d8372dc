//! Pins: creating, listing, status, removing, renaming.

mod batch;
mod dry_run;
mod pending;
pub(crate) mod pin_events;
pub(crate) mod types;

use std::sync::Arc;

use cid::Cid;
use pinfold_model::{ClusterId, Failure, FailureCode, Lifetime, PinId, PinName, PinOptions, PinState};
use pinfold_store::{CreatePin, CreatePinOutcome, PinFilter, PinRecord, RemovePinOutcome};
use tokio::sync::Semaphore;
use tokio::time::Instant;

pub use self::batch::{BATCH_ITEMS_MAX, BatchError, ItemFault, RemovedPin};
pub use self::dry_run::{DryRun, QuotaEffect};
pub use self::pending::PendingPin;
use self::pin_events::EventStreams;
use self::types::{ListQuery, PinPage, PinProgress, PinReceipt, PinRequest, PinStatus, PinView, Wait};
use crate::error::{UNREACHABLE, log_store_error};
use crate::placements::{Placements, fast_path};
use crate::{Caller, Error};

/// Maximum pins per page.
const LIMIT_MAX: u32 = 100;
/// Maximum length of a search text in bytes.
const SEARCH_LEN_MAX: usize = 255;
/// DAGs that are surveyed for dry runs at one time; more requests wait, within their time.
const SURVEYS_MAX: usize = 8;

/// The pins of all accounts. Cheap to clone.
#[derive(Clone)]
pub struct Pins {
    pub(crate) placements: Arc<Placements>,
    streams: Arc<EventStreams>,
    /// Permits to survey a DAG for a dry run.
    surveys: Arc<Semaphore>,
    /// The right to write a batch, so that other writes can run between two batches.
    batches: Arc<Semaphore>,
}

impl Pins {
    pub(crate) fn new(placements: Arc<Placements>, streams: EventStreams) -> Self {
        Self {
            placements,
            streams: Arc::new(streams),
            surveys: Arc::new(Semaphore::new(SURVEYS_MAX)),
            batches: Arc::new(Semaphore::new(1)),
        }
    }

    /// Creates or updates a pin, and waits for the outcome as `wait` says. If the wait ends first, the receipt's state is
    /// queued or pinning, and the work continues in the background, also after a restart.
    ///
    /// # Errors
    /// As [`create`](Self::create) and [`PendingPin::outcome`].
    pub async fn pin(&self, caller: &Caller, request: PinRequest, wait: Wait) -> Result<PinReceipt, Error> {
        let mut pending = self.create(caller, request).await?;
        if let Wait::For(time) = wait
            && let Some(outcome) = pending.outcome(time).await
        {
            return outcome;
        }
        pending.detach().await
    }

    /// Creates or updates a pin. Cancel-safe: once the pin is written, it stays, also if the future is dropped.
    ///
    /// # Errors
    /// [`Error::UnknownCluster`], [`Error::ClusterNotAllowed`], [`Error::TimelockNotAllowed`],
    /// [`Error::RetentionNotAllowed`], [`Error::Lifetime`], [`Error::InvalidRequest`], [`Error::TooManyInFlight`],
    /// [`Error::QuotaExceeded`] if the content is pinned already and does not fit; [`Error::StorageFull`],
    /// [`Error::Unavailable`], [`Error::Internal`] if the store fails.
    pub async fn create(&self, caller: &Caller, request: PinRequest) -> Result<PendingPin, Error> {
        let cluster = self.select_cluster(caller, request.cluster.as_ref(), &request.options)?;
        self.write(caller, request, cluster, "pin.create").await
    }

    /// Writes the pin. `action` is the audit log's name for a new pin.
    pub(crate) async fn write(
        &self,
        caller: &Caller,
        request: PinRequest,
        cluster: ClusterId,
        action: &'static str,
    ) -> Result<PendingPin, Error> {
        let in_flight_max = caller.plan.limits.in_flight_pins_max;
        let now = self.placements.clock.now();
        let admission = fast_path::admit(&self.placements, &cluster, &request.cid, now);
        let lease_until = admission.as_ref().map(|admission| admission.lease_until);
        let row = CreatePin { action, lease_until, ..new_row(caller, request, cluster) };
        let has_expiry = row.options.timelock.is_some();
        let placements = Arc::clone(&self.placements);
        let written = async move {
            match placements.store.create_pin(row, now).await.map_err(log_store_error)? {
                CreatePinOutcome::Done { pin, created, work, lease } => {
                    if work {
                        placements.wake_worker();
                    }
                    if has_expiry {
                        placements.expiry_changed.notify_one();
                    }
                    Ok(match lease {
                        Some(leased) => {
                            let changes = fast_path::start(&placements, *leased, admission);
                            PendingPin::on_fast_path(placements, *pin, created, changes)
                        }
                        None => PendingPin::new(placements, *pin, created),
                    })
                }
                CreatePinOutcome::OverQuota => Err(Error::QuotaExceeded),
                CreatePinOutcome::TooManyInFlight => {
                    Err(Error::TooManyInFlight { limit: in_flight_max, at: now })
                }
                CreatePinOutcome::Refused(error) => Err(Error::Lifetime(error)),
            }
        };
        self.placements.tasks.run_to_end(written).await?
    }

    /// Selects the cluster of a pin, and checks the options against the caller's plan.
    pub(crate) fn select_cluster(
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
            Some(id) => self.placements.clusters.get(id),
            None => self.placements.clusters.default_cluster(),
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
        // Checks the times as for a new pin. Conflicts with an existing pin are found when the pin is written.
        let now = self.placements.clock.now();
        Lifetime::default().renewed(options.lifetime(), now).map_err(Error::Lifetime)?;
        Ok(id.clone())
    }

    /// Removes a pin. Returns when that is durable; its space is freed in the background, also after a restart.
    ///
    /// # Errors
    /// [`Error::PinNotFound`]; [`Error::RetentionLocked`]; [`Error::InvalidRequest`] if no cluster is given and the CID is
    /// pinned in several.
    pub async fn remove(&self, caller: &Caller, cid: &Cid, cluster: Option<&ClusterId>) -> Result<(), Error> {
        let (placements, now) = (Arc::clone(&self.placements), self.placements.clock.now());
        let (account, actor, cid, cluster) = (caller.account.id, caller.actor(), *cid, cluster.cloned());
        let removed = async move {
            let removed = placements.store.remove_pin(account, &cid, cluster.as_ref(), actor, now).await;
            match removed.map_err(log_store_error)? {
                RemovePinOutcome::Done(ended) => {
                    placements.notify(ended.placement, None);
                    placements.wake_worker();
                    Ok(())
                }
                RemovePinOutcome::NotFound => Err(Error::PinNotFound),
                RemovePinOutcome::Ambiguous => Err(ambiguous_cluster()),
                RemovePinOutcome::Locked { until } => Err(Error::RetentionLocked { until }),
            }
        };
        self.placements.tasks.run_to_end(removed).await?
    }

    /// Lists pins, newest first.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`], [`Error::Unavailable`].
    pub async fn list(&self, caller: &Caller, query: ListQuery) -> Result<PinPage, Error> {
        if query.search.as_ref().is_some_and(|text| text.len() > SEARCH_LEN_MAX) {
            let text = format!("`search` must have at most {SEARCH_LEN_MAX} bytes");
            return Err(Error::InvalidRequest(text));
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
        // One more pin than requested shows whether there is a next page.
        let list =
            self.placements.store.list_pins(caller.account.id, &filter, query.cursor, skip, limit + 1).await;
        let list = list.map_err(log_store_error)?;
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        let pins: Vec<PinView> = list.pins.iter().take(wanted).map(PinView::from).collect();
        let has_more = list.pins.len() > wanted;
        let next_cursor = pins.last().filter(|_| has_more).map(|pin| pin.upload_id);
        Ok(PinPage { pins, total: list.total, next_cursor })
    }

    /// Returns the status of the caller's pin of this CID.
    ///
    /// # Errors
    /// [`Error::PinNotFound`]; [`Error::InvalidRequest`] if no cluster is given and the CID is pinned in several.
    pub async fn status(
        &self,
        caller: &Caller,
        cid: &Cid,
        cluster: Option<&ClusterId>,
    ) -> Result<PinStatus, Error> {
        let pin = self.record(caller, cid, cluster).await?;
        let view = PinView::from(&pin);
        let allocations = self.allocations(&pin).await;
        Ok(PinStatus {
            progress: progress(&self.placements, &pin),
            // A pinned placement has an error only if a repeated walk found that blocks are missing.
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

    /// The caller's only pin of this CID.
    pub(crate) async fn record(
        &self,
        caller: &Caller,
        cid: &Cid,
        cluster: Option<&ClusterId>,
    ) -> Result<PinRecord, Error> {
        let pins = self.placements.store.pins_of_cid(caller.account.id, cid).await;
        let mut pins = pins.map_err(log_store_error)?;
        pins.retain(|pin| cluster.is_none_or(|cluster| pin.placement.cluster == *cluster));
        if pins.len() > 1 {
            return Err(ambiguous_cluster());
        }
        pins.pop().ok_or(Error::PinNotFound)
    }

    /// Changes the custom name of a pin.
    ///
    /// # Errors
    /// [`Error::UploadNotFound`].
    pub async fn rename(&self, caller: &Caller, pin: PinId, name: PinName) -> Result<PinView, Error> {
        let (account, actor, now) = (caller.account.id, caller.actor(), self.placements.clock.now());
        let renamed = self.placements.store.rename_pin(account, pin, name, actor, now).await;
        renamed.map_err(log_store_error)?.as_ref().map(PinView::from).ok_or(Error::UploadNotFound)
    }

    /// The peer ids that hold a pin.
    async fn allocations(&self, pin: &PinRecord) -> Vec<String> {
        let setup = self.placements.clusters.get(&pin.placement.cluster);
        let Some(setup) = setup.filter(|_| pin.state() == PinState::Pinned) else { return Vec::new() };
        match setup.driver.peers(16).await {
            Ok(peers) => peers.into_iter().filter(|peer| peer.is_self).map(|peer| peer.id).collect(),
            Err(error) => {
                tracing::warn!(cluster = %setup.info.id, %error, "failed to list the peers that hold a pin");
                Vec::new()
            }
        }
    }
}

/// The row of a new pin.
fn new_row(caller: &Caller, request: PinRequest, cluster: ClusterId) -> CreatePin {
    CreatePin {
        account: caller.account.id,
        actor: caller.actor(),
        action: "pin.create",
        cid: request.cid,
        cluster,
        options: request.options,
        in_flight_max: caller.plan.limits.in_flight_pins_max,
        lease_until: None,
    }
}

/// The progress of a pin.
pub(crate) fn progress(placements: &Placements, pin: &PinRecord) -> PinProgress {
    let placement = &pin.placement;
    match pin.state() {
        PinState::Pinned => PinProgress {
            blocks: placement.blocks,
            bytes: pin.charged_bytes,
            total_bytes: Some(pin.charged_bytes),
            peers: 0,
        },
        PinState::Queued | PinState::Pinning => {
            let now = placements.progress(placement.id).map(|progress| progress.read()).unwrap_or_default();
            PinProgress { blocks: now.blocks, bytes: now.bytes, total_bytes: None, peers: now.peers }
        }
        PinState::Failed | PinState::Unpinned => PinProgress::default(),
    }
}

/// The deadline after `time`; `None` if it is too far to be represented.
fn deadline(time: std::time::Duration) -> Option<Instant> {
    Instant::now().checked_add(time)
}

fn failure_to_error(failure: Failure) -> Error {
    match failure.code {
        FailureCode::NotFound => Error::CidNotFound,
        FailureCode::Stalled => Error::Stalled(failure.detail),
        FailureCode::QuotaExceeded => Error::QuotaExceeded,
        FailureCode::Unfit => Error::Unfit(failure.detail),
        FailureCode::StorageFull => Error::StorageFull,
        FailureCode::Unavailable => UNREACHABLE,
    }
}

fn ambiguous_cluster() -> Error {
    Error::InvalidRequest("This CID is pinned in several clusters; select one with `cl`".to_owned())
}
