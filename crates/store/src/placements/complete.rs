//! What the work on a placement came to, in the transaction that makes it so.

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

/// What the holder of a lease did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlacementOutcome {
    /// Every block is durable.
    Held {
        /// The bytes of the distinct blocks.
        bytes: u64,
        /// How many there are.
        blocks: u64,
        /// What the DAG is.
        kind: PinKind,
    },
    /// Not held, to be tried again at `next_at`.
    Postponed {
        /// Why; `None` when the work was only interrupted, which counts as no attempt.
        failure: Option<Failure>,
        /// When.
        next_at: Timestamp,
    },
    /// Not held, and not to be tried again.
    Failed {
        /// Why.
        failure: Failure,
        /// Set when it was larger than this budget: if an account that waits has more left by now, it is
        /// tried again.
        over_budget_bytes: Option<u64>,
        /// When to try again if it is promised to somebody all the same.
        next_at: Timestamp,
    },
    /// Nothing is held any more.
    Released,
}

/// What an [`PlacementOutcome`] led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompleteOutcome {
    /// The placement is in this state; `work` when there is more to do now.
    Now {
        /// The state.
        state: PlacementState,
        /// Whether there is work to do now.
        work: bool,
    },
    /// Somebody else has the lease, and nothing was changed.
    LeaseLost,
}

impl Store {
    /// Ends a lease with what came of the work.
    ///
    /// # Errors
    /// [`StoreError`]; then the lease stays until it runs out.
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

/// How a placement leaves the hands of who worked on it.
struct Next {
    state: PlacementState,
    due_at: Option<Timestamp>,
    attempts: u32,
    failure: Option<Failure>,
    /// Bytes, blocks and kind, if they were found out.
    size: Option<(u64, u64, PinKind)>,
    /// What webhooks watch of what happened, and to which pin.
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
            self.outbox.happened(conn, *event, *pin, self.now).await?;
        }
        if next.state == PlacementState::Unpinned {
            forget(conn, &[id.0]).await?;
        }
        let work = next.due_at.is_some_and(|due| due <= self.now);
        Ok(CompleteOutcome::Now { state: next.state, work })
    }
}

impl CompleteWrite {
    /// The placement, if the lease is still good.
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
        let (kept, failed) = quota::activate_pending(conn, placement, size.0).await?;
        let failure = Failure::new(FailureCode::QuotaExceeded, quota::OVER_QUOTA);
        self.log_failed(conn, placement, &failed, &failure).await?;
        let mut state = placement.state.after(Event::Held);
        if kept.is_empty() && !is_wanted(conn, placement.id).await? {
            state = state.after(Event::Unwanted);
        }
        let events =
            watched(&kept, WebhookEvent::Pinned).chain(watched(&failed, WebhookEvent::Failed)).collect();
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
        // What became unwanted meanwhile has nothing to wait for.
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
            // It is kept for somebody: its blocks are promised, so it is never given up.
            self.postponed(placement, Some(failure.clone()), next_at)
        } else {
            self.next(placement.state.after(Event::Unwanted), Some(failure.clone()))
        };
        Ok(Next { events: watched(&failed, WebhookEvent::Failed).collect(), ..next })
    }

    /// Whether it was wished for during the work: whoever did so deserves a try that knows of it. It may be an
    /// upload, which has just brought what was missing.
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

    /// The next state, due now unless it is settled.
    fn next(&self, state: PlacementState, failure: Option<Failure>) -> Next {
        let due_at = (!state.is_settled()).then_some(self.now);
        Next { state, due_at, attempts: 0, failure, size: None, events: Vec::new() }
    }

    async fn leave(&self, conn: &mut Conn, id: PlacementId, next: &Next) -> Result<(), StoreError> {
        // What is pinned and cannot be walked is tried for ever: it must not stand before all that come since.
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

/// Those that a webhook watches.
fn watched(pins: &[CompletedPin], event: WebhookEvent) -> impl Iterator<Item = (WebhookEvent, i64)> {
    pins.iter().filter(|pin| pin.watched != 0).map(move |pin| (event, pin.id))
}
