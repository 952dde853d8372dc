//! Many placements that are held now, for each of which one pin waits: each step is one statement for all of them.
//!
//! The way to the database and back costs more than what is done there. What is not as simple is left to go its own way.

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

/// The search for pins that wait: place, placement and lease of each outcome stand between the two.
pub(crate) const FIND_PENDING: [&str; 2] = [
    "SELECT v.column1 AS place, n.id, n.account_id, p.cluster, p.state FROM (",
    ") AS v JOIN placements p ON p.id = v.column2 AND p.lease = v.column3 \
     JOIN pins n ON n.placement_id = p.id AND n.phase = 'pending'",
];

/// A pin that waits.
#[derive(Debug, FromRow)]
struct PendingRow {
    /// Which outcome it waits for.
    place: i64,
    id: i64,
    account_id: i64,
    cluster: String,
    /// That of its placement.
    state: String,
}

/// What was held.
struct Held<'a> {
    settle: &'a CompleteWrite,
    bytes: u64,
    blocks: u64,
    kind: PinKind,
}

/// A pin that can be kept.
struct Kept<'a> {
    place: usize,
    pin: i64,
    cluster: String,
    held: &'a Held<'a>,
}

impl BatchWrite for CompleteWrite {
    async fn run_batch(
        conn: &mut Conn,
        settles: &[&Self],
    ) -> Result<Vec<Option<CompleteOutcome>>, StoreError> {
        let mut settled = vec![None; settles.len()];
        let held = settles.iter().enumerate().filter_map(|(place, settle)| match settle.outcome {
            PlacementOutcome::Held { bytes, blocks, kind } => {
                Some((place, Held { settle, bytes, blocks, kind }))
            }
            PlacementOutcome::Postponed { .. }
            | PlacementOutcome::Failed { .. }
            | PlacementOutcome::Released => None,
        });
        let (places, held): (Vec<_>, Vec<_>) = held.unzip();
        for (places, held) in places.chunks(LIST_MAX).zip(held.chunks(LIST_MAX)) {
            // One alone needs as many statements either way.
            if held.len() == 1 {
                continue;
            }
            for place in keep(conn, held).await? {
                settled[places[place]] =
                    Some(CompleteOutcome::Now { state: PlacementState::Pinned, work: false });
            }
        }
        Ok(settled)
    }
}

/// Keeps the pins that wait for these, and gives the places of those that are settled by that.
async fn keep(conn: &mut Conn, held: &[Held<'_>]) -> Result<Vec<usize>, StoreError> {
    let (mut kept, mut watched) = (Vec::<Kept<'_>>::new(), Vec::new());
    for (account, pins) in find(conn, held).await? {
        let bytes = pins.iter().map(|pin| pin.held.bytes).fold(0, u64::saturating_add);
        // If not all of them fit, each is tried alone.
        let Some(charged) = quota::charge(conn, account, 0, bytes).await? else { continue };
        if charged.watched != 0 {
            watched.extend(pins.iter().map(|pin| (pin.held.settle, pin.pin)));
        }
        kept.extend(pins);
    }
    if kept.is_empty() {
        return Ok(Vec::new());
    }
    keep_pins(conn, &kept).await?;
    let mut sums = PinSumChanges::default();
    for kept in &kept {
        sums.add(&kept.cluster, PinPhase::Pending, -1, 0);
        sums.add(&kept.cluster, PinPhase::Active, 1, column(kept.held.bytes));
    }
    sums.write(conn).await?;
    leave(conn, &kept).await?;
    for (settle, pin) in watched {
        settle.outbox.happened(conn, WebhookEvent::Pinned, pin, settle.now).await?;
    }
    Ok(kept.iter().map(|kept| kept.place).collect())
}

/// The pins for which that is all there is to do, by account.
async fn find<'a>(
    conn: &mut Conn,
    held: &'a [Held<'a>],
) -> Result<BTreeMap<AccountId, Vec<Kept<'a>>>, StoreError> {
    let mut query = QueryBuilder::new(FIND_PENDING[0]);
    query.push_values(held.iter().enumerate(), |mut row, (place, held)| {
        let lease = held.settle.lease;
        for number in [column(place as u64), lease.placement.0, lease.number] {
            push_number(&mut row, number);
        }
    });
    query.push(FIND_PENDING[1]);
    let rows: Vec<PendingRow> = statement::build_as(&mut query).persistent(false).fetch_all(conn).await?;
    // A pin that is found twice, and one that does not wait alone.
    let (mut of_pin, mut of_place) = (HashMap::<_, u32>::new(), HashMap::<_, u32>::new());
    for row in &rows {
        *of_pin.entry(row.id).or_default() += 1;
        *of_place.entry(row.place).or_default() += 1;
    }
    let mut pins = BTreeMap::<_, Vec<_>>::new();
    for row in rows.into_iter().filter(|row| of_pin[&row.id] == 1 && of_place[&row.place] == 1) {
        let state = word::<PlacementState>("state", &row.state)?.after(Event::Held);
        let place = usize::try_from(row.place).unwrap_or(usize::MAX);
        let Some(held) = held.get(place).filter(|_| state == PlacementState::Pinned) else { continue };
        pins.entry(AccountId(row.account_id)).or_default().push(Kept {
            place,
            pin: row.id,
            cluster: row.cluster,
            held,
        });
    }
    Ok(pins)
}

async fn keep_pins(conn: &mut Conn, kept: &[Kept<'_>]) -> Result<(), StoreError> {
    let mut query = QueryBuilder::new("UPDATE pins SET phase = 'active', charged_bytes = v.column2 FROM (");
    query.push_values(kept, |mut row, kept| {
        push_number(&mut row, kept.pin);
        push_number(&mut row, column(kept.held.bytes));
    });
    query.push(") AS v WHERE pins.id = v.column1");
    statement::build(&mut query).persistent(false).execute(conn).await?;
    Ok(())
}

/// The same as [`CompleteWrite::leave`] for all of them.
async fn leave(conn: &mut Conn, kept: &[Kept<'_>]) -> Result<(), StoreError> {
    let mut query = QueryBuilder::new("UPDATE placements SET state = ");
    query.push_bind(PlacementState::Pinned.as_str());
    query.push(
        ", due_at_ms = NULL, attempts = 0, error_code = NULL, error_detail = NULL, lease = NULL, ready = 0, \
         updated_at_ms = v.column2, bytes = v.column3, blocks = v.column4, kind = v.column5 FROM (",
    );
    query.push_values(kept, |mut row, Kept { held, .. }| {
        let now_ms = Timestamp::as_ms(held.settle.now);
        for number in [held.settle.lease.placement.0, now_ms, column(held.bytes), column(held.blocks)] {
            push_number(&mut row, number);
        }
        row.push_bind(held.kind.as_str());
    });
    query.push(") AS v WHERE placements.id = v.column1");
    statement::build(&mut query).persistent(false).execute(conn).await?;
    Ok(())
}
