//! Many wishes at one time for content that is pinned already: each step is one statement for all of them.
//!
//! The way to the database and back costs more than what is done there. What is not as simple is left to go its own way.

use std::collections::{BTreeMap, HashSet};

use pinfold_model::{AccountId, HookEvent, Lifetime, Standing};
use sqlx::{FromRow, QueryBuilder};

use super::{WishWrite, Wished, insert};
use crate::pin::PlacementRow;
use crate::row::{LIST_MAX, column};
use crate::writer::Conn;
use crate::{PinRecord, StoreError, charge};

/// A wish whose content is pinned, but not by its account.
#[derive(Debug, FromRow)]
struct HereRow {
    /// Which of the wishes.
    place: i64,
    #[sqlx(flatten)]
    placement: PlacementRow,
}

/// The search for them: place, CID, cluster and account of each wish stand between the two.
pub(crate) const LOOK_FOR_ALL: [&str; 2] = [
    "SELECT v.column1 AS place, p.id, p.cid, p.cluster, p.state, p.due_at_ms, p.lease, p.attempts, p.error_code, \
     p.error_detail, p.blocks, p.bytes, p.kind, p.damaged_blocks, p.updated_at_ms FROM (",
    ") AS v JOIN placements p ON p.cid = v.column2 AND p.cluster = v.column3 \
     WHERE p.state = 'pinned' AND p.damaged_blocks = 0 \
     AND NOT EXISTS (SELECT 1 FROM pins n WHERE n.account_id = v.column4 AND n.placement_id = p.id)",
];

/// A pin that can be kept, and the place of its wish.
type Kept = (usize, PinRecord);

/// Grants those of the wishes that can be granted so, and gives what came of each. `None` is for those that must go
/// their own way: nothing was written for them.
pub(crate) async fn keep_all(
    conn: &mut Conn,
    wishes: &[&WishWrite],
) -> Result<Vec<Option<Wished>>, StoreError> {
    let mut wished = Vec::with_capacity(wishes.len());
    for wishes in wishes.chunks(LIST_MAX) {
        // One alone needs as many statements either way.
        let kept = if wishes.len() > 1 { keep(conn, wishes).await? } else { Vec::new() };
        let first = wished.len();
        wished.resize(first + wishes.len(), None);
        for (place, pin) in kept {
            let pin = Box::new(pin);
            wished[first + place] = Some(Wished::Done { pin, created: true, work: false, claim: None });
        }
    }
    Ok(wished)
}

async fn keep(conn: &mut Conn, wishes: &[&WishWrite]) -> Result<Vec<Kept>, StoreError> {
    let (mut kept, mut watched) = (Vec::new(), Vec::new());
    for (account, pins) in find(conn, wishes).await? {
        let bytes = pins.iter().map(|(_, pin)| pin.charged_bytes).fold(0, u64::saturating_add);
        // If not all of them fit, each is tried alone.
        let Some(charged) = charge::charge(conn, AccountId(account), pins.len(), bytes).await? else {
            continue;
        };
        if charged.watched != 0 {
            watched.extend(pins.iter().map(|(place, pin)| (*place, pin.id)));
        }
        kept.extend(pins);
    }
    let rows: Vec<_> = kept.iter().map(|(place, pin)| (wishes[*place], pin)).collect();
    insert(conn, &rows).await?;
    if let Some((wish, _)) = rows.first() {
        let acts: Vec<_> =
            rows.iter().map(|(wish, pin)| (wish.act(wish.wish.action, pin), wish.now)).collect();
        wish.journal.log_all(conn, &acts).await?;
    }
    for (place, pin) in watched {
        let wish = wishes[place];
        wish.outbox.happened(conn, HookEvent::Pinned, pin.0, wish.now).await?;
    }
    Ok(kept)
}

/// The pins that would come of it, by account.
async fn find(conn: &mut Conn, wishes: &[&WishWrite]) -> Result<BTreeMap<i64, Vec<Kept>>, StoreError> {
    let mut query = QueryBuilder::new(LOOK_FOR_ALL[0]);
    query.push_values(wishes.iter().enumerate(), |mut row, (place, write)| {
        row.push_bind(column(place as u64)).push_bind(write.wish.cid.to_string());
        row.push_bind(write.wish.cluster.as_str().to_owned()).push_bind(write.wish.account.0);
    });
    query.push(LOOK_FOR_ALL[1]);
    let rows: Vec<HereRow> = query.build_query_as().persistent(false).fetch_all(conn).await?;
    let (mut pins, mut seen) = (BTreeMap::<_, Vec<_>>::new(), HashSet::new());
    for HereRow { place, placement } in rows {
        let placement = placement.into_record()?;
        let Some((place, write)) = usize::try_from(place).ok().and_then(|at| Some((at, *wishes.get(at)?)))
        else {
            continue;
        };
        let Ok(lifetime) = Lifetime::default().renewed(write.wish.lifetime, write.now) else { continue };
        // The second of two that are the same finds the first.
        if seen.insert((write.wish.account.0, placement.id.0)) {
            let pin = write.pin(placement, None, Standing::Kept, lifetime);
            pins.entry(write.wish.account.0).or_default().push((place, pin));
        }
    }
    Ok(pins)
}
