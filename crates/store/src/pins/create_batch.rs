//! Many wishes at one time for content that is pinned already, or that nobody has wished for: each step is one statement
//! for all of them.
//!
//! The way to the database and back costs more than what is done there. What is not as simple is left to go its own way.

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

/// The search: place, CID, cluster and account of each wish stand between the two. What it gives of the content is null
/// where nobody has wished for it.
pub(crate) const FIND_BATCH: [&str; 2] = [
    concat!("SELECT v.column1 AS place, ", placement_columns!(), " FROM ("),
    ") AS v LEFT JOIN placements p ON p.cid = v.column2 AND p.cluster = v.column3 \
     WHERE p.id IS NULL OR (p.state = 'pinned' AND p.damaged_blocks = 0 \
     AND NOT EXISTS (SELECT 1 FROM pins n WHERE n.account_id = v.column4 AND n.placement_id = p.id))",
];

/// A wish that can be granted with others.
struct Simple<'a> {
    /// Its place among them.
    place: usize,
    write: &'a CreatePinWrite,
    lifetime: Lifetime,
    /// Where the content is pinned; `None` if nobody has wished for it.
    placement: Option<PlacementRecord>,
}

/// A pin that is to be written.
struct Grant<'a> {
    place: usize,
    write: &'a CreatePinWrite,
    pin: PinRecord,
    wished: CreatePinOutcome,
}

impl BatchWrite for CreatePinWrite {
    async fn run_batch(
        conn: &mut Conn,
        wishes: &[&Self],
    ) -> Result<Vec<Option<CreatePinOutcome>>, StoreError> {
        let mut wished = Vec::with_capacity(wishes.len());
        for wishes in wishes.chunks(LIST_MAX) {
            let first = wished.len();
            wished.resize(first + wishes.len(), None);
            // One alone needs as many statements either way.
            if wishes.len() == 1 {
                continue;
            }
            for granted in grant(conn, wishes).await? {
                wished[first + granted.place] = Some(granted.wished);
            }
        }
        Ok(wished)
    }
}

async fn grant<'a>(conn: &mut Conn, wishes: &[&'a CreatePinWrite]) -> Result<Vec<Grant<'a>>, StoreError> {
    let (mut granted, mut placements, mut watched) = (Vec::new(), Vec::new(), Vec::new());
    for (account, simple) in find(conn, wishes).await? {
        let (here, new) = simple.into_iter().partition(|simple| simple.placement.is_some());
        // Those that wait need room for what is not known yet: they come before what takes of it.
        placements.extend(enqueue(conn, account, new, &mut granted).await?);
        watched.extend(activate(conn, account, here, &mut granted).await?);
    }
    insert_placements(conn, &placements).await?;
    let rows: Vec<_> = granted.iter().map(|granted| (granted.write, &granted.pin)).collect();
    insert(conn, &rows).await?;
    let mut sums = PinSumChanges::default();
    for (_, pin) in &rows {
        sums.add(pin.placement.cluster.as_str(), pin.phase, 1, column(pin.charged_bytes));
    }
    sums.write(conn).await?;
    if let Some((write, _)) = rows.first() {
        let act = |(write, pin): &(&CreatePinWrite, &PinRecord)| {
            (write.audit_event(write.request.action, pin), write.now)
        };
        write.journal.log_all(conn, &rows.iter().map(act).collect::<Vec<_>>()).await?;
    }
    for (write, pin) in watched {
        write.outbox.happened(conn, WebhookEvent::Pinned, pin, write.now).await?;
    }
    Ok(granted)
}

