//! Webhooks: events are recorded with the change of the pin, leased, delivered, given up and deleted.

use pinfold_model::{
    AccountId, Actor, Delivery, DeliveryState, FailureCode, PinOptions, PinState, Timestamp, Webhook,
    WebhookEvent, WebhookEvents, WebhookSecret,
};
use pinfold_store::{
    Attempt, AttemptOutcome, BeginRemovalOutcome, CreatePin, CreatePinOutcome, CreatePinsOutcome,
    LeasedWebhook, NewWebhook, PlacementOutcome, PreviousSecret, RemovalStep, RemovePinOutcome,
    RemovePinsOutcome, WebhookChange, WebhookHealth,
};

use crate::world::{
    LEASE, World, at, cid, created, failed_outcome, failure, held, name, new_pin, now, times,
};

fn new_hook(account: AccountId, events: &[WebhookEvent]) -> NewWebhook {
    NewWebhook {
        account,
        url: "https://example.org/hook".to_owned(),
        description: None,
        events: WebhookEvents::new(events.iter().copied()).unwrap(),
        active: true,
        secret: WebhookSecret::new([7; 32]),
    }
}

impl World {
    pub(crate) async fn hook(&self, account: AccountId) -> Webhook {
        self.hook_for(account, &WebhookEvent::OF_PINS).await
    }

    async fn hook_for(&self, account: AccountId, events: &[WebhookEvent]) -> Webhook {
        self.store
            .create_webhook(new_hook(account, events), 10, Actor::OPERATOR, now())
            .await
            .unwrap()
            .unwrap()
    }

    /// The deliveries of a webhook, oldest first.
    async fn deliveries(&self, hook: &Webhook) -> Vec<Delivery> {
        let mut all = self.store.deliveries(hook.id, None, 1_000).await.unwrap();
        all.reverse();
        all
    }

    pub(crate) async fn events(&self, hook: &Webhook) -> Vec<WebhookEvent> {
        self.deliveries(hook).await.iter().map(|delivery| delivery.event).collect()
    }

    async fn fresh(&self, hook: &Webhook) -> Webhook {
        let fresh = self.store.webhook(hook.account, hook.id).await.unwrap().unwrap();
        let waiting =
            self.deliveries(hook).await.iter().filter(|delivery| delivery.due_at.is_some()).count() as u64;
        assert_eq!(fresh.pending, waiting, "the count in the row is that of the deliveries");
        fresh
    }

    async fn lease_webhooks(&self, now: Timestamp) -> Vec<LeasedWebhook> {
        self.store.lease_webhooks(16, 4, now, now.after(LEASE)).await.unwrap()
    }

    async fn finish(
        &self,
        leased: &LeasedWebhook,
        attempts: Vec<Attempt>,
        health: WebhookHealth,
        now: Timestamp,
    ) -> bool {
        self.store.complete_webhook_turn(leased.lease, attempts, health, 3, now).await.unwrap()
    }

    async fn pinned(&self, account: AccountId, number: u32) {
        created(self.create_pin(account, cid(number)).await);
        let leased = self.lease_one(now()).await;
        self.complete_placement(&leased, held(10)).await;
    }
}

fn attempt(delivery: &Delivery, outcome: AttemptOutcome, now: Timestamp) -> Attempt {
    let error =
        (outcome != AttemptOutcome::Delivered).then(|| "The receiver responded with status 500".to_owned());
    Attempt { delivery: delivery.id, at: now, response_status: Some(204), error, outcome }
}

fn all_delivered(leased: &LeasedWebhook, now: Timestamp) -> Vec<Attempt> {
    leased.deliveries.iter().map(|delivery| attempt(delivery, AttemptOutcome::Delivered, now)).collect()
}

