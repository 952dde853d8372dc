//! Lists of an account's pins, newest first.
//!
//! Ids increase with time, so every page is a range of the index `pins_list`. The total of a list without a filter is
//! stored in the account's row. With a filter the pins are counted.

use cid::Cid;
use pinfold_model::{AccountId, ClusterId, PinId, PinState};

use crate::db::row::number;
use crate::db::statement;
use crate::db::write_queue::Conn;
use crate::pins::record::{PinRow, select_pins};
use crate::{PinRecord, Store, StoreError};

/// Selects pins by all of the given conditions.
#[derive(Debug, Clone, Default)]
pub struct PinFilter {
    pub cid: Option<Cid>,
    /// Text in a name or in the CID. The case of ASCII letters is ignored.
    pub search: Option<String>,
    pub state: Option<PinState>,
    pub cluster: Option<ClusterId>,
    /// Whether the pin expires.
    pub has_expiry: Option<bool>,
}

/// A page of pins.
#[derive(Debug, Clone)]
pub struct PinList {
    pub pins: Vec<PinRecord>,
    /// The number of pins that match the filter.
    pub total: u64,
}

/// The condition of all lists. `$1` is the account and `$2` to `$7` the filter; `$cid` is the condition on the CID.
macro_rules! matching {
    ($cid:literal) => {
        concat!(
            "WHERE n.account_id = $1 AND ",
            $cid,
            " \
         AND (CAST($3 AS TEXT) IS NULL OR p.cluster = $3) \
         AND (CAST($4 AS TEXT) IS NULL OR n.phase = $4) \
         AND (CAST($5 AS TEXT) IS NULL OR (p.state = 'pinning') = ($5 = 'pinning')) \
         AND (CAST($6 AS BIGINT) IS NULL OR (n.expires_at_ms IS NOT NULL) = ($6 = 1)) \
         AND (CAST($7 AS TEXT) IS NULL OR LOWER(n.custom_name) LIKE $7 ESCAPE '!' \
         OR LOWER(n.original_name) LIKE $7 ESCAPE '!' OR LOWER(p.cid) LIKE $7 ESCAPE '!') "
        )
    };
}

/// Expands `$select` for any CID and for one CID. The latter starts from the few pins of the CID instead of scanning
/// all pins of the account.
macro_rules! per_cid {
    ($select:ident) => {
        [
            $select!("CAST($2 AS TEXT) IS NULL", "n.id"),
            $select!("n.placement_id IN (SELECT id FROM placements WHERE cid = $2)", "+n.id"),
        ]
    };
}

macro_rules! page {
    ($cid:literal, $id:literal) => {
        select_pins!(matching!($cid), "AND ", $id, " < $8 ORDER BY ", $id, " DESC LIMIT $9 OFFSET $10")
    };
}

macro_rules! total {
    ($cid:literal, $id:literal) => {
        concat!("SELECT COUNT(*) FROM pins n JOIN placements p ON p.id = n.placement_id ", matching!($cid))
    };
}

/// The queries for pages and for totals, each for any CID and for one.
pub(crate) const PAGES: [&str; 2] = per_cid!(page);
pub(crate) const TOTALS: [&str; 2] = per_cid!(total);

impl PinFilter {
    /// Whether the query scans all pins of the account.
    fn is_search(&self) -> bool {
        self.cid.is_none() && !self.is_empty()
    }

    fn is_empty(&self) -> bool {
        let Self { cid, search, state, cluster, has_expiry } = self;
        cid.is_none() && search.is_none() && state.is_none() && cluster.is_none() && has_expiry.is_none()
    }
}

/// The phase of pins in a state and, for pending pins, the state of their placement.
pub(crate) fn phase_of(state: Option<PinState>) -> (Option<&'static str>, Option<&'static str>) {
    match state {
        None => (None, None),
        Some(PinState::Queued) => (Some("pending"), Some("queued")),
        Some(PinState::Pinning) => (Some("pending"), Some("pinning")),
        Some(PinState::Pinned) => (Some("active"), None),
        Some(PinState::Failed) => (Some("failed"), None),
        Some(PinState::Unpinned) => (Some("none"), None),
    }
}

/// The pattern of `LIKE … ESCAPE '!'` that matches texts that contain `text`.
pub(crate) fn pattern(text: &str) -> String {
    let plain = text.to_ascii_lowercase().replace('!', "!!").replace('%', "!%").replace('_', "!_");
    format!("%{plain}%")
}

impl Store {
    /// Up to `limit` pins of the account that match `filter` and are older than `before`, newest first, without the
    /// first `skip`. Pins and total are read in one snapshot, so that they agree.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_pins(
        &self,
        account: AccountId,
        filter: &PinFilter,
        before: Option<PinId>,
        skip: u64,
        limit: u32,
    ) -> Result<PinList, StoreError> {
        let (phase, work) = phase_of(filter.state);
        let mut snapshot = if filter.is_search() { &self.searchers } else { &self.readers }.begin().await?;
        let rows =
            statement::query_as::<PinRow>(statement::one_of(&PAGES, usize::from(filter.cid.is_some())))
                .bind(account.0)
                .bind(filter.cid.map(|cid| cid.to_string()))
                .bind(filter.cluster.as_ref().map(ClusterId::as_str))
                .bind(phase)
                .bind(work)
                .bind(filter.has_expiry.map(i64::from))
                .bind(filter.search.as_deref().map(pattern))
                .bind(before.map_or(i64::MAX, |id| id.0))
                .bind(i64::from(limit))
                .bind(crate::db::row::column(skip))
                .fetch_all(&mut *snapshot)
                .await?;
        let total = filter.count(&mut snapshot, account).await?;
        snapshot.commit().await?;
        let pins = rows.into_iter().map(PinRow::into_record).collect::<Result<_, _>>()?;
        Ok(PinList { pins, total })
    }
}

impl PinFilter {
    /// The number of pins of the account that match.
    async fn count(&self, conn: &mut Conn, account: AccountId) -> Result<u64, StoreError> {
        if self.is_empty() {
            let query = statement::query_scalar("SELECT pin_count FROM accounts WHERE id = $1");
            let count: Option<i64> = query.bind(account.0).fetch_optional(conn).await?;
            return Ok(number(count.unwrap_or(0)));
        }
        let (phase, work) = phase_of(self.state);
        let count: i64 = statement::query_scalar(statement::one_of(&TOTALS, usize::from(self.cid.is_some())))
            .bind(account.0)
            .bind(self.cid.map(|cid| cid.to_string()))
            .bind(self.cluster.as_ref().map(ClusterId::as_str))
            .bind(phase)
            .bind(work)
            .bind(self.has_expiry.map(i64::from))
            .bind(self.search.as_deref().map(pattern))
            .fetch_one(conn)
            .await?;
        Ok(number(count))
    }
}
