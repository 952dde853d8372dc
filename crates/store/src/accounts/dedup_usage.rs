//! Deduplicated usage of accounts: the size of their pins with shared blocks counted once.
//!
//! A write that changes the pins of an account sets `dedup_state` to 1. A background task counts such accounts and stores
//! the result. Writes never count themselves. `dedup_state` is 0 (up to date), 1 (to be counted) or 2 (being counted).

use cid::Cid;
use pinfold_model::{AccountId, ClusterId, PlacementId};
use sqlx::FromRow;

use crate::db::row::{column, unknown_value};
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::{Store, StoreError};

/// A placement with an active pin of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivePlacement {
    pub id: PlacementId,
    /// Root of the DAG.
    pub cid: Cid,
    pub cluster: ClusterId,
}

#[derive(Debug, FromRow)]
struct ActiveRow {
    id: i64,
    cid: String,
    cluster: String,
}

impl Store {
    /// Selects the next account to count, if there is one, and marks it as being counted. Starts after `after` and wraps
    /// around, so that an account that changes continuously does not starve the others. Also selects accounts whose
    /// count was interrupted; therefore only one process may count.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn start_dedup_count(&self, after: Option<AccountId>) -> Result<Option<AccountId>, StoreError> {
        // Usually no account is due. The read avoids a write.
        let mut due = self.next_dedup_account(after).await?;
        if due.is_none() && after.is_some() {
            due = self.next_dedup_account(None).await?;
        }
        let Some(id) = due else { return Ok(None) };
        self.write(MarkCounting { id }).await?;
        Ok(Some(id))
    }

    async fn next_dedup_account(&self, after: Option<AccountId>) -> Result<Option<AccountId>, StoreError> {
        let query = statement::query_scalar(
            "SELECT id FROM accounts WHERE dedup_state > 0 AND id > $1 ORDER BY id LIMIT 1",
        );
        let due: Option<i64> =
            query.bind(after.map_or(i64::MIN, |id| id.0)).fetch_optional(&self.readers).await?;
        Ok(due.map(AccountId))
    }

    /// Up to `limit` placements with active pins of the account, with ids greater than `after`, in ascending order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn active_placements(
        &self,
        account: AccountId,
        after: Option<PlacementId>,
        limit: u32,
    ) -> Result<Vec<ActivePlacement>, StoreError> {
        let rows: Vec<ActiveRow> = statement::query_as(
            "SELECT p.id, p.cid, p.cluster FROM pins n JOIN placements p ON p.id = n.placement_id \
             WHERE n.account_id = $1 AND n.phase = 'active' AND n.placement_id > $2 \
             ORDER BY n.placement_id LIMIT $3",
        )
        .bind(account.0)
        .bind(after.map_or(-1, |id| id.0))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        let placement = |row: ActiveRow| {
            Ok(ActivePlacement {
                id: PlacementId(row.id),
                cid: Cid::try_from(row.cid.as_str()).map_err(|_| unknown_value("CID", &row.cid))?,
                cluster: ClusterId::parse(&row.cluster)
                    .map_err(|_| unknown_value("cluster", &row.cluster))?,
            })
        };
        rows.into_iter().map(placement).collect()
    }

    /// Stores the result of a count. An account that changed during the count stays marked and is counted again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn finish_dedup_count(&self, account: AccountId, bytes: u64) -> Result<(), StoreError> {
        self.write(StoreCount { account, bytes }).await
    }
}

struct MarkCounting {
    id: AccountId,
}

impl Write for MarkCounting {
    type Out = ();

    async fn run(&self, conn: &mut Conn) -> Result<(), StoreError> {
        let query = statement::query("UPDATE accounts SET dedup_state = 2 WHERE id = $1");
        query.bind(self.id.0).execute(conn).await?;
        Ok(())
    }
}

struct StoreCount {
    account: AccountId,
    bytes: u64,
}

impl Write for StoreCount {
    type Out = ();

    async fn run(&self, conn: &mut Conn) -> Result<(), StoreError> {
        statement::query(
            "UPDATE accounts SET dedup_bytes = $2, \
             dedup_state = CASE WHEN dedup_state = 2 THEN 0 ELSE dedup_state END WHERE id = $1",
        )
        .bind(self.account.0)
        .bind(column(self.bytes))
        .execute(conn)
        .await?;
        Ok(())
    }
}
