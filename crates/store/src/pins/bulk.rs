//! Many wishes, or many removals, in one transaction: all of them or none.
//!
//! A batch of wishes writes as it goes, those first that can be granted together, so that each sees what others took of
//! the quota; if one can't be had, all is taken back to where the batch began, and the transaction around it, which may
//! be shared with others, goes on.
//! A batch of removals looks at all of its pins before it changes any.

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

/// One wish of a batch that was granted.
#[derive(Debug, Clone)]
pub struct CreatedPin {
    /// The pin as it is now.
    pub pin: Box<PinRecord>,
    /// Whether the account had no live pin of it before.
    pub created: bool,
    /// Whether there is work to do now, for whoever comes.
    pub work: bool,
    /// The right to work on the placement, if that was asked for and it is new.
    pub lease: Option<Box<LeasedPlacement>>,
}

/// What came of a batch of wishes.
#[derive(Debug, Clone)]
pub enum CreatePinsOutcome {
    /// All are written, in their order.
    Done(Vec<CreatedPin>),
    /// BatchWrite they are more than what is left of the account's storage. Nothing was changed.
    OverQuota,
    /// BatchWrite they are too many on their way. Nothing was changed.
    TooManyInFlight,
    /// Some pins can't have their times, each with its place in the batch. Nothing was changed.
    Refused(Vec<(usize, LifetimeError)>),
}

/// What came of a batch of removals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemovePinsOutcome {
    /// All are gone, in their order, with the cluster that each was in.
    Done(Vec<(ClusterId, PinRemoval)>),
    /// Some can't be removed, each with its place in the batch. Nothing was changed.
    Refused(Vec<(usize, RemovePinError)>),
}

/// Why a pin of a batch can't be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovePinError {
    /// The account has no such pin.
    NotFound,
    /// The account has several; one cluster must be named.
    Ambiguous,
    /// It is locked.
    Locked {
        /// Until when.
        until: Timestamp,
    },
    /// It is in the batch twice.
    Twice {
        /// Its first place.
        first: usize,
    },
}

impl Store {
    /// Writes all of these wishes, which are one account's, or none. The caller bounds how many there are: while they
    /// are written, other writes wait.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn create_pins(
        &self,
        wishes: Vec<CreatePin>,
        now: Timestamp,
    ) -> Result<CreatePinsOutcome, StoreError> {
        let wishes = wishes.into_iter().map(|wish| self.create_pin_write(wish, now)).collect();
        self.write(CreatePinsWrite { wishes }).await
    }

    /// Removes the account's pins of all these CIDs, as `by` wants, or none. The caller bounds how many there are.
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
    wishes: Vec<CreatePinWrite>,
}

impl Write for CreatePinsWrite {
    type Out = CreatePinsOutcome;

    async fn run(&self, conn: &mut Conn) -> Result<CreatePinsOutcome, StoreError> {
        raw_sql("SAVEPOINT batch").execute(&mut *conn).await?;
        let wished = self.write(conn).await?;
        if !matches!(wished, CreatePinsOutcome::Done(_)) {
            raw_sql("ROLLBACK TO SAVEPOINT batch").execute(&mut *conn).await?;
        }
        raw_sql("RELEASE SAVEPOINT batch").execute(conn).await?;
        Ok(wished)
    }
}

impl CreatePinsWrite {
    async fn write(&self, conn: &mut Conn) -> Result<CreatePinsOutcome, StoreError> {
        let (mut granted, mut refused) = (Vec::with_capacity(self.wishes.len()), Vec::new());
        // All are one account's: its pins are counted once.
        let mut on_their_way = None;
        let wishes: Vec<_> = self.wishes.iter().collect();
        let together = CreatePinWrite::run_batch(conn, &wishes).await?;
        for (at, (wish, wished)) in self.wishes.iter().zip(together).enumerate() {
            let wished = match wished {
                Some(wished) => wished,
                None => wish.run_with(conn, &mut on_their_way).await?,
            };
            match wished {
                CreatePinOutcome::Done { pin, created, work, lease } => {
                    granted.push(CreatedPin { pin, created, work, lease });
                }
                CreatePinOutcome::OverQuota => return Ok(CreatePinsOutcome::OverQuota),
                CreatePinOutcome::TooManyInFlight => return Ok(CreatePinsOutcome::TooManyInFlight),
                CreatePinOutcome::Refused(error) => refused.push((at, error)),
            }
        }
        Ok(if refused.is_empty() {
            CreatePinsOutcome::Done(granted)
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
