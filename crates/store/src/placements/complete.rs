//! Completes the work on a placement: one transaction records its outcome, updates the pins and the accounts, and
//! returns the lease.

use pinfold_model::{
    Event, Failure, FailureCode, PinKind, PlacementId, PlacementState, Timestamp, WebhookEvent,
};

use crate::accounts::quota;
use crate::accounts::quota::CompletedPin;
use crate::audit::Journal;
use crate::db::row::column;
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::placements::lease;
use crate::placements::record::{PlacementRow, select_placements};
use crate::placements::release::{forget, is_wanted};
use crate::placements::reverify::QUEUE_STEP_MS;
use crate::webhooks::outbox::Outbox;
use crate::{Lease, PlacementRecord, Store, StoreError};

/// The result of the work on a leased placement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlacementOutcome {
    /// Every block is stored durably.
    Held {
        /// The total size of the distinct blocks.
        bytes: u64,
        /// The number of distinct blocks.
        blocks: u64,
        kind: PinKind,
    },
    /// Not held. The next attempt is at `next_at`.
    Postponed {
        /// `None` if the work was only interrupted, which does not count as an attempt.
        failure: Option<Failure>,
        next_at: Timestamp,
    },
    /// Not held, without further attempts.
    Failed {
        failure: Failure,
        /// Set if the content is larger than this budget. The placement is retried if a waiting account now has more
        /// storage left.
        over_budget_bytes: Option<u64>,
        /// The time of the next attempt if an active pin still needs the placement.
        next_at: Timestamp,
    },
    /// The cluster no longer holds the content.
    Released,
}

/// The result of [`Store::complete_placement`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompleteOutcome {
    /// The outcome is recorded.
    Now {
        state: PlacementState,
        /// Whether a worker has to process the placement again now.
        work: bool,
    },
    /// The lease is no longer valid. Nothing was changed.
    LeaseLost,
}

impl Store {
    /// Records the outcome of the work on a placement and returns the lease.
    ///
    /// # Errors
    /// [`StoreError`]; the lease is then held until it expires.
    pub async fn complete_placement(
        &self,
        lease: Lease,
        outcome: PlacementOutcome,
        now: Timestamp,
    ) -> Result<CompleteOutcome, StoreError> {
        let (journal, outbox) = (self.journal(), self.outbox());
        let write = CompleteWrite { lease, outcome, now, journal, outbox };
        self.writer.write_in(&self.lanes.complete_placement, write).await
    }
}

pub(crate) struct CompleteWrite {
    pub(super) lease: Lease,
    pub(super) outcome: PlacementOutcome,
    pub(super) now: Timestamp,
    journal: Journal,
    pub(super) outbox: Outbox,
}

/// The changes to a placement at the end of a lease.
struct Next {
    state: PlacementState,
    due_at: Option<Timestamp>,
    attempts: u32,
    failure: Option<Failure>,
    /// Bytes, blocks and kind, if the outcome contains them.
    size: Option<(u64, u64, PinKind)>,
    /// The events to record for webhooks, with the ids of the pins.
    events: Vec<(WebhookEvent, i64)>,
}

impl Write for CompleteWrite {
    type Out = CompleteOutcome;

    async fn run(&self, conn: &mut Conn) -> Result<CompleteOutcome, StoreError> {
        let id = self.lease.placement;
        let Some(placement) = self.load(conn).await? else { return Ok(CompleteOutcome::LeaseLost) };
        let next = match &self.outcome {
            PlacementOutcome::Held { bytes, blocks, kind } => {
                self.held(conn, &placement, (*bytes, *blocks, *kind)).await?
            }
            PlacementOutcome::Postponed { failure, next_at } => {
                self.postponed(&placement, failure.clone(), *next_at)
            }
            PlacementOutcome::Failed { failure, over_budget_bytes, next_at } => {
                self.failed(conn, &placement, failure, *over_budget_bytes, *next_at).await?
            }
            PlacementOutcome::Released => self.released(&placement),
        };
        self.leave(conn, id, &next).await?;
        for (event, pin) in &next.events {
            self.outbox.record(conn, *event, *pin, self.now).await?;
        }
        if next.state == PlacementState::Unpinned {
            forget(conn, &[id.0]).await?;
        }
        let work = next.due_at.is_some_and(|due| due <= self.now);
        Ok(CompleteOutcome::Now { state: next.state, work })
    }
}

impl CompleteWrite {
    /// The placement. `None` if the lease is no longer valid.
    async fn load(&self, conn: &mut Conn) -> Result<Option<PlacementRecord>, StoreError> {
        let query = statement::query_as::<PlacementRow>(select_placements!("WHERE id = $1 AND lease = $2"));
        let row = query.bind(self.lease.placement.0).bind(self.lease.number).fetch_optional(conn).await?;
        row.map(PlacementRow::into_record).transpose()
    }

