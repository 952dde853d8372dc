//! Webhook delivery: order, signatures, retries, slow receivers, deactivation, secret rotation, target checks.

use std::collections::HashSet;
use std::time::Duration;

use pinfold_cluster::{ClusterError, Fate};
use pinfold_model::{Delivery, PinOptions, WebhookEvent, WebhookEvents, WebhookId, WebhookSecret};
use pinfold_service::{Caller, Error, PinRequest, Settings, TargetPolicy, WebhookDraft, WebhookEdit};
use serde_json::{Value, json};

use crate::webhook_receiver::{Receiver, Request, Response};
use crate::world::{DEADLINE, World};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);

fn settings() -> Settings {
    let webhook_targets = TargetPolicy { allow_http: true, allow_private: true };
    Settings { attempts_max: 3, webhook_targets, webhooks_at_once: 2, ..Settings::default() }
}

fn draft(url: &str) -> WebhookDraft {
    let events = WebhookEvents::new(WebhookEvent::OF_PINS).unwrap();
    WebhookDraft { url: url.to_owned(), events, description: None, active: true }
}

impl World {
    async fn webhook(&self, caller: &Caller, receiver: &Receiver) -> (WebhookId, String) {
        let created = self.service.webhooks.create(caller, draft(&receiver.url())).await.unwrap();
        (created.webhook.id, created.secret.reveal())
    }

    async fn deliveries(&self, caller: &Caller, id: WebhookId) -> Vec<Delivery> {
        self.service.webhooks.deliveries(caller, id, None, 100).await.unwrap().deliveries
    }

    async fn pin_one(&self, caller: &Caller, seed: &str) -> cid::Cid {
        let cid = self.cluster.publish(seed, 5);
        self.pin(caller, PinRequest::new(cid)).await.unwrap();
        cid
    }
}

#[tokio::test]
async fn events_are_delivered_once_in_order_and_signed() {
    let world = World::start_with(settings()).await;
    let alice = world.account("alice", "premium").await;
    let receiver = Receiver::start().await;
    let (_, secret) = world.webhook(&alice, &receiver).await;
    let stored = world.pin_one(&alice, "kept").await;
    let cid = world.cluster.publish("for an hour", 5);
    let timelock = Some(world.in_an_hour());
    world
        .pin(&alice, PinRequest::new(cid).with(PinOptions { timelock, ..PinOptions::default() }))
        .await
        .unwrap();
    let fails = world.cluster.publish("fails", 5);
    world.cluster.script_hold(&fails, [Fate::Fails(ClusterError::Unfit("no DAG".to_owned()))]);
    assert!(world.pin(&alice, PinRequest::new(fails)).await.is_err());
    world.clock.advance(HOUR);
    world.run_until_idle().await;
    world.remove(&alice, &stored).await.unwrap();
    world.run_until_idle().await;

    assert_eq!(receiver.events(), ["pin.pinned", "pin.pinned", "pin.failed", "pin.expired", "pin.removed"]);
    let requests = receiver.requests();
    let other = WebhookSecret::new([0; 32]).reveal();
    assert!(
        requests.iter().all(|request| request.is_signed_with(&secret) && !request.is_signed_with(&other))
    );
    let data = |index: usize| requests[index].json()["data"].clone();
    assert_eq!((&data(2)["error"], &data(2)["errorCode"]), (&json!("no DAG"), &json!("unfit")));
    assert_eq!((&data(4)["cid"], &data(4)["status"]), (&json!(stored.to_string()), &json!("unpinned")));
    let ids: HashSet<_> = requests.iter().map(Request::id).collect();
    assert_eq!(ids.len(), 5, "each event has an id");
    for request in &requests {
        assert_eq!(request.header("content-type"), "application/json");
        let payload = request.json();
        let fields: Vec<_> = payload.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields, ["data", "timestamp", "type"]);
    }
}

#[tokio::test]
async fn events_of_other_accounts_are_not_delivered() {
    let world = World::start_with(settings()).await;
    let (alice, bob) = (world.account("alice", "free").await, world.account("bob", "free").await);
    let receiver = Receiver::start().await;
    world.webhook(&alice, &receiver).await;
    let cid = world.pin_one(&bob, "bobs").await;
    world.remove(&bob, &cid).await.unwrap();
    world.run_until_idle().await;
    assert!(receiver.requests().is_empty());
}

