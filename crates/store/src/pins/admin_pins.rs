//! Lists of the pins of all accounts, and removal of any pin, for operators.
//!
//! A page scans a bounded number of rows. It can hold fewer pins than its limit, or none, and still have a next page.
//! Without a CID the list scans pins, newest first. With a CID, or for damaged pins only, it scans placements by id,
//! and the pins of each. A CID has at most one placement in each cluster; the list queries them one after the other.

use cid::Cid;
use pinfold_model::{
    AccountId, Actor, AdminPinsCursor, ClusterId, PinId, PinState, PlacementId, Timestamp, WebhookEvent,
};

use crate::accounts::list::WINDOW;
use crate::audit::Journal;
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::pins::list::phase_of;
use crate::pins::record::{PinRow, select_pins};
use crate::pins::remove::{RemovalRow, end, log_locked_removal};
use crate::placements::release::load;
use crate::webhooks::outbox::{Outbox, watched};
use crate::{PinRecord, PinRemoval, Store, StoreError};

/// Selects pins by all of the given conditions.
#[derive(Debug, Clone, Default)]
pub struct AdminPinsFilter {
    pub account: Option<AccountId>,
    pub cid: Option<Cid>,
    pub state: Option<PinState>,
    pub cluster: Option<ClusterId>,
    /// Only pins whose placement has damaged blocks.
    pub is_damaged: bool,
}

/// A page of pins.
#[derive(Debug, Clone)]
pub struct AdminPinsList {
    pub pins: Vec<PinRecord>,
    /// Where the next page begins. `None` on the last page.
    pub next: Option<AdminPinsCursor>,
}

/// Expands `$macro` for each index that a list can scan: the condition that selects its rows, and the name of its
/// order. Pins are `n`, placements are `p`; `$1` is the account and `$2` the placement.
macro_rules! per_index {
    ($macro:ident, $tail:expr) => {
        [
            $macro!("WHERE n.account_id = $1 AND CAST($2 AS BIGINT) IS NULL ", pins, $tail),
            $macro!("WHERE n.phase = 'failed' AND CAST($2 AS BIGINT) IS NULL ", pins, $tail),
            $macro!("WHERE n.phase = 'pending' AND CAST($2 AS BIGINT) IS NULL ", pins, $tail),
            $macro!("WHERE CAST($2 AS BIGINT) IS NULL ", pins, $tail),
            $macro!("WHERE n.placement_id = $2 ", placement, $tail),
            $macro!("WHERE p.damaged_blocks > 0 AND CAST($2 AS BIGINT) IS NULL ", placements, $tail),
        ]
    };
}

/// Selects the last pin that a page scans. The page begins after placement `$3` and pin `$4`.
macro_rules! end_of {
    ($which:literal, pins, $tail:expr) => {
        concat!(
            "SELECT n.placement_id, n.id FROM pins n ",
            $which,
            "AND n.id < $4 AND CAST($3 AS BIGINT) IS NOT NULL ",
            "AND (CAST($1 AS BIGINT) IS NULL OR n.id IS NOT NULL) ORDER BY n.id DESC ",
            $tail
        )
    };
    ($which:literal, placement, $tail:expr) => {
        concat!(
            "SELECT n.placement_id, n.id FROM pins n ",
            $which,
            "AND n.id > $4 AND CAST($3 AS BIGINT) IS NOT NULL ",
            "AND (CAST($1 AS BIGINT) IS NULL OR n.id IS NOT NULL) ORDER BY n.id ",
            $tail
        )
    };
    ($which:literal, placements, $tail:expr) => {
        concat!(
            "SELECT p.id, n.id FROM placements p JOIN pins n ON n.placement_id = p.id ",
            $which,
            "AND p.id >= $3 AND (p.id > $3 OR n.id > $4) ",
            "AND (CAST($1 AS BIGINT) IS NULL OR n.id IS NOT NULL) ORDER BY p.id, n.id ",
            $tail
        )
    };
}

