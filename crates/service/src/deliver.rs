//! Tells webhooks what happened to pins, until they say that they have heard it.
//!
//! A webhook is claimed with a lease, told some of what is due, one after another, and stands at the end of the line
//! again. So nobody waits for a slow receiver longer than a turn of it takes, and an account has only so many of the
//! hands. A receiver that fails ends its turn and is left alone for a while, which grows; what it did not hear is
//! tried again in growing pauses, and given up after some days. One that fails for days is turned off.
//!
//! What came of a turn is written when it is over: after a crash some of it is told once more, under the same id.

use std::sync::Arc;
use std::time::Duration;

use pinfold_model::Timestamp;
use pinfold_outbound::{SendError, Target, WebhookPayload, WebhookPayloadData};
use pinfold_store::{Attempt, DeliveredPin, Delivery, LeasedWebhook, Next, WebhookHealth};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::Error;
use crate::background::rest;
use crate::core::{Core, unavailable};

/// Deliveries that are over and can still be looked at, for each webhook.
pub(crate) const DONE_MAX: u32 = 100;
/// What could not be told in this time is given up.
pub(crate) const AGE_MAX: Duration = Duration::from_hours(3 * 24);

/// Deliveries of one turn, after which others have theirs; after a crash so many are told twice.
const TURN_MAX: u32 = 16;
/// After this long a turn ends with the delivery that runs.
const TURN_TIME: Duration = Duration::from_secs(10);
/// How long a webhook is somebody's: several times what a turn can take.
const LEASE: Duration = Duration::from_mins(2);

/// How often one delivery is tried. With the pauses below, the last try is 50 to 63 hours after the first: a receiver that
/// heard none of them is turned off by the last, and none of them is too old.
const ATTEMPTS_MAX: u32 = 12;
/// The pause after the first failed try; each is three times the one before, less a random fifth.
const RETRY_FIRST: Duration = Duration::from_secs(10);
/// The longest pause.
const RETRY_MAX: Duration = Duration::from_hours(18);

/// How long a receiver is left alone after its first failure; each is twice the one before.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest of these.
const PAUSE_MAX: Duration = Duration::from_mins(5);

/// A webhook is turned off that has failed so often …
const OFF_FAILURES: u32 = ATTEMPTS_MAX;
/// … and for so long, without a success between.
const OFF_TIME: Duration = Duration::from_hours(2 * 24);

/// How often what is too old is taken away.
const SWEEP_PAUSE: Duration = Duration::from_mins(1);
/// The rest when what is due is in nobody's reach: its account has all the hands that it may have.
const BUSY_REST: Duration = Duration::from_secs(1);
/// The rest between two tries to write down what came of a turn.
const FINISH_PAUSE: Duration = Duration::from_secs(1);

/// Tells until the service stops.
pub(crate) async fn run(core: &Arc<Core>) {
    while !core.stop.is_cancelled() {
        let looked = look(core).await;
        tokio::select! {
            () = core.store.outbox_written() => {}
            () = core.wake_webhooks.notified() => {}
            () = rest(core, looked) => {}
            () = core.stop.cancelled() => {}
        }
    }
}

/// Takes away what is too old, until the service stops.
pub(crate) async fn run_sweep(core: &Core) {
    while core.stop.run_until_cancelled(tokio::time::sleep(SWEEP_PAUSE)).await.is_some() {
        if let Err(error) = sweep(core).await {
            tracing::warn!(%error, "taking away what is too old");
        }
    }
}

pub(crate) async fn sweep(core: &Core) -> Result<(), Error> {
    core.sweep_webhooks().await?;
    core.delete_expired_requests().await
}

/// Tells all that is due once, and gives how many webhooks had a turn.
pub(crate) async fn turn(core: &Core) -> Result<usize, Error> {
    let claims = claim(core).await?;
    let told = claims.len();
    futures::future::join_all(claims.into_iter().map(|(claim, permit)| tell(core, claim, permit))).await;
    Ok(told)
}

/// Begins a turn of each webhook that is due and for which there are hands, and says when the next one is.
async fn look(core: &Arc<Core>) -> Result<Option<Timestamp>, Error> {
    for (claim, permit) in claim(core).await? {
        let core = Arc::clone(core);
        let tasks = core.tasks.clone();
        tasks.spawn(async move {
            tell(&core, claim, permit).await;
            core.wake_webhooks.notify_one();
        });
    }
    if core.couriers.available_permits() == 0 {
        // The first hand that is free again wakes it.
        return Ok(None);
    }
    let now = core.clock.now();
    let due = core.store.next_delivery().await.map_err(unavailable)?;
    Ok(due.map(|due| if due <= now { now.after(BUSY_REST) } else { due }))
}

