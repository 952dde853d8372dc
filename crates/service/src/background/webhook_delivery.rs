//! Delivers pin events to webhooks.
//!
//! The unit of work is a turn: a webhook is leased, up to [`TURN_DELIVERIES_MAX`] of its due deliveries are sent one
//! after another, the outcome is recorded in one transaction, and the webhook goes to the end of the queue. Therefore a
//! slow receiver delays others by at most one turn, and the store limits how many webhooks of one account are leased at
//! a time.
//!
//! The first failure ends a turn. The webhook then pauses for a while that grows with each failure, and the failed
//! delivery is retried with its own growing delay until it is given up after [`ATTEMPTS_MAX`] attempts or
//! [`AGE_MAX`]. A webhook whose attempts have all failed for [`DISABLE_AFTER`] is deactivated.
//!
//! Delivery is at least once: after a crash, the deliveries of an unrecorded turn are sent again with the same ids.

use std::sync::Arc;
use std::time::Duration;

use pinfold_model::{Backoff, DeliveredPin, Delivery, Timestamp, WebhookSecret};
use pinfold_outbound::{SendError, SignedRequest, Target, WebhookPayload, WebhookPayloadData};
use pinfold_store::{Attempt, AttemptOutcome, LeasedWebhook, WebhookHealth};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::Error;
use crate::error::log_store_error;
use crate::schedule::wait_until_due;
use crate::webhooks::WebhookDelivery;

/// Finished deliveries that are kept for each webhook.
const FINISHED_MAX: u32 = 100;
/// A delivery older than this is given up.
const AGE_MAX: Duration = Duration::from_hours(3 * 24);

/// Deliveries in one turn. Also the most deliveries of a webhook that are repeated after a crash.
const TURN_DELIVERIES_MAX: u32 = 16;
/// No further delivery of a turn begins after this time.
const TURN_TIME_MAX: Duration = Duration::from_secs(10);
/// Lease duration of a webhook: several times the longest turn.
const LEASE: Duration = Duration::from_mins(2);

/// Attempts of one delivery. With the delays below, the last attempt is 50 to 63 hours after the first. This is longer
/// than [`DISABLE_AFTER`], so that a receiver that fails each attempt is deactivated, and shorter than [`AGE_MAX`].
const ATTEMPTS_MAX: u32 = 12;
/// Delay after the first failed attempt. Each further delay is three times the previous one. Up to a fifth, at random, is
/// subtracted.
const RETRY: Backoff = Backoff { first: Duration::from_secs(10), factor: 3, max: Duration::from_hours(18) };

/// Pause of a webhook after its first failure. Each further pause is twice the previous one.
const PAUSE: Backoff = Backoff { first: Duration::from_secs(1), factor: 2, max: Duration::from_mins(5) };

/// A webhook is deactivated after this many failures in a row, if the first of them is [`DISABLE_AFTER`] old.
const DISABLE_AFTER_FAILURES: u32 = ATTEMPTS_MAX;
const DISABLE_AFTER: Duration = Duration::from_hours(2 * 24);

/// Interval of [`cleanup`].
const CLEANUP_INTERVAL: Duration = Duration::from_mins(1);
/// Rows that one transaction of [`cleanup`] changes. Other writes wait for it.
const CLEANUP_ROWS_MAX: u32 = 500;
/// Wait when every due webhook belongs to an account that has its maximum of leases.
const BUSY_REST: Duration = Duration::from_secs(1);
/// Wait between two attempts to record a turn.
const RECORD_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Delivers until the service stops.
pub(super) async fn run(webhooks: &Arc<WebhookDelivery>) {
    while !webhooks.tasks.is_stopping() {
        let next_due = start_turns(webhooks).await;
        tokio::select! {
            () = webhooks.store.outbox_written() => {}
            () = webhooks.work_added.notified() => {}
            () = wait_until_due(webhooks.clock.as_ref(), next_due) => {}
            () = webhooks.tasks.stopped() => {}
        }
    }
}

