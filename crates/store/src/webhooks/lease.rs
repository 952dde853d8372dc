//! Leases on webhooks: which webhook is delivered to next, and what a turn changes.
//!
//! A webhook is leased as a whole. Leasing takes those that have been due longest, and a webhook goes behind the others
//! after its turn, so that a webhook with many deliveries does not delay others.

use pinfold_model::{
    AccountId, Delivery, DeliveryId, DeliveryState, Timestamp, Webhook, WebhookId, WebhookSecret,
};
use sqlx::FromRow;

use crate::db::row::{time, unknown_value};
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::webhooks::delivery::{DeliveryRow, finish_deliveries, select_deliveries};
use crate::webhooks::webhook::{WebhookRow, select_webhooks};
use crate::{Store, StoreError};

/// Webhooks of one account that can be leased at the same time, however many it has.
const ACCOUNT_LEASES_MAX: i64 = 4;

/// A lease on a webhook: the right to send its deliveries until the lease expires or is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebhookLease {
    pub webhook: WebhookId,
    /// Unique among all leases.
    pub number: i64,
    /// When the owner had last changed the webhook. The turn must not overwrite later changes.
    pub as_of: Timestamp,
}

/// A webhook with due deliveries.
#[derive(Debug, Clone)]
pub struct LeasedWebhook {
    pub lease: WebhookLease,
    pub webhook: Webhook,
    pub secret: WebhookSecret,
    /// The secret before the last rotation. The caller compares its `until` with the time of each attempt.
    pub previous_secret: Option<PreviousSecret>,
    /// Failed attempts since the last successful one.
    pub failures: u32,
    /// The due deliveries, in the order in which they became due.
    pub deliveries: Vec<Delivery>,
}

/// A secret that was rotated, and until when it also signs deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviousSecret {
    pub secret: WebhookSecret,
    pub until: Timestamp,
}

/// One attempt to send a delivery.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub delivery: DeliveryId,
    pub at: Timestamp,
    /// The HTTP status of the response, if there was one.
    pub response_status: Option<u16>,
    /// Why it failed.
    pub error: Option<String>,
    pub outcome: AttemptOutcome,
}

/// The result of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptOutcome {
    Delivered,
    /// Failed, without further attempts.
    GivenUp,
    /// Failed; the next attempt is due at this time.
    RetryAt(Timestamp),
}

/// The state of a webhook's receiver after a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookHealth {
    /// No attempt was made.
    Unknown,
    /// The last attempt succeeded.
    Healthy,
    /// The last attempt failed.
    Failing {
        /// Failed attempts since the last successful one.
        failures: u32,
        /// When the first of them was made.
        since: Timestamp,
        /// No attempt is made before.
        paused_until: Timestamp,
        /// Why the webhook is deactivated, if it is.
        deactivate: Option<String>,
    },
}

impl Store {
    /// When the next webhook is due.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next_delivery(&self) -> Result<Option<Timestamp>, StoreError> {
        let due: Option<i64> = statement::query_scalar(NEXT_DUE).fetch_one(&self.readers).await?;
        Ok(time(due))
    }

    /// Leases up to `webhooks` webhooks until `until`, each with up to `deliveries` of its due deliveries. Webhooks
    /// that have been due longest come first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn lease_webhooks(
        &self,
        webhooks: u32,
        deliveries: u32,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<LeasedWebhook>, StoreError> {
        let numbers = (0..webhooks).map(|_| self.id(now)).collect();
        self.write(LeaseWebhooks { numbers, deliveries, now, until }).await
    }

    /// Whether a turn may go on: the lease is held and the owner has not changed the webhook since.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_lease_current(&self, lease: WebhookLease) -> Result<bool, StoreError> {
        is_lease_current(&self.readers, lease).await
    }

    /// Completes a turn: records its attempts and the health of the receiver, deletes all but the newest `finished_max`
    /// finished deliveries, and returns the lease. The health is ignored if the owner has changed the webhook since it
    /// was leased. Returns false and changes nothing if the lease was lost.
    ///
    /// # Errors
    /// [`StoreError`]; the lease is then held until it expires.
    pub async fn complete_webhook_turn(
        &self,
        lease: WebhookLease,
        attempts: Vec<Attempt>,
        health: WebhookHealth,
        finished_max: u32,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(CompleteTurn { lease, attempts, health, finished_max, now }).await
    }

    /// Releases all leases and makes their webhooks due. Only for a process that is alone with the database.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reset_webhook_leases(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.write(ResetLeases { now }).await
    }
}

pub(crate) const NEXT_DUE: &str =
    "SELECT MIN(due_at_ms) FROM webhooks WHERE active = 1 AND due_at_ms IS NOT NULL";

pub(crate) const LEASE_WEBHOOK: &str = "UPDATE webhooks SET lease = $1, due_at_ms = $2 WHERE id = \
     (SELECT h.id FROM webhooks h WHERE h.active = 1 AND h.due_at_ms IS NOT NULL AND h.due_at_ms <= $3 \
     AND (SELECT COUNT(*) FROM webhooks o WHERE o.account_id = h.account_id AND o.lease IS NOT NULL) < $4 \
     ORDER BY h.due_at_ms, h.id LIMIT 1) RETURNING id";