async fn claim(core: &Core) -> Result<Vec<(LeasedWebhook, OwnedSemaphorePermit)>, Error> {
    let now = core.clock.now();
    if core.store.next_delivery().await.map_err(unavailable)?.is_none_or(|due| due > now) {
        return Ok(Vec::new());
    }
    let mut permits = Vec::new();
    while let Ok(permit) = Arc::clone(&core.couriers).try_acquire_owned() {
        permits.push(permit);
    }
    if permits.is_empty() {
        return Ok(Vec::new());
    }
    let hands = u32::try_from(permits.len()).unwrap_or(u32::MAX);
    let claims = core.store.lease_webhooks(hands, TURN_MAX, now, now.after(LEASE)).await;
    Ok(claims.map_err(unavailable)?.into_iter().zip(permits).collect())
}

/// One turn of a webhook.
async fn tell(core: &Core, claim: LeasedWebhook, permit: OwnedSemaphorePermit) {
    let (began, mut turn) = (Instant::now(), Turn::new(&claim));
    for (told, delivery) in claim.deliveries.iter().enumerate() {
        // No more goes to where its owner wants nothing sent any longer.
        if told > 0 && !core.store.is_lease_current(claim.lease).await.unwrap_or(false) {
            break;
        }
        let sent = tokio::select! {
            sent = send(core, &claim, delivery) => sent,
            // What was on its way is told again at the next start.
            () = core.stop.cancelled() => break,
        };
        let failed = sent.is_err();
        turn.note(delivery, sent, core.clock.now());
        if failed || began.elapsed() >= TURN_TIME {
            break;
        }
    }
    if let WebhookHealth::Failing { failures, turn_off, .. } = &turn.health {
        tracing::info!(%claim, failures, off = turn_off.is_some(), "a webhook was not told");
    }
    finish(core, &claim, turn).await;
    drop(permit);
}

async fn send(core: &Core, claim: &LeasedWebhook, delivery: &Delivery) -> Result<u16, SendError> {
    // What the operator allows may be another since it was written.
    let target = Target::parse(&claim.hook.url, core.sender.reach()).map_err(|_| SendError::NotPublic)?;
    let (id, event) = (delivery.id.to_string(), delivery.event.as_str());
    let body = notice(delivery).body();
    let unix_s = core.clock.now().as_ms() / 1_000;
    core.sender.post(&target, claim.secret.reveal(), unix_s, (event, &id), body).await
}

fn notice(delivery: &Delivery) -> WebhookPayload {
    WebhookPayload {
        id: delivery.id.to_string(),
        event: delivery.event.as_str(),
        created_at: delivery.at.to_string(),
        data: delivery.pin.as_ref().map(data),
    }
}