/// Selects the pins of a page that ends with placement `$5` and pin `$6`.
macro_rules! page_of {
    ($which:literal, pins, $tail:expr) => {
        select_pins!(
            $which,
            "AND n.id < $4 AND n.id >= $6 AND CAST($3 AS BIGINT) IS NOT NULL AND CAST($5 AS BIGINT) IS NOT NULL ",
            "AND (CAST($1 AS BIGINT) IS NULL OR n.account_id = $1) ",
            $tail,
            "ORDER BY n.id DESC LIMIT $10"
        )
    };
    ($which:literal, placement, $tail:expr) => {
        select_pins!(
            $which,
            "AND n.id > $4 AND n.id <= $6 AND CAST($3 AS BIGINT) IS NOT NULL AND CAST($5 AS BIGINT) IS NOT NULL ",
            "AND (CAST($1 AS BIGINT) IS NULL OR n.account_id = $1) ",
            $tail,
            "ORDER BY n.id LIMIT $10"
        )
    };
    ($which:literal, placements, $tail:expr) => {
        select_pins!(
            $which,
            "AND p.id >= $3 AND (p.id > $3 OR n.id > $4) AND p.id <= $5 AND (p.id < $5 OR n.id <= $6) ",
            "AND (CAST($1 AS BIGINT) IS NULL OR n.account_id = $1) ",
            $tail,
            "ORDER BY p.id, n.id LIMIT $10"
        )
    };
}

pub(crate) const ENDS: [&str; 6] = per_index!(end_of, "LIMIT 1 OFFSET $5");
pub(crate) const PAGES: [&str; 6] = per_index!(
    page_of,
    "AND (CAST($7 AS TEXT) IS NULL OR p.cluster = $7) AND (CAST($8 AS TEXT) IS NULL OR n.phase = $8) \
     AND (CAST($9 AS TEXT) IS NULL OR (p.state = 'pinning') = ($9 = 'pinning')) \
     AND (CAST($11 AS BIGINT) = 0 OR p.damaged_blocks > 0) "
);

impl AdminPinsFilter {
    /// The position in [`ENDS`] and [`PAGES`] of the index that leaves the fewest rows to scan.
    fn index(&self) -> usize {
        match (self.cid.is_some(), self.is_damaged, self.account.is_some(), self.state) {
            (true, _, _, _) => 4,
            (false, true, _, _) => 5,
            (false, false, true, _) => 0,
            (false, false, false, Some(PinState::Failed)) => 1,
            (false, false, false, Some(PinState::Queued | PinState::Pinning)) => 2,
            (false, false, false, Some(PinState::Pinned | PinState::Unpinned) | None) => 3,
        }
    }

    fn scans_placements(&self) -> bool {
        self.cid.is_some() || self.is_damaged
    }
}

/// The cursor of the page after this pin.
fn cursor_after(pin: &PinRecord) -> AdminPinsCursor {
    AdminPinsCursor { placement: pin.placement.id, pin: pin.id }
}

