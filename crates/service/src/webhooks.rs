//! The webhooks of an account: create, list, change, remove, rotate the secret, test, list deliveries.
//!
//! `pinfold_store` records an event in the transaction that changes the pin;
//! `background/webhook_delivery.rs` delivers it.

use std::sync::Arc;
use std::time::Duration;

use pinfold_model::{
    Clock, Delivery, DeliveryId, Timestamp, Webhook, WebhookEvents, WebhookId, WebhookSecret,
};
use pinfold_outbound::{Sender, Target};
use pinfold_store::{NewWebhook, Store, WebhookChange};
use tokio::sync::{Notify, Semaphore};

use crate::error::log_store_error;
use crate::tasks::Tasks;
use crate::{Caller, Error, TargetPolicy};

/// Webhooks of one account. Each event is delivered to all of them.
const WEBHOOKS_MAX: u32 = 10;
/// In bytes.
const DESCRIPTION_LEN_MAX: usize = 255;
/// How long the previous secret also signs after a rotation.
const PREVIOUS_SECRET_VALIDITY: Duration = Duration::from_hours(24);
/// Deliveries on one page.
const PAGE_LEN_MAX: u32 = 100;

/// What the webhook operations and the deliveries share.
pub(crate) struct WebhookDelivery {
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tasks: Tasks,
    pub(crate) sender: Sender,
    /// Permits for webhooks that receive deliveries.
    pub(crate) permits: Arc<Semaphore>,
    /// Signalled when a delivery may have become due.
    pub(crate) work_added: Notify,
}

impl WebhookDelivery {
    pub(crate) fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        tasks: Tasks,
        webhooks_at_once: usize,
        targets: TargetPolicy,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(webhooks_at_once.max(1)));
        Self { store, clock, tasks, sender: Sender::new(targets), permits, work_added: Notify::new() }
    }

    /// Wakes the delivery loop.
    pub(crate) fn wake(&self) {
        self.work_added.notify_one();
    }
}

/// The webhooks of all accounts. Cheap to clone.
#[derive(Clone)]
pub struct Webhooks {
    pub(crate) delivery: Arc<WebhookDelivery>,
}

/// A webhook to create.
#[derive(Debug, Clone)]
pub struct WebhookDraft {
    /// An `https://` URL of a public host, or another that [`TargetPolicy`](crate::TargetPolicy) allows.
    pub url: String,
    pub events: WebhookEvents,
    /// At most 255 bytes.
    pub description: Option<String>,
    pub active: bool,
}

/// Changes to a webhook. `None` leaves a field unchanged.
#[derive(Debug, Clone, Default)]
pub struct WebhookEdit {
    /// As in [`WebhookDraft`].
    pub url: Option<String>,
    pub events: Option<WebhookEvents>,
    /// As in [`WebhookDraft`]. An empty text removes the description.
    pub description: Option<String>,
    pub active: Option<bool>,
}

/// A webhook and its new secret, which cannot be read again.
#[derive(Debug)]
pub struct CreatedWebhook {
    pub webhook: Webhook,
    pub secret: WebhookSecret,
    /// Until when the previous secret also signs, after a rotation.
    pub previous_secret_until: Option<Timestamp>,
}

/// A page of deliveries, newest first.
#[derive(Debug, Clone)]
pub struct DeliveryPage {
    pub deliveries: Vec<Delivery>,
    /// The cursor of the next page, if there is one.
    pub next_cursor: Option<DeliveryId>,
}

impl Webhooks {
    /// Creates a webhook of the caller's account.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] (a URL that is not allowed, a description that is too long, too many webhooks).
    pub async fn create(&self, caller: &Caller, draft: WebhookDraft) -> Result<CreatedWebhook, Error> {
        let secret = new_secret()?;
        let new = NewWebhook {
            account: caller.account.id,
            url: self.check_url(&draft.url)?,
            description: check_description(draft.description)?,
            events: draft.events,
            active: draft.active,
            secret: secret.clone(),
        };
        let now = self.delivery.clock.now();
        let created = self.delivery.store.create_webhook(new, WEBHOOKS_MAX, caller.actor(), now).await;
        let too_many =
            || Error::InvalidRequest(format!("An account can have at most {WEBHOOKS_MAX} webhooks"));
        let webhook = created.map_err(log_store_error)?.ok_or_else(too_many)?;
        Ok(CreatedWebhook { webhook, secret, previous_secret_until: None })
    }

