//! The webhooks of an account: create, list, change, remove, rotate the secret, test, list deliveries.
//!
//! `pinfold_store` records an event in the transaction that changes the pin;
//! [`webhook_delivery`](crate::background) delivers it.

use std::sync::Arc;

use pinfold_model::{DeliveryId, Webhook, WebhookEvents, WebhookId, WebhookSecret};
use pinfold_outbound::Target;
use pinfold_store::{Delivery, NewWebhook, WebhookChange};

use crate::core::{Core, unavailable};
use crate::{Caller, Error};

/// Webhooks of one account. Each event is delivered to all of them.
const WEBHOOKS_MAX: u32 = 10;
/// In bytes.
const DESCRIPTION_LEN_MAX: usize = 255;
/// Deliveries on one page.
const PAGE_LEN_MAX: u32 = 100;

/// The webhooks of all accounts. Cheap to clone.
#[derive(Clone)]
pub struct Webhooks {
    pub(crate) core: Arc<Core>,
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
        let now = self.core.clock.now();
        let created = self.core.store.create_webhook(new, WEBHOOKS_MAX, caller.by(), now).await;
        let too_many =
            || Error::InvalidRequest(format!("An account can have at most {WEBHOOKS_MAX} webhooks"));
        Ok(CreatedWebhook { webhook: created.map_err(unavailable)?.ok_or_else(too_many)?, secret })
    }

    /// The caller's webhooks, oldest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn list(&self, caller: &Caller) -> Result<Vec<Webhook>, Error> {
        self.core.store.webhooks(caller.account.id, WEBHOOKS_MAX).await.map_err(unavailable)
    }

    /// One of the caller's webhooks.
    ///
    /// # Errors
    /// [`Error::WebhookNotFound`].
    pub async fn find(&self, caller: &Caller, id: WebhookId) -> Result<Webhook, Error> {
        let found = self.core.store.webhook(caller.account.id, id).await.map_err(unavailable)?;
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
        let now = self.core.clock.now();
        let changed = self.core.store.change_webhook(caller.account.id, id, change, caller.by(), now).await;
        self.core.wake_webhooks.notify_one();
        changed.map_err(unavailable)?.ok_or(Error::WebhookNotFound)
    }

    /// Removes a webhook and its deliveries. A delivery that is in flight may still arrive.
    ///
    /// # Errors
    /// [`Error::WebhookNotFound`].
    pub async fn remove(&self, caller: &Caller, id: WebhookId) -> Result<(), Error> {
        let now = self.core.clock.now();
        let removed = self
            .core
            .store
            .remove_webhook(caller.account.id, id, caller.by(), now)
            .await
            .map_err(unavailable)?;
        if removed { Ok(()) } else { Err(Error::WebhookNotFound) }
    }

    /// Replaces the secret of a webhook.
    ///
    /// # Errors
    /// [`Error::WebhookNotFound`].
    pub async fn rotate_secret(&self, caller: &Caller, id: WebhookId) -> Result<CreatedWebhook, Error> {
        let secret = new_secret()?;
        let (account, now) = (caller.account.id, self.core.clock.now());
        let webhook =
            self.core.store.rotate_webhook_secret(account, id, secret.clone(), caller.by(), now).await;
        let webhook = webhook.map_err(unavailable)?.ok_or(Error::WebhookNotFound)?;
        Ok(CreatedWebhook { webhook, secret })
    }

    /// Records a test event for a webhook. It is delivered soon after this returns.
    ///
    /// # Errors
    /// [`Error::WebhookNotFound`]; [`Error::WebhookInactive`].
    pub async fn test(&self, caller: &Caller, id: WebhookId) -> Result<Delivery, Error> {
        if !self.find(caller, id).await?.active {
            return Err(Error::WebhookInactive);
        }
        let (store, now) = (&self.core.store, self.core.clock.now());
        let delivery = store.test_webhook(caller.account.id, id, now).await.map_err(unavailable)?;
        let delivery = store.delivery(delivery.ok_or(Error::WebhookNotFound)?).await.map_err(unavailable)?;
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
        let mut deliveries = self.core.store.deliveries(id, cursor, limit + 1).await.map_err(unavailable)?;
        let page_len = usize::try_from(limit).unwrap_or(usize::MAX);
        let has_more = deliveries.len() > page_len;
        deliveries.truncate(page_len);
        let next_cursor = deliveries.last().filter(|_| has_more).map(|last| last.id);
        Ok(DeliveryPage { deliveries, next_cursor })
    }

    fn check_url(&self, url: &str) -> Result<String, Error> {
        let target = Target::parse(url, self.core.sender.policy());
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