#[tokio::test]
async fn events_of_a_pin_are_recorded_with_its_change() {
    let world = World::start().await;
    let (ada, bea, poor) = (
        world.account("ada", 1_000).await,
        world.account("bea", 1_000).await,
        world.account("poor", 5).await,
    );
    let (hook, poors) = (world.hook(ada).await, world.hook(poor).await);
    let request_of_ada = CreatePin {
        options: PinOptions { custom_name: name("mine"), ..times(Some(at(100)), None) },
        ..new_pin(ada, cid(1))
    };
    created(world.store.create_pin(request_of_ada, now()).await.unwrap());
    for account in [bea, poor] {
        created(world.create_pin(account, cid(1)).await);
    }
    assert!(world.deliveries(&hook).await.is_empty(), "no event has occurred");
    let leased = world.lease_one(now()).await;
    world.complete_placement(&leased, held(10)).await;

    let delivery = world.deliveries(&hook).await.remove(0);
    assert_eq!(
        (delivery.event, delivery.state, delivery.due_at),
        (WebhookEvent::Pinned, DeliveryState::Pending, Some(now()))
    );
    let pin = delivery.pin.unwrap();
    assert_eq!((pin.cid, pin.bytes, pin.state), (cid(1), 10, PinState::Pinned));
    assert_eq!((pin.kind.as_str(), pin.custom_name, pin.expires_at), ("file", name("mine"), Some(at(100))));
    let delivery = world.deliveries(&poors).await.remove(0);
    let error = delivery.pin.unwrap().error.unwrap();
    assert_eq!((delivery.event, error.code), (WebhookEvent::Failed, FailureCode::QuotaExceeded));

    // Content that is already stored, a failed pin, an expired pin, a removed pin.
    world.pinned(bea, 2).await;
    assert!(matches!(world.create_pin(ada, cid(2)).await, CreatePinOutcome::Done { created: true, .. }));
    created(world.create_pin(ada, cid(3)).await);
    let leased = world.lease_one(now()).await;
    world.complete_placement(&leased, failed_outcome()).await;
    world.store.expire_pins(at(100), 10).await.unwrap();
    assert!(matches!(world.remove(ada, &cid(2)).await, RemovePinOutcome::Done(_)));
    use WebhookEvent::{Expired, Failed, Pinned, Removed as Gone};
    assert_eq!(world.events(&hook).await, [Pinned, Pinned, Failed, Expired, Gone]);
    let last = world.deliveries(&hook).await.pop().unwrap().pin.unwrap();
    assert_eq!((last.cid, last.state, last.bytes), (cid(2), PinState::Unpinned, 10), "as it was");
    world.fresh(&hook).await;
}

#[tokio::test]
async fn only_subscribed_events_are_recorded_while_the_webhook_is_active() {
    let world = World::start().await;
    let ada = world.account("ada", 1_000).await;
    let pinned = world.hook_for(ada, &[WebhookEvent::Pinned]).await;
    let removed = world.hook_for(ada, &[WebhookEvent::Removed]).await;
    let off = world.hook(ada).await;
    let change = WebhookChange { active: Some(false), ..WebhookChange::default() };
    world.store.change_webhook(ada, off.id, change, Actor::OPERATOR, now()).await.unwrap().unwrap();
    world.pinned(ada, 1).await;
    world.remove(ada, &cid(1)).await;
    assert_eq!(world.events(&pinned).await, [WebhookEvent::Pinned]);
    assert_eq!(world.events(&removed).await, [WebhookEvent::Removed]);
    assert_eq!(world.events(&off).await, []);
    let release = world.lease_one(now()).await;
    world.complete_placement(&release, PlacementOutcome::Released).await;
    // Neither a request that changes nothing nor a postponed attempt is an event.
    created(world.create_pin(ada, cid(2)).await);
    let leased = world.lease_one(now()).await;
    world
        .complete_placement(&leased, PlacementOutcome::Postponed { failure: Some(failure()), next_at: at(1) })
        .await;
    world.create_pin(ada, cid(2)).await;
    assert_eq!(world.deliveries(&pinned).await.len(), 1);
}