    /// The caller's webhooks, oldest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn list(&self, caller: &Caller) -> Result<Vec<Webhook>, Error> {
        self.delivery.store.webhooks(caller.account.id, WEBHOOKS_MAX).await.map_err(log_store_error)
    }

    /// One of the caller's webhooks.
    ///
    /// # Errors
    /// [`Error::WebhookNotFound`].
    pub async fn find(&self, caller: &Caller, id: WebhookId) -> Result<Webhook, Error> {
        let found = self.delivery.store.webhook(caller.account.id, id).await.map_err(log_store_error)?;
        found.ok_or(Error::WebhookNotFound)
    }

    /// Changes a webhook and resets its failure count. If it is active afterwards, its pending deliveries are due
    /// immediately.
    ///
    /// # Errors
    /// [`Error::WebhookNotFound`]; [`Error::InvalidRequest`] as in [`create`](Self::create).
    pub async fn edit(&self, caller: &Caller, id: WebhookId, edit: WebhookEdit) -> Result<Webhook, Error> {
        self.find(caller, id).await?;
        let change = WebhookChange {
            url: edit.url.map(|url| self.check_url(&url)).transpose()?,
            description: edit.description.map(|text| check_description(Some(text))).transpose()?,
            events: edit.events,
            active: edit.active,
        };
        let now = self.delivery.clock.now();
        let changed =
            self.delivery.store.change_webhook(caller.account.id, id, change, caller.actor(), now).await;
        self.delivery.wake();
        changed.map_err(log_store_error)?.ok_or(Error::WebhookNotFound)
    }

    /// Removes a webhook and its deliveries. A delivery that is in flight may still arrive.
    ///
    /// # Errors
    /// [`Error::WebhookNotFound`].
    pub async fn remove(&self, caller: &Caller, id: WebhookId) -> Result<(), Error> {
        let now = self.delivery.clock.now();
        let removed = self
            .delivery
            .store
            .remove_webhook(caller.account.id, id, caller.actor(), now)
            .await
            .map_err(log_store_error)?;
        if removed { Ok(()) } else { Err(Error::WebhookNotFound) }
    }

    /// Replaces the secret of a webhook. For `PREVIOUS_SECRET_VALIDITY`, deliveries are signed with the previous secret
    /// too, so that the receiver can switch without losing events. A second rotation ends that at once.
    ///
    /// # Errors
    /// [`Error::WebhookNotFound`].
    pub async fn rotate_secret(&self, caller: &Caller, id: WebhookId) -> Result<CreatedWebhook, Error> {
        let secret = new_secret()?;
        let (store, account, now) = (&self.delivery.store, caller.account.id, self.delivery.clock.now());
        let until = now.after(PREVIOUS_SECRET_VALIDITY);
        let rotated =
            store.rotate_webhook_secret(account, id, secret.clone(), until, caller.actor(), now).await;
        let webhook = rotated.map_err(log_store_error)?.ok_or(Error::WebhookNotFound)?;
        Ok(CreatedWebhook { webhook, secret, previous_secret_until: Some(until) })
    }

    /// Records a test event for a webhook. It is delivered soon after this returns.
    ///
    /// # Errors
    /// [`Error::WebhookNotFound`]; [`Error::WebhookInactive`].
    pub async fn test(&self, caller: &Caller, id: WebhookId) -> Result<Delivery, Error> {
        if !self.find(caller, id).await?.active {
            return Err(Error::WebhookInactive);
        }
        let (store, now) = (&self.delivery.store, self.delivery.clock.now());
        let delivery = store.test_webhook(caller.account.id, id, now).await.map_err(log_store_error)?;
        let delivery =
            store.delivery(delivery.ok_or(Error::WebhookNotFound)?).await.map_err(log_store_error)?;
        delivery.ok_or(Error::WebhookNotFound)
    }

    /// The deliveries of a webhook, newest first: all that are pending, and the last 100 that are finished.
    ///
    /// # Errors
    /// [`Error::WebhookNotFound`].
    pub async fn deliveries(
        &self,
        caller: &Caller,
        id: WebhookId,
        cursor: Option<DeliveryId>,
        limit: u32,
    ) -> Result<DeliveryPage, Error> {
        self.find(caller, id).await?;
        let limit = limit.clamp(1, PAGE_LEN_MAX);
        // One more than requested shows whether there is a next page.
        let mut deliveries =
            self.delivery.store.deliveries(id, cursor, limit + 1).await.map_err(log_store_error)?;
        let page_len = usize::try_from(limit).unwrap_or(usize::MAX);
        let has_more = deliveries.len() > page_len;
        deliveries.truncate(page_len);
        let next_cursor = deliveries.last().filter(|_| has_more).map(|last| last.id);
        Ok(DeliveryPage { deliveries, next_cursor })
    }

    fn check_url(&self, url: &str) -> Result<String, Error> {
        let target = Target::parse(url, self.delivery.sender.policy());
        target
            .map(|target| target.as_str().to_owned())
            .map_err(|error| Error::InvalidRequest(error.to_string()))
    }
}

fn new_secret() -> Result<WebhookSecret, Error> {
    let mut random = [0; WebhookSecret::KEY_LEN];
    getrandom::fill(&mut random).map_err(|error| {
        tracing::error!(%error, "failed to get random bytes");
        Error::Internal
    })?;
    Ok(WebhookSecret::new(random))
}

fn check_description(text: Option<String>) -> Result<Option<String>, Error> {
    let text = text.filter(|text| !text.trim().is_empty());
    let fits = |text: &String| text.len() <= DESCRIPTION_LEN_MAX && !text.chars().any(char::is_control);
    if text.as_ref().is_some_and(|text| !fits(text)) {
        return Err(Error::InvalidRequest(format!(
            "A description can have at most {DESCRIPTION_LEN_MAX} bytes and no control characters"
        )));
    }
    Ok(text)
}