#[tokio::test]
async fn failed_delivery_is_retried_with_the_same_id() {
    let mut world = World::start_with(settings()).await;
    let alice = world.account("alice", "free").await;
    let receiver = Receiver::start().await;
    receiver.script([Response::Status(500), Response::Status(302), Response::Status(404)]);
    let (id, secret) = world.webhook(&alice, &receiver).await;
    world.pin_one(&alice, "a").await;
    for attempts in 1..=3 {
        assert_eq!(receiver.requests().len(), attempts);
        let delivery = world.deliveries(&alice, id).await.remove(0);
        assert_eq!((delivery.attempts as usize, delivery.state.as_str()), (attempts, "pending"));
        assert_eq!(delivery.response_status, Some([500, 302, 404][attempts - 1]));
        world.run_until_idle().await;
        assert_eq!(receiver.requests().len(), attempts, "not before it is due");
        // A restart does not change the schedule.
        world.restart().await;
        world.clock.set(delivery.due_at.unwrap());
        world.run_until_idle().await;
    }
    let requests = receiver.requests();
    assert_eq!(requests.len(), 4);
    let first = &requests[0];
    assert!(requests.iter().all(|retry| retry.id() == first.id() && retry.body == first.body));
    assert!(requests.iter().all(|request| request.is_signed_with(&secret)));
    assert!(requests.windows(2).all(|pair| pair[0].timestamp() < pair[1].timestamp()), "of each attempt");
    let done = world.deliveries(&alice, id).await.remove(0);
    assert_eq!((done.state.as_str(), done.response_status, done.error), ("delivered", Some(200), None));
    let hook = world.service.webhooks.find(&alice, id).await.unwrap();
    assert_eq!((hook.failing_since, hook.pending), (None, 0));
}

#[tokio::test]
async fn failed_delivery_does_not_delay_later_events() {
    let world = World::start_with(settings()).await;
    let alice = world.account("alice", "free").await;
    let receiver = Receiver::start().await;
    receiver.script([Response::Status(500)]);
    let (id, _) = world.webhook(&alice, &receiver).await;
    world.pin_one(&alice, "a").await;
    world.pin_one(&alice, "b").await;
    assert_eq!(receiver.requests().len(), 1, "the webhook pauses after a failure");
    world.clock.advance(2 * SECOND);
    world.run_until_idle().await;
    assert_eq!(receiver.requests().len(), 2);
    let deliveries = world.deliveries(&alice, id).await;
    let states: Vec<_> = deliveries.iter().map(|delivery| delivery.state.as_str()).collect();
    assert_eq!(states, ["delivered", "pending"]);
}

#[tokio::test]
async fn slow_receiver_does_not_delay_other_accounts() {
    let world = World::start_with(settings()).await;
    let (alice, bob) = (world.account("alice", "free").await, world.account("bob", "free").await);
    let (slow, fast) = (Receiver::start().await, Receiver::start().await);
    slow.respond_with(Response::Waits);
    world.webhook(&alice, &slow).await;
    world.webhook(&bob, &fast).await;
    let background = world.service.run();
    for seed in ["a", "b", "c"] {
        let cid = world.cluster.publish(seed, 5);
        for caller in [&alice, &bob] {
            world.service.pins.pin(caller, PinRequest::new(cid), crate::world::LONG).await.unwrap();
        }
    }
    slow.until_requests(1).await;
    fast.until_requests(3).await;
    assert_eq!(slow.requests().len(), 1, "deliveries of a webhook are sent one after another");
    slow.release();
    slow.until_requests(3).await;
    background.stop().await;
}

#[tokio::test]
async fn webhook_is_deactivated_after_days_of_failures_until_its_owner_activates_it() {
    let world = World::start_with(settings()).await;
    let alice = world.account("alice", "free").await;
    let receiver = Receiver::start().await;
    receiver.respond_with(Response::Status(503));
    let (id, _) = world.webhook(&alice, &receiver).await;
    world.pin_one(&alice, "a").await;
    let mut attempts = 1;
    while let Some(due) = world.deliveries(&alice, id).await[0].due_at {
        world.clock.set(due);
        world.run_until_idle().await;
        attempts += 1;
        assert!(attempts <= 12, "attempts are limited");
    }
    assert_eq!((attempts, receiver.requests().len()), (12, 12));
    let delivery = world.deliveries(&alice, id).await.remove(0);
    let error = "The receiver responded with status 503";
    assert_eq!((delivery.state.as_str(), delivery.error.as_deref()), ("failed", Some(error)));
    let inactive = world.service.webhooks.find(&alice, id).await.unwrap();
    assert!(!inactive.active && inactive.disabled_reason.is_some_and(|reason| reason.contains(error)));
    assert_eq!(world.service.webhooks.test(&alice, id).await.err(), Some(Error::WebhookInactive));
    world.pin_one(&alice, "b").await;
    assert_eq!(receiver.requests().len(), 12);

    receiver.respond_with(Response::Status(200));
    let edit = WebhookEdit { active: Some(true), ..WebhookEdit::default() };
    let active = world.service.webhooks.edit(&alice, id, edit).await.unwrap();
    assert!(active.active && active.disabled_reason.is_none());
    world.pin_one(&alice, "c").await;
    world.service.webhooks.test(&alice, id).await.unwrap();
    world.run_until_idle().await;
    assert_eq!(receiver.events()[12..], ["pin.pinned", "webhook.test"]);
}

