//! Removes pins: on request of the owner, when the client that waited for the pin gives it up, and on expiry. A locked
//! pin is not removed in any of these ways; only an operator can remove it.

use std::collections::BTreeMap;
use std::slice;

use cid::Cid;
use pinfold_model::{
    AccountId, Actor, AuditEvent, ClusterId, Details, Lifetime, PinId, PlacementId, Timestamp, WebhookEvent,
};
use sqlx::{FromRow, QueryBuilder};

use crate::accounts::quota;
use crate::audit::Journal;
use crate::db::row::{LIST_MAX, number, push_list, time, unknown_value};
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::pins::record::ends_at;
use crate::placements::release::release_unreferenced;
use crate::statistics::subtract_pins;
use crate::webhooks::outbox::{Outbox, watched};
use crate::{Store, StoreError};

/// The result of [`Store::remove_pin`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovePinOutcome {
    Done(PinRemoval),
    NotFound,
    /// The account has pins of the CID in several clusters, and the request names none.
    Ambiguous,
    Locked {
        until: Timestamp,
    },
}

/// A pin that was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinRemoval {
    pub placement: PlacementId,
    /// Whether a worker has to release the placement now.
    pub work: bool,
}

#[derive(Debug, FromRow)]
pub(crate) struct RemovalRow {
    pub(crate) id: i64,
    pub(crate) account_id: i64,
    pub(crate) placement_id: i64,
    charged_bytes: i64,
    /// 1 if the account has an active webhook.
    watched: i64,
    /// When the lock ends or removed. `None` if the pin was never locked, or has failed: failed pins have no lock.
    #[sqlx(default)]
    locked_until_ms: Option<i64>,
    #[sqlx(default)]
    cluster: String,
}

/// The account's pins of a CID. SQLite evaluates a CROSS JOIN from left to right. It starts from the few pins of the
/// CID instead of scanning all pins of the account.
pub(crate) const FIND: &str = concat!(
    "SELECT n.id, n.account_id, n.placement_id, n.charged_bytes, p.cluster, ",
    "CASE WHEN n.phase <> 'failed' THEN n.retain_until_ms END AS locked_until_ms, ",
    watched!("n.account_id"),
    " FROM placements p CROSS JOIN pins n WHERE n.placement_id = p.id AND n.account_id = $1 AND p.cid = $2 ",
    "AND (CAST($3 AS TEXT) IS NULL OR p.cluster = $3) LIMIT 2"
);

impl RemovalRow {
    /// The account's pins of a CID, at most two.
    pub(crate) async fn find(
        conn: &mut Conn,
        account: AccountId,
        cid: &str,
        cluster: Option<&str>,
    ) -> Result<Vec<Self>, StoreError> {
        let rows = statement::query_as(FIND);
        Ok(rows.bind(account.0).bind(cid).bind(cluster).fetch_all(conn).await?)
    }

    /// Records an event for the webhooks of the account. The row of the pin must still exist.
    pub(crate) async fn tell(
        &self,
        conn: &mut Conn,
        outbox: &Outbox,
        event: WebhookEvent,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if self.watched != 0 { outbox.record(conn, event, self.id, now).await } else { Ok(()) }
    }

    /// The cluster of a row from [`find`](Self::find).
    pub(crate) fn cluster(&self) -> Result<ClusterId, StoreError> {
        ClusterId::parse(&self.cluster).map_err(|_| unknown_value("cluster", &self.cluster))
    }

    pub(crate) fn locked_until(&self, now: Timestamp) -> Option<Timestamp> {
        let retain_until = time(self.locked_until_ms);
        Lifetime { expires_at: None, retain_until }.locked_until(now)
    }
}

impl Store {
    /// Removes the account's pin of this CID on behalf of `by`, unless it is locked.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove_pin(
        &self,
        account: AccountId,
        cid: &Cid,
        cluster: Option<&ClusterId>,
        by: Actor,
        now: Timestamp,
    ) -> Result<RemovePinOutcome, StoreError> {
        let cluster = cluster.map(|cluster| cluster.as_str().to_owned());
        let (journal, outbox, cid) = (self.journal(), self.outbox(), cid.to_string());
        self.write(Remove { account, cid, cluster, by, now, journal, outbox }).await
    }

    /// Removes a pending or failed pin, unless it is locked or was requested again since `request_count`. For a client
    /// that waited for the pin and got an error.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cancel_pin(
        &self,
        pin: PinId,
        request_count: u64,
        now: Timestamp,
    ) -> Result<Option<PinRemoval>, StoreError> {
        self.write(CancelPin { pin, request_count, now }).await
    }

    /// Removes up to `limit` expired pins, those that expired first before the others.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn expire_pins(&self, now: Timestamp, limit: u32) -> Result<Vec<PinRemoval>, StoreError> {
        self.write(Expire { now, limit, journal: self.journal(), outbox: self.outbox() }).await
    }
}

/// Removes a pin.
pub(crate) async fn end(conn: &mut Conn, row: &RemovalRow, now: Timestamp) -> Result<PinRemoval, StoreError> {
    let mut removed = delete_rows(conn, slice::from_ref(row), now).await?;
    removed.pop().ok_or_else(|| unknown_value("pin", &row.id.to_string()))
}

