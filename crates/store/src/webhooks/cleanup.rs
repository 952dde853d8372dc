//! Deletes removed webhooks and gives up old deliveries, in steps that delay other writes only shortly.

use std::collections::BTreeMap;

use pinfold_model::Timestamp;
use sqlx::FromRow;

use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::webhooks::delivery::finish_deliveries;
use crate::{Store, StoreError};

impl Store {
    /// Deletes the rows of removed webhooks and gives up pending deliveries of events from before `before`, each up to
    /// `limit` rows. Keeps the newest `finished_max` finished deliveries. Returns whether there may be more to do.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn clean_up_webhooks(
        &self,
        before: Timestamp,
        finished_max: u32,
        limit: u32,
    ) -> Result<bool, StoreError> {
        self.write(CleanUp { before, finished_max, limit }).await
    }
}

struct CleanUp {
    before: Timestamp,
    finished_max: u32,
    limit: u32,
}

#[derive(Debug, FromRow)]
struct OldRow {
    id: i64,
    webhook_id: i64,
}

pub(crate) const OLD_DELIVERIES: &str = "SELECT id, webhook_id FROM webhook_deliveries \
     WHERE due_at_ms IS NOT NULL AND at_ms < $1 ORDER BY at_ms, id LIMIT $2";

impl Write for CleanUp {
    type Out = bool;

    async fn run(&self, conn: &mut Conn) -> Result<bool, StoreError> {
        let deleted = self.delete_removed(conn).await?;
        let old: Vec<OldRow> = statement::query_as(OLD_DELIVERIES)
            .bind(self.before.as_ms())
            .bind(i64::from(self.limit))
            .fetch_all(&mut *conn)
            .await?;
        let mut finished = BTreeMap::<i64, i64>::new();
        for row in &old {
            statement::query(
                "UPDATE webhook_deliveries SET state = 'failed', due_at_ms = NULL, \
                 error = COALESCE(error, 'The webhook was not active') WHERE id = $1",
            )
            .bind(row.id)
            .execute(&mut *conn)
            .await?;
            *finished.entry(row.webhook_id).or_default() += 1;
        }
        for (webhook, count) in finished {
            finish_deliveries(conn, webhook, count, self.finished_max).await?;
        }
        Ok(deleted || old.len() >= usize::try_from(self.limit).unwrap_or(usize::MAX))
    }
}

impl CleanUp {
    /// Deletes rows of one removed webhook. Returns whether there was one.
    async fn delete_removed(&self, conn: &mut Conn) -> Result<bool, StoreError> {
        let webhook: Option<i64> = statement::query_scalar("SELECT MIN(id) FROM webhooks WHERE removed = 1")
            .fetch_one(&mut *conn)
            .await?;
        let Some(webhook) = webhook else { return Ok(false) };
        let done = statement::query(
            "DELETE FROM webhook_deliveries WHERE id IN \
             (SELECT id FROM webhook_deliveries WHERE webhook_id = $1 LIMIT $2)",
        )
        .bind(webhook)
        .bind(i64::from(self.limit))
        .execute(&mut *conn)
        .await?;
        if done.rows_affected() < u64::from(self.limit) {
            statement::query("DELETE FROM webhooks WHERE id = $1").bind(webhook).execute(conn).await?;
        }
        Ok(true)
    }
}
