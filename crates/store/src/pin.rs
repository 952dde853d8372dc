//! Pins together with their placements, as readers see them.

use cid::Cid;
use pinfold_model::{
    AccountId, ClusterId, Email, Failure, FailureCode, Lifetime, PinId, PinKind, PinName, PinPhase, PinState,
    PlacementId, PlacementState, Timestamp,
};
use sqlx::FromRow;

use crate::row::{number, strange, time, word};
use crate::{Capacity, Store, StoreError};

/// As far as unsettled placements are counted: whoever asks wants to know whether there is any.
const UNSETTLED_MAX: i64 = 1_000;

/// A placement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementRecord {
    /// Its number.
    pub id: PlacementId,
    /// The root of the DAG.
    pub cid: Cid,
    /// Where it is.
    pub cluster: ClusterId,
    /// How far it is.
    pub state: PlacementState,
    /// When somebody looks at it next.
    pub due_at: Option<Timestamp>,
    /// Whether somebody works on it, as far as the row knows.
    pub leased: bool,
    /// How often it was tried in vain.
    pub attempts: u32,
    /// Why the last try failed.
    pub error: Option<Failure>,
    /// Its distinct blocks, once pinned.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What it is.
    pub kind: PinKind,
    /// How many of its blocks are known to be damaged.
    pub damaged_blocks: u64,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl PlacementRecord {
    /// Whether every block is there, as far as anybody knows.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.state == PlacementState::Pinned && self.damaged_blocks == 0
    }
}

/// A pin with its placement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinRecord {
    /// Its number.
    pub id: PinId,
    /// Whose it is.
    pub account: AccountId,
    /// Where it is.
    pub placement: PlacementRecord,
    /// How it stands.
    pub phase: PinPhase,
    /// What the content was called where it came from.
    pub original_name: Option<PinName>,
    /// What the account calls it.
    pub custom_name: Option<PinName>,
    /// What the account is charged for it.
    pub charged_bytes: u64,
    /// How often it was wished for.
    pub wishes: u64,
    /// Why it failed.
    pub error: Option<Failure>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// Until when nothing may end it but an operator.
    pub retain_until: Option<Timestamp>,
}

impl PinRecord {
    /// Its times.
    #[must_use]
    pub fn lifetime(&self) -> Lifetime {
        Lifetime { expires_at: self.expires_at, retain_until: self.retain_until }
    }

    /// How it stands, as its owner sees it.
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

/// The columns of a [`PlacementRow`], from a table `p`.
macro_rules! placement_columns {
    () => {
        "p.id, p.cid, p.cluster, p.state, p.due_at_ms, p.lease, p.attempts, p.error_code, p.error_detail, p.blocks, \
         p.bytes, p.kind, p.damaged_blocks, p.updated_at_ms"
    };
}
pub(crate) use placement_columns;

/// `SELECT` of pins `n` with their placements `p`, from tables so named.
macro_rules! select_pins_from {
    ($($from:expr),+) => {
        concat!(
            "SELECT n.id AS pin_id, n.account_id, n.phase, n.original_name, n.custom_name, ",
            "n.charged_bytes, n.wishes, n.error_code AS pin_error_code, n.error_detail AS pin_error_detail, ",
            "n.created_at_ms AS pin_created_at_ms, n.expires_at_ms, n.retain_until_ms, ",
            crate::pin::placement_columns!(), " FROM ",
            $($from),+
        )
    };
}
pub(crate) use select_pins_from;

/// `SELECT` of a pin `n` with its placement `p`, with literal tails.
macro_rules! select_pins {
    ($($tail:expr),+) => {
        crate::pin::select_pins_from!("pins n JOIN placements p ON p.id = n.placement_id ", $($tail),+)
    };
}
pub(crate) use select_pins;

/// `SELECT` of a placement, with a literal tail.
macro_rules! select_placements {
    ($tail:literal) => {
        concat!(
            "SELECT id, cid, cluster, state, due_at_ms, lease, attempts, error_code, error_detail, ",
            "blocks, bytes, kind, damaged_blocks, updated_at_ms FROM placements ",
            $tail
        )
    };
}
pub(crate) use select_placements;

#[derive(Debug, FromRow)]
pub(crate) struct PlacementRow {
    id: i64,
    cid: String,
    cluster: String,
    state: String,
    due_at_ms: Option<i64>,
    lease: Option<i64>,
    attempts: i64,
    error_code: Option<String>,
    error_detail: Option<String>,
    blocks: i64,
    bytes: i64,
    kind: String,
    damaged_blocks: i64,
    updated_at_ms: i64,
}

impl PlacementRow {
    pub(crate) fn into_record(self) -> Result<PlacementRecord, StoreError> {
        Ok(PlacementRecord {
            id: PlacementId(self.id),
            cid: Cid::try_from(self.cid.as_str()).map_err(|_| strange("CID", &self.cid))?,
            cluster: ClusterId::parse(&self.cluster).map_err(|_| strange("cluster", &self.cluster))?,
            state: word("state", &self.state)?,
            due_at: time(self.due_at_ms),
            leased: self.lease.is_some(),
            attempts: u32::try_from(self.attempts).unwrap_or(0),
            error: failure(self.error_code.as_deref(), self.error_detail)?,
            blocks: number(self.blocks),
            bytes: number(self.bytes),
            kind: word("kind", &self.kind)?,
            damaged_blocks: number(self.damaged_blocks),
            updated_at: Timestamp::from_ms(self.updated_at_ms),
        })
    }
}

#[derive(Debug, FromRow)]
pub(crate) struct PinRow {
    pin_id: i64,
    account_id: i64,
    phase: String,
    original_name: Option<String>,
    custom_name: Option<String>,
    charged_bytes: i64,
    wishes: i64,
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
            wishes: number(self.wishes),
            error: failure(self.pin_error_code.as_deref(), self.pin_error_detail)?,
            created_at: Timestamp::from_ms(self.pin_created_at_ms),
            expires_at: time(self.expires_at_ms),
            retain_until: time(self.retain_until_ms),
        })
    }
}