#[tokio::test]
async fn batch_records_events_for_all_of_its_pins_or_none() {
    let world = World::start().await;
    let (ada, bea) = (world.account("ada", 25).await, world.account("bea", 1_000).await);
    for number in 0..3 {
        world.pinned(bea, number).await;
    }
    let hook = world.hook(ada).await;
    let requests = |numbers: std::ops::Range<u32>| numbers.map(|number| new_pin(ada, cid(number))).collect();
    let store = &world.store;
    assert!(matches!(store.create_pins(requests(0..3), now()).await.unwrap(), CreatePinsOutcome::OverQuota));
    assert_eq!(world.events(&hook).await, [], "a rolled back change has no event");
    assert!(matches!(store.create_pins(requests(0..2), now()).await.unwrap(), CreatePinsOutcome::Done(_)));
    let pins = [(cid(0), None), (cid(1), None)];
    let removed = store.remove_pins(ada, &pins, Actor::account(ada), now()).await.unwrap();
    assert!(matches!(removed, RemovePinsOutcome::Done(_)));
    use WebhookEvent::{Pinned, Removed as Gone};
    assert_eq!(world.events(&hook).await, [Pinned, Pinned, Gone, Gone]);
    // Removal by an operator is an event too.
    let pin = created(world.create_pin(ada, cid(2)).await);
    store.admin_remove_pin(pin.id, Actor::OPERATOR, now()).await.unwrap().unwrap();
    assert_eq!(world.events(&hook).await[4..], [Pinned, Gone]);
    world.fresh(&hook).await;
}

#[tokio::test]
async fn waiting_for_events_ends_after_their_commit() {
    let world = World::start().await;
    let ada = world.account("ada", 1_000).await;
    let hook = world.hook(ada).await;
    let other = world.open().await;
    world.pinned(ada, 1).await;
    world.store.outbox_written().await;
    assert_eq!(other.deliveries(hook.id, None, 10).await.unwrap().len(), 1);
    assert_eq!(other.next_delivery().await.unwrap(), Some(now()));
}

#[tokio::test]
async fn deliveries_are_leased_in_order_and_finished_ones_are_deleted() {
    let world = World::start().await;
    let ada = world.account("ada", 1_000).await;
    let hook = world.hook(ada).await;
    for number in 0..6 {
        world.pinned(ada, number).await;
    }
    let leased = world.lease_webhooks(now()).await.remove(0);
    assert_eq!(leased.secret, WebhookSecret::new([7; 32]));
    let cids = |leased: &LeasedWebhook| {
        leased.deliveries.iter().map(|delivery| delivery.pin.as_ref().unwrap().cid).collect::<Vec<_>>()
    };
    assert_eq!(cids(&leased), [cid(0), cid(1), cid(2), cid(3)]);
    assert!(world.lease_webhooks(now()).await.is_empty(), "the webhook is leased");
    world.pinned(ada, 6).await;
    assert!(world.lease_webhooks(now()).await.is_empty(), "also after another event");
    assert!(world.finish(&leased, all_delivered(&leased, now()), WebhookHealth::Healthy, now()).await);
    assert_eq!(world.fresh(&hook).await.pending, 3);
    let deliveries = world.deliveries(&hook).await;
    assert_eq!(
        deliveries.iter().filter(|delivery| delivery.state == DeliveryState::Delivered).count(),
        3,
        "the newest three are kept"
    );
    let leased = world.lease_webhooks(now()).await.remove(0);
    assert_eq!(cids(&leased), [cid(4), cid(5), cid(6)]);
    assert!(world.finish(&leased, all_delivered(&leased, now()), WebhookHealth::Healthy, now()).await);
    assert_eq!(world.store.next_delivery().await.unwrap(), None);
    assert!(world.lease_webhooks(at(1_000)).await.is_empty());
}

