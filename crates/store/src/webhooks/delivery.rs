//! Deliveries: who tells a webhook what, how that went, and when it is tried again.
//!
//! A webhook is claimed as a whole, by the one that waited longest, and comes to the end of the line with each turn. So
//! none can make others wait, however much it has to be told.

use cid::Cid;
use pinfold_model::{
    AccountId, ClusterId, DeliveredPin, Delivery, DeliveryId, DeliveryState, Failure, FailureCode, PinId,
    PinName, Timestamp, Webhook, WebhookId, WebhookSecret,
};
use sqlx::FromRow;

use crate::db::row::{number, time, unknown_value, word};
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::webhooks::webhook::{WebhookRow, select_hooks};
use crate::{Store, StoreError};

/// Webhooks of one account that are told at one time: it has no more hands than these, however many it makes.
const ACCOUNT_LEASES_MAX: i64 = 4;

/// The right to tell a webhook, until it runs out or somebody else takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebhookLease {
    /// Which.
    pub webhook: WebhookId,
    /// Its number; no two leases have the same.
    pub number: i64,
    /// When its owner had last changed it. What is changed later is not for this turn to undo.
    pub as_of: Timestamp,
}

/// A webhook to be told something.
#[derive(Debug, Clone)]
pub struct LeasedWebhook {
    /// The right to do so.
    pub lease: WebhookLease,
    pub webhook: Webhook,
    pub secret: WebhookSecret,
    /// The secret before the last rotation. The caller compares its `until` with the time of each attempt.
    pub previous_secret: Option<PreviousSecret>,
    /// How often it has failed since it last succeeded.
    pub failures: u32,
    /// What is due, the longest first.
    pub deliveries: Vec<Delivery>,
}

/// A secret that was rotated, and until when it also signs deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviousSecret {
    pub secret: WebhookSecret,
    pub until: Timestamp,
}

/// What came of one try.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Of what.
    pub delivery: DeliveryId,
    /// When.
    pub at: Timestamp,
    /// The HTTP status of the answer, if there was one.
    pub response_status: Option<u16>,
    /// Why it failed.
    pub error: Option<String>,
    /// What is next.
    pub next: Next,
}

/// What comes after a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it was told.
    Delivered,
    /// Nothing: it is given up.
    GiveUp,
    /// Another try.
    Again(Timestamp),
}

/// How a webhook's receiver seems to be after a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookHealth {
    /// Nothing was tried.
    Unknown,
    /// The last try succeeded.
    Well,
    /// The last try failed.
    Failing {
        /// How many in a row.
        failures: u32,
        /// Since when.
        since: Timestamp,
        /// Nothing is told before.
        paused_until: Timestamp,
        /// Why it is turned off, if it is.
        turn_off: Option<String>,
    },
}

#[derive(Debug, FromRow)]
struct DeliveryRow {
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

/// `SELECT` of deliveries, with a literal tail.
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

impl DeliveryRow {
    fn into_delivery(self) -> Result<Delivery, StoreError> {
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
    /// The deliveries of a webhook, newest first: those older than `before`, at most `limit`. All that wait are there,
    /// and the last of those that are over. Whose webhook it is must be known already.
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

    /// One delivery of a webhook.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        let row = statement::query_as::<DeliveryRow>(select_deliveries!("WHERE id = $1")).bind(id.0);
        row.fetch_optional(&self.readers).await?.map(DeliveryRow::into_delivery).transpose()
    }

    /// When the next webhook is due.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next_delivery(&self) -> Result<Option<Timestamp>, StoreError> {
        let due: Option<i64> = statement::query_scalar(NEXT_DUE).fetch_one(&self.readers).await?;
        Ok(time(due))
    }

    /// Claims up to `hooks` webhooks that are due, the longest first, each until `until` and with up to `deliveries`
    /// of what is due.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn lease_webhooks(
        &self,
        hooks: u32,
        deliveries: u32,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<LeasedWebhook>, StoreError> {
        let numbers = (0..hooks).map(|_| self.id(now)).collect();
        self.write(LeaseWebhooks { numbers, deliveries, now, until }).await
    }