/// Charges an account for what is here. Gives the pins that webhooks watch.
async fn activate<'a>(
    conn: &mut Conn,
    account: AccountId,
    simple: Vec<Simple<'a>>,
    granted: &mut Vec<Grant<'a>>,
) -> Result<Vec<(&'a CreatePinWrite, i64)>, StoreError> {
    if simple.is_empty() {
        return Ok(Vec::new());
    }
    let pins = simple.into_iter().filter_map(|Simple { place, write, lifetime, placement }| {
        let pin = write.pin(placement?, None, PinPhase::Active, lifetime);
        let wished =
            CreatePinOutcome::Done { pin: Box::new(pin.clone()), created: true, work: false, lease: None };
        Some(Grant { place, write, pin, wished })
    });
    let pins: Vec<_> = pins.collect();
    let bytes = pins.iter().map(|granted| granted.pin.charged_bytes).fold(0, u64::saturating_add);
    // If not all of them fit, each is tried alone.
    let Some(charged) = quota::charge(conn, account, pins.len(), bytes).await? else {
        return Ok(Vec::new());
    };
    let is_watched = charged.watched != 0;
    let watched =
        pins.iter().filter(|_| is_watched).map(|granted| (granted.write, granted.pin.id.0)).collect();
    granted.extend(pins);
    Ok(watched)
}

/// Counts an account's pins that are to be brought. Gives their placements.
async fn enqueue<'a>(
    conn: &mut Conn,
    account: AccountId,
    simple: Vec<Simple<'a>>,
    granted: &mut Vec<Grant<'a>>,
) -> Result<Vec<NewPlacement<'a>>, StoreError> {
    let Some(first) = simple.first() else { return Ok(Vec::new()) };
    let in_flight = first.write.count_in_flight(conn).await?;
    let most = simple.iter().map(|simple| i64::from(simple.write.request.in_flight_max)).min();
    // If not all of them may be on their way, each is tried alone.
    if in_flight.saturating_add_unsigned(simple.len() as u64) > most.unwrap_or(0) {
        return Ok(Vec::new());
    }
    let Some(room) = quota::add_pending_pins(conn, account, simple.len()).await? else {
        return Ok(Vec::new());
    };
    let mut placements = Vec::with_capacity(simple.len());
    for (Simple { place, write, lifetime, .. }, before) in simple.into_iter().zip(in_flight..) {
        let placement = write.new_placement(before);
        let pin = write.pin(placement.record.clone(), None, PinPhase::Pending, lifetime);
        let wished = write.queued_outcome(pin.clone(), room);
        granted.push(Grant { place, write, pin, wished });
        placements.push(placement);
    }
    Ok(placements)
}

/// Those of the wishes that are simple, by account.
async fn find<'a>(
    conn: &mut Conn,
    wishes: &[&'a CreatePinWrite],
) -> Result<BTreeMap<AccountId, Vec<Simple<'a>>>, StoreError> {
    let mut query = QueryBuilder::new(FIND_BATCH[0]);
    query.push_values(wishes.iter().enumerate(), |mut row, (place, write)| {
        push_number(&mut row, column(place as u64));
        row.push_bind(write.request.cid.to_string()).push_bind(write.request.cluster.as_str().to_owned());
        push_number(&mut row, write.request.account.0);
    });
    query.push(FIND_BATCH[1]);
    let (mut simple, mut seen) = (BTreeMap::<_, Vec<_>>::new(), HashSet::new());
    for row in statement::build(&mut query).persistent(false).fetch_all(conn).await? {
        let place = usize::try_from(row.try_get::<i64, _>("place")?).unwrap_or(usize::MAX);
        let placement = match row.try_get::<Option<i64>, _>("id")? {
            Some(_) => Some(PlacementRow::from_row(&row)?.into_record()?),
            None => None,
        };
        let Some(write) = wishes.get(place).copied() else { continue };
        let Ok(lifetime) = Lifetime::default().renewed(write.request.options.lifetime(), write.now) else {
            continue;
        };
        // The second of two that are the same finds the first; so does the second of two for what is new.
        let account = placement.as_ref().map(|_| write.request.account);
        if seen.insert((write.request.cid, &write.request.cluster, account)) {
            simple.entry(write.request.account).or_default().push(Simple {
                place,
                write,
                lifetime,
                placement,
            });
        }
    }
    Ok(simple)
}
