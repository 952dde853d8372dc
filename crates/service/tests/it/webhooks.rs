//! Stories of webhooks: told, failing, slow, turned off.

use std::time::Duration;

use pinfold_cluster::{ClusterError, Fate};
use pinfold_model::{PinOptions, WebhookEvent, WebhookEvents, WebhookId};
use pinfold_service::{
    Caller, Delivery, Error, PinRequest, Settings, WebhookDraft, WebhookEdit, WebhookReach,
};

use crate::receiver::{Answer, Receiver};
use crate::world::{DEADLINE, World};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);

fn settings() -> Settings {
    let reach = WebhookReach { plain_http: true, private: true };
    Settings { attempts_max: 3, webhooks_reach: reach, webhooks_at_once: 2, ..Settings::default() }
}

fn draft(url: &str) -> WebhookDraft {
    let events = WebhookEvents::new(WebhookEvent::OF_PINS).unwrap();
    WebhookDraft { url: url.to_owned(), events, description: None, active: true }
}

impl World {
    async fn hook(&self, caller: &Caller, receiver: &Receiver) -> (WebhookId, String) {
        let opened = self.service.webhooks.create(caller, draft(receiver.url())).await.unwrap();
        (opened.hook.id, opened.secret.reveal().to_owned())
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
async fn all_that_happens_is_told_once_in_order_and_signed() {
    let world = World::start_with(settings()).await;
    let alice = world.account("alice", "premium").await;
    let receiver = Receiver::start().await;
    let (_, secret) = world.hook(&alice, &receiver).await;
    let kept = world.pin_one(&alice, "kept").await;
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
    world.remove(&alice, &kept).await.unwrap();
    world.run_until_idle().await;

    assert_eq!(receiver.events(), ["pin.pinned", "pin.pinned", "pin.failed", "pin.expired", "pin.removed"]);
    let told = receiver.told();
    assert!(told.iter().all(|told| told.is_signed_with(&secret) && !told.is_signed_with("whsec_")));
    assert!(told[2].body.contains(r#""error":"no DAG","errorCode":"unfit""#), "{}", told[2].body);
    assert!(
        told[4].body.contains(&format!(r#""cid":"{kept}""#))
            && told[4].body.contains(r#""status":"unpinned""#)
    );
    assert!(told.iter().all(|told| told.body.contains(&format!(r#"{{"id":"{}""#, told.delivery))));
}

#[tokio::test]
async fn whoever_has_no_webhook_is_not_in_it() {
    let world = World::start_with(settings()).await;
    let (alice, bob) = (world.account("alice", "free").await, world.account("bob", "free").await);
    let receiver = Receiver::start().await;
    world.hook(&alice, &receiver).await;
    let cid = world.pin_one(&bob, "bobs").await;
    world.remove(&bob, &cid).await.unwrap();
    world.run_until_idle().await;
    assert!(receiver.told().is_empty());
}

#[tokio::test]
async fn what_fails_is_tried_again_under_the_same_id_until_it_is_heard() {
    let mut world = World::start_with(settings()).await;
    let alice = world.account("alice", "free").await;
    let receiver = Receiver::start().await;
    receiver.script([Answer::Status(500), Answer::Status(302), Answer::Status(404)]);
    let (id, _) = world.hook(&alice, &receiver).await;
    world.pin_one(&alice, "a").await;
    for tries in 1..=3 {
        assert_eq!(receiver.told().len(), tries);
        let told = world.deliveries(&alice, id).await.remove(0);
        assert_eq!((told.attempts as usize, told.state.as_str()), (tries, "pending"));
        assert_eq!(told.response_status, Some([500, 302, 404][tries - 1]));
        world.run_until_idle().await;
        assert_eq!(receiver.told().len(), tries, "not before its time");
        // A restart changes nothing of that.
        world.restart().await;
        world.clock.set(told.due_at.unwrap());
        world.run_until_idle().await;
    }
    let told = receiver.told();
    assert_eq!(told.len(), 4);
    assert!(told.iter().all(|again| again.delivery == told[0].delivery && again.body == told[0].body));
    let done = world.deliveries(&alice, id).await.remove(0);
    assert_eq!((done.state.as_str(), done.response_status, done.error), ("delivered", Some(200), None));
    let hook = world.service.webhooks.find(&alice, id).await.unwrap();
    assert_eq!((hook.failing_since, hook.pending), (None, 0));
}

#[tokio::test]
async fn one_event_that_nobody_wants_to_hear_holds_up_no_other() {
    let world = World::start_with(settings()).await;
    let alice = world.account("alice", "free").await;
    let receiver = Receiver::start().await;
    receiver.script([Answer::Status(500)]);
    let (id, _) = world.hook(&alice, &receiver).await;
    world.pin_one(&alice, "a").await;
    world.pin_one(&alice, "b").await;
    assert_eq!(receiver.told().len(), 1, "it is left alone for a moment");
    world.clock.advance(2 * SECOND);
    world.run_until_idle().await;
    assert_eq!(receiver.told().len(), 2);
    let states: Vec<_> = world.deliveries(&alice, id).await.iter().map(|told| told.state.as_str()).collect();
    assert_eq!(states, ["delivered", "pending"]);
}

#[tokio::test]
async fn a_slow_receiver_holds_up_nobody_and_neither_does_its_account() {
    let world = World::start_with(settings()).await;
    let (alice, bob) = (world.account("alice", "free").await, world.account("bob", "free").await);
    let (slow, quick) = (Receiver::start().await, Receiver::start().await);
    slow.always(Answer::Waits);
    world.hook(&alice, &slow).await;
    world.hook(&bob, &quick).await;
    let background = world.service.run();
    for seed in ["a", "b", "c"] {
        let cid = world.cluster.publish(seed, 5);
        for caller in [&alice, &bob] {
            world.service.pins.pin(caller, PinRequest::new(cid), crate::world::LONG).await.unwrap();
        }
    }
    slow.until_told(1).await;
    quick.until_told(3).await;
    assert_eq!(slow.told().len(), 1, "it hears one after another");
    slow.open();
    slow.until_told(3).await;
    background.stop().await;
}

#[tokio::test]
async fn a_receiver_that_is_down_for_days_is_turned_off_until_its_owner_says() {
    let world = World::start_with(settings()).await;
    let alice = world.account("alice", "free").await;
    let receiver = Receiver::start().await;
    receiver.always(Answer::Status(503));
    let (id, _) = world.hook(&alice, &receiver).await;
    world.pin_one(&alice, "a").await;
    let mut tries = 1;
    while let Some(due) = world.deliveries(&alice, id).await[0].due_at {
        world.clock.set(due);
        world.run_until_idle().await;
        tries += 1;
        assert!(tries <= 12, "it has an end");
    }
    assert_eq!((tries, receiver.told().len()), (12, 12));
    let told = world.deliveries(&alice, id).await.remove(0);
    assert_eq!((told.state.as_str(), told.error.as_deref()), ("failed", Some("It answered 503")));
    let off = world.service.webhooks.find(&alice, id).await.unwrap();
    assert!(!off.active && off.disabled_reason.is_some_and(|reason| reason.contains("It answered 503")));
    assert_eq!(world.service.webhooks.test(&alice, id).await.err(), Some(Error::WebhookInactive));
    world.pin_one(&alice, "b").await;
    assert_eq!(receiver.told().len(), 12);

    receiver.always(Answer::Status(200));
    let edit = WebhookEdit { active: Some(true), ..WebhookEdit::default() };
    let on = world.service.webhooks.edit(&alice, id, edit).await.unwrap();
    assert!(on.active && on.disabled_reason.is_none());
    world.pin_one(&alice, "c").await;
    world.service.webhooks.test(&alice, id).await.unwrap();
    world.run_until_idle().await;
    assert_eq!(receiver.events()[12..], ["pin.pinned", "webhook.test"]);
}

#[tokio::test]
async fn what_waits_for_a_webhook_that_is_off_is_given_up_after_days() {
    let world = World::start_with(settings()).await;
    let alice = world.account("alice", "free").await;
    let receiver = Receiver::start().await;
    receiver.always(Answer::Status(500));
    let (id, _) = world.hook(&alice, &receiver).await;
    world.pin_one(&alice, "a").await;
    let edit = WebhookEdit { active: Some(false), ..WebhookEdit::default() };
    world.service.webhooks.edit(&alice, id, edit).await.unwrap();
    world.clock.advance(4 * 24 * HOUR);
    world.run_until_idle().await;
    let told = world.deliveries(&alice, id).await.remove(0);
    assert_eq!((told.state.as_str(), told.attempts), ("failed", 1));
    assert_eq!(world.service.webhooks.find(&alice, id).await.unwrap().pending, 0);
}

#[tokio::test]
async fn a_new_secret_signs_from_then_on() {
    let world = World::start_with(settings()).await;
    let alice = world.account("alice", "free").await;
    let receiver = Receiver::start().await;
    let (id, old) = world.hook(&alice, &receiver).await;
    let new = world.service.webhooks.rotate_secret(&alice, id).await.unwrap().secret;
    world.service.webhooks.test(&alice, id).await.unwrap();
    world.run_until_idle().await;
    let told = receiver.told().remove(0);
    assert!(told.is_signed_with(new.reveal()) && !told.is_signed_with(&old));
    assert!(told.body.contains(r#""type":"webhook.test""#) && told.body.contains(r#""data":null"#));
}

#[tokio::test]
async fn nothing_inside_is_ever_asked_unless_the_operator_allows_it() {
    let mut world = World::start_with(settings()).await;
    let alice = world.account("alice", "free").await;
    let receiver = Receiver::start().await;
    let (id, _) = world.hook(&alice, &receiver).await;
    let named = receiver.url().replace("127.0.0.1", "localhost");
    let by_name = world.service.webhooks.create(&alice, draft(&named)).await.unwrap().hook.id;
    // The operator allows it no longer.
    let reach = WebhookReach { plain_http: true, private: false };
    world.restart_with(Settings { webhooks_reach: reach, ..settings() }).await;
    world.pin_one(&alice, "a").await;
    for hook in [id, by_name] {
        let told = world.deliveries(&alice, hook).await.remove(0);
        assert_eq!(told.error.as_deref(), Some("Its host has an address that is not public"));
        assert_eq!((told.attempts, told.response_status), (1, None));
    }
    assert!(receiver.told().is_empty());
    let refused = world.service.webhooks.create(&alice, draft(receiver.url())).await.err();
    assert_eq!(refused, Some(Error::InvalidRequest("The URL's host must be a public address".to_owned())));
    world.restart_with(Settings::default()).await;
    let refused = world.service.webhooks.create(&alice, draft("http://example.org/")).await.err();
    assert_eq!(refused, Some(Error::InvalidRequest("The URL must begin with https://".to_owned())));
}

#[tokio::test]
async fn a_stop_in_the_middle_of_a_delivery_tells_it_again_at_the_next_start() {
    let mut world = World::start_with(settings()).await;
    let alice = world.account("alice", "free").await;
    let receiver = Receiver::start().await;
    receiver.script([Answer::Waits]);
    world.hook(&alice, &receiver).await;
    let background = world.service.run();
    let cid = world.cluster.publish("a", 5);
    world.service.pins.pin(&alice, PinRequest::new(cid), crate::world::LONG).await.unwrap();
    receiver.until_told(1).await;
    tokio::time::timeout(DEADLINE, background.stop()).await.expect("it waits for nobody");
    world.restart().await;
    world.run_until_idle().await;
    let told = receiver.told();
    assert_eq!(told.len(), 2);
    assert_eq!(told[0].delivery, told[1].delivery);
}
