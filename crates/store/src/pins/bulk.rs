//! Creates or removes many pins in one transaction: all of them or none.
//!
//! A batch that creates pins runs inside a savepoint. It first writes the pins that can be batched, then each of the
//! others, so that every pin sees the quota that the earlier ones used. If one is refused, the batch rolls back to the
//! savepoint. The surrounding transaction, which may contain other writes, continues.
//! A batch that removes pins checks all of them before it changes any.

use std::collections::HashMap;

use cid::Cid;
use pinfold_model::{AccountId, Actor, ClusterId, LifetimeError, Timestamp, WebhookEvent};
use sqlx::raw_sql;

use crate::audit::Journal;
use crate::db::write_queue::{BatchWrite, Conn, Write};
use crate::pins::create::CreatePinWrite;
use crate::pins::remove::{RemovalRow, remove_rows};
use crate::webhooks::outbox::Outbox;
use crate::{CreatePin, CreatePinOutcome, LeasedPlacement, PinRecord, PinRemoval, Store, StoreError};

/// A pin that a batch created or updated.
#[derive(Debug, Clone)]
pub struct CreatedPin {
    /// The pin after the write.
    pub pin: Box<PinRecord>,
    /// Whether the account had no live pin of the CID in the cluster before.
    pub created: bool,
    /// Whether a worker has to process the placement now.
    pub work: bool,
    /// The lease on the placement, if the caller asked for one and the placement is new.
    pub lease: Option<Box<LeasedPlacement>>,
}

/// The result of [`Store::create_pins`].
#[derive(Debug, Clone)]
pub enum CreatePinsOutcome {
    /// All pins are written. In the order of the requests.
    Done(Vec<CreatedPin>),
    /// Together the pins exceed the account's remaining storage. Nothing was changed.
    OverQuota,
    /// Together the pins exceed the number that may be in flight. Nothing was changed.
    TooManyInFlight,
    /// The lifetimes of some pins are invalid; each error comes with its position in the batch. Nothing was changed.
    Refused(Vec<(usize, LifetimeError)>),
}

/// The result of [`Store::remove_pins`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemovePinsOutcome {
    /// All pins are removed. In the order of the request, each with its cluster.
    Done(Vec<(ClusterId, PinRemoval)>),
    /// Some pins cannot be removed; each error comes with its position in the batch. Nothing was changed.
    Refused(Vec<(usize, RemovePinError)>),
}

/// Why a pin of a batch cannot be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovePinError {
    NotFound,
    /// The account has pins of the CID in several clusters, and the request names none.
    Ambiguous,
    Locked {
        until: Timestamp,
    },
    /// The batch contains the pin twice.
    Twice {
        /// The position of its first occurrence.
        first: usize,
    },
}

impl Store {
    /// Creates or updates pins of one account: all of them or none. The caller must bound their number, because other
    /// writes wait meanwhile.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn create_pins(
        &self,
        requests: Vec<CreatePin>,
        now: Timestamp,
    ) -> Result<CreatePinsOutcome, StoreError> {
        let writes = requests.into_iter().map(|request| self.create_pin_write(request, now)).collect();
        self.write(CreatePinsWrite { writes }).await
    }

    /// Removes the account's pins of these CIDs on behalf of `by`: all of them or none. The caller must bound their
    /// number.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove_pins(
        &self,
        account: AccountId,
        pins: &[(Cid, Option<ClusterId>)],
        by: Actor,
        now: Timestamp,
    ) -> Result<RemovePinsOutcome, StoreError> {
        let text = |(cid, cluster): &(Cid, Option<ClusterId>)| {
            (cid.to_string(), cluster.as_ref().map(|cluster| cluster.as_str().to_owned()))
        };
        let (pins, journal, outbox) = (pins.iter().map(text).collect(), self.journal(), self.outbox());
        self.write(RemovePins { account, pins, by, now, journal, outbox }).await
    }
}

struct CreatePinsWrite {
    writes: Vec<CreatePinWrite>,
}

