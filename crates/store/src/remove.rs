//! How pins end: removed by their owner, given up by who waited for them, or due. A pin that is locked ends in none of
//! these ways; only an operator can remove it.

use std::collections::BTreeMap;

use cid::Cid;
use pinfold_model::{AccountId, By, ClusterId, Details, HookEvent, Lifetime, PinId, PlacementId, Timestamp};
use sqlx::FromRow;

use crate::audit::{Act, Journal};
use crate::outbox::{Outbox, watched};
use crate::pin::ends_at;
use crate::placement::let_go;
use crate::row::{number, strange, time};
use crate::writer::{Conn, Write};
use crate::{Store, StoreError, charge, sums};

/// What came of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It is gone.
    Done(Ended),
    /// The account has no such pin.
    NotFound,
    /// The account has several; one cluster must be named.
    Ambiguous,
    /// It is locked.
    Locked {
        /// Until when.
        until: Timestamp,
    },
}

/// A pin that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Where it was.
    pub placement: PlacementId,
    /// Whether the placement has to be released now.
    pub work: bool,
}

#[derive(Debug, FromRow)]
pub(crate) struct EndingRow {
    pub(crate) id: i64,
    pub(crate) account_id: i64,
    pub(crate) placement_id: i64,
    charged_bytes: i64,
    /// 1 if a webhook watches it.
    watched: i64,
    /// Until when it is locked, if it ever was. What has failed promises nothing.
    #[sqlx(default)]
    locked_until_ms: Option<i64>,
    #[sqlx(default)]
    cluster: String,
}

/// The account's pins of a CID. SQLite takes a CROSS JOIN from left to right: from the CID to its few pins, not
/// through all that the account has.
pub(crate) const FIND: &str = concat!(
    "SELECT n.id, n.account_id, n.placement_id, n.charged_bytes, p.cluster, ",
    "CASE WHEN n.standing <> 'failed' THEN n.retain_until_ms END AS locked_until_ms, ",
    watched!(),
    " FROM placements p CROSS JOIN pins n WHERE n.placement_id = p.id AND n.account_id = $1 AND p.cid = $2 ",
    "AND (CAST($3 AS TEXT) IS NULL OR p.cluster = $3) LIMIT 2"
);

impl EndingRow {
    /// The account's pins of a CID: none, the one, or two of several.
    pub(crate) async fn find(
        conn: &mut Conn,
        account: AccountId,
        cid: &str,
        cluster: Option<&str>,
    ) -> Result<Vec<Self>, StoreError> {
        let rows = sqlx::query_as(FIND);
        Ok(rows.bind(account.0).bind(cid).bind(cluster).fetch_all(conn).await?)
    }

    /// Writes what happens to it for the webhooks that watch it. Its row must still be there.
    pub(crate) async fn tell(
        &self,
        conn: &mut Conn,
        outbox: &Outbox,
        event: HookEvent,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if self.watched != 0 { outbox.happened(conn, event, self.id, now).await } else { Ok(()) }
    }

    /// Where it is, if it was [found](Self::find).
    pub(crate) fn cluster(&self) -> Result<ClusterId, StoreError> {
        ClusterId::parse(&self.cluster).map_err(|_| strange("cluster", &self.cluster))
    }

    pub(crate) fn locked_until(&self, now: Timestamp) -> Option<Timestamp> {
        let retain_until = time(self.locked_until_ms);
        Lifetime { expires_at: None, retain_until }.locked_until(now)
    }
}

