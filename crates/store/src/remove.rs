//! How pins end: removed by their owner, given up by who waited for them, or due.

use std::collections::BTreeMap;

use cid::Cid;
use pinfold_model::{AccountId, By, ClusterId, PinId, PlacementId, Timestamp};
use sqlx::FromRow;

use crate::audit::Journal;
use crate::placement::let_go;
use crate::row::number;
use crate::writer::{Conn, Write};
use crate::{Store, StoreError, charge};

/// What came of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It is gone.
    Done(Ended),
    /// The account has no such pin.
    NotFound,
    /// The account has several; one cluster must be named.
    Ambiguous,
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
struct EndingRow {
    id: i64,
    account_id: i64,
    placement_id: i64,
    charged_bytes: i64,
}

impl Store {
    /// Removes the account's pin of this CID, as `by` wants.
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
        let journal = self.journal();
        self.write(Remove { account, cid: cid.to_string(), cluster, by, now, journal }).await
    }

    /// Removes a pin that is not kept, unless it was wished for again since `wishes`. For those who waited
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
        self.write(Expire { now, limit, journal: self.journal() }).await
    }
}

async fn end(conn: &mut Conn, row: &EndingRow, now: Timestamp) -> Result<Ended, StoreError> {
    sqlx::query("DELETE FROM pins WHERE id = $1").bind(row.id).execute(&mut *conn).await?;
    charge::remove_pins(conn, AccountId(row.account_id), 1, number(row.charged_bytes)).await?;
    let placement = PlacementId(row.placement_id);
    let work = let_go(conn, placement, now).await?;
    Ok(Ended { placement, work })
}

struct Remove {
    account: AccountId,
    cid: String,
    cluster: Option<String>,
    by: By,
    now: Timestamp,
    journal: Journal,
}

impl Write for Remove {
    type Out = Removed;

    async fn run(&self, conn: &mut Conn) -> Result<Removed, StoreError> {
        let rows: Vec<EndingRow> = sqlx::query_as(
            "SELECT n.id, n.account_id, n.placement_id, n.charged_bytes \
             FROM placements p JOIN pins n ON n.placement_id = p.id AND n.account_id = $1 \
             WHERE p.cid = $2 AND (CAST($3 AS TEXT) IS NULL OR p.cluster = $3) LIMIT 2",
        )
        .bind(self.account.0)
        .bind(&self.cid)
        .bind(&self.cluster)
        .fetch_all(&mut *conn)
        .await?;
        match rows.as_slice() {
            [] => Ok(Removed::NotFound),
            [row] => {
                let (act, placement) = (("pin.remove", self.by), PlacementId(row.placement_id));
                self.journal.log_pin(conn, act, row.account_id, placement, self.now).await?;
                Ok(Removed::Done(end(conn, row, self.now).await?))
            }
            _ => Ok(Removed::Ambiguous),
        }
    }
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
            "SELECT id, account_id, placement_id, charged_bytes FROM pins \
             WHERE id = $1 AND wishes = $2 AND standing <> 'kept'",
        )
        .bind(self.pin.0)
        .bind(crate::row::column(self.wishes))
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
}

/// Pins whose time has come, the longest due first: the same ones each time within a transaction.
macro_rules! due_pins {
    ($columns:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM pins WHERE expires_at_ms IS NOT NULL AND expires_at_ms <= $1 ",
            "ORDER BY expires_at_ms, id LIMIT $2"
        )
    };
}

pub(crate) const SELECT_DUE: &str = due_pins!("id, account_id, placement_id, charged_bytes");
pub(crate) const DELETE_DUE: &str = concat!("DELETE FROM pins WHERE id IN (", due_pins!("id"), ")");

impl Write for Expire {
    type Out = Vec<Ended>;

    async fn run(&self, conn: &mut Conn) -> Result<Vec<Ended>, StoreError> {
        let (now, limit) = (self.now.as_ms(), i64::from(self.limit));
        let rows: Vec<EndingRow> =
            sqlx::query_as(SELECT_DUE).bind(now).bind(limit).fetch_all(&mut *conn).await?;
        sqlx::query(DELETE_DUE).bind(now).bind(limit).execute(&mut *conn).await?;
        let mut charges: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
        for row in &rows {
            let (pins, bytes) = charges.entry(row.account_id).or_default();
            *pins += 1;
            *bytes += number(row.charged_bytes);
        }
        for (account, (pins, bytes)) in charges {
            charge::remove_pins(conn, AccountId(account), pins, bytes).await?;
        }
        let mut ended = Vec::with_capacity(rows.len());
        for row in &rows {
            let placement = PlacementId(row.placement_id);
            let act = ("pin.expire", By::SYSTEM);
            self.journal.log_pin(conn, act, row.account_id, placement, self.now).await?;
            ended.push(Ended { placement, work: let_go(conn, placement, self.now).await? });
        }
        Ok(ended)
    }
}