impl Write for CreatePinsWrite {
    type Out = CreatePinsOutcome;

    async fn run(&self, conn: &mut Conn) -> Result<CreatePinsOutcome, StoreError> {
        raw_sql("SAVEPOINT batch").execute(&mut *conn).await?;
        let outcome = self.write(conn).await?;
        if !matches!(outcome, CreatePinsOutcome::Done(_)) {
            raw_sql("ROLLBACK TO SAVEPOINT batch").execute(&mut *conn).await?;
        }
        raw_sql("RELEASE SAVEPOINT batch").execute(conn).await?;
        Ok(outcome)
    }
}

impl CreatePinsWrite {
    async fn write(&self, conn: &mut Conn) -> Result<CreatePinsOutcome, StoreError> {
        let (mut created_pins, mut refused) = (Vec::with_capacity(self.writes.len()), Vec::new());
        // All requests are from one account, so its pins in flight are counted only once.
        let mut in_flight = None;
        let writes: Vec<_> = self.writes.iter().collect();
        let batched = CreatePinWrite::run_batch(conn, &writes).await?;
        for (at, (write, outcome)) in self.writes.iter().zip(batched).enumerate() {
            let outcome = match outcome {
                Some(outcome) => outcome,
                None => write.run_with(conn, &mut in_flight).await?,
            };
            match outcome {
                CreatePinOutcome::Done { pin, created, work, lease } => {
                    created_pins.push(CreatedPin { pin, created, work, lease });
                }
                CreatePinOutcome::OverQuota => return Ok(CreatePinsOutcome::OverQuota),
                CreatePinOutcome::TooManyInFlight => return Ok(CreatePinsOutcome::TooManyInFlight),
                CreatePinOutcome::Refused(error) => refused.push((at, error)),
            }
        }
        Ok(if refused.is_empty() {
            CreatePinsOutcome::Done(created_pins)
        } else {
            CreatePinsOutcome::Refused(refused)
        })
    }
}

struct RemovePins {
    account: AccountId,
    pins: Vec<(String, Option<String>)>,
    by: Actor,
    now: Timestamp,
    journal: Journal,
    outbox: Outbox,
}

impl Write for RemovePins {
    type Out = RemovePinsOutcome;

    async fn run(&self, conn: &mut Conn) -> Result<RemovePinsOutcome, StoreError> {
        let (mut rows, mut refused) = (Vec::with_capacity(self.pins.len()), Vec::new());
        let mut first_at: HashMap<i64, usize> = HashMap::new();
        for (at, (cid, cluster)) in self.pins.iter().enumerate() {
            match self.find(conn, cid, cluster.as_deref()).await? {
                Ok(row) => match first_at.insert(row.id, at) {
                    Some(first) => refused.push((at, RemovePinError::Twice { first })),
                    None => rows.push(row),
                },
                Err(reason) => refused.push((at, reason)),
            }
        }
        if !refused.is_empty() {
            return Ok(RemovePinsOutcome::Refused(refused));
        }
        let clusters: Vec<_> = rows.iter().map(RemovalRow::cluster).collect::<Result<_, _>>()?;
        let what = (WebhookEvent::Removed, ("pin.remove", self.by));
        let ended = remove_rows(conn, &rows, (&self.journal, &self.outbox), what, self.now).await?;
        Ok(RemovePinsOutcome::Done(clusters.into_iter().zip(ended).collect()))
    }
}

impl RemovePins {
    async fn find(
        &self,
        conn: &mut Conn,
        cid: &str,
        cluster: Option<&str>,
    ) -> Result<Result<RemovalRow, RemovePinError>, StoreError> {
        let mut rows = RemovalRow::find(conn, self.account, cid, cluster).await?;
        let Some(row) = rows.pop() else { return Ok(Err(RemovePinError::NotFound)) };
        if !rows.is_empty() {
            return Ok(Err(RemovePinError::Ambiguous));
        }
        Ok(match row.locked_until(self.now) {
            Some(until) => Err(RemovePinError::Locked { until }),
            None => Ok(row),
        })
    }
}