#[tokio::test]
async fn failed_delivery_is_due_again_later_and_does_not_delay_others() {
    let world = World::start().await;
    let ada = world.account("ada", 1_000).await;
    let hook = world.hook(ada).await;
    for number in 0..2 {
        world.pinned(ada, number).await;
    }
    let leased = world.lease_webhooks(now()).await.remove(0);
    let failing = WebhookHealth::Failing { failures: 1, since: now(), paused_until: at(5), deactivate: None };
    let attempts = vec![attempt(&leased.deliveries[0], AttemptOutcome::RetryAt(at(60)), now())];
    assert!(world.finish(&leased, attempts, failing, now()).await);
    assert_eq!(world.fresh(&hook).await.failing_since, Some(now()));
    world.pinned(ada, 2).await;
    assert_eq!(world.store.next_delivery().await.unwrap(), Some(at(5)), "new events also wait for the pause");
    assert!(world.lease_webhooks(at(4)).await.is_empty());

    let leased = world.lease_webhooks(at(5)).await.remove(0);
    assert_eq!((leased.failures, leased.deliveries.len()), (1, 2));
    world.finish(&leased, all_delivered(&leased, at(5)), WebhookHealth::Healthy, at(5)).await;
    assert_eq!(world.fresh(&hook).await.failing_since, None);
    assert_eq!(world.store.next_delivery().await.unwrap(), Some(at(60)));
    // A new event is due before the retry.
    world.pinned(ada, 3).await;
    assert_eq!(world.lease_webhooks(at(6)).await[0].deliveries.len(), 1);

    let world_later = at(6).after(LEASE);
    let leased = world.lease_webhooks(world_later).await.remove(0);
    let again = leased.deliveries.iter().find(|delivery| delivery.attempts == 1).unwrap();
    assert_eq!(
        (again.response_status, again.error.as_deref()),
        (Some(204), Some("The receiver responded with status 500"))
    );
    world
        .finish(
            &leased,
            vec![attempt(again, AttemptOutcome::GivenUp, world_later)],
            WebhookHealth::Healthy,
            world_later,
        )
        .await;
    let delivery = world.store.delivery(again.id).await.unwrap().unwrap();
    assert_eq!((delivery.state, delivery.attempts, delivery.due_at), (DeliveryState::Failed, 2, None));
}

#[tokio::test]
async fn expired_lease_records_nothing_and_a_start_releases_all_leases() {
    let world = World::start().await;
    let ada = world.account("ada", 1_000).await;
    let hook = world.hook(ada).await;
    world.pinned(ada, 1).await;
    let late = world.lease_webhooks(now()).await.remove(0);
    let next = world.lease_webhooks(now().after(LEASE)).await.remove(0);
    assert!(!world.finish(&late, all_delivered(&late, now()), WebhookHealth::Healthy, now()).await);
    assert_eq!(world.fresh(&hook).await.pending, 1, "the delivery is repeated");
    assert_eq!(world.store.reset_webhook_leases(at(61)).await.unwrap(), 1);
    let last = world.lease_webhooks(at(61)).await.remove(0);
    assert_eq!(last.deliveries[0].id, next.deliveries[0].id, "with the same id");
    assert!(!world.finish(&next, all_delivered(&next, at(61)), WebhookHealth::Healthy, at(61)).await);
    assert!(world.finish(&last, all_delivered(&last, at(61)), WebhookHealth::Healthy, at(61)).await);
}

#[tokio::test]
async fn longest_due_webhook_is_leased_first_and_leases_of_an_account_are_limited() {
    let world = World::start().await;
    let (ada, bea) = (world.account("ada", 1_000).await, world.account("bea", 1_000).await);
    for _ in 0..6 {
        world.hook(ada).await;
    }
    let beas = world.hook(bea).await;
    world.pinned(ada, 1).await;
    for number in 2..8 {
        world.store.create_pin(new_pin(bea, cid(number)), at(1)).await.unwrap();
        let leased = world.lease_one(at(1)).await;
        world.store.complete_placement(leased.lease, held(1), at(1)).await.unwrap();
    }
    let leases = world.lease_webhooks(at(2)).await;
    let of_ada = leases.iter().filter(|leased| leased.webhook.account == ada).count();
    assert_eq!((of_ada, leases.len()), (4, 5));
    let of_bea = leases.iter().find(|leased| leased.webhook.id == beas.id).unwrap();
    world.finish(&leases[0], all_delivered(&leases[0], at(2)), WebhookHealth::Healthy, at(2)).await;
    world.finish(of_bea, all_delivered(of_bea, at(2)), WebhookHealth::Healthy, at(2)).await;
    // Bea has more deliveries and is behind the webhooks that had no turn yet.
    let next = world.store.lease_webhooks(1, 4, at(2), at(60)).await.unwrap();
    assert_eq!(next[0].webhook.account, ada);
    let next = world.store.lease_webhooks(1, 4, at(2), at(60)).await.unwrap();
    assert_eq!(next[0].webhook.id, beas.id);
}

