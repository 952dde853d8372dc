//! The outbox: pin events, recorded for the webhooks that subscribe to them in the transaction that changes the pin.
//!
//! A write that changes pins first finds out, with one index lookup, whether the account has an active webhook. For
//! accounts without one, that is the only cost. An event is one row for each webhook.

use std::sync::Arc;

use pinfold_model::{IdSource, PinName, PinState, Timestamp, WebhookEvent};
use sqlx::FromRow;

use crate::db::commit_signal::CommitSignal;
use crate::db::row::column;
use crate::db::statement;
use crate::db::write_queue::Conn;
use crate::pins::record::{PinRow, select_pins};
use crate::{PinRecord, Store, StoreError};

/// The most pending deliveries of one webhook: twice as many as the pins of a large account that can end at one time,
/// and about 100 MB. Further events are not recorded, but counted as dropped.
pub(crate) const PENDING_MAX: i64 = 200_000;

/// Records events. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Outbox {
    ids: Arc<IdSource>,
    signal: Arc<CommitSignal>,
}

#[derive(Debug, FromRow)]
struct WebhookRow {
    id: i64,
    pending: i64,
}

/// An SQL condition: whether this account has an active webhook.
macro_rules! is_watched {
    ($account:literal) => {
        concat!("EXISTS (SELECT 1 FROM webhooks h WHERE h.account_id = ", $account, " AND h.active = 1)")
    };
}
pub(crate) use is_watched;

/// The same as a column, 1 or 0.
macro_rules! watched {
    ($account:literal) => {
        concat!(
            "CASE WHEN ",
            crate::webhooks::outbox::is_watched!($account),
            " THEN CAST(1 AS BIGINT) ELSE 0 END AS watched"
        )
    };
}
pub(crate) use watched;

impl Store {
    /// The outbox of this store.
    pub(crate) fn outbox(&self) -> Outbox {
        Outbox::new(Arc::clone(&self.ids), Arc::clone(&self.signal))
    }

    /// Returns after a transaction of this process that wrote a delivery. Cancel-safe: a delivery that is
    /// written while no call waits completes the next call.
    pub async fn outbox_written(&self) {
        self.signal.committed().await;
    }
}

impl Outbox {
    pub(crate) fn new(ids: Arc<IdSource>, signal: Arc<CommitSignal>) -> Self {
        Self { ids, signal }
    }

    /// Records an event for each active webhook that subscribes to it. The row of the pin must still be there.
    pub(crate) async fn record(
        &self,
        conn: &mut Conn,
        event: WebhookEvent,
        pin: i64,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let webhooks: Vec<WebhookRow> = statement::query_as(
            "SELECT h.id, h.pending FROM pins n JOIN webhooks h ON h.account_id = n.account_id AND h.active = 1 \
             WHERE n.id = $1 AND (h.events & $2) <> 0",
        )
        .bind(pin)
        .bind(event.bit())
        .fetch_all(&mut *conn)
        .await?;
        if webhooks.is_empty() {
            return Ok(());
        }
        let row = statement::query_as::<PinRow>(select_pins!("WHERE n.id = $1")).bind(pin);
        let Some(row) = row.fetch_optional(&mut *conn).await? else { return Ok(()) };
        let pin = row.into_record()?;
        for webhook in webhooks {
            if webhook.pending >= PENDING_MAX {
                count_dropped(conn, webhook.id).await?;
                continue;
            }
            self.enqueue(conn, webhook.id, event, Some(&pin), now).await?;
        }
        Ok(())
    }

    /// Inserts a pending delivery, makes the webhook due, and returns the id of the delivery.
    pub(crate) async fn enqueue(
        &self,
        conn: &mut Conn,
        webhook: i64,
        event: WebhookEvent,
        pin: Option<&PinRecord>,
        now: Timestamp,
    ) -> Result<i64, StoreError> {
        let id = self.ids.next(now);
        let failure = pin.and_then(|pin| pin.error.as_ref()).filter(|_| event == WebhookEvent::Failed);
        statement::query(
            "INSERT INTO webhook_deliveries (id, webhook_id, event, at_ms, state, due_at_ms, pin_id, cid, cluster, \
             pin_status, kind, bytes, original_name, custom_name, error_code, error_detail, pin_created_at_ms, \
             expires_at_ms) VALUES ($1, $2, $3, $4, 'pending', $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, \
             $15, $16)",
        )
        .bind(id)
        .bind(webhook)
        .bind(event.as_str())
        .bind(now.as_ms())
        .bind(pin.map(|pin| pin.id.0))
        .bind(pin.map(|pin| pin.placement.cid.to_string()))
        .bind(pin.map(|pin| pin.placement.cluster.as_str()))
        .bind(pin.map(|_| state_after(event).as_str()))
        .bind(pin.map(|pin| pin.placement.kind.as_str()))
        .bind(pin.map(|pin| column(pin.charged_bytes)))
        .bind(pin.and_then(|pin| pin.original_name.as_ref()).map(PinName::as_str))
        .bind(pin.and_then(|pin| pin.custom_name.as_ref()).map(PinName::as_str))
        .bind(failure.map(|failure| failure.code.as_str()))
        .bind(failure.map(|failure| failure.detail.as_str()))
        .bind(pin.map(|pin| pin.created_at.as_ms()))
        .bind(pin.and_then(|pin| pin.expires_at).map(Timestamp::as_ms))
        .execute(&mut *conn)
        .await?;
        // A leased webhook is rescheduled when its lease is returned. A failing receiver keeps its pause.
        statement::query(
            "UPDATE webhooks SET pending = pending + 1, due_at_ms = CASE WHEN lease IS NOT NULL THEN due_at_ms \
             WHEN paused_until_ms > $2 THEN paused_until_ms ELSE CAST($2 AS BIGINT) END WHERE id = $1",
        )
        .bind(webhook)
        .bind(now.as_ms())
        .execute(conn)
        .await?;
        self.signal.mark();
        Ok(id)
    }
}

/// The state of a pin after an event.
fn state_after(event: WebhookEvent) -> PinState {
    match event {
        WebhookEvent::Pinned => PinState::Pinned,
        WebhookEvent::Failed => PinState::Failed,
        WebhookEvent::Expired | WebhookEvent::Removed | WebhookEvent::Test => PinState::Unpinned,
    }
}

async fn count_dropped(conn: &mut Conn, webhook: i64) -> Result<(), StoreError> {
    statement::query("UPDATE webhooks SET dropped = dropped + 1 WHERE id = $1")
        .bind(webhook)
        .execute(conn)
        .await?;
    Ok(())
}