/// Removes pins, records `event` for their webhooks and `action` in the audit log.
pub(crate) async fn remove_rows(
    conn: &mut Conn,
    rows: &[RemovalRow],
    (journal, outbox): (&Journal, &Outbox),
    (event, action): (WebhookEvent, (&'static str, Actor)),
    now: Timestamp,
) -> Result<Vec<PinRemoval>, StoreError> {
    let mut removed = Vec::with_capacity(rows.len());
    for rows in rows.chunks(LIST_MAX) {
        for row in rows {
            row.tell(conn, outbox, event, now).await?;
        }
        let pins: Vec<_> = rows.iter().map(|row| (row.account_id, row.placement_id)).collect();
        journal.log_pins(conn, action, &pins, now).await?;
        removed.extend(delete_rows(conn, rows, now).await?);
    }
    Ok(removed)
}

/// Deletes the rows of pins, updates the usage of each account once, and releases placements that no pin needs any
/// more.
async fn delete_rows(
    conn: &mut Conn,
    rows: &[RemovalRow],
    now: Timestamp,
) -> Result<Vec<PinRemoval>, StoreError> {
    let pins: Vec<i64> = rows.iter().map(|row| row.id).collect();
    subtract_pins(conn, &pins).await?;
    let mut delete = QueryBuilder::new("DELETE FROM pins WHERE id IN ");
    statement::build(push_list(&mut delete, &pins)).execute(&mut *conn).await?;
    let mut charges: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
    for row in rows {
        let (pins, bytes) = charges.entry(row.account_id).or_default();
        *pins += 1;
        *bytes += number(row.charged_bytes);
    }
    for (account, (pins, bytes)) in charges {
        quota::remove_pins(conn, AccountId(account), pins, bytes).await?;
    }
    let placements: Vec<i64> = rows.iter().map(|row| row.placement_id).collect();
    let work = release_unreferenced(conn, &placements, now).await?;
    Ok(placements
        .iter()
        .map(|id| PinRemoval { placement: PlacementId(*id), work: work.contains(id) })
        .collect())
}

struct Remove {
    account: AccountId,
    cid: String,
    cluster: Option<String>,
    by: Actor,
    now: Timestamp,
    journal: Journal,
    outbox: Outbox,
}

impl Write for Remove {
    type Out = RemovePinOutcome;

    async fn run(&self, conn: &mut Conn) -> Result<RemovePinOutcome, StoreError> {
        let rows = RemovalRow::find(conn, self.account, &self.cid, self.cluster.as_deref()).await?;
        let row = match rows.as_slice() {
            [] => return Ok(RemovePinOutcome::NotFound),
            [row] => row,
            _ => return Ok(RemovePinOutcome::Ambiguous),
        };
        if let Some(until) = row.locked_until(self.now) {
            return Ok(RemovePinOutcome::Locked { until });
        }
        let (action, placement) = (("pin.remove", self.by), PlacementId(row.placement_id));
        self.journal.log_pin(conn, action, row.account_id, placement, self.now).await?;
        row.tell(conn, &self.outbox, WebhookEvent::Removed, self.now).await?;
        Ok(RemovePinOutcome::Done(end(conn, row, self.now).await?))
    }
}

/// Logs the removal of a locked pin by an administrator, both for the owner of the pin and for the administrator.
pub(crate) async fn log_locked_removal(
    conn: &mut Conn,
    journal: &Journal,
    (cid, by): (&str, Actor),
    row: &RemovalRow,
    now: Timestamp,
) -> Result<(), StoreError> {
    let owner = AccountId(row.account_id);
    let details = Details::default()
        .with("cluster", &row.cluster)
        .with("owner", owner)
        .with_some("retainUntil", row.locked_until(now));
    let actor = by.actor.filter(|actor| *actor != owner);
    for account in [Some(owner), actor].into_iter().flatten() {
        let event = AuditEvent::new(account, by, "pin.remove_locked", cid);
        journal.log(conn, &event.with(details.clone()), now).await?;
    }
    Ok(())
}

struct CancelPin {
    pin: PinId,
    request_count: u64,
    now: Timestamp,
}

impl Write for CancelPin {
    type Out = Option<PinRemoval>;

    async fn run(&self, conn: &mut Conn) -> Result<Option<PinRemoval>, StoreError> {
        let row: Option<RemovalRow> = statement::query_as(
            "SELECT id, account_id, placement_id, charged_bytes, CAST(0 AS BIGINT) AS watched FROM pins \
             WHERE id = $1 AND request_count = $2 AND phase <> 'active' \
             AND (phase = 'failed' OR retain_until_ms IS NULL OR retain_until_ms <= $3)",
        )
        .bind(self.pin.0)
        .bind(crate::db::row::column(self.request_count))
        .bind(self.now.as_ms())
        .fetch_optional(&mut *conn)
        .await?;
        match row {
            Some(row) => Ok(Some(end(conn, &row, self.now).await?)),
            None => Ok(None),
        }
    }
}

struct Expire {
    now: Timestamp,
    limit: u32,
    journal: Journal,
    outbox: Outbox,
}

/// Selects expired pins, those that expired first before the others.
pub(crate) const SELECT_DUE: &str = concat!(
    "SELECT id, account_id, placement_id, charged_bytes, ",
    watched!("n.account_id"),
    " FROM pins n WHERE expires_at_ms IS NOT NULL AND ",
    ends_at!(),
    " <= $1 ORDER BY ",
    ends_at!(),
    ", id LIMIT $2"
);

impl Write for Expire {
    type Out = Vec<PinRemoval>;

    async fn run(&self, conn: &mut Conn) -> Result<Vec<PinRemoval>, StoreError> {
        let rows = statement::query_as(SELECT_DUE).bind(self.now.as_ms()).bind(i64::from(self.limit));
        let rows: Vec<RemovalRow> = rows.fetch_all(&mut *conn).await?;
        let what = (WebhookEvent::Expired, ("pin.expire", Actor::SYSTEM));
        remove_rows(conn, &rows, (&self.journal, &self.outbox), what, self.now).await
    }
}
