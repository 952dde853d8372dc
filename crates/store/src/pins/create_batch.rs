//! Creates many pins at once, for content that is already pinned or has no placement yet. Each step is one statement
//! for all pins, because a round trip to the database costs more than the work done there.
//!
//! Requests in any other situation are left to `create`, which writes them one by one.

use std::collections::{BTreeMap, HashSet};

use pinfold_model::{AccountId, Lifetime, PinPhase, WebhookEvent};
use sqlx::{FromRow, QueryBuilder, Row};

use crate::CreatePinOutcome;
use crate::accounts::quota;
use crate::db::row::{LIST_MAX, column, push_number};
use crate::db::statement;
use crate::db::write_queue::{BatchWrite, Conn};
use crate::pins::create::{CreatePinWrite, NewPlacement, insert, insert_placements};
use crate::placements::record::{PlacementRow, placement_columns};
use crate::statistics::PinSumChanges;
use crate::{PinRecord, PlacementRecord, StoreError};

/// Selects the placements of the requests that can be batched. The VALUES list goes between the two parts, with the
/// index, CID, cluster and account of each request. The columns of the placement are null if there is none.
pub(crate) const FIND_BATCH: [&str; 2] = [
    concat!("SELECT v.column1 AS place, ", placement_columns!(), " FROM ("),
    ") AS v LEFT JOIN placements p ON p.cid = v.column2 AND p.cluster = v.column3 \
     WHERE p.id IS NULL OR (p.state = 'pinned' AND p.damaged_blocks = 0 \
     AND NOT EXISTS (SELECT 1 FROM pins n WHERE n.account_id = v.column4 AND n.placement_id = p.id))",
];

/// A request that can be written in a batch.
struct Simple<'a> {
    /// Index among the requests.
    index: usize,
    write: &'a CreatePinWrite,
    lifetime: Lifetime,
    /// The placement that pins the content. `None` if there is none.
    placement: Option<PlacementRecord>,
}

/// A pin to write.
struct BatchedPin<'a> {
    index: usize,
    write: &'a CreatePinWrite,
    pin: PinRecord,
    outcome: CreatePinOutcome,
}

impl BatchWrite for CreatePinWrite {
    async fn run_batch(
        conn: &mut Conn,
        requests: &[&Self],
    ) -> Result<Vec<Option<CreatePinOutcome>>, StoreError> {
        let mut outcomes = Vec::with_capacity(requests.len());
        for requests in requests.chunks(LIST_MAX) {
            let first = outcomes.len();
            outcomes.resize(first + requests.len(), None);
            // A single request takes as many statements either way.
            if requests.len() == 1 {
                continue;
            }
            for created in create_simple(conn, requests).await? {
                outcomes[first + created.index] = Some(created.outcome);
            }
        }
        Ok(outcomes)
    }
}

async fn create_simple<'a>(
    conn: &mut Conn,
    requests: &[&'a CreatePinWrite],
) -> Result<Vec<BatchedPin<'a>>, StoreError> {
    let (mut created_pins, mut placements, mut watched) = (Vec::new(), Vec::new(), Vec::new());
    for (account, simple) in find(conn, requests).await? {
        let (here, new) = simple.into_iter().partition(|simple| simple.placement.is_some());
        // The size of new content is unknown, so it only needs some room left. It goes first, before `activate` uses
        // room.
        placements.extend(enqueue(conn, account, new, &mut created_pins).await?);
        watched.extend(activate(conn, account, here, &mut created_pins).await?);
    }
    insert_placements(conn, &placements).await?;
    let rows: Vec<_> = created_pins.iter().map(|created| (created.write, &created.pin)).collect();
    insert(conn, &rows).await?;
    let mut sums = PinSumChanges::default();
    for (_, pin) in &rows {
        sums.add(pin.placement.cluster.as_str(), pin.phase, 1, column(pin.charged_bytes));
    }
    sums.write(conn).await?;
    if let Some((write, _)) = rows.first() {
        let event = |(write, pin): &(&CreatePinWrite, &PinRecord)| {
            (write.audit_event(write.request.action, pin), write.now)
        };
        write.journal.log_all(conn, &rows.iter().map(event).collect::<Vec<_>>()).await?;
    }
    for (write, pin) in watched {
        write.outbox.record(conn, WebhookEvent::Pinned, pin, write.now).await?;
    }
    Ok(created_pins)
}

