//! Lists of an account's pins, newest first.
//!
//! Ids grow with time, so a page is a range of the index `pins_list`, wherever it begins. The total of a list
//! without a filter is kept in the account's row; with a filter it is counted.

use cid::Cid;
use pinfold_model::{AccountId, ClusterId, PinId, PinState};

use crate::db::row::number;
use crate::db::statement;
use crate::db::write_queue::Conn;
use crate::pins::record::{PinRow, select_pins};
use crate::{PinRecord, Store, StoreError};

/// Which pins.
#[derive(Debug, Clone, Default)]
pub struct PinFilter {
    /// Of this CID.
    pub cid: Option<Cid>,
    /// With this text in a name or the CID, in any case (of ASCII letters).
    pub search: Option<String>,
    /// In this state.
    pub state: Option<PinState>,
    /// In this cluster.
    pub cluster: Option<ClusterId>,
    /// With an end, or without.
    pub has_expiry: Option<bool>,
}

/// A page of pins.
#[derive(Debug, Clone)]
pub struct PinList {
    /// The pins.
    pub pins: Vec<PinRecord>,
    /// How many match altogether.
    pub total: u64,
}

/// The condition that all lists share; `$1` is the account, `$2` to `$7` the filter, of which `$cid` tells how it takes
/// the CID.
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

/// Whatever CID they have; of one CID: from it to its few pins, not through all that the account has.
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

/// Pages, and how many pins there are, of all CIDs and of one.
pub(crate) const PAGES: [&str; 2] = per_cid!(page);
pub(crate) const TOTALS: [&str; 2] = per_cid!(total);

impl PinFilter {
    /// Whether all pins of the account have to be looked through.
    fn is_search(&self) -> bool {
        self.cid.is_none() && !self.is_empty()
    }

    fn is_empty(&self) -> bool {
        let Self { cid, search, state, cluster, has_expiry } = self;
        cid.is_none() && search.is_none() && state.is_none() && cluster.is_none() && has_expiry.is_none()
    }
}

/// The phase that a state means, and for waiting pins whether the placement is in work.
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

/// What `LIKE … ESCAPE '!'` finds texts by that have this one in them.
pub(crate) fn pattern(text: &str) -> String {
    let plain = text.to_ascii_lowercase().replace('!', "!!").replace('%', "!%").replace('_', "!_");
    format!("%{plain}%")
}

impl Store {
    /// Up to `limit` pins of the account that match, newest first: those older than `before`, then without
    /// the first `skip`. They and their total are those of one moment, so that the total is what can be listed.
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
        let mut moment = if filter.is_search() { &self.searchers } else { &self.readers }.begin().await?;
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
                .fetch_all(&mut *moment)
                .await?;
        let total = filter.count(&mut moment, account).await?;
        moment.commit().await?;
        let pins = rows.into_iter().map(PinRow::into_record).collect::<Result<_, _>>()?;
        Ok(PinList { pins, total })
    }
}

impl PinFilter {
    /// How many pins of the account match.
    async fn count(&self, conn: &mut Conn, account: AccountId) -> Result<u64, StoreError> {
        if self.is_empty() {
            let kept = statement::query_scalar("SELECT pin_count FROM accounts WHERE id = $1");
            let count: Option<i64> = kept.bind(account.0).fetch_optional(conn).await?;
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