#[tokio::test]
async fn deactivated_webhook_has_a_reason_until_its_owner_activates_it() {
    let world = World::start().await;
    let ada = world.account("ada", 1_000).await;
    let hook = world.hook(ada).await;
    world.pinned(ada, 1).await;
    let leased = world.lease_webhooks(now()).await.remove(0);
    let deactivate = Some("every attempt has failed".to_owned());
    let failing = WebhookHealth::Failing { failures: 12, since: now(), paused_until: at(300), deactivate };
    let attempts = vec![attempt(&leased.deliveries[0], AttemptOutcome::RetryAt(at(500)), now())];
    world.finish(&leased, attempts, failing, now()).await;
    let off = world.fresh(&hook).await;
    assert_eq!((off.active, off.disabled_reason.as_deref()), (false, Some("every attempt has failed")));
    assert_eq!(world.store.test_webhook(ada, hook.id, now()).await.unwrap(), None);
    assert!(world.lease_webhooks(at(1_000)).await.is_empty());
    world.pinned(ada, 2).await;
    assert_eq!(world.fresh(&hook).await.pending, 1, "no event is recorded for it");

    let change = WebhookChange { active: Some(true), ..WebhookChange::default() };
    let on =
        world.store.change_webhook(ada, hook.id, change, Actor::OPERATOR, at(400)).await.unwrap().unwrap();
    assert_eq!((on.active, on.disabled_reason, on.failing_since), (true, None, None));
    assert_eq!(
        world.lease_webhooks(at(400)).await[0].deliveries.len(),
        1,
        "pending deliveries are due at once"
    );
}

#[tokio::test]
async fn turn_does_not_overwrite_changes_of_the_owner() {
    let world = World::start().await;
    let ada = world.account("ada", 1_000).await;
    let hook = world.hook(ada).await;
    world.pinned(ada, 1).await;
    let leased = world.lease_webhooks(at(1)).await.remove(0);
    assert!(world.store.is_lease_current(leased.lease).await.unwrap());
    let change = WebhookChange { active: Some(true), ..WebhookChange::default() };
    world.store.change_webhook(ada, hook.id, change, Actor::OPERATOR, at(2)).await.unwrap().unwrap();
    assert!(!world.store.is_lease_current(leased.lease).await.unwrap(), "the lease is no longer current");
    let deactivate = Some("every attempt has failed".to_owned());
    let failing = WebhookHealth::Failing { failures: 12, since: now(), paused_until: at(300), deactivate };
    let attempts = vec![attempt(&leased.deliveries[0], AttemptOutcome::RetryAt(at(500)), at(3))];
    assert!(world.finish(&leased, attempts, failing, at(3)).await);
    let fresh = world.fresh(&hook).await;
    assert_eq!((fresh.active, fresh.disabled_reason, fresh.failing_since), (true, None, None));
}

#[tokio::test]
async fn old_deliveries_are_given_up_in_steps() {
    let world = World::start().await;
    let ada = world.account("ada", 1_000).await;
    let hook = world.hook(ada).await;
    for number in 0..5 {
        world.pinned(ada, number).await;
    }
    assert!(!world.store.clean_up_webhooks(now(), 3, 2).await.unwrap(), "no delivery is older");
    assert!(world.store.clean_up_webhooks(at(1), 3, 2).await.unwrap());
    assert_eq!(world.fresh(&hook).await.pending, 3);
    while world.store.clean_up_webhooks(at(1), 3, 2).await.unwrap() {}
    assert_eq!(world.fresh(&hook).await.pending, 0);
    let deliveries = world.deliveries(&hook).await;
    assert_eq!(deliveries.len(), 3, "the newest finished deliveries are kept");
    assert!(
        deliveries.iter().all(|delivery| delivery.state == DeliveryState::Failed && delivery.error.is_some())
    );
    assert!(world.lease_webhooks(at(10)).await.is_empty());
}

