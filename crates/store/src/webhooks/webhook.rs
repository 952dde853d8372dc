//! Webhooks as their owners see and change them.

use pinfold_model::{
    AccountId, Actor, AuditEvent, DeliveryId, Timestamp, Webhook, WebhookEvent, WebhookEvents, WebhookId,
    WebhookSecret,
};
use sqlx::FromRow;

use crate::audit::Journal;
use crate::db::row::{number, time, unknown_value};
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::webhooks::lease::reschedule;
use crate::webhooks::outbox::Outbox;
use crate::{Store, StoreError};

/// A `SELECT` of the columns of webhooks without the secrets, followed by a literal tail.
macro_rules! select_webhooks {
    ($tail:literal) => {
        concat!(
            "SELECT id, account_id, url, description, events, active, disabled_reason, failing_since_ms, ",
            "pending, dropped, created_at_ms, updated_at_ms FROM webhooks ",
            $tail
        )
    };
}
pub(crate) use select_webhooks;

/// A webhook to create.
#[derive(Debug, Clone)]
pub struct NewWebhook {
    pub account: AccountId,
    pub url: String,
    pub description: Option<String>,
    pub events: WebhookEvents,
    pub active: bool,
    pub secret: WebhookSecret,
}

/// Changes to a webhook. `None` leaves a field unchanged.
#[derive(Debug, Clone, Default)]
pub struct WebhookChange {
    pub url: Option<String>,
    /// `Some(None)` removes the description.
    pub description: Option<Option<String>>,
    pub events: Option<WebhookEvents>,
    pub active: Option<bool>,
}

#[derive(Debug, FromRow)]
pub(crate) struct WebhookRow {
    id: i64,
    account_id: i64,
    url: String,
    description: Option<String>,
    events: i64,
    active: i64,
    disabled_reason: Option<String>,
    failing_since_ms: Option<i64>,
    pending: i64,
    dropped: i64,
    created_at_ms: i64,
    updated_at_ms: i64,
}

impl WebhookRow {
    pub(crate) fn into_webhook(self) -> Result<Webhook, StoreError> {
        Ok(Webhook {
            id: WebhookId(self.id),
            account: AccountId(self.account_id),
            url: self.url,
            description: self.description,
            events: WebhookEvents::from_bits(self.events)
                .ok_or_else(|| unknown_value("set of events", &self.events.to_string()))?,
            active: self.active != 0,
            disabled_reason: self.disabled_reason,
            failing_since: time(self.failing_since_ms),
            pending: number(self.pending),
            dropped: number(self.dropped),
            created_at: Timestamp::from_ms(self.created_at_ms),
            updated_at: Timestamp::from_ms(self.updated_at_ms),
        })
    }
}

impl Store {
    /// Creates a webhook. `None` if the account already has `webhooks_max` of them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn create_webhook(
        &self,
        new: NewWebhook,
        webhooks_max: u32,
        by: Actor,
        now: Timestamp,
    ) -> Result<Option<Webhook>, StoreError> {
        self.write(Create { id: self.id(now), new, webhooks_max, by, now, journal: self.journal() }).await
    }

    /// The account's webhooks, oldest first; at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn webhooks(&self, account: AccountId, limit: u32) -> Result<Vec<Webhook>, StoreError> {
        let rows = statement::query_as::<WebhookRow>(select_webhooks!(
            "WHERE account_id = $1 AND removed = 0 ORDER BY id LIMIT $2"
        ));
        let rows = rows.bind(account.0).bind(i64::from(limit)).fetch_all(&self.readers).await?;
        rows.into_iter().map(WebhookRow::into_webhook).collect()
    }

    /// One of the account's webhooks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn webhook(&self, account: AccountId, id: WebhookId) -> Result<Option<Webhook>, StoreError> {
        let row = statement::query_as::<WebhookRow>(select_webhooks!(
            "WHERE id = $1 AND account_id = $2 AND removed = 0"
        ));
        let row = row.bind(id.0).bind(account.0).fetch_optional(&self.readers).await?;
        row.map(WebhookRow::into_webhook).transpose()
    }

    /// Changes a webhook of the account and resets its failures. If it is active afterwards, its pending deliveries are
    /// due immediately. `None` if there is no such webhook.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn change_webhook(
        &self,
        account: AccountId,
        id: WebhookId,
        change: WebhookChange,
        by: Actor,
        now: Timestamp,
    ) -> Result<Option<Webhook>, StoreError> {
        self.write(Change { account, id, change, by, now, journal: self.journal() }).await
    }

    /// Replaces the secret of a webhook. The previous one also signs deliveries until `previous_until`. `None` if there
    /// is no such webhook.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn rotate_webhook_secret(
        &self,
        account: AccountId,
        id: WebhookId,
        secret: WebhookSecret,
        previous_until: Timestamp,
        by: Actor,
        now: Timestamp,
    ) -> Result<Option<Webhook>, StoreError> {
        self.write(Rotate { account, id, secret, previous_until, by, now, journal: self.journal() }).await
    }

    /// Removes a webhook. Its rows are deleted by [`clean_up_webhooks`](Store::clean_up_webhooks). False if there is no
    /// such webhook.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove_webhook(
        &self,
        account: AccountId,
        id: WebhookId,
        by: Actor,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(Remove { account, id, by, now, journal: self.journal() }).await
    }

    /// Records a test event for a webhook. `None` if there is no such webhook or it is not active.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn test_webhook(
        &self,
        account: AccountId,
        id: WebhookId,
        now: Timestamp,
    ) -> Result<Option<DeliveryId>, StoreError> {
        self.write(Test { outbox: self.outbox(), account, id, now }).await
    }
}

