//! Batches: all pins of a batch are created, or removed, or none.
//!
//! A batch never waits for the network. Its pins are written in one transaction, and the receipts say the state of each pin
//! at that time. Pins of local content take the fast path.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cid::Cid;
use pinfold_model::{AccountId, Actor, ClusterId, LifetimeError};
use pinfold_store::{CreatePin, CreatePinsOutcome, CreatedPin, RemovePinError, RemovePinsOutcome};
use tokio::sync::SemaphorePermit;

use super::types::{PinReceipt, PinRequest, PinView};
use super::{Pins, ambiguous_cluster, new_row};
use crate::error::log_store_error;
use crate::placements::{Placements, fast_path};
use crate::{Caller, Error};

/// Maximum items of a batch. Bounds how long other writes wait for it.
pub const BATCH_ITEMS_MAX: usize = 1_000;

/// How long a batch waits for the batches before it.
const BATCH_WAIT: Duration = Duration::from_secs(20);

/// An error of one item of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemFault {
    /// Index of the item in the batch, from 0.
    pub index: usize,
    pub cid: Cid,
    pub error: Error,
}

/// Why a batch was rejected. Nothing of it was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Some items are invalid.
    #[error("{} items of the batch can't be processed", .0.len())]
    Items(Vec<ItemFault>),
    /// The batch as a whole is invalid.
    #[error(transparent)]
    Whole(#[from] Error),
}

/// A pin that was removed as part of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedPin {
    pub cid: Cid,
    pub cluster: ClusterId,
}

impl Pins {
    /// Checks these requests, each with its index in the batch, without reading the account's pins: clusters, plan, times,
    /// duplicates. [`pin_all`](Self::pin_all) does this itself; it is for callers that want to report these errors together
    /// with their own.
    #[must_use]
    pub fn faults(&self, caller: &Caller, requests: &[(usize, PinRequest)]) -> Vec<ItemFault> {
        let mut faults = Vec::new();
        let mut first_at = HashMap::new();
        for (index, request) in requests {
            let error = match self.select_cluster(caller, request.cluster.as_ref(), &request.options) {
                Ok(cluster) => match first_at.insert((request.cid, cluster), *index) {
                    Some(first) => Error::Twice { first },
                    None => continue,
                },
                Err(error) => error,
            };
            faults.push(ItemFault { index: *index, cid: request.cid, error });
        }
        faults
    }

    /// Creates all of these pins, or none, and does not wait for outcomes. At most [`BATCH_ITEMS_MAX`]. Cancel-safe: once
    /// the batch is written, it stays, also if the future is dropped.
    ///
    /// # Errors
    /// [`BatchError::Items`] with all that [`faults`](Self::faults) finds, or with the pins whose times conflict with the
    /// requested ones; [`BatchError::Whole`] with [`Error::QuotaExceeded`], [`Error::TooManyInFlight`],
    /// [`Error::InvalidRequest`] for no items or too many, [`Error::Unavailable`].
    pub async fn pin_all(
        &self,
        caller: &Caller,
        requests: Vec<PinRequest>,
    ) -> Result<Vec<PinReceipt>, BatchError> {
        check_length(requests.len())?;
        let requests: Vec<(usize, PinRequest)> = requests.into_iter().enumerate().collect();
        let faults = self.faults(caller, &requests);
        if !faults.is_empty() {
            return Err(BatchError::Items(faults));
        }
        let mut rows = Vec::with_capacity(requests.len());
        for (_, request) in requests {
            let cluster = self.select_cluster(caller, request.cluster.as_ref(), &request.options)?;
            rows.push(new_row(caller, request, cluster));
        }
        let (pins, in_flight_max) = (self.clone(), caller.plan.limits.in_flight_pins_max);
        let written = async move { pins.write_all(rows, in_flight_max).await };
        self.placements.tasks.run_to_end(written).await?
    }

    /// Removes all of the caller's pins of these CIDs, or none. At most [`BATCH_ITEMS_MAX`].
    ///
    /// # Errors
    /// [`BatchError::Items`] with [`Error::PinNotFound`], [`Error::RetentionLocked`], [`Error::Twice`],
    /// [`Error::InvalidRequest`] (a CID in several clusters, and none is given); [`BatchError::Whole`] with
    /// [`Error::InvalidRequest`] for no items or too many, [`Error::Unavailable`].
    pub async fn remove_all(
        &self,
        caller: &Caller,
        items: Vec<(Cid, Option<ClusterId>)>,
    ) -> Result<Vec<RemovedPin>, BatchError> {
        check_length(items.len())?;
        let (pins, account, actor) = (self.clone(), caller.account.id, caller.actor());
        let removed = async move { pins.delete_all(items, account, actor).await };
        self.placements.tasks.run_to_end(removed).await?
    }