impl Store {
    /// Up to `limit` pins of any account that match `filter`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_admin_pins(
        &self,
        filter: &AdminPinsFilter,
        after: Option<AdminPinsCursor>,
        limit: u32,
    ) -> Result<AdminPinsList, StoreError> {
        let Some(cid) = filter.cid else { return self.page_of_pins(filter, None, after, limit).await };
        let placements: Vec<i64> =
            statement::query_scalar("SELECT id FROM placements WHERE cid = $1 ORDER BY id")
                .bind(cid.to_string())
                .fetch_all(&self.readers)
                .await?;
        let mut list = AdminPinsList { pins: Vec::new(), next: None };
        for placement in placements.into_iter().map(PlacementId) {
            if after.is_some_and(|cursor| placement < cursor.placement) {
                continue;
            }
            let remaining = limit.saturating_sub(u32::try_from(list.pins.len()).unwrap_or(u32::MAX));
            if remaining == 0 {
                // The next page finds out whether there is more; it can be empty.
                list.next = list.pins.last().map(cursor_after);
                break;
            }
            let after = after.filter(|cursor| cursor.placement == placement);
            let page = self.page_of_pins(filter, Some(placement), after, remaining).await?;
            list.pins.extend(page.pins);
            if page.next.is_some() {
                list.next = page.next;
                break;
            }
        }
        Ok(list)
    }

    /// A page from one index.
    async fn page_of_pins(
        &self,
        filter: &AdminPinsFilter,
        placement: Option<PlacementId>,
        after: Option<AdminPinsCursor>,
        limit: u32,
    ) -> Result<AdminPinsList, StoreError> {
        let is_ascending = filter.scans_placements();
        let (first, far) = if is_ascending { (i64::MIN, i64::MAX) } else { (i64::MAX, i64::MIN) };
        let begin = after.map_or((first, first), |cursor| (cursor.placement.0, cursor.pin.0));
        let (account, placement) = (filter.account.map(|id| id.0), placement.map(|id| id.0));
        let end: Option<(i64, i64)> = statement::query_as(statement::one_of(&ENDS, filter.index()))
            .bind(account)
            .bind(placement)
            .bind(begin.0)
            .bind(begin.1)
            .bind(WINDOW - 1)
            .fetch_optional(&self.readers)
            .await?;
        let up_to = end.unwrap_or((far, far));
        let (phase, work) = phase_of(filter.state);
        let rows: Vec<PinRow> = statement::query_as(statement::one_of(&PAGES, filter.index()))
            .bind(account)
            .bind(placement)
            .bind(begin.0)
            .bind(begin.1)
            .bind(up_to.0)
            .bind(up_to.1)
            .bind(filter.cluster.as_ref().map(ClusterId::as_str))
            .bind(phase)
            .bind(work)
            .bind(i64::from(limit) + 1)
            .bind(i64::from(filter.is_damaged))
            .fetch_all(&self.readers)
            .await?;
        let mut pins = rows.into_iter().map(PinRow::into_record).collect::<Result<Vec<_>, _>>()?;
        let has_more = pins.len() > limit as usize;
        pins.truncate(limit as usize);
        let last = pins.last().map(cursor_after);
        let end = end
            .map(|(placement, pin)| AdminPinsCursor { placement: PlacementId(placement), pin: PinId(pin) });
        Ok(AdminPinsList { pins, next: if has_more { last } else { end } })
    }

    /// The pins of a placement, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn pins_of_placement(
        &self,
        placement: PlacementId,
        limit: u32,
    ) -> Result<Vec<PinRecord>, StoreError> {
        let rows =
            statement::query_as::<PinRow>(select_pins!("WHERE n.placement_id = $1 ORDER BY n.id LIMIT $2"));
        let rows = rows.bind(placement.0).bind(i64::from(limit)).fetch_all(&self.readers).await?;
        rows.into_iter().map(PinRow::into_record).collect()
    }

    /// Removes a pin of any account, even if it is locked. `None` if there is no such pin.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn admin_remove_pin(
        &self,
        pin: PinId,
        by: Actor,
        now: Timestamp,
    ) -> Result<Option<PinRemoval>, StoreError> {
        self.write(RemovePin { pin, by, now, journal: self.journal(), outbox: self.outbox() }).await
    }
}

struct RemovePin {
    pin: PinId,
    by: Actor,
    now: Timestamp,
    journal: Journal,
    outbox: Outbox,
}

impl Write for RemovePin {
    type Out = Option<PinRemoval>;

    async fn run(&self, conn: &mut Conn) -> Result<Option<PinRemoval>, StoreError> {
        let row: Option<RemovalRow> = statement::query_as(concat!(
            "SELECT n.id, n.account_id, n.placement_id, n.charged_bytes, p.cluster, ",
            "CASE WHEN n.phase <> 'failed' THEN n.retain_until_ms END AS locked_until_ms, ",
            watched!("n.account_id"),
            " FROM pins n JOIN placements p ON p.id = n.placement_id WHERE n.id = $1"
        ))
        .bind(self.pin.0)
        .fetch_optional(&mut *conn)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let placement = PlacementId(row.placement_id);
        if row.locked_until(self.now).is_none() {
            let event = ("pin.remove", self.by);
            self.journal.log_pin(conn, event, row.account_id, placement, self.now).await?;
        } else if let Some(placement) = load(conn, placement).await? {
            let cid = placement.cid.to_string();
            log_locked_removal(conn, &self.journal, (&cid, self.by), &row, self.now).await?;
        }
        row.tell(conn, &self.outbox, WebhookEvent::Removed, self.now).await?;
        Ok(Some(end(conn, &row, self.now).await?))
    }
}