struct LeaseWebhooks {
    numbers: Vec<i64>,
    deliveries: u32,
    now: Timestamp,
    until: Timestamp,
}

impl Write for LeaseWebhooks {
    type Out = Vec<LeasedWebhook>;

    async fn run(&self, conn: &mut Conn) -> Result<Vec<LeasedWebhook>, StoreError> {
        // Expired leases do not count towards the limit of an account.
        statement::query("UPDATE webhooks SET lease = NULL WHERE lease IS NOT NULL AND due_at_ms <= $1")
            .bind(self.now.as_ms())
            .execute(&mut *conn)
            .await?;
        let mut leased = Vec::new();
        for number in &self.numbers {
            let id: Option<i64> = statement::query_scalar(LEASE_WEBHOOK)
                .bind(number)
                .bind(self.until.as_ms())
                .bind(self.now.as_ms())
                .bind(ACCOUNT_LEASES_MAX)
                .fetch_optional(&mut *conn)
                .await?;
            let Some(id) = id else { break };
            let id = WebhookId(id);
            match self.leased(conn, id, *number).await? {
                Some(webhook) => leased.push(webhook),
                None => reschedule(conn, id, Some(*number), self.now).await?,
            }
        }
        Ok(leased)
    }
}

#[derive(Debug, FromRow)]
struct SecretsRow {
    secret: String,
    previous_secret: Option<String>,
    previous_secret_until_ms: Option<i64>,
    failures: i64,
}

impl SecretsRow {
    fn previous_secret(&self) -> Result<Option<PreviousSecret>, StoreError> {
        let (Some(secret), Some(until)) = (&self.previous_secret, time(self.previous_secret_until_ms)) else {
            return Ok(None);
        };
        Ok(Some(PreviousSecret { secret: parse_secret(secret)?, until }))
    }
}

/// Parses a secret. The error does not contain the text.
fn parse_secret(text: &str) -> Result<WebhookSecret, StoreError> {
    WebhookSecret::parse(text).ok_or_else(|| unknown_value("webhook secret", "…"))
}

impl LeaseWebhooks {
    /// Reads what the holder of a new lease needs. `None` if no delivery is due after all.
    async fn leased(
        &self,
        conn: &mut Conn,
        webhook: WebhookId,
        number: i64,
    ) -> Result<Option<LeasedWebhook>, StoreError> {
        let id = webhook.0;
        let row = statement::query_as::<WebhookRow>(select_webhooks!("WHERE id = $1")).bind(id);
        let leased = row.fetch_one(&mut *conn).await?.into_webhook()?;
        let secrets: SecretsRow = statement::query_as(
            "SELECT secret, previous_secret, previous_secret_until_ms, failures FROM webhooks WHERE id = $1",
        )
        .bind(id)
        .fetch_one(&mut *conn)
        .await?;
        let due = statement::query_as::<DeliveryRow>(select_deliveries!(
            "WHERE webhook_id = $1 AND due_at_ms IS NOT NULL AND due_at_ms <= $2 ORDER BY due_at_ms, id LIMIT $3"
        ));
        let due =
            due.bind(id).bind(self.now.as_ms()).bind(i64::from(self.deliveries)).fetch_all(conn).await?;
        let deliveries: Vec<_> = due.into_iter().map(DeliveryRow::into_delivery).collect::<Result<_, _>>()?;
        let failures = u32::try_from(secrets.failures).unwrap_or(u32::MAX);
        let (secret, previous_secret) = (parse_secret(&secrets.secret)?, secrets.previous_secret()?);
        let lease = WebhookLease { webhook, number, as_of: leased.updated_at };
        Ok((!deliveries.is_empty()).then_some(LeasedWebhook {
            lease,
            webhook: leased,
            secret,
            previous_secret,
            failures,
            deliveries,
        }))
    }
}

/// Makes a webhook due when its next delivery is, or at the end of its pause if that is later. With a lease, also
/// returns the lease. Without one, does nothing if the webhook is leased.
pub(crate) async fn reschedule(
    conn: &mut Conn,
    id: WebhookId,
    lease: Option<i64>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let next: Option<i64> = statement::query_scalar(
        "SELECT MIN(due_at_ms) FROM webhook_deliveries WHERE webhook_id = $1 AND due_at_ms IS NOT NULL",
    )
    .bind(id.0)
    .fetch_one(&mut *conn)
    .await?;
    // Not earlier than now, so that a webhook goes behind the others that are due after its turn.
    let next = next.map(|next| next.max(now.as_ms()));
    statement::query(
        "UPDATE webhooks SET lease = NULL, due_at_ms = CASE WHEN CAST($2 AS BIGINT) < paused_until_ms \
         THEN paused_until_ms ELSE CAST($2 AS BIGINT) END \
         WHERE id = $1 AND (lease = $3 OR (lease IS NULL AND CAST($3 AS BIGINT) IS NULL))",
    )
    .bind(id.0)
    .bind(next)
    .bind(lease)
    .execute(conn)
    .await?;
    Ok(())
}