    /// Whether a turn may go on: its lease is held, and the webhook's owner has changed nothing since.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_lease_current(&self, lease: WebhookLease) -> Result<bool, StoreError> {
        is_lease_current(&self.readers, lease).await
    }

    /// Ends a turn: writes what came of each try and how the receiver seems to be, keeps the last `done_max`
    /// deliveries that are over, and gives the lease back. How it seems to be does not count if its owner has changed it
    /// since. False, and nothing is changed, if it was lost.
    ///
    /// # Errors
    /// [`StoreError`]; then the lease stays until it runs out.
    pub async fn finish_webhook(
        &self,
        lease: WebhookLease,
        attempts: Vec<Attempt>,
        health: WebhookHealth,
        done_max: u32,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(Finish { lease, attempts, health, done_max, now }).await
    }

    /// Ends every lease, so that what somebody was telling is due now. Only for a process that knows that it is alone
    /// with the database.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reset_webhook_leases(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.write(TakeOver { now }).await
    }

    /// Takes away what nobody needs, up to `limit` rows: of webhooks that were removed; and gives up what happened
    /// before `before` and could not be told since. True if there is more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn clean_up_webhooks(
        &self,
        before: Timestamp,
        done_max: u32,
        limit: u32,
    ) -> Result<bool, StoreError> {
        self.write(Sweep { before, done_max, limit }).await
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
        // Leases that ran out are nobody's hands any more.
        statement::query("UPDATE webhooks SET lease = NULL WHERE lease IS NOT NULL AND due_at_ms <= $1")
            .bind(self.now.as_ms())
            .execute(&mut *conn)
            .await?;
        let mut claims = Vec::new();
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
            match self.claimed(conn, id, *number).await? {
                Some(claim) => claims.push(claim),
                None => reschedule(conn, id, Some(*number), self.now).await?,
            }
        }
        Ok(claims)
    }
}

#[derive(Debug, FromRow)]
struct KeepsRow {
    secret: String,
    previous_secret: Option<String>,
    previous_secret_until_ms: Option<i64>,
    failures: i64,
}

impl KeepsRow {
    fn previous_secret(&self) -> Result<Option<PreviousSecret>, StoreError> {
        let (Some(secret), Some(until)) = (&self.previous_secret, time(self.previous_secret_until_ms)) else {
            return Ok(None);
        };
        Ok(Some(PreviousSecret { secret: parse_secret(secret)?, until }))
    }
}

/// The text of a secret that does not parse is not shown.
fn parse_secret(text: &str) -> Result<WebhookSecret, StoreError> {
    WebhookSecret::parse(text).ok_or_else(|| unknown_value("webhook secret", "…"))
}

impl LeaseWebhooks {
    /// What the holder of a new lease has to know; `None` if nothing is due after all.
    async fn claimed(
        &self,
        conn: &mut Conn,
        webhook: WebhookId,
        number: i64,
    ) -> Result<Option<LeasedWebhook>, StoreError> {
        let id = webhook.0;
        let row = statement::query_as::<WebhookRow>(select_hooks!("WHERE id = $1")).bind(id);
        let hook = row.fetch_one(&mut *conn).await?.into_hook()?;
        let keeps: KeepsRow = statement::query_as(
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
        let failures = u32::try_from(keeps.failures).unwrap_or(u32::MAX);
        let (secret, previous_secret) = (parse_secret(&keeps.secret)?, keeps.previous_secret()?);
        let lease = WebhookLease { webhook, number, as_of: hook.updated_at };
        Ok((!deliveries.is_empty()).then_some(LeasedWebhook {
            lease,
            webhook: hook,
            secret,
            previous_secret,
            failures,
            deliveries,
        }))
    }
}

/// Makes a webhook due when the next of its deliveries is, after its pause. With a lease, gives that back; without one,
/// leaves alone what somebody has leased.
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
    // Not earlier than now: whoever had a turn stands behind those that wait.
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

struct Finish {
    lease: WebhookLease,
    attempts: Vec<Attempt>,
    health: WebhookHealth,
    done_max: u32,
    now: Timestamp,
}

impl Write for Finish {
    type Out = bool;