#[tokio::test]
async fn webhooks_are_private_to_their_account_and_limited() {
    let world = World::start().await;
    let (ada, bea) = (world.account("ada", 1_000).await, world.account("bea", 1_000).await);
    let hook = world.hook(ada).await;
    world.hook(ada).await;
    let third = world
        .store
        .create_webhook(new_hook(ada, &[WebhookEvent::Pinned]), 2, Actor::OPERATOR, now())
        .await
        .unwrap();
    assert_eq!(third, None);
    let store = &world.store;
    let change =
        || WebhookChange { url: Some("https://example.com/".to_owned()), ..WebhookChange::default() };
    assert_eq!(store.webhook(bea, hook.id).await.unwrap(), None);
    assert_eq!(store.change_webhook(bea, hook.id, change(), Actor::OPERATOR, now()).await.unwrap(), None);
    let secret = WebhookSecret::new([8; 32]);
    assert_eq!(
        store
            .rotate_webhook_secret(bea, hook.id, secret.clone(), at(50), Actor::OPERATOR, now())
            .await
            .unwrap(),
        None
    );
    assert_eq!(store.test_webhook(bea, hook.id, now()).await.unwrap(), None);
    assert!(!store.remove_webhook(bea, hook.id, Actor::OPERATOR, now()).await.unwrap());

    let changed =
        store.change_webhook(ada, hook.id, change(), Actor::OPERATOR, at(9)).await.unwrap().unwrap();
    assert_eq!((changed.url.as_str(), changed.updated_at), ("https://example.com/", at(9)));
    store
        .rotate_webhook_secret(ada, hook.id, secret.clone(), at(50), Actor::OPERATOR, now())
        .await
        .unwrap()
        .unwrap();
    let test = store.test_webhook(ada, hook.id, now()).await.unwrap().unwrap();
    let leased = world.lease_webhooks(now()).await.remove(0);
    assert_eq!((&leased.secret, leased.deliveries[0].id, &leased.deliveries[0].pin), (&secret, test, &None));
    let previous = PreviousSecret { secret: WebhookSecret::new([7; 32]), until: at(50) };
    assert_eq!(leased.previous_secret, Some(previous));
}

#[tokio::test]
async fn removed_webhook_is_hidden_at_once_and_its_rows_are_deleted_in_steps() {
    let world = World::start().await;
    let ada = world.account("ada", 1_000).await;
    let hook = world.hook(ada).await;
    for number in 0..5 {
        world.pinned(ada, number).await;
    }
    let leased = world.lease_webhooks(now()).await.remove(0);
    assert!(world.store.remove_webhook(ada, hook.id, Actor::OPERATOR, now()).await.unwrap());
    assert!(world.store.webhooks(ada, 10).await.unwrap().is_empty());
    assert!(!world.store.remove_webhook(ada, hook.id, Actor::OPERATOR, now()).await.unwrap());
    assert!(!world.finish(&leased, all_delivered(&leased, now()), WebhookHealth::Healthy, now()).await);
    assert_eq!(world.store.next_delivery().await.unwrap(), None);
    assert!(world.store.clean_up_webhooks(now(), 3, 2).await.unwrap());
    assert_eq!(world.deliveries(&hook).await.len(), 3);
    while world.store.clean_up_webhooks(now(), 3, 2).await.unwrap() {}
    assert!(world.deliveries(&hook).await.is_empty());
}

#[tokio::test]
async fn account_removal_deletes_deliveries_in_steps() {
    let world = World::start().await;
    let ada = world.account("ada", 1_000).await;
    let hook = world.hook(ada).await;
    let store = &world.store;
    let tests = (0..2_500).map(|_| store.test_webhook(ada, hook.id, now()));
    assert!(futures::future::join_all(tests).await.into_iter().all(|test| test.unwrap().is_some()));
    let begun = store.begin_account_removal(ada, false, Actor::OPERATOR, now()).await.unwrap();
    assert_eq!(
        begun,
        BeginRemovalOutcome::Begun { pins: 0 },
        "not in one transaction, which would delay others"
    );
    let mut steps = 0;
    while store.continue_account_removal(10, now()).await.unwrap() != RemovalStep::Gone(ada) {
        steps += 1;
        assert!(steps < 10, "the number of steps is limited");
    }
    assert_eq!(steps, 1, "a thousand rows in each step");
    assert!(store.deliveries(hook.id, None, 1).await.unwrap().is_empty());
    assert_eq!(store.webhook(ada, hook.id).await.unwrap(), None);
    assert_eq!(store.next_delivery().await.unwrap(), None);
}
