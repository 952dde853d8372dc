//! Completes many placements at once that are now held and have exactly one pending pin. Each step is one statement for
//! all placements, because a round trip to the database costs more than the work done there.
//!
//! Any other outcome is left to `complete`, which records them one by one.

use std::collections::{BTreeMap, HashMap};

use pinfold_model::{AccountId, Event, PinKind, PinPhase, PlacementState, Timestamp, WebhookEvent};
use sqlx::{FromRow, QueryBuilder};

use crate::StoreError;
use crate::accounts::quota;
use crate::db::row::{LIST_MAX, column, push_number, word};
use crate::db::statement;
use crate::db::write_queue::{BatchWrite, Conn};
use crate::placements::complete::CompleteWrite;
use crate::statistics::PinSumChanges;
use crate::{CompleteOutcome, PlacementOutcome};

/// Selects the pending pins of leased placements. The VALUES list goes between the two parts, with the index, placement
/// and lease of each outcome.
pub(crate) const FIND_PENDING: [&str; 2] = [
    "SELECT v.column1 AS place, n.id, n.account_id, p.cluster, p.state FROM (",
    ") AS v JOIN placements p ON p.id = v.column2 AND p.lease = v.column3 \
     JOIN pins n ON n.placement_id = p.id AND n.phase = 'pending'",
];

/// A pending pin.
#[derive(Debug, FromRow)]
struct PendingRow {
    /// Index of the outcome.
    place: i64,
    id: i64,
    account_id: i64,
    cluster: String,
    /// State of the placement.
    state: String,
}

/// The outcome of a placement that is held.
struct Held<'a> {
    write: &'a CompleteWrite,
    bytes: u64,
    blocks: u64,
    kind: PinKind,
}

/// A pin that can be activated.
struct ActivatedPin<'a> {
    index: usize,
    pin: i64,
    cluster: String,
    held: &'a Held<'a>,
}

impl BatchWrite for CompleteWrite {
    async fn run_batch(
        conn: &mut Conn,
        writes: &[&Self],
    ) -> Result<Vec<Option<CompleteOutcome>>, StoreError> {
        let mut outcomes = vec![None; writes.len()];
        let held = writes.iter().enumerate().filter_map(|(index, write)| match write.outcome {
            PlacementOutcome::Held { bytes, blocks, kind } => {
                Some((index, Held { write, bytes, blocks, kind }))
            }
            PlacementOutcome::Postponed { .. }
            | PlacementOutcome::Failed { .. }
            | PlacementOutcome::Released => None,
        });
        let (indexes, held): (Vec<_>, Vec<_>) = held.unzip();
        for (indexes, held) in indexes.chunks(LIST_MAX).zip(held.chunks(LIST_MAX)) {
            // A single outcome takes as many statements either way.
            if held.len() == 1 {
                continue;
            }
            for index in activate(conn, held).await? {
                outcomes[indexes[index]] =
                    Some(CompleteOutcome::Now { state: PlacementState::Pinned, work: false });
            }
        }
        Ok(outcomes)
    }
}