    async fn held(
        &self,
        conn: &mut Conn,
        placement: &PlacementRecord,
        size: (u64, u64, PinKind),
    ) -> Result<Next, StoreError> {
        let (active, failed) = quota::activate_pending(conn, placement, size.0).await?;
        let failure = Failure::new(FailureCode::QuotaExceeded, quota::OVER_QUOTA);
        self.log_failed(conn, placement, &failed, &failure).await?;
        let mut state = placement.state.after(Event::Held);
        if active.is_empty() && !is_wanted(conn, placement.id).await? {
            state = state.after(Event::Unwanted);
        }
        let events =
            watched(&active, WebhookEvent::Pinned).chain(watched(&failed, WebhookEvent::Failed)).collect();
        Ok(Next { size: Some(size), events, ..self.next(state, None) })
    }

    async fn log_failed(
        &self,
        conn: &mut Conn,
        placement: &PlacementRecord,
        pins: &[CompletedPin],
        failure: &Failure,
    ) -> Result<(), StoreError> {
        let accounts: Vec<_> = pins.iter().map(|pin| pin.account_id).collect();
        self.journal.log_failed(conn, placement, &accounts, failure, self.now).await
    }

    fn postponed(&self, placement: &PlacementRecord, failure: Option<Failure>, next_at: Timestamp) -> Next {
        let state = placement.state.after(Event::Postponed);
        let attempts = placement.attempts + u32::from(failure.is_some());
        // A placement that is no longer wanted is released at once.
        let due_at = if placement.state.is_wanted() || failure.is_some() { next_at } else { self.now };
        let failure = failure.or_else(|| placement.error.clone());
        Next { due_at: Some(due_at), attempts, ..self.next(state, failure) }
    }

    async fn failed(
        &self,
        conn: &mut Conn,
        placement: &PlacementRecord,
        failure: &Failure,
        over_budget_bytes: Option<u64>,
        next_at: Timestamp,
    ) -> Result<Next, StoreError> {
        if let Some(budget) = over_budget_bytes
            && lease::budget(conn, placement.id).await? > budget
        {
            return Ok(self.postponed(placement, Some(failure.clone()), self.now));
        }
        if self.was_requested(conn, placement.id).await? {
            return Ok(self.postponed(placement, Some(failure.clone()), self.now));
        }
        let failed = quota::fail_pending(conn, placement, failure).await?;
        self.log_failed(conn, placement, &failed, failure).await?;
        let next = if is_wanted(conn, placement.id).await? {
            // An active pin needs the placement, so attempts never end.
            self.postponed(placement, Some(failure.clone()), next_at)
        } else {
            self.next(placement.state.after(Event::Unwanted), Some(failure.clone()))
        };
        Ok(Next { events: watched(&failed, WebhookEvent::Failed).collect(), ..next })
    }

    /// Whether the placement was requested during the work. It is then retried, because the request may have been an
    /// upload that stored the missing blocks.
    async fn was_requested(&self, conn: &mut Conn, id: PlacementId) -> Result<bool, StoreError> {
        let requested: Option<i64> = statement::query_scalar(
            "SELECT CAST(1 AS BIGINT) FROM placements WHERE id = $1 AND requested = 1",
        )
        .bind(id.0)
        .fetch_optional(conn)
        .await?;
        Ok(requested.is_some())
    }

    fn released(&self, placement: &PlacementRecord) -> Next {
        self.next(placement.state.after(Event::Released), placement.error.clone())
    }

    /// A transition to `state`. The placement is due now unless the state is settled.
    fn next(&self, state: PlacementState, failure: Option<Failure>) -> Next {
        let due_at = (!state.is_terminal()).then_some(self.now);
        Next { state, due_at, attempts: 0, failure, size: None, events: Vec::new() }
    }

    async fn leave(&self, conn: &mut Conn, id: PlacementId, next: &Next) -> Result<(), StoreError> {
        // Attempts to verify a pinned placement never end. They must not go ahead of newer pins in the queue.
        let queue = next.due_at.filter(|due| next.state == PlacementState::Pinned && *due > self.now);
        statement::query(
            "UPDATE placements SET state = $2, due_at_ms = $3, attempts = $4, error_code = $5, \
             error_detail = $6, lease = NULL, ready = 0, updated_at_ms = $7, queue_ms = COALESCE($8, queue_ms), \
             bytes = COALESCE($9, bytes), blocks = COALESCE($10, blocks), kind = COALESCE($11, kind) \
             WHERE id = $1",
        )
        .bind(id.0)
        .bind(next.state.as_str())
        .bind(next.due_at.map(Timestamp::as_ms))
        .bind(i64::from(next.attempts))
        .bind(next.failure.as_ref().map(|failure| failure.code.as_str()))
        .bind(next.failure.as_ref().map(|failure| failure.detail.as_str()))
        .bind(self.now.as_ms())
        .bind(queue.map(|due| due.as_ms() + QUEUE_STEP_MS))
        .bind(next.size.map(|(bytes, ..)| column(bytes)))
        .bind(next.size.map(|(_, blocks, _)| column(blocks)))
        .bind(next.size.map(|(.., kind)| kind.as_str()))
        .execute(conn)
        .await?;
        Ok(())
    }
}

/// The event for each pin whose account has an active webhook.
fn watched(pins: &[CompletedPin], event: WebhookEvent) -> impl Iterator<Item = (WebhookEvent, i64)> {
    pins.iter().filter(|pin| pin.watched != 0).map(move |pin| (event, pin.id))
}
