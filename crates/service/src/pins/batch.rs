//! Many pins at once: all of a batch are pinned, or removed, or none.
//!
//! A batch never waits for the network. Its wishes are written in one transaction, and who asked is told how each pin
//! stands then. What is here already is settled beside it, a few at a time, so that they share the syncs of the stores.

use std::collections::HashMap;
use std::sync::Arc;

use cid::Cid;
use futures::StreamExt as _;
use pinfold_model::{AccountId, Actor, ClusterId};
use pinfold_store::{
    CreatePin, CreatePinsOutcome, CreatedPin, LeasedPlacement, RemovePinError, RemovePinsOutcome,
};

use super::{Pins, ambiguous};
use crate::core::{Core, unavailable};
use crate::reconcile::work_local;
use crate::{Caller, Error, PinReceipt, PinRequest, PinView};

/// Items of one batch: bounds how long other writes wait for it.
pub const BATCH_ITEMS_MAX: usize = 1_000;

/// Pins of one batch that are settled at one time.
const HERE_AT_ONCE: usize = 64;

/// What is wrong with one item of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemFault {
    /// Its place in the batch, from 0.
    pub index: usize,
    /// Its CID.
    pub cid: Cid,
    /// What is wrong.
    pub error: Error,
}

/// Why a batch was not done. Nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Some items can't be done; the others could be.
    #[error("{} items of the batch can't be done", .0.len())]
    Items(Vec<ItemFault>),
    /// The batch as a whole can't be done.
    #[error(transparent)]
    Whole(#[from] Error),
}

/// A pin that was removed with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedPin {
    /// The root of its DAG.
    pub cid: Cid,
    /// Where it was.
    pub cluster: ClusterId,
}

impl Pins {
    /// What stands against these wishes, each with its place in the batch, as far as that can be told without looking
    /// at the account's pins: clusters, the plan, times, and the same pin twice. [`pin_all`](Self::pin_all) asks
    /// itself; this is for who has found faults of its own and wants to name all of them.
    #[must_use]
    pub fn faults(&self, caller: &Caller, wishes: &[(usize, PinRequest)]) -> Vec<ItemFault> {
        let mut faults = Vec::new();
        let mut first_at = HashMap::new();
        for (index, wish) in wishes {
            let error = match self.core.target(caller, wish.cluster.as_ref(), &wish.options) {
                Ok(cluster) => match first_at.insert((wish.cid, cluster), *index) {
                    Some(first) => Error::Twice { first },
                    None => continue,
                },
                Err(error) => error,
            };
            faults.push(ItemFault { index: *index, cid: wish.cid, error });
        }
        faults
    }

    /// Pins all of these, or none, and waits for nothing: each receipt says how its pin stands now. At most
    /// [`BATCH_ITEMS_MAX`]. Once it is written it stays, also when the future is dropped.
    ///
    /// # Errors
    /// [`BatchError::Items`] with all that [`faults`](Self::faults) finds, or with the pins whose times can't be what
    /// was wished; [`BatchError::Whole`] with [`Error::QuotaExceeded`], [`Error::TooManyInFlight`],
    /// [`Error::InvalidRequest`] when there are no items or too many, [`Error::Unavailable`].
    pub async fn pin_all(
        &self,
        caller: &Caller,
        wishes: Vec<PinRequest>,
    ) -> Result<Vec<PinReceipt>, BatchError> {
        check_length(wishes.len())?;
        let wishes: Vec<(usize, PinRequest)> = wishes.into_iter().enumerate().collect();
        let faults = self.faults(caller, &wishes);
        if !faults.is_empty() {
            return Err(BatchError::Items(faults));
        }
        let mut rows = Vec::with_capacity(wishes.len());
        for (_, wish) in wishes {
            let cluster = self.core.target(caller, wish.cluster.as_ref(), &wish.options)?;
            rows.push(self.row(caller, wish, cluster));
        }
        let (core, in_flight_max) = (Arc::clone(&self.core), caller.plan.limits.in_flight_pins_max);
        self.core.see_through(async move { write(core, rows, in_flight_max).await }).await?
    }

    /// Removes all of the caller's pins of these CIDs, or none. At most [`BATCH_ITEMS_MAX`].
    ///
    /// # Errors
    /// [`BatchError::Items`] with [`Error::PinNotFound`], [`Error::RetentionLocked`], [`Error::Twice`],
    /// [`Error::InvalidRequest`] (a CID in several clusters, and none is named); [`BatchError::Whole`] with
    /// [`Error::InvalidRequest`] when there are no items or too many, [`Error::Unavailable`].
    pub async fn remove_all(
        &self,
        caller: &Caller,
        pins: Vec<(Cid, Option<ClusterId>)>,
    ) -> Result<Vec<RemovedPin>, BatchError> {
        check_length(pins.len())?;
        let (core, account, by) = (Arc::clone(&self.core), caller.account.id, caller.by());
        self.core.see_through(async move { remove(&core, pins, (account, by)).await }).await?
    }
}