    async fn run(&self, conn: &mut Conn) -> Result<bool, StoreError> {
        let hook = self.lease.webhook;
        let held: Option<i64> =
            statement::query_scalar("SELECT CAST(1 AS BIGINT) FROM webhooks WHERE id = $1 AND lease = $2")
                .bind(hook.0)
                .bind(self.lease.number)
                .fetch_optional(&mut *conn)
                .await?;
        if held.is_none() {
            return Ok(false);
        }
        let mut over = 0;
        for attempt in &self.attempts {
            over += self.note(conn, attempt).await?;
        }
        if over > 0 {
            complete_pending(conn, hook.0, over, self.done_max).await?;
        }
        if is_lease_current(&mut *conn, self.lease).await? {
            self.note_health(conn).await?;
        }
        reschedule(conn, hook, Some(self.lease.number), self.now).await?;
        Ok(true)
    }
}

impl Finish {
    /// Writes one try down; 1 if the delivery is over by it.
    async fn note(&self, conn: &mut Conn, attempt: &Attempt) -> Result<i64, StoreError> {
        let (state, due_at) = match attempt.next {
            Next::Delivered => (DeliveryState::Delivered, None),
            Next::GiveUp => (DeliveryState::Failed, None),
            Next::Again(at) => (DeliveryState::Pending, Some(at)),
        };
        // What was given up meanwhile stays so.
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

    async fn note_health(&self, conn: &mut Conn) -> Result<(), StoreError> {
        let id = self.lease.webhook.0;
        match &self.health {
            WebhookHealth::Unknown => {}
            WebhookHealth::Well => {
                statement::query(
                    "UPDATE webhooks SET failures = 0, failing_since_ms = NULL, paused_until_ms = 0 WHERE id = $1",
                )
                .bind(id)
                .execute(conn)
                .await?;
            }
            WebhookHealth::Failing { failures, since, paused_until, turn_off } => {
                statement::query(
                    "UPDATE webhooks SET failures = $2, failing_since_ms = $3, paused_until_ms = $4, \
                     active = CASE WHEN CAST($5 AS TEXT) IS NULL THEN active ELSE 0 END, \
                     disabled_reason = COALESCE($5, disabled_reason) WHERE id = $1",
                )
                .bind(id)
                .bind(i64::from(*failures))
                .bind(since.as_ms())
                .bind(paused_until.as_ms())
                .bind(turn_off)
                .execute(conn)
                .await?;
            }
        }
        Ok(())
    }
}

/// Whether the lease is held and the owner has changed nothing since.
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

/// So many deliveries of a webhook wait no longer: counts that, and forgets the oldest of those that are over.
async fn complete_pending(conn: &mut Conn, hook: i64, over: i64, done_max: u32) -> Result<(), StoreError> {
    statement::query("UPDATE webhooks SET pending = pending - $2 WHERE id = $1")
        .bind(hook)
        .bind(over)
        .execute(&mut *conn)
        .await?;
    statement::query(
        "DELETE FROM webhook_deliveries WHERE webhook_id = $1 AND due_at_ms IS NULL AND id <= \
         (SELECT id FROM webhook_deliveries WHERE webhook_id = $1 AND due_at_ms IS NULL \
         ORDER BY id DESC LIMIT 1 OFFSET $2)",
    )
    .bind(hook)
    .bind(i64::from(done_max))
    .execute(conn)
    .await?;
    Ok(())
}

struct TakeOver {
    now: Timestamp,
}

impl Write for TakeOver {
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

struct Sweep {
    before: Timestamp,
    done_max: u32,
    limit: u32,
}

#[derive(Debug, FromRow)]
struct OldRow {
    id: i64,
    webhook_id: i64,
}

pub(crate) const OLD_DELIVERIES: &str = "SELECT id, webhook_id FROM webhook_deliveries \
     WHERE due_at_ms IS NOT NULL AND at_ms < $1 ORDER BY at_ms, id LIMIT $2";

impl Write for Sweep {
    type Out = bool;

    async fn run(&self, conn: &mut Conn) -> Result<bool, StoreError> {
        let taken = self.delete_rows(conn).await?;
        let old: Vec<OldRow> = statement::query_as(OLD_DELIVERIES)
            .bind(self.before.as_ms())
            .bind(i64::from(self.limit))
            .fetch_all(&mut *conn)
            .await?;
        let mut over = std::collections::BTreeMap::<i64, i64>::new();
        for row in &old {
            statement::query(
                "UPDATE webhook_deliveries SET state = 'failed', due_at_ms = NULL, \
                 error = COALESCE(error, 'The webhook was not active') WHERE id = $1",
            )
            .bind(row.id)
            .execute(&mut *conn)
            .await?;
            *over.entry(row.webhook_id).or_default() += 1;
        }
        for (hook, over) in over {
            complete_pending(conn, hook, over, self.done_max).await?;
        }
        Ok(taken || old.len() >= usize::try_from(self.limit).unwrap_or(usize::MAX))
    }
}

impl Sweep {
    /// Takes rows of one removed webhook away; true if there may be more.
    async fn delete_rows(&self, conn: &mut Conn) -> Result<bool, StoreError> {
        let hook: Option<i64> = statement::query_scalar("SELECT MIN(id) FROM webhooks WHERE removed = 1")
            .fetch_one(&mut *conn)
            .await?;
        let Some(hook) = hook else { return Ok(false) };
        let done = statement::query(
            "DELETE FROM webhook_deliveries WHERE id IN \
             (SELECT id FROM webhook_deliveries WHERE webhook_id = $1 LIMIT $2)",
        )
        .bind(hook)
        .bind(i64::from(self.limit))
        .execute(&mut *conn)
        .await?;
        if done.rows_affected() < u64::from(self.limit) {
            statement::query("DELETE FROM webhooks WHERE id = $1").bind(hook).execute(conn).await?;
        }
        Ok(true)
    }
}

/// Whose webhook it is, in logs.
impl std::fmt::Display for LeasedWebhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (id, account): (WebhookId, AccountId) = (self.webhook.id, self.webhook.account);
        write!(f, "webhook {id} of {account}")
    }
}