async fn find(conn: &mut Conn, account: AccountId, id: WebhookId) -> Result<Option<Webhook>, StoreError> {
    let row = statement::query_as::<WebhookRow>(select_webhooks!(
        "WHERE id = $1 AND account_id = $2 AND removed = 0"
    ));
    row.bind(id.0).bind(account.0).fetch_optional(conn).await?.map(WebhookRow::into_webhook).transpose()
}

struct Create {
    id: i64,
    new: NewWebhook,
    webhooks_max: u32,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for Create {
    type Out = Option<Webhook>;

    async fn run(&self, conn: &mut Conn) -> Result<Option<Webhook>, StoreError> {
        let new = &self.new;
        let count: i64 =
            statement::query_scalar("SELECT COUNT(*) FROM webhooks WHERE account_id = $1 AND removed = 0")
                .bind(new.account.0)
                .fetch_one(&mut *conn)
                .await?;
        if count >= i64::from(self.webhooks_max) {
            return Ok(None);
        }
        statement::query(
            "INSERT INTO webhooks (id, account_id, url, description, events, secret, active, created_at_ms, \
             updated_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)",
        )
        .bind(self.id)
        .bind(new.account.0)
        .bind(&new.url)
        .bind(&new.description)
        .bind(new.events.bits())
        .bind(new.secret.reveal())
        .bind(i64::from(new.active))
        .bind(self.now.as_ms())
        .execute(&mut *conn)
        .await?;
        let subject = WebhookId(self.id).to_string();
        let event = AuditEvent::new(new.account, self.by, "webhook.create", subject);
        self.journal.log(conn, &event, self.now).await?;
        find(conn, new.account, WebhookId(self.id)).await
    }
}

struct Change {
    account: AccountId,
    id: WebhookId,
    change: WebhookChange,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for Change {
    type Out = Option<Webhook>;

    async fn run(&self, conn: &mut Conn) -> Result<Option<Webhook>, StoreError> {
        let Some(webhook) = find(conn, self.account, self.id).await? else { return Ok(None) };
        let change = self.change.clone();
        let url = change.url.unwrap_or(webhook.url);
        let active = change.active.unwrap_or(webhook.active);
        // The failure count starts again after a change by the owner. Activation clears the reason of a deactivation.
        statement::query(
            "UPDATE webhooks SET url = $2, description = $3, events = $4, active = $5, updated_at_ms = $6, \
             disabled_reason = CASE WHEN CAST($5 AS BIGINT) = 1 THEN NULL ELSE disabled_reason END, failures = 0, \
             failing_since_ms = NULL, paused_until_ms = 0 WHERE id = $1",
        )
        .bind(self.id.0)
        .bind(&url)
        .bind(change.description.unwrap_or(webhook.description))
        .bind(change.events.unwrap_or(webhook.events).bits())
        .bind(i64::from(active))
        .bind(self.now.as_ms())
        .execute(&mut *conn)
        .await?;
        if active {
            statement::query(
                "UPDATE webhook_deliveries SET due_at_ms = at_ms WHERE webhook_id = $1 AND due_at_ms > $2",
            )
            .bind(self.id.0)
            .bind(self.now.as_ms())
            .execute(&mut *conn)
            .await?;
        }
        // If the webhook is leased, this happens when the lease is returned.
        reschedule(conn, self.id, None, self.now).await?;
        let event = AuditEvent::new(self.account, self.by, "webhook.change", self.id.to_string());
        self.journal.log(conn, &event, self.now).await?;
        find(conn, self.account, self.id).await
    }
}

struct Rotate {
    account: AccountId,
    id: WebhookId,
    secret: WebhookSecret,
    previous_until: Timestamp,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for Rotate {
    type Out = Option<Webhook>;

    async fn run(&self, conn: &mut Conn) -> Result<Option<Webhook>, StoreError> {
        if find(conn, self.account, self.id).await?.is_none() {
            return Ok(None);
        }
        statement::query(
            "UPDATE webhooks SET previous_secret = secret, previous_secret_until_ms = $4, secret = $2, \
             updated_at_ms = $3 WHERE id = $1",
        )
        .bind(self.id.0)
        .bind(self.secret.reveal())
        .bind(self.now.as_ms())
        .bind(self.previous_until.as_ms())
        .execute(&mut *conn)
        .await?;
        let event = AuditEvent::new(self.account, self.by, "webhook.rotate", self.id.to_string());
        self.journal.log(conn, &event, self.now).await?;
        find(conn, self.account, self.id).await
    }
}

struct Remove {
    account: AccountId,
    id: WebhookId,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for Remove {
    type Out = bool;

    async fn run(&self, conn: &mut Conn) -> Result<bool, StoreError> {
        if find(conn, self.account, self.id).await?.is_none() {
            return Ok(false);
        }
        statement::query(
            "UPDATE webhooks SET removed = 1, active = 0, secret = '', previous_secret = NULL, due_at_ms = NULL, \
             lease = NULL WHERE id = $1",
        )
        .bind(self.id.0)
        .execute(&mut *conn)
        .await?;
        let event = AuditEvent::new(self.account, self.by, "webhook.remove", self.id.to_string());
        self.journal.log(conn, &event, self.now).await?;
        Ok(true)
    }
}

struct Test {
    outbox: Outbox,
    account: AccountId,
    id: WebhookId,
    now: Timestamp,
}

impl Write for Test {
    type Out = Option<DeliveryId>;

    async fn run(&self, conn: &mut Conn) -> Result<Option<DeliveryId>, StoreError> {
        let Some(webhook) = find(conn, self.account, self.id).await?.filter(|webhook| webhook.active) else {
            return Ok(None);
        };
        let id = self.outbox.enqueue(conn, webhook.id.0, WebhookEvent::Test, None, self.now).await?;
        Ok(Some(DeliveryId(id)))
    }
}