#[tokio::test]
async fn pending_deliveries_of_an_inactive_webhook_are_given_up_after_days() {
    let world = World::start_with(settings()).await;
    let alice = world.account("alice", "free").await;
    let receiver = Receiver::start().await;
    receiver.respond_with(Response::Status(500));
    let (id, _) = world.webhook(&alice, &receiver).await;
    world.pin_one(&alice, "a").await;
    let edit = WebhookEdit { active: Some(false), ..WebhookEdit::default() };
    world.service.webhooks.edit(&alice, id, edit).await.unwrap();
    world.clock.advance(4 * 24 * HOUR);
    world.run_until_idle().await;
    let delivery = world.deliveries(&alice, id).await.remove(0);
    assert_eq!((delivery.state.as_str(), delivery.attempts), ("failed", 1));
    assert_eq!(world.service.webhooks.find(&alice, id).await.unwrap().pending, 0);
}

#[tokio::test]
async fn both_secrets_sign_for_a_day_after_a_rotation() {
    let world = World::start_with(settings()).await;
    let alice = world.account("alice", "free").await;
    let receiver = Receiver::start().await;
    let (id, old) = world.webhook(&alice, &receiver).await;
    let new = world.service.webhooks.rotate_secret(&alice, id).await.unwrap().secret;
    world.service.webhooks.test(&alice, id).await.unwrap();
    world.run_until_idle().await;
    let request = receiver.requests().remove(0);
    assert!(request.is_signed_with(&new.reveal()) && request.is_signed_with(&old));
    assert_eq!(request.signatures().len(), 2);
    assert_eq!((&request.json()["type"], &request.json()["data"]), (&json!("webhook.test"), &Value::Null));

    // A second rotation ends the first secret.
    let newest = world.service.webhooks.rotate_secret(&alice, id).await.unwrap().secret;
    world.service.webhooks.test(&alice, id).await.unwrap();
    world.run_until_idle().await;
    let request = receiver.requests().remove(1);
    assert!(request.is_signed_with(&newest.reveal()) && request.is_signed_with(&new.reveal()));
    assert!(!request.is_signed_with(&old) && request.signatures().len() == 2);

    world.clock.advance(24 * HOUR);
    world.service.webhooks.test(&alice, id).await.unwrap();
    world.run_until_idle().await;
    let request = receiver.requests().remove(2);
    assert!(request.is_signed_with(&newest.reveal()));
    assert_eq!(request.signatures().len(), 1, "the previous secret has expired");
}

#[tokio::test]
async fn private_targets_are_rejected_unless_the_operator_allows_them() {
    let mut world = World::start_with(settings()).await;
    let alice = world.account("alice", "free").await;
    let receiver = Receiver::start().await;
    let (id, _) = world.webhook(&alice, &receiver).await;
    let named = receiver.url().replace("127.0.0.1", "localhost");
    let by_name = world.service.webhooks.create(&alice, draft(&named)).await.unwrap().webhook.id;
    // The operator no longer allows private targets.
    let webhook_targets = TargetPolicy { allow_http: true, allow_private: false };
    world.restart_with(Settings { webhook_targets, ..settings() }).await;
    world.pin_one(&alice, "a").await;
    for webhook in [id, by_name] {
        let delivery = world.deliveries(&alice, webhook).await.remove(0);
        assert_eq!(delivery.error.as_deref(), Some("The host resolves to an address that is not public"));
        assert_eq!((delivery.attempts, delivery.response_status), (1, None));
    }
    assert!(receiver.requests().is_empty());
    let refused = world.service.webhooks.create(&alice, draft(&receiver.url())).await.err();
    assert_eq!(refused, Some(Error::InvalidRequest("The URL's host must be a public address".to_owned())));
    world.restart_with(Settings::default()).await;
    let refused = world.service.webhooks.create(&alice, draft("http://example.org/")).await.err();
    assert_eq!(refused, Some(Error::InvalidRequest("The URL must begin with https://".to_owned())));
}

#[tokio::test]
async fn delivery_interrupted_by_a_stop_is_repeated_after_the_next_start() {
    let mut world = World::start_with(settings()).await;
    let alice = world.account("alice", "free").await;
    let receiver = Receiver::start().await;
    receiver.script([Response::Waits]);
    world.webhook(&alice, &receiver).await;
    let background = world.service.run();
    let cid = world.cluster.publish("a", 5);
    world.service.pins.pin(&alice, PinRequest::new(cid), crate::world::LONG).await.unwrap();
    receiver.until_requests(1).await;
    tokio::time::timeout(DEADLINE, background.stop()).await.expect("the stop does not wait for the receiver");
    world.restart().await;
    world.run_until_idle().await;
    let requests = receiver.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].id(), requests[1].id());
}