    /// Writes the pins and begins the work.
    async fn write_all(
        &self,
        rows: Vec<CreatePin>,
        in_flight_max: u32,
    ) -> Result<Vec<PinReceipt>, BatchError> {
        let placements = &self.placements;
        let mut rows = fast_path::mark_local(placements, rows, placements.clock.now()).await?;
        let cids: Vec<Cid> = rows.iter().map(|row| row.cid).collect();
        let now;
        let written = {
            let _turn = self.batch_turn().await?;
            now = placements.clock.now();
            for row in &mut rows {
                row.lease_until = row.lease_until.map(|_| now.after(placements.limits.lease));
            }
            placements.store.create_pins(rows, now).await.map_err(log_store_error)?
        };
        match written {
            CreatePinsOutcome::Done(created) => Ok(begin(placements, created)),
            CreatePinsOutcome::OverQuota => Err(Error::QuotaExceeded.into()),
            CreatePinsOutcome::TooManyInFlight => {
                Err(Error::TooManyInFlight { limit: in_flight_max, at: now }.into())
            }
            CreatePinsOutcome::Refused(refused) => {
                let fault = |(index, error): (usize, LifetimeError)| {
                    let cid = cids.get(index).copied().unwrap_or_default();
                    ItemFault { index, cid, error: Error::Lifetime(error) }
                };
                Err(BatchError::Items(refused.into_iter().map(fault).collect()))
            }
        }
    }

    async fn delete_all(
        &self,
        items: Vec<(Cid, Option<ClusterId>)>,
        account: AccountId,
        actor: Actor,
    ) -> Result<Vec<RemovedPin>, BatchError> {
        let placements = &self.placements;
        let _turn = self.batch_turn().await?;
        let removed = placements.store.remove_pins(account, &items, actor, placements.clock.now()).await;
        let ended = match removed.map_err(log_store_error)? {
            RemovePinsOutcome::Done(ended) => ended,
            RemovePinsOutcome::Refused(refused) => {
                let fault = |(index, reason): (usize, RemovePinError)| {
                    let cid = items.get(index).map(|(cid, _)| *cid).unwrap_or_default();
                    ItemFault { index, cid, error: removal_error(reason) }
                };
                return Err(BatchError::Items(refused.into_iter().map(fault).collect()));
            }
        };
        for (_, ended) in &ended {
            placements.notify(ended.placement, None);
        }
        placements.wake_worker();
        let removed = items.into_iter().zip(ended);
        Ok(removed.map(|((cid, _), (cluster, _))| RemovedPin { cid, cluster }).collect())
    }

    /// The right to write a batch, once the batches before it are written.
    async fn batch_turn(&self) -> Result<SemaphorePermit<'_>, Error> {
        match tokio::time::timeout(BATCH_WAIT, self.batches.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(Error::Unavailable { retry_after: Some(Duration::from_secs(1)) }),
        }
    }
}

fn check_length(items: usize) -> Result<(), Error> {
    match items {
        0 => Err(Error::InvalidRequest("The batch has no items".to_owned())),
        1..=BATCH_ITEMS_MAX => Ok(()),
        _ => Err(Error::InvalidRequest(format!("A batch can have at most {BATCH_ITEMS_MAX} items"))),
    }
}

fn removal_error(reason: RemovePinError) -> Error {
    match reason {
        RemovePinError::NotFound => Error::PinNotFound,
        RemovePinError::Ambiguous => ambiguous_cluster(),
        RemovePinError::Locked { until } => Error::RetentionLocked { until },
        RemovePinError::Twice { first } => Error::Twice { first },
    }
}

/// Begins the work on pins that were written, and returns their receipts.
fn begin(placements: &Arc<Placements>, created: Vec<CreatedPin>) -> Vec<PinReceipt> {
    let mut leased = Vec::new();
    let (mut has_work, mut has_expiry) = (false, false);
    let mut receipts = Vec::with_capacity(created.len());
    for CreatedPin { pin, created, work, lease } in created {
        has_work |= work;
        has_expiry |= pin.expires_at.is_some();
        leased.extend(lease.map(|lease| *lease));
        receipts.push(PinReceipt { view: PinView::from(&*pin), created });
    }
    if has_work {
        placements.wake_worker();
    }
    if has_expiry {
        placements.expiry_changed.notify_one();
    }
    fast_path::start_batch(placements, leased);
    receipts
}