impl Store {
    /// Removes the account's pin of this CID, as `by` wants, unless it is locked.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove(
        &self,
        account: AccountId,
        cid: &Cid,
        cluster: Option<&ClusterId>,
        by: By,
        now: Timestamp,
    ) -> Result<Removed, StoreError> {
        let cluster = cluster.map(|cluster| cluster.as_str().to_owned());
        let (journal, outbox, cid) = (self.journal(), self.outbox(), cid.to_string());
        self.write(Remove { account, cid, cluster, by, now, journal, outbox, opens_locks: false }).await
    }

    /// Removes the account's pin of this CID, locked or not, because an administrator said so. That is logged for both.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove_locked(
        &self,
        account: AccountId,
        cid: &Cid,
        cluster: Option<&ClusterId>,
        by: By,
        now: Timestamp,
    ) -> Result<Removed, StoreError> {
        let cluster = cluster.map(|cluster| cluster.as_str().to_owned());
        let (journal, outbox, cid) = (self.journal(), self.outbox(), cid.to_string());
        self.write(Remove { account, cid, cluster, by, now, journal, outbox, opens_locks: true }).await
    }

    /// Removes a pin that is not kept, unless it is locked or was wished for again since `wishes`. For those who waited
    /// for it and were told that it failed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn abandon(
        &self,
        pin: PinId,
        wishes: u64,
        now: Timestamp,
    ) -> Result<Option<Ended>, StoreError> {
        self.write(Abandon { pin, wishes, now }).await
    }

    /// Removes up to `limit` pins whose time has come, the longest due first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn expire(&self, now: Timestamp, limit: u32) -> Result<Vec<Ended>, StoreError> {
        self.write(Expire { now, limit, journal: self.journal(), outbox: self.outbox() }).await
    }
}

/// Ends a pin.
pub(crate) async fn end(conn: &mut Conn, row: &EndingRow, now: Timestamp) -> Result<Ended, StoreError> {
    sums::without_pin(conn, row.id).await?;
    sqlx::query("DELETE FROM pins WHERE id = $1").bind(row.id).execute(&mut *conn).await?;
    charge::remove_pins(conn, AccountId(row.account_id), 1, number(row.charged_bytes)).await?;
    let placement = PlacementId(row.placement_id);
    let work = let_go(conn, placement, now).await?;
    Ok(Ended { placement, work })
}

/// Ends many pins, as their owner wants.
pub(crate) async fn end_all(
    conn: &mut Conn,
    rows: &[EndingRow],
    (journal, outbox): (&Journal, &Outbox),
    by: By,
    now: Timestamp,
) -> Result<Vec<Ended>, StoreError> {
    for row in rows {
        sums::without_pin(conn, row.id).await?;
        row.tell(conn, outbox, HookEvent::Removed, now).await?;
        sqlx::query("DELETE FROM pins WHERE id = $1").bind(row.id).execute(&mut *conn).await?;
    }
    settle_ended(conn, rows, journal, ("pin.remove", by), now).await
}

