//! Pins with their placements: the record that readers get, and the queries for single pins.

use cid::Cid;
use pinfold_model::{
    AccountId, ClusterId, Email, Failure, Lifetime, PinId, PinName, PinPhase, PinState, PlacementState,
    Timestamp,
};
use sqlx::FromRow;

use crate::db::row::{number, time, unknown_value, word};
use crate::db::statement;
use crate::placements::record::{PlacementRecord, PlacementRow, failure};
use crate::{Store, StoreError};

/// A pin with its placement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinRecord {
    pub id: PinId,
    pub account: AccountId,
    pub placement: PlacementRecord,
    pub phase: PinPhase,
    /// The name of the content at its source.
    pub original_name: Option<PinName>,
    /// The name that the account gave the pin.
    pub custom_name: Option<PinName>,
    pub charged_bytes: u64,
    /// The number of requests that created or updated the pin.
    pub request_count: u64,
    /// Why the pin failed.
    pub error: Option<Failure>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    /// Until this time only an operator can remove the pin.
    pub retain_until: Option<Timestamp>,
}

impl PinRecord {
    /// When the pin expires and until when it is locked.
    #[must_use]
    pub fn lifetime(&self) -> Lifetime {
        Lifetime { expires_at: self.expires_at, retain_until: self.retain_until }
    }

    /// The state of the pin as its owner sees it.
    #[must_use]
    pub fn state(&self) -> PinState {
        match self.phase {
            PinPhase::Active => PinState::Pinned,
            PinPhase::Failed => PinState::Failed,
            PinPhase::Pending if self.placement.state == PlacementState::Pinning => PinState::Pinning,
            PinPhase::Pending => PinState::Queued,
        }
    }
}

/// A `SELECT` of pins `n` with their placements `p`. The tables follow as literals.
macro_rules! select_pins_from {
    ($($from:expr),+) => {
        concat!(
            "SELECT n.id AS pin_id, n.account_id, n.phase, n.original_name, n.custom_name, ",
            "n.charged_bytes, n.request_count, n.error_code AS pin_error_code, n.error_detail AS pin_error_detail, ",
            "n.created_at_ms AS pin_created_at_ms, n.expires_at_ms, n.retain_until_ms, ",
            crate::placements::record::placement_columns!(), " FROM ",
            $($from),+
        )
    };
}
pub(crate) use select_pins_from;

/// A `SELECT` of pins `n` with their placements `p`, followed by literal tails.
macro_rules! select_pins {
    ($($tail:expr),+) => {
        crate::pins::record::select_pins_from!("pins n JOIN placements p ON p.id = n.placement_id ", $($tail),+)
    };
}
pub(crate) use select_pins;

#[derive(Debug, FromRow)]
pub(crate) struct PinRow {
    pin_id: i64,
    account_id: i64,
    phase: String,
    original_name: Option<String>,
    custom_name: Option<String>,
    charged_bytes: i64,
    request_count: i64,
    pin_error_code: Option<String>,
    pin_error_detail: Option<String>,
    pin_created_at_ms: i64,
    expires_at_ms: Option<i64>,
    retain_until_ms: Option<i64>,
    #[sqlx(flatten)]
    placement: PlacementRow,
}

impl PinRow {
    pub(crate) fn into_record(self) -> Result<PinRecord, StoreError> {
        Ok(PinRecord {
            id: PinId(self.pin_id),
            account: AccountId(self.account_id),
            placement: self.placement.into_record()?,
            phase: word("phase", &self.phase)?,
            original_name: name(self.original_name)?,
            custom_name: name(self.custom_name)?,
            charged_bytes: number(self.charged_bytes),
            request_count: number(self.request_count),
            error: failure(self.pin_error_code.as_deref(), self.pin_error_detail)?,
            created_at: Timestamp::from_ms(self.pin_created_at_ms),
            expires_at: time(self.expires_at_ms),
            retain_until: time(self.retain_until_ms),
        })
    }
}

fn name(text: Option<String>) -> Result<Option<PinName>, StoreError> {
    text.map(|text| PinName::parse(&text).map_err(|_| unknown_value("name", &text))).transpose()
}

/// The account's pins of a CID. The plus keeps SQLite from using an index over all pins of the account for the order.
pub(crate) const OF_CID: &str = select_pins!(
    "WHERE n.account_id = $1 AND n.placement_id IN (SELECT id FROM placements WHERE cid = $2) \
     ORDER BY +n.id LIMIT 16"
);

/// Counts the pins of an account that are in flight, up to a bound.
pub(crate) const IN_FLIGHT: &str =
    "SELECT COUNT(*) FROM (SELECT 1 FROM pins WHERE account_id = $1 AND phase = 'pending' LIMIT $2) w";

/// When a pin expires: at its expiry time, or at the end of its lock if that is later. The index `pins_expiry` has the
/// same expression.
macro_rules! ends_at {
    () => {
        "CASE WHEN retain_until_ms > expires_at_ms THEN retain_until_ms ELSE expires_at_ms END"
    };
}
pub(crate) use ends_at;

pub(crate) const NEXT_EXPIRY: &str =
    concat!("SELECT MIN(", ends_at!(), ") FROM pins WHERE expires_at_ms IS NOT NULL");

impl Store {
    /// The pin with this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn pin(&self, id: PinId) -> Result<Option<PinRecord>, StoreError> {
        let query = statement::query_as::<PinRow>(select_pins!("WHERE n.id = $1")).bind(id.0);
        query.fetch_optional(&self.readers).await?.map(PinRow::into_record).transpose()
    }

    /// The account's pins of this CID in all clusters, at most 16.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn pins_of_cid(&self, account: AccountId, cid: &Cid) -> Result<Vec<PinRecord>, StoreError> {
        let query = statement::query_as::<PinRow>(OF_CID);
        let rows = query.bind(account.0).bind(cid.to_string()).fetch_all(&self.readers).await?;
        rows.into_iter().map(PinRow::into_record).collect()
    }

    /// The e-mail addresses of the accounts that have this CID pinned in this cluster, oldest accounts first, at most
    /// `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn owner_emails(
        &self,
        cid: &Cid,
        cluster: &ClusterId,
        limit: u32,
    ) -> Result<Vec<Email>, StoreError> {
        let owners: Vec<String> = statement::query_scalar(
            "SELECT a.email FROM placements p JOIN pins n ON n.placement_id = p.id \
             JOIN accounts a ON a.id = n.account_id \
             WHERE p.cid = $1 AND p.cluster = $2 AND n.phase = 'active' ORDER BY a.id LIMIT $3",
        )
        .bind(cid.to_string())
        .bind(cluster.as_str())
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        owners.iter().map(|email| Email::parse(email).map_err(|_| unknown_value("e-mail", email))).collect()
    }

    /// The number of the account's pins that are in flight. Stops counting at `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn count_in_flight(&self, account: AccountId, limit: u32) -> Result<u32, StoreError> {
        let count: i64 = statement::query_scalar(IN_FLIGHT)
            .bind(account.0)
            .bind(i64::from(limit))
            .fetch_one(&self.readers)
            .await?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// When the next pin expires. `None` if no pin does.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next_expiry(&self) -> Result<Option<Timestamp>, StoreError> {
        let expiry: Option<i64> = statement::query_scalar(NEXT_EXPIRY).fetch_one(&self.readers).await?;
        Ok(time(expiry))
    }
}