fn data(pin: &DeliveredPin) -> WebhookPayloadData {
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

/// What came of a turn so far.
struct Turn {
    attempts: Vec<Attempt>,
    health: WebhookHealth,
    failures: u32,
    failing_since: Option<Timestamp>,
}

impl Turn {
    fn new(claim: &LeasedWebhook) -> Self {
        Self {
            attempts: Vec::new(),
            health: WebhookHealth::Unknown,
            failures: claim.failures,
            failing_since: claim.hook.failing_since,
        }
    }

    fn note(&mut self, delivery: &Delivery, sent: Result<u16, SendError>, now: Timestamp) {
        let (next, response_status) = match &sent {
            Ok(status) => (Next::Delivered, Some(*status)),
            Err(SendError::Answered(status)) => (next_try(delivery, now), Some(*status)),
            Err(
                SendError::TimedOut
                | SendError::NotPublic
                | SendError::NoAddress
                | SendError::NotConnected
                | SendError::Broken
                | SendError::Unable,
            ) => (next_try(delivery, now), None),
        };
        let error = sent.err().map(|error| error.to_string());
        match &error {
            None => self.succeeded(),
            Some(error) => self.failed(error, now),
        }
        self.attempts.push(Attempt { delivery: delivery.id, at: now, response_status, error, next });
    }

    fn succeeded(&mut self) {
        (self.failures, self.failing_since) = (0, None);
        self.health = WebhookHealth::Well;
    }

    fn failed(&mut self, error: &str, now: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        let since = *self.failing_since.get_or_insert(now);
        let is_lost = self.failures >= OFF_FAILURES && now.since(since) >= OFF_TIME;
        let reason =
            || format!("Turned off at {now}: every try since {since} has failed. The last one: {error}");
        let pause = grown(PAUSE_FIRST, 2, self.failures, PAUSE_MAX);
        self.health = WebhookHealth::Failing {
            failures: self.failures,
            since,
            paused_until: now.after(pause),
            turn_off: is_lost.then(reason),
        };
    }
}

/// What comes after a try that failed.
fn next_try(delivery: &Delivery, now: Timestamp) -> Next {
    let attempts = delivery.attempts.saturating_add(1);
    if attempts >= ATTEMPTS_MAX || now.since(delivery.at) >= AGE_MAX {
        return Next::GiveUp;
    }
    let pause = grown(RETRY_FIRST, 3, attempts, RETRY_MAX);
    // Without randomness the pause is whole, which harms nobody.
    let fifth = pause / 5 * getrandom::u32().unwrap_or(0).min(u32::MAX - 1) / u32::MAX;
    Next::Again(now.after(pause - fifth))
}

/// A pause that grows by a factor with each time.
fn grown(first: Duration, factor: u32, times: u32, max: Duration) -> Duration {
    let grown = factor.checked_pow(times.saturating_sub(1)).and_then(|factor| first.checked_mul(factor));
    grown.map_or(max, |pause| pause.min(max))
}

/// Writes down what came of a turn. While the database fails it is tried again, for as long as the lease is sure to
/// last; after that it is told again.
async fn finish(core: &Core, claim: &LeasedWebhook, turn: Turn) {
    let began = Instant::now();
    loop {
        let (attempts, health) = (turn.attempts.clone(), turn.health.clone());
        let now = core.clock.now();
        match core.store.finish_webhook(claim.lease, attempts, health, DONE_MAX, now).await {
            Ok(true) => return,
            Ok(false) => return tracing::warn!(%claim, "somebody else took a webhook over, or it is gone"),
            Err(error) => tracing::error!(%claim, %error, "writing down what a webhook was told"),
        }
        let pause = core.stop.run_until_cancelled(tokio::time::sleep(FINISH_PAUSE)).await;
        if pause.is_none() || began.elapsed() > LEASE / 2 {
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
    fn a_delivery_is_tried_twelve_times_within_three_days() {
        let mut now = at(0);
        let mut tries = 0;
        while let Next::Again(next) = next_try(&delivery(tries), now) {
            let pause = grown(RETRY_FIRST, 3, tries + 1, RETRY_MAX);
            assert!(next <= now.after(pause) && next >= now.after(pause / 5 * 4), "{tries}: {next}");
            now = now.after(pause);
            tries += 1;
        }
        assert_eq!(tries + 1, ATTEMPTS_MAX);
        let (longest, shortest) = (now.since(at(0)), now.since(at(0)) / 5 * 4);
        assert!(shortest > OFF_TIME && longest < AGE_MAX, "{longest:?}");
        assert_eq!(next_try(&delivery(0), at(3 * 24 * 3_600)), Next::GiveUp, "it is too old by now");
    }

    #[test]
    fn a_receiver_is_turned_off_after_days_without_a_success() {
        let mut turn =
            Turn { attempts: Vec::new(), health: WebhookHealth::Unknown, failures: 0, failing_since: None };
        let is_off = |turn: &Turn| matches!(&turn.health, WebhookHealth::Failing { turn_off: Some(_), .. });
        for day in 0..20 {
            turn.failed("It answered 500", at(day * 12 * 3_600));
            assert_eq!(is_off(&turn), day >= 11, "{day}");
        }
        turn.succeeded();
        turn.failed("It answered 500", at(100 * 24 * 3_600));
        assert!(!is_off(&turn));
        let WebhookHealth::Failing { failures, paused_until, .. } = turn.health else { panic!("it failed") };
        assert_eq!((failures, paused_until), (1, at(100 * 24 * 3_600 + 1)));
    }

    #[test]
    fn pauses_grow_to_their_end() {
        let pause = |times| grown(PAUSE_FIRST, 2, times, PAUSE_MAX).as_secs();
        assert_eq!([pause(1), pause(2), pause(9), pause(10), pause(u32::MAX)], [1, 2, 256, 300, 300]);
    }
}