/// Takes pins whose rows are gone out of the books, each account once, and lets go of what they wanted.
async fn settle_ended(
    conn: &mut Conn,
    rows: &[EndingRow],
    journal: &Journal,
    act: (&'static str, By),
    now: Timestamp,
) -> Result<Vec<Ended>, StoreError> {
    let mut charges: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
    for row in rows {
        let (pins, bytes) = charges.entry(row.account_id).or_default();
        *pins += 1;
        *bytes += number(row.charged_bytes);
    }
    for (account, (pins, bytes)) in charges {
        charge::remove_pins(conn, AccountId(account), pins, bytes).await?;
    }
    let mut ended = Vec::with_capacity(rows.len());
    for row in rows {
        let placement = PlacementId(row.placement_id);
        journal.log_pin(conn, act, row.account_id, placement, now).await?;
        ended.push(Ended { placement, work: let_go(conn, placement, now).await? });
    }
    Ok(ended)
}

struct Remove {
    account: AccountId,
    cid: String,
    cluster: Option<String>,
    by: By,
    now: Timestamp,
    journal: Journal,
    outbox: Outbox,
    /// Whether it is removed although it is locked.
    opens_locks: bool,
}

impl Write for Remove {
    type Out = Removed;

    async fn run(&self, conn: &mut Conn) -> Result<Removed, StoreError> {
        let rows = EndingRow::find(conn, self.account, &self.cid, self.cluster.as_deref()).await?;
        let row = match rows.as_slice() {
            [] => return Ok(Removed::NotFound),
            [row] => row,
            _ => return Ok(Removed::Ambiguous),
        };
        if self.opens_locks {
            note_locked(conn, &self.journal, (&self.cid, self.by), row, self.now).await?;
        } else if let Some(until) = row.locked_until(self.now) {
            return Ok(Removed::Locked { until });
        } else {
            let (act, placement) = (("pin.remove", self.by), PlacementId(row.placement_id));
            self.journal.log_pin(conn, act, row.account_id, placement, self.now).await?;
        }
        row.tell(conn, &self.outbox, HookEvent::Removed, self.now).await?;
        Ok(Removed::Done(end(conn, row, self.now).await?))
    }
}

/// Logs an administrator's removal of a pin that was locked, or was to be removed although it may be: for whom it was
/// done to, and for who did it.
pub(crate) async fn note_locked(
    conn: &mut Conn,
    journal: &Journal,
    (cid, by): (&str, By),
    row: &EndingRow,
    now: Timestamp,
) -> Result<(), StoreError> {
    let owner = AccountId(row.account_id);
    let details = Details::default()
        .with("cluster", &row.cluster)
        .with("owner", owner)
        .with_some("retainUntil", row.locked_until(now));
    let actor = by.actor.filter(|actor| *actor != owner);
    for account in [Some(owner), actor].into_iter().flatten() {
        let act = Act::new(account, by, "pin.remove_locked", cid);
        journal.log(conn, &act.with(details.clone()), now).await?;
    }
    Ok(())
}

struct Abandon {
    pin: PinId,
    wishes: u64,
    now: Timestamp,
}

impl Write for Abandon {
    type Out = Option<Ended>;

    async fn run(&self, conn: &mut Conn) -> Result<Option<Ended>, StoreError> {
        let row: Option<EndingRow> = sqlx::query_as(
            "SELECT id, account_id, placement_id, charged_bytes, 0 AS watched FROM pins \
             WHERE id = $1 AND wishes = $2 AND standing <> 'kept' \
             AND (standing = 'failed' OR retain_until_ms IS NULL OR retain_until_ms <= $3)",
        )
        .bind(self.pin.0)
        .bind(crate::row::column(self.wishes))
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

/// Pins whose time has come, the longest due first: the same ones each time within a transaction.
macro_rules! due_pins {
    ($($columns:expr),+) => {
        concat!(
            "SELECT ",
            $($columns,)+
            " FROM pins n WHERE expires_at_ms IS NOT NULL AND ",
            ends_at!(),
            " <= $1 ORDER BY ",
            ends_at!(),
            ", id LIMIT $2"
        )
    };
}

pub(crate) const SELECT_DUE: &str = due_pins!("id, account_id, placement_id, charged_bytes, ", watched!());
/// Takes them out of the sums, each cluster once.
pub(crate) const SUM_DUE: &str = concat!(
    "INSERT INTO pin_sums (cluster, standing, pins, bytes) ",
    "SELECT p.cluster, n.standing, -COUNT(*), -SUM(n.charged_bytes) ",
    "FROM pins n JOIN placements p ON p.id = n.placement_id WHERE n.id IN (",
    due_pins!("id"),
    ") GROUP BY p.cluster, n.standing ON CONFLICT (cluster, standing) ",
    "DO UPDATE SET pins = pin_sums.pins + excluded.pins, bytes = pin_sums.bytes + excluded.bytes"
);
pub(crate) const DELETE_DUE: &str = concat!("DELETE FROM pins WHERE id IN (", due_pins!("id"), ")");

impl Write for Expire {
    type Out = Vec<Ended>;

    async fn run(&self, conn: &mut Conn) -> Result<Vec<Ended>, StoreError> {
        let (now, limit) = (self.now.as_ms(), i64::from(self.limit));
        let rows: Vec<EndingRow> =
            sqlx::query_as(SELECT_DUE).bind(now).bind(limit).fetch_all(&mut *conn).await?;
        sqlx::query(SUM_DUE).bind(now).bind(limit).execute(&mut *conn).await?;
        for row in &rows {
            row.tell(conn, &self.outbox, HookEvent::Expired, self.now).await?;
        }
        sqlx::query(DELETE_DUE).bind(now).bind(limit).execute(&mut *conn).await?;
        settle_ended(conn, &rows, &self.journal, ("pin.expire", By::SYSTEM), self.now).await
    }
}