/// Runs [`cleanup`] at intervals until the service stops.
pub(super) async fn run_cleanup(webhooks: &WebhookDelivery) {
    while webhooks.tasks.sleep(CLEANUP_INTERVAL).await {
        if let Err(error) = cleanup(webhooks).await {
            tracing::warn!(%error, "failed to delete old webhook deliveries");
        }
    }
}

/// Gives up old deliveries and deletes removed webhooks.
pub(super) async fn cleanup(webhooks: &WebhookDelivery) -> Result<(), Error> {
    let before = webhooks.clock.now().before(AGE_MAX);
    while !webhooks.tasks.is_stopping()
        && webhooks
            .store
            .clean_up_webhooks(before, FINISHED_MAX, CLEANUP_ROWS_MAX)
            .await
            .map_err(log_store_error)?
    {
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Runs one turn of each webhook that is due. Returns the number of turns.
pub(super) async fn turn(webhooks: &WebhookDelivery) -> Result<usize, Error> {
    let leased = lease(webhooks).await?;
    let turns = leased.len();
    let runs = leased.into_iter().map(|(webhook, permit)| run_turn(webhooks, webhook, permit));
    futures::future::join_all(runs).await;
    Ok(turns)
}

/// Spawns a turn of each webhook that is due, as far as there are permits. Returns when the next webhook is due.
async fn start_turns(webhooks: &Arc<WebhookDelivery>) -> Result<Option<Timestamp>, Error> {
    for (webhook, permit) in lease(webhooks).await? {
        let webhooks = Arc::clone(webhooks);
        let tasks = webhooks.tasks.clone();
        tasks.spawn(async move {
            run_turn(&webhooks, webhook, permit).await;
            webhooks.wake();
        });
    }
    if webhooks.permits.available_permits() == 0 {
        // The next turn that ends wakes the loop.
        return Ok(None);
    }
    let now = webhooks.clock.now();
    let due = webhooks.store.next_delivery().await.map_err(log_store_error)?;
    Ok(due.map(|due| if due <= now { now.after(BUSY_REST) } else { due }))
}

async fn lease(webhooks: &WebhookDelivery) -> Result<Vec<(LeasedWebhook, OwnedSemaphorePermit)>, Error> {
    let now = webhooks.clock.now();
    if webhooks.store.next_delivery().await.map_err(log_store_error)?.is_none_or(|due| due > now) {
        return Ok(Vec::new());
    }
    let mut permits = Vec::new();
    while let Ok(permit) = Arc::clone(&webhooks.permits).try_acquire_owned() {
        permits.push(permit);
    }
    if permits.is_empty() {
        return Ok(Vec::new());
    }
    let webhooks_max = u32::try_from(permits.len()).unwrap_or(u32::MAX);
    let leased =
        webhooks.store.lease_webhooks(webhooks_max, TURN_DELIVERIES_MAX, now, now.after(LEASE)).await;
    Ok(leased.map_err(log_store_error)?.into_iter().zip(permits).collect())
}

async fn run_turn(webhooks: &WebhookDelivery, webhook: LeasedWebhook, permit: OwnedSemaphorePermit) {
    let (began, mut turn) = (Instant::now(), Turn::new(&webhook));
    for (sent_before, delivery) in webhook.deliveries.iter().enumerate() {
        // The owner may have changed or removed the webhook during the turn.
        if sent_before > 0 && !webhooks.store.is_lease_current(webhook.lease).await.unwrap_or(false) {
            break;
        }
        let sent = tokio::select! {
            sent = send(webhooks, &webhook, delivery) => sent,
            // The interrupted delivery is sent again after the next start.
            () = webhooks.tasks.stopped() => break,
        };
        let failed = sent.is_err();
        turn.record(delivery, sent, webhooks.clock.now());
        if failed || began.elapsed() >= TURN_TIME_MAX {
            break;
        }
    }
    if let WebhookHealth::Failing { failures, deactivate, .. } = &turn.health {
        let deactivated = deactivate.is_some();
        tracing::info!(%webhook, failures, deactivated, "webhook delivery failed");
    }
    record_turn(webhooks, &webhook, turn).await;
    drop(permit);
}

async fn send(
    webhooks: &WebhookDelivery,
    webhook: &LeasedWebhook,
    delivery: &Delivery,
) -> Result<u16, SendError> {
    // The target policy may have changed since the URL was stored.
    let target =
        Target::parse(&webhook.webhook.url, webhooks.sender.policy()).map_err(|_| SendError::NotPublic)?;
    let now = webhooks.clock.now();
    let previous = webhook.previous_secret.as_ref().filter(|previous| previous.until > now);
    let secrets = [&webhook.secret].into_iter().chain(previous.map(|previous| &previous.secret));
    let request = SignedRequest {
        id: &delivery.id.to_string(),
        unix_s: now.as_ms() / 1_000,
        keys: secrets.map(WebhookSecret::key).collect(),
        body: payload(delivery).body(),
    };
    webhooks.sender.post(&target, request).await
}

fn payload(delivery: &Delivery) -> WebhookPayload {
    WebhookPayload {
        event: delivery.event.as_str(),
        timestamp: delivery.at.to_string(),
        data: delivery.pin.as_ref().map(payload_data),
    }
}

fn payload_data(pin: &DeliveredPin) -> WebhookPayloadData {
    WebhookPayloadData {
        cid: pin.cid.to_string(),
        cluster_id: pin.cluster.to_string(),
        upload_id: pin.id.to_string(),
        status: pin.state.as_str(),
        size: pin.bytes,
        kind: pin.kind.as_str(),
        original_name: pin.original_name.as_ref().map(ToString::to_string),
        custom_name: pin.custom_name.as_ref().map(ToString::to_string),
        created_at: pin.created_at.to_string(),
        expires_at: pin.expires_at.map(|at| at.to_string()),
        error: pin.error.as_ref().map(|error| error.detail.clone()),
        error_code: pin.error.as_ref().map(|error| error.code.as_str()),
    }
}

/// The outcome of a turn so far.
struct Turn {
    attempts: Vec<Attempt>,
    health: WebhookHealth,
    failures: u32,
    failing_since: Option<Timestamp>,
}

impl Turn {
    fn new(webhook: &LeasedWebhook) -> Self {
        Self {
            attempts: Vec::new(),
            health: WebhookHealth::Unknown,
            failures: webhook.failures,
            failing_since: webhook.webhook.failing_since,
        }
    }

    fn record(&mut self, delivery: &Delivery, sent: Result<u16, SendError>, now: Timestamp) {
        let (outcome, response_status) = match &sent {
            Ok(status) => (AttemptOutcome::Delivered, Some(*status)),
            Err(SendError::Status(status)) => (after_failure(delivery, now), Some(*status)),
            Err(
                SendError::TimedOut
                | SendError::NotPublic
                | SendError::NotResolved
                | SendError::NotConnected
                | SendError::ConnectionLost
                | SendError::ClientUnavailable,
            ) => (after_failure(delivery, now), None),
        };
        let error = sent.err().map(|error| error.to_string());
        match &error {
            None => self.succeeded(),
            Some(error) => self.failed(error, now),
        }
        self.attempts.push(Attempt { delivery: delivery.id, at: now, response_status, error, outcome });
    }

    fn succeeded(&mut self) {
        (self.failures, self.failing_since) = (0, None);
        self.health = WebhookHealth::Healthy;
    }

    fn failed(&mut self, error: &str, now: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        let since = *self.failing_since.get_or_insert(now);
        let is_down = self.failures >= DISABLE_AFTER_FAILURES && now.since(since) >= DISABLE_AFTER;
        let reason =
            || format!("Deactivated at {now}: every attempt since {since} failed. Last error: {error}");
        let pause = PAUSE.delay(self.failures);
        self.health = WebhookHealth::Failing {
            failures: self.failures,
            since,
            paused_until: now.after(pause),
            deactivate: is_down.then(reason),
        };
    }
}

/// What follows a failed attempt.
fn after_failure(delivery: &Delivery, now: Timestamp) -> AttemptOutcome {
    let attempts = delivery.attempts.saturating_add(1);
    if attempts >= ATTEMPTS_MAX || now.since(delivery.at) >= AGE_MAX {
        return AttemptOutcome::GivenUp;
    }
    let delay = RETRY.delay(attempts);
    // Without a random number, nothing is subtracted.
    let jitter = delay / 5 * getrandom::u32().unwrap_or(0).min(u32::MAX - 1) / u32::MAX;
    AttemptOutcome::RetryAt(now.after(delay - jitter))
}

/// Records a turn and returns the lease. Retries while the store fails, as long as the lease certainly holds. If that is
/// not enough, the deliveries are sent again when the lease has expired.
async fn record_turn(webhooks: &WebhookDelivery, webhook: &LeasedWebhook, turn: Turn) {
    let began = Instant::now();
    loop {
        let (attempts, health) = (turn.attempts.clone(), turn.health.clone());
        let now = webhooks.clock.now();
        match webhooks.store.complete_webhook_turn(webhook.lease, attempts, health, FINISHED_MAX, now).await {
            Ok(true) => return,
            Ok(false) => {
                return tracing::warn!(%webhook, "webhook turn not recorded: lease lost or webhook removed");
            }
            Err(error) => tracing::error!(%webhook, %error, "failed to record webhook deliveries"),
        }
        let is_running = webhooks.tasks.sleep(RECORD_RETRY_DELAY).await;
        if !is_running || began.elapsed() > LEASE / 2 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use pinfold_model::{DeliveryId, DeliveryState, WebhookEvent};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_ms(1_767_225_600_000 + seconds * 1_000)
    }

    fn delivery(attempts: u32) -> Delivery {
        Delivery {
            id: DeliveryId(1),
            event: WebhookEvent::Pinned,
            at: at(0),
            pin: None,
            state: DeliveryState::Pending,
            due_at: Some(at(0)),
            attempts,
            tried_at: None,
            response_status: None,
            error: None,
        }
    }

    #[test]
    fn delivery_is_attempted_twelve_times_within_three_days() {
        let mut now = at(0);
        let mut failures = 0;
        while let AttemptOutcome::RetryAt(next) = after_failure(&delivery(failures), now) {
            let delay = RETRY.delay(failures + 1);
            assert!(next <= now.after(delay) && next >= now.after(delay / 5 * 4), "{failures}: {next}");
            now = now.after(delay);
            failures += 1;
        }
        assert_eq!(failures + 1, ATTEMPTS_MAX);
        let (longest, shortest) = (now.since(at(0)), now.since(at(0)) / 5 * 4);
        assert!(shortest > DISABLE_AFTER && longest < AGE_MAX, "{longest:?}");
        assert_eq!(
            after_failure(&delivery(0), at(3 * 24 * 3_600)),
            AttemptOutcome::GivenUp,
            "the delivery is too old"
        );
    }

    #[test]
    fn webhook_is_deactivated_after_two_days_of_failures() {
        let mut turn =
            Turn { attempts: Vec::new(), health: WebhookHealth::Unknown, failures: 0, failing_since: None };
        let is_deactivated =
            |turn: &Turn| matches!(&turn.health, WebhookHealth::Failing { deactivate: Some(_), .. });
        for day in 0..20 {
            turn.failed("The receiver responded with status 500", at(day * 12 * 3_600));
            assert_eq!(is_deactivated(&turn), day >= 11, "{day}");
        }
        turn.succeeded();
        turn.failed("The receiver responded with status 500", at(100 * 24 * 3_600));
        assert!(!is_deactivated(&turn));
        let WebhookHealth::Failing { failures, paused_until, .. } = turn.health else {
            panic!("the last attempt failed")
        };
        assert_eq!((failures, paused_until), (1, at(100 * 24 * 3_600 + 1)));
    }

    #[test]
    fn pause_grows_up_to_its_maximum() {
        let pause = |times| PAUSE.delay(times).as_secs();
        assert_eq!([pause(1), pause(2), pause(9), pause(10), pause(u32::MAX)], [1, 2, 256, 300, 300]);
    }
}