fn name(text: Option<String>) -> Result<Option<PinName>, StoreError> {
    text.map(|text| PinName::parse(&text).map_err(|_| strange("name", &text))).transpose()
}

fn failure(code: Option<&str>, detail: Option<String>) -> Result<Option<Failure>, StoreError> {
    let code: Option<FailureCode> = code.map(|code| word("failure", code)).transpose()?;
    Ok(code.map(|code| Failure::new(code, detail.unwrap_or_default())))
}

pub(crate) const NEXT_WORK: &str = "SELECT CASE \
     WHEN $2 > 0 AND EXISTS (SELECT 1 FROM placements WHERE ready = 1 AND state <> 'releasing') \
     THEN CAST($1 AS BIGINT) \
     WHEN $3 > 0 AND EXISTS (SELECT 1 FROM placements WHERE ready = 1 AND state = 'releasing') \
     THEN CAST($1 AS BIGINT) \
     ELSE (SELECT MIN(due_at_ms) FROM placements WHERE ready = 0 AND due_at_ms IS NOT NULL) END";

/// Old placements on their way. With the plus, SQLite takes what is due from its index, not all that is old.
pub(crate) const UNSETTLED: &str = "SELECT COUNT(*) FROM (SELECT 1 FROM placements WHERE due_at_ms IS NOT NULL \
     AND +id <= $1 AND state IN ('queued', 'pinning', 'pinned') LIMIT $2) p";

/// The account's pins of a CID. With the plus, SQLite does not take the order from an index of all that the account has.
pub(crate) const OF_CID: &str = select_pins!(
    "WHERE n.account_id = $1 AND n.placement_id IN (SELECT id FROM placements WHERE cid = $2) \
     ORDER BY +n.id LIMIT 16"
);

/// How many pins of an account are on their way, up to a bound.
pub(crate) const ON_THEIR_WAY: &str =
    "SELECT COUNT(*) FROM (SELECT 1 FROM pins WHERE account_id = $1 AND phase = 'pending' LIMIT $2) w";