/// Activates the pending pins of these placements. Returns the indexes of the outcomes that are complete by that.
async fn activate(conn: &mut Conn, held: &[Held<'_>]) -> Result<Vec<usize>, StoreError> {
    let (mut activated, mut watched) = (Vec::<ActivatedPin<'_>>::new(), Vec::new());
    for (account, pins) in find(conn, held).await? {
        let bytes = pins.iter().map(|pin| pin.held.bytes).fold(0, u64::saturating_add);
        // If not all pins fit the quota, each is tried alone.
        let Some(charged) = quota::charge(conn, account, 0, bytes).await? else { continue };
        if charged.watched != 0 {
            watched.extend(pins.iter().map(|pin| (pin.held.write, pin.pin)));
        }
        activated.extend(pins);
    }
    if activated.is_empty() {
        return Ok(Vec::new());
    }
    activate_pins(conn, &activated).await?;
    let mut sums = PinSumChanges::default();
    for activated in &activated {
        sums.add(&activated.cluster, PinPhase::Pending, -1, 0);
        sums.add(&activated.cluster, PinPhase::Active, 1, column(activated.held.bytes));
    }
    sums.write(conn).await?;
    leave(conn, &activated).await?;
    for (write, pin) in watched {
        write.outbox.record(conn, WebhookEvent::Pinned, pin, write.now).await?;
    }
    Ok(activated.iter().map(|activated| activated.index).collect())
}

/// The pins whose placements need nothing but activation, by account.
async fn find<'a>(
    conn: &mut Conn,
    held: &'a [Held<'a>],
) -> Result<BTreeMap<AccountId, Vec<ActivatedPin<'a>>>, StoreError> {
    let mut query = QueryBuilder::new(FIND_PENDING[0]);
    query.push_values(held.iter().enumerate(), |mut row, (index, held)| {
        let lease = held.write.lease;
        for number in [column(index as u64), lease.placement.0, lease.number] {
            push_number(&mut row, number);
        }
    });
    query.push(FIND_PENDING[1]);
    let rows: Vec<PendingRow> = statement::build_as(&mut query).persistent(false).fetch_all(conn).await?;
    // Excludes pins that were found twice, and placements with several pending pins.
    let (mut of_pin, mut of_place) = (HashMap::<_, u32>::new(), HashMap::<_, u32>::new());
    for row in &rows {
        *of_pin.entry(row.id).or_default() += 1;
        *of_place.entry(row.place).or_default() += 1;
    }
    let mut pins = BTreeMap::<_, Vec<_>>::new();
    for row in rows.into_iter().filter(|row| of_pin[&row.id] == 1 && of_place[&row.place] == 1) {
        let state = word::<PlacementState>("state", &row.state)?.after(Event::Held);
        let index = usize::try_from(row.place).unwrap_or(usize::MAX);
        let Some(held) = held.get(index).filter(|_| state == PlacementState::Pinned) else { continue };
        pins.entry(AccountId(row.account_id)).or_default().push(ActivatedPin {
            index,
            pin: row.id,
            cluster: row.cluster,
            held,
        });
    }
    Ok(pins)
}

async fn activate_pins(conn: &mut Conn, activated: &[ActivatedPin<'_>]) -> Result<(), StoreError> {
    let mut query = QueryBuilder::new("UPDATE pins SET phase = 'active', charged_bytes = v.column2 FROM (");
    query.push_values(activated, |mut row, activated| {
        push_number(&mut row, activated.pin);
        push_number(&mut row, column(activated.held.bytes));
    });
    query.push(") AS v WHERE pins.id = v.column1");
    statement::build(&mut query).persistent(false).execute(conn).await?;
    Ok(())
}

/// Does the same as [`CompleteWrite::leave`] for all placements.
async fn leave(conn: &mut Conn, activated: &[ActivatedPin<'_>]) -> Result<(), StoreError> {
    let mut query = QueryBuilder::new("UPDATE placements SET state = ");
    query.push_bind(PlacementState::Pinned.as_str());
    query.push(
        ", due_at_ms = NULL, attempts = 0, error_code = NULL, error_detail = NULL, lease = NULL, ready = 0, \
         updated_at_ms = v.column2, bytes = v.column3, blocks = v.column4, kind = v.column5 FROM (",
    );
    query.push_values(activated, |mut row, ActivatedPin { held, .. }| {
        let now_ms = Timestamp::as_ms(held.write.now);
        for number in [held.write.lease.placement.0, now_ms, column(held.bytes), column(held.blocks)] {
            push_number(&mut row, number);
        }
        row.push_bind(held.kind.as_str());
    });
    query.push(") AS v WHERE placements.id = v.column1");
    statement::build(&mut query).persistent(false).execute(conn).await?;
    Ok(())
}