async fn remove(
    core: &Core,
    pins: Vec<(Cid, Option<ClusterId>)>,
    (account, by): (AccountId, Actor),
) -> Result<Vec<RemovedPin>, BatchError> {
    let _turn = core.batch_turn().await?;
    let removed = core.store.remove_pins(account, &pins, by, core.clock.now()).await.map_err(unavailable)?;
    let ended = match removed {
        RemovePinsOutcome::Done(ended) => ended,
        RemovePinsOutcome::Refused(refused) => {
            let fault = |(index, reason): (usize, RemovePinError)| {
                let cid = pins.get(index).map(|(cid, _)| *cid).unwrap_or_default();
                ItemFault { index, cid, error: refusal(reason) }
            };
            return Err(BatchError::Items(refused.into_iter().map(fault).collect()));
        }
    };
    for (_, ended) in &ended {
        core.signals.tell(ended.placement, None);
    }
    core.wake.notify_one();
    Ok(pins.into_iter().zip(ended).map(|((cid, _), (cluster, _))| RemovedPin { cid, cluster }).collect())
}

fn check_length(items: usize) -> Result<(), Error> {
    match items {
        0 => Err(Error::InvalidRequest("The batch has no items".to_owned())),
        1..=BATCH_ITEMS_MAX => Ok(()),
        _ => Err(Error::InvalidRequest(format!("A batch has at most {BATCH_ITEMS_MAX} items"))),
    }
}

fn refusal(reason: RemovePinError) -> Error {
    match reason {
        RemovePinError::NotFound => Error::PinNotFound,
        RemovePinError::Ambiguous => ambiguous(),
        RemovePinError::Locked { until } => Error::RetentionLocked { until },
        RemovePinError::Twice { first } => Error::Twice { first },
    }
}

/// Writes the wishes and begins the work.
async fn write(
    core: Arc<Core>,
    rows: Vec<CreatePin>,
    in_flight_max: u32,
) -> Result<Vec<PinReceipt>, BatchError> {
    let mut rows = mark_what_is_here(&core, rows).await?;
    let cids: Vec<Cid> = rows.iter().map(|wish| wish.cid).collect();
    let now;
    let wished = {
        let _turn = core.batch_turn().await?;
        now = core.clock.now();
        for wish in &mut rows {
            wish.lease_until = wish.lease_until.map(|_| now.after(core.settings.lease));
        }
        core.store.create_pins(rows, now).await.map_err(unavailable)?
    };
    match wished {
        CreatePinsOutcome::Done(granted) => Ok(begin(&core, granted)),
        CreatePinsOutcome::OverQuota => Err(Error::QuotaExceeded.into()),
        CreatePinsOutcome::TooManyInFlight => {
            Err(Error::TooManyInFlight { limit: in_flight_max, at: now }.into())
        }
        CreatePinsOutcome::Refused(refused) => {
            let fault = |(index, error): (usize, pinfold_model::LifetimeError)| {
                let cid = cids.get(index).copied().unwrap_or_default();
                ItemFault { index, cid, error: Error::Lifetime(error) }
            };
            Err(BatchError::Items(refused.into_iter().map(fault).collect()))
        }
    }
}

/// Asks for the right to work on what seems to be here.
async fn mark_what_is_here(core: &Arc<Core>, mut rows: Vec<CreatePin>) -> Result<Vec<CreatePin>, Error> {
    let (looker, until) = (Arc::clone(core), core.clock.now().after(core.settings.lease));
    let marked = tokio::task::spawn_blocking(move || {
        for wish in &mut rows {
            let setup = looker.cluster(&wish.cluster);
            let is_here = setup.is_some_and(|setup| setup.driver.has(&wish.cid));
            wish.lease_until = is_here.then_some(until);
        }
        rows
    });
    marked.await.map_err(|_| Error::Internal)
}

/// Begins the work on what was written, and says how each pin stands.
fn begin(core: &Arc<Core>, granted: Vec<CreatedPin>) -> Vec<PinReceipt> {
    let mut claims = Vec::new();
    let (mut work, mut ends) = (false, false);
    let mut receipts = Vec::with_capacity(granted.len());
    for CreatedPin { pin, created, work: has_work, lease: claim } in granted {
        work |= has_work;
        ends |= pin.expires_at.is_some();
        claims.extend(claim.map(|claim| *claim));
        receipts.push(PinReceipt { view: PinView::from(&*pin), created });
    }
    if work {
        core.wake.notify_one();
    }
    if ends {
        core.wake_expiry.notify_one();
    }
    if !claims.is_empty() {
        core.tasks.spawn(settle_here(Arc::clone(core), claims));
    }
    receipts
}

/// Settles what is here. Leases that run out before their turn comes are somebody else's by then.
async fn settle_here(core: Arc<Core>, claims: Vec<LeasedPlacement>) {
    let work = futures::stream::iter(claims);
    let work = work.for_each_concurrent(HERE_AT_ONCE, |claim| {
        let core = Arc::clone(&core);
        async move {
            // It is never closed.
            let _permit = Arc::clone(&core.quick).acquire_owned().await.ok();
            work_local(core, claim).await;
        }
    });
    work.await;
}
