//! What accounts take when blocks that their pins share count once. Counted behind the changes, never in them.

use cid::Cid;
use pinfold_model::{AccountId, ClusterId, PlacementId};
use sqlx::FromRow;

use crate::db::row::{column, unknown_value};
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::{Store, StoreError};

/// A placement that an account keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivePlacement {
    /// Its number.
    pub id: PlacementId,
    /// The root of the DAG.
    pub cid: Cid,
    /// Where it is.
    pub cluster: ClusterId,
}

#[derive(Debug, FromRow)]
struct ActiveRow {
    id: i64,
    cid: String,
    cluster: String,
}

impl Store {
    /// Takes an account that is to be counted anew, if there is one: the next one after `after`, so that one that
    /// changes all the time does not keep the others from being counted. Also one that a process took before this one and
    /// did not finish, so that only one process may count.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn start_dedup_count(&self, after: Option<AccountId>) -> Result<Option<AccountId>, StoreError> {
        // Most of the time there is none, and nothing is written.
        let mut due = self.next_dedup_account(after).await?;
        if due.is_none() && after.is_some() {
            due = self.next_dedup_account(None).await?;
        }
        let Some(id) = due else { return Ok(None) };
        self.write(LeasedPlacement { id }).await?;
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

    /// The placements that an account keeps, in the order of their ids, at most `limit` after `after`.
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
        let kept = |row: ActiveRow| {
            Ok(ActivePlacement {
                id: PlacementId(row.id),
                cid: Cid::try_from(row.cid.as_str()).map_err(|_| unknown_value("CID", &row.cid))?,
                cluster: ClusterId::parse(&row.cluster)
                    .map_err(|_| unknown_value("cluster", &row.cluster))?,
            })
        };
        rows.into_iter().map(kept).collect()
    }

    /// Writes what was counted. An account that has changed meanwhile is counted once more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn finish_dedup_count(&self, account: AccountId, bytes: u64) -> Result<(), StoreError> {
        self.write(Set { account, bytes }).await
    }
}

struct LeasedPlacement {
    id: AccountId,
}

impl Write for LeasedPlacement {
    type Out = ();

    async fn run(&self, conn: &mut Conn) -> Result<(), StoreError> {
        let query = statement::query("UPDATE accounts SET dedup_state = 2 WHERE id = $1");
        query.bind(self.id.0).execute(conn).await?;
        Ok(())
    }
}

struct Set {
    account: AccountId,
    bytes: u64,
}

impl Write for Set {
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