/// Charges an account for content that is already pinned. Returns the pins for which webhook events are recorded.
async fn activate<'a>(
    conn: &mut Conn,
    account: AccountId,
    simple: Vec<Simple<'a>>,
    created_pins: &mut Vec<BatchedPin<'a>>,
) -> Result<Vec<(&'a CreatePinWrite, i64)>, StoreError> {
    if simple.is_empty() {
        return Ok(Vec::new());
    }
    let pins = simple.into_iter().filter_map(|Simple { index, write, lifetime, placement }| {
        let pin = write.pin(placement?, None, PinPhase::Active, lifetime);
        let outcome =
            CreatePinOutcome::Done { pin: Box::new(pin.clone()), created: true, work: false, lease: None };
        Some(BatchedPin { index, write, pin, outcome })
    });
    let pins: Vec<_> = pins.collect();
    let bytes = pins.iter().map(|created| created.pin.charged_bytes).fold(0, u64::saturating_add);
    // If not all pins fit the quota, each is tried alone.
    let Some(charged) = quota::charge(conn, account, pins.len(), bytes).await? else {
        return Ok(Vec::new());
    };
    let is_watched = charged.watched != 0;
    let watched =
        pins.iter().filter(|_| is_watched).map(|created| (created.write, created.pin.id.0)).collect();
    created_pins.extend(pins);
    Ok(watched)
}

/// Adds pending pins to an account. Returns their placements.
async fn enqueue<'a>(
    conn: &mut Conn,
    account: AccountId,
    simple: Vec<Simple<'a>>,
    created_pins: &mut Vec<BatchedPin<'a>>,
) -> Result<Vec<NewPlacement<'a>>, StoreError> {
    let Some(first) = simple.first() else { return Ok(Vec::new()) };
    let in_flight = first.write.count_in_flight(conn).await?;
    let most = simple.iter().map(|simple| i64::from(simple.write.request.in_flight_max)).min();
    // If not all pins may be in flight, each is tried alone.
    if in_flight.saturating_add_unsigned(simple.len() as u64) > most.unwrap_or(0) {
        return Ok(Vec::new());
    }
    let Some(room) = quota::add_pending_pins(conn, account, simple.len()).await? else {
        return Ok(Vec::new());
    };
    let mut placements = Vec::with_capacity(simple.len());
    for (Simple { index, write, lifetime, .. }, before) in simple.into_iter().zip(in_flight..) {
        let placement = write.new_placement(before);
        let pin = write.pin(placement.record.clone(), None, PinPhase::Pending, lifetime);
        let outcome = write.queued_outcome(pin.clone(), room);
        created_pins.push(BatchedPin { index, write, pin, outcome });
        placements.push(placement);
    }
    Ok(placements)
}

/// The requests that can be batched, by account.
async fn find<'a>(
    conn: &mut Conn,
    requests: &[&'a CreatePinWrite],
) -> Result<BTreeMap<AccountId, Vec<Simple<'a>>>, StoreError> {
    let mut query = QueryBuilder::new(FIND_BATCH[0]);
    query.push_values(requests.iter().enumerate(), |mut row, (index, write)| {
        push_number(&mut row, column(index as u64));
        row.push_bind(write.request.cid.to_string()).push_bind(write.request.cluster.as_str().to_owned());
        push_number(&mut row, write.request.account.0);
    });
    query.push(FIND_BATCH[1]);
    let (mut simple, mut seen) = (BTreeMap::<_, Vec<_>>::new(), HashSet::new());
    for row in statement::build(&mut query).persistent(false).fetch_all(conn).await? {
        let index = usize::try_from(row.try_get::<i64, _>("place")?).unwrap_or(usize::MAX);
        let placement = match row.try_get::<Option<i64>, _>("id")? {
            Some(_) => Some(PlacementRow::from_row(&row)?.into_record()?),
            None => None,
        };
        let Some(write) = requests.get(index).copied() else { continue };
        let Ok(lifetime) = Lifetime::default().renewed(write.request.options.lifetime(), write.now) else {
            continue;
        };
        // The second of two equal requests must see the pin of the first, and the second of two requests for new
        // content its placement. Both are written one by one, after the batch.
        let account = placement.as_ref().map(|_| write.request.account);
        if seen.insert((write.request.cid, &write.request.cluster, account)) {
            simple.entry(write.request.account).or_default().push(Simple {
                index,
                write,
                lifetime,
                placement,
            });
        }
    }
    Ok(simple)
}