/// When a pin ends: at its time, but not while it is locked. The index `pins_expiry` has the same expression.
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
        let query = sqlx::query_as::<_, PinRow>(select_pins!("WHERE n.id = $1")).bind(id.0);
        query.fetch_optional(&self.readers).await?.map(PinRow::into_record).transpose()
    }

    /// The account's pins of this CID, in whichever clusters; at most 16.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn pins_of_cid(&self, account: AccountId, cid: &Cid) -> Result<Vec<PinRecord>, StoreError> {
        let query = sqlx::query_as::<_, PinRow>(OF_CID);
        let rows = query.bind(account.0).bind(cid.to_string()).fetch_all(&self.readers).await?;
        rows.into_iter().map(PinRow::into_record).collect()
    }

    /// The addresses of the accounts that have this CID pinned in this cluster, at most `limit`, the oldest
    /// accounts first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn owners(&self, cid: &Cid, cluster: &ClusterId, limit: u32) -> Result<Vec<Email>, StoreError> {
        let owners: Vec<String> = sqlx::query_scalar(
            "SELECT a.email FROM placements p JOIN pins n ON n.placement_id = p.id \
             JOIN accounts a ON a.id = n.account_id \
             WHERE p.cid = $1 AND p.cluster = $2 AND n.phase = 'active' ORDER BY a.id LIMIT $3",
        )
        .bind(cid.to_string())
        .bind(cluster.as_str())
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        owners.iter().map(|email| Email::parse(email).map_err(|_| strange("e-mail", email))).collect()
    }

    /// The placement of a CID in a cluster.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn placement_of(
        &self,
        cid: &Cid,
        cluster: &ClusterId,
    ) -> Result<Option<PlacementRecord>, StoreError> {
        let query = sqlx::query_as::<_, PlacementRow>(select_placements!("WHERE cid = $1 AND cluster = $2"));
        let row = query.bind(cid.to_string()).bind(cluster.as_str()).fetch_optional(&self.readers).await?;
        row.map(PlacementRow::into_record).transpose()
    }

    /// How many pins of the account are on their way; no more than `limit` are counted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn on_their_way(&self, account: AccountId, limit: u32) -> Result<u32, StoreError> {
        let count: i64 = sqlx::query_scalar(ON_THEIR_WAY)
            .bind(account.0)
            .bind(i64::from(limit))
            .fetch_one(&self.readers)
            .await?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// The placement with this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn placement(&self, id: PlacementId) -> Result<Option<PlacementRecord>, StoreError> {
        let query = sqlx::query_as::<_, PlacementRow>(select_placements!("WHERE id = $1")).bind(id.0);
        query.fetch_optional(&self.readers).await?.map(PlacementRow::into_record).transpose()
    }

    /// Placements in the order of their ids, after `after`: for checks of the whole store.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn placements(
        &self,
        after: Option<PlacementId>,
        limit: u32,
    ) -> Result<Vec<PlacementRecord>, StoreError> {
        let query =
            sqlx::query_as::<_, PlacementRow>(select_placements!("WHERE id > $1 ORDER BY id LIMIT $2"));
        let rows =
            query.bind(after.map_or(-1, |id| id.0)).bind(i64::from(limit)).fetch_all(&self.readers).await?;
        rows.into_iter().map(PlacementRow::into_record).collect()
    }

    /// How many placements that are no younger than `newest` are still on their way to be pinned, or pinned
    /// and to be walked again; at most 1,000 are counted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unsettled(&self, newest: PlacementId) -> Result<u64, StoreError> {
        let query = sqlx::query_scalar(UNSETTLED).bind(newest.0).bind(UNSETTLED_MAX);
        let count: i64 = query.fetch_one(&self.readers).await?;
        Ok(number(count))
    }

    /// The youngest placement.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn newest_placement(&self) -> Result<Option<PlacementId>, StoreError> {
        let id: Option<i64> =
            sqlx::query_scalar("SELECT MAX(id) FROM placements").fetch_one(&self.readers).await?;
        Ok(id.map(PlacementId))
    }

    /// When the next placement is due: `now` if one is in the queue. Also what is in work is due: when its lease
    /// ends.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next_work(&self, now: Timestamp, hands: Capacity) -> Result<Option<Timestamp>, StoreError> {
        let query = sqlx::query_scalar(NEXT_WORK).bind(now.as_ms());
        let query = query.bind(i64::from(hands.pins)).bind(i64::from(hands.releases));
        let due: Option<i64> = query.fetch_one(&self.readers).await?;
        Ok(time(due))
    }

    /// When the next pin ends by itself.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next_expiry(&self) -> Result<Option<Timestamp>, StoreError> {
        let expiry: Option<i64> = sqlx::query_scalar(NEXT_EXPIRY).fetch_one(&self.readers).await?;
        Ok(time(expiry))
    }
}