struct CompleteTurn {
    lease: WebhookLease,
    attempts: Vec<Attempt>,
    health: WebhookHealth,
    finished_max: u32,
    now: Timestamp,
}

impl Write for CompleteTurn {
    type Out = bool;

    async fn run(&self, conn: &mut Conn) -> Result<bool, StoreError> {
        let webhook = self.lease.webhook;
        let held: Option<i64> =
            statement::query_scalar("SELECT CAST(1 AS BIGINT) FROM webhooks WHERE id = $1 AND lease = $2")
                .bind(webhook.0)
                .bind(self.lease.number)
                .fetch_optional(&mut *conn)
                .await?;
        if held.is_none() {
            return Ok(false);
        }
        let mut finished = 0;
        for attempt in &self.attempts {
            finished += self.record_attempt(conn, attempt).await?;
        }
        if finished > 0 {
            finish_deliveries(conn, webhook.0, finished, self.finished_max).await?;
        }
        if is_lease_current(&mut *conn, self.lease).await? {
            self.record_health(conn).await?;
        }
        reschedule(conn, webhook, Some(self.lease.number), self.now).await?;
        Ok(true)
    }
}

impl CompleteTurn {
    /// Records an attempt. Returns 1 if the delivery is finished by it, else 0.
    async fn record_attempt(&self, conn: &mut Conn, attempt: &Attempt) -> Result<i64, StoreError> {
        let (state, due_at) = match attempt.outcome {
            AttemptOutcome::Delivered => (DeliveryState::Delivered, None),
            AttemptOutcome::GivenUp => (DeliveryState::Failed, None),
            AttemptOutcome::RetryAt(at) => (DeliveryState::Pending, Some(at)),
        };
        // A delivery that was given up during the turn stays so.
        let done = statement::query(
            "UPDATE webhook_deliveries SET state = $2, due_at_ms = $3, attempts = attempts + 1, tried_at_ms = $4, \
             response_status = $5, error = $6 WHERE id = $1 AND due_at_ms IS NOT NULL",
        )
        .bind(attempt.delivery.0)
        .bind(state.as_str())
        .bind(due_at.map(Timestamp::as_ms))
        .bind(attempt.at.as_ms())
        .bind(attempt.response_status.map(i64::from))
        .bind(&attempt.error)
        .execute(conn)
        .await?;
        Ok(i64::from(done.rows_affected() > 0 && due_at.is_none()))
    }

    async fn record_health(&self, conn: &mut Conn) -> Result<(), StoreError> {
        let id = self.lease.webhook.0;
        match &self.health {
            WebhookHealth::Unknown => {}
            WebhookHealth::Healthy => {
                statement::query(
                    "UPDATE webhooks SET failures = 0, failing_since_ms = NULL, paused_until_ms = 0 WHERE id = $1",
                )
                .bind(id)
                .execute(conn)
                .await?;
            }
            WebhookHealth::Failing { failures, since, paused_until, deactivate } => {
                statement::query(
                    "UPDATE webhooks SET failures = $2, failing_since_ms = $3, paused_until_ms = $4, \
                     active = CASE WHEN CAST($5 AS TEXT) IS NULL THEN active ELSE 0 END, \
                     disabled_reason = COALESCE($5, disabled_reason) WHERE id = $1",
                )
                .bind(id)
                .bind(i64::from(*failures))
                .bind(since.as_ms())
                .bind(paused_until.as_ms())
                .bind(deactivate)
                .execute(conn)
                .await?;
            }
        }
        Ok(())
    }
}

/// Whether the lease is held and the owner has not changed the webhook since.
async fn is_lease_current<'c>(
    executor: impl sqlx::SqliteExecutor<'c>,
    lease: WebhookLease,
) -> Result<bool, StoreError> {
    let same: Option<i64> = statement::query_scalar(
        "SELECT CAST(1 AS BIGINT) FROM webhooks WHERE id = $1 AND lease = $2 AND updated_at_ms = $3",
    )
    .bind(lease.webhook.0)
    .bind(lease.number)
    .bind(lease.as_of.as_ms())
    .fetch_optional(executor)
    .await?;
    Ok(same.is_some())
}

struct ResetLeases {
    now: Timestamp,
}

impl Write for ResetLeases {
    type Out = u64;

    async fn run(&self, conn: &mut Conn) -> Result<u64, StoreError> {
        let done =
            statement::query("UPDATE webhooks SET lease = NULL, due_at_ms = $1 WHERE lease IS NOT NULL")
                .bind(self.now.as_ms())
                .execute(conn)
                .await?;
        Ok(done.rows_affected())
    }
}

/// For logs.
impl std::fmt::Display for LeasedWebhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (id, account): (WebhookId, AccountId) = (self.webhook.id, self.webhook.account);
        write!(f, "webhook {id} of {account}")
    }
}
