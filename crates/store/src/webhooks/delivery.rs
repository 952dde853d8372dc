//! Deliveries: the events of webhooks, pending or finished, and how their owners list them.

use cid::Cid;
use pinfold_model::{
    ClusterId, DeliveredPin, Delivery, DeliveryId, Failure, FailureCode, PinId, PinName, Timestamp, WebhookId,
};
use sqlx::FromRow;

use crate::db::row::{number, time, unknown_value, word};
use crate::db::statement;
use crate::db::write_queue::Conn;
use crate::{Store, StoreError};

#[derive(Debug, FromRow)]
pub(crate) struct DeliveryRow {
    id: i64,
    event: String,
    at_ms: i64,
    state: String,
    due_at_ms: Option<i64>,
    attempts: i64,
    tried_at_ms: Option<i64>,
    response_status: Option<i64>,
    error: Option<String>,
    pin_id: Option<i64>,
    cid: Option<String>,
    cluster: Option<String>,
    pin_status: Option<String>,
    kind: Option<String>,
    bytes: Option<i64>,
    original_name: Option<String>,
    custom_name: Option<String>,
    error_code: Option<String>,
    error_detail: Option<String>,
    pin_created_at_ms: Option<i64>,
    expires_at_ms: Option<i64>,
}

/// A `SELECT` of deliveries, followed by a literal tail.
macro_rules! select_deliveries {
    ($tail:literal) => {
        concat!(
            "SELECT id, event, at_ms, state, due_at_ms, attempts, tried_at_ms, response_status, error, pin_id, cid, ",
            "cluster, pin_status, kind, bytes, original_name, custom_name, error_code, error_detail, ",
            "pin_created_at_ms, expires_at_ms FROM webhook_deliveries ",
            $tail
        )
    };
}
pub(crate) use select_deliveries;

impl DeliveryRow {
    pub(crate) fn into_delivery(self) -> Result<Delivery, StoreError> {
        Ok(Delivery {
            id: DeliveryId(self.id),
            event: word("event", &self.event)?,
            at: Timestamp::from_ms(self.at_ms),
            pin: self.pin()?,
            state: word("delivery state", &self.state)?,
            due_at: time(self.due_at_ms),
            attempts: u32::try_from(self.attempts).unwrap_or(0),
            tried_at: time(self.tried_at_ms),
            response_status: self.response_status.and_then(|status| u16::try_from(status).ok()),
            error: self.error,
        })
    }

    fn pin(&self) -> Result<Option<DeliveredPin>, StoreError> {
        let (Some(id), Some(cid), Some(cluster)) = (self.pin_id, &self.cid, &self.cluster) else {
            return Ok(None);
        };
        let name = |text: &Option<String>| {
            text.as_deref()
                .map(|text| PinName::parse(text).map_err(|_| unknown_value("name", text)))
                .transpose()
        };
        let code: Option<FailureCode> =
            self.error_code.as_deref().map(|code| word("failure", code)).transpose()?;
        Ok(Some(DeliveredPin {
            id: PinId(id),
            cid: Cid::try_from(cid.as_str()).map_err(|_| unknown_value("CID", cid))?,
            cluster: ClusterId::parse(cluster).map_err(|_| unknown_value("cluster", cluster))?,
            state: word("status", self.pin_status.as_deref().unwrap_or_default())?,
            kind: word("kind", self.kind.as_deref().unwrap_or_default())?,
            bytes: number(self.bytes.unwrap_or(0)),
            original_name: name(&self.original_name)?,
            custom_name: name(&self.custom_name)?,
            error: code.map(|code| Failure::new(code, self.error_detail.clone().unwrap_or_default())),
            created_at: Timestamp::from_ms(self.pin_created_at_ms.unwrap_or(0)),
            expires_at: time(self.expires_at_ms),
        }))
    }
}

impl Store {
    /// The deliveries of a webhook with an id below `before`, newest first, at most `limit`. The caller must have
    /// checked that the webhook belongs to the account.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn deliveries(
        &self,
        webhook: WebhookId,
        before: Option<DeliveryId>,
        limit: u32,
    ) -> Result<Vec<Delivery>, StoreError> {
        let rows = statement::query_as::<DeliveryRow>(select_deliveries!(
            "WHERE webhook_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3"
        ));
        let rows = rows.bind(webhook.0).bind(before.map_or(i64::MAX, |id| id.0)).bind(i64::from(limit));
        rows.fetch_all(&self.readers).await?.into_iter().map(DeliveryRow::into_delivery).collect()
    }

    /// A delivery by its id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        let row = statement::query_as::<DeliveryRow>(select_deliveries!("WHERE id = $1")).bind(id.0);
        row.fetch_optional(&self.readers).await?.map(DeliveryRow::into_delivery).transpose()
    }
}

/// Subtracts `count` deliveries from the pending ones of a webhook, and deletes all but the newest `finished_max` of
/// its finished deliveries.
pub(crate) async fn finish_deliveries(
    conn: &mut Conn,
    webhook: i64,
    count: i64,
    finished_max: u32,
) -> Result<(), StoreError> {
    statement::query("UPDATE webhooks SET pending = pending - $2 WHERE id = $1")
        .bind(webhook)
        .bind(count)
        .execute(&mut *conn)
        .await?;
    statement::query(
        "DELETE FROM webhook_deliveries WHERE webhook_id = $1 AND due_at_ms IS NULL AND id <= \
         (SELECT id FROM webhook_deliveries WHERE webhook_id = $1 AND due_at_ms IS NULL \
         ORDER BY id DESC LIMIT 1 OFFSET $2)",
    )
    .bind(webhook)
    .bind(i64::from(finished_max))
    .execute(conn)
    .await?;
    Ok(())
}
