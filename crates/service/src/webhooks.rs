//! Webhooks: made, changed, tried, watched. What happens to pins is written for them where it happens
//! (`pinfold_store`), and told to them by [`deliver`](crate::deliver).

use std::sync::Arc;

use pinfold_model::{DeliveryId, Webhook, WebhookEvents, WebhookId, WebhookSecret};
use pinfold_outbound::Target;
use pinfold_store::{Delivery, NewWebhook, WebhookChange};

use crate::core::{Core, unavailable};
use crate::deliver::DONE_MAX;
use crate::{Caller, Error};

/// Webhooks of one account: each event is told to all of them.
const HOOKS_MAX: u32 = 10;
/// The longest description, in bytes.
const DESCRIPTION_LEN_MAX: usize = 255;
/// Deliveries on one page.
const LIMIT_MAX: u32 = 100;

/// The webhooks of all accounts. Cheap to clone.
#[derive(Clone)]
pub struct Webhooks {
    pub(crate) core: Arc<Core>,
}

/// What a new webhook shall be.
#[derive(Debug, Clone)]
pub struct WebhookDraft {
    /// Where it is told: an `https://` URL (`http://` where the operator allows it) of a public host.
    pub url: String,
    /// Of what.
    pub events: WebhookEvents,
    /// A note of its owner, at most 255 bytes.
    pub description: Option<String>,
    /// Whether it is told from the start.
    pub active: bool,
}

/// What of a webhook shall be another; `None` leaves what is there.
#[derive(Debug, Clone, Default)]
pub struct WebhookEdit {
    /// As in [`WebhookDraft`].
    pub url: Option<String>,
    /// As in [`WebhookDraft`].
    pub events: Option<WebhookEvents>,
    /// As in [`WebhookDraft`]; an empty one for none.
    pub description: Option<String>,
    /// Whether it is told.
    pub active: Option<bool>,
}

/// A webhook whose secret was just made.
#[derive(Debug)]
pub struct CreatedWebhook {
    /// The webhook.
    pub hook: Webhook,
    /// Its secret: show it once.
    pub secret: WebhookSecret,
}

/// A page of deliveries, newest first.
#[derive(Debug, Clone)]
pub struct DeliveryPage {
    /// The deliveries.
    pub deliveries: Vec<Delivery>,
    /// Where the next page begins, if there is one.
    pub next_cursor: Option<DeliveryId>,
}

impl Webhooks {
    /// Makes a webhook of the caller's account.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] (a URL that may not be asked, a long description, too many webhooks).
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
        let hook =
            self.core.store.create_webhook(new, HOOKS_MAX, caller.by(), now).await.map_err(unavailable)?;
        let too_many = || {
            Error::InvalidRequest(format!("An account can have {HOOKS_MAX} webhooks; remove or change one"))
        };
        Ok(CreatedWebhook { hook: hook.ok_or_else(too_many)?, secret })
    }

    /// The caller's webhooks, oldest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn list(&self, caller: &Caller) -> Result<Vec<Webhook>, Error> {
        self.core.store.webhooks(caller.account.id, HOOKS_MAX).await.map_err(unavailable)
    }

    /// One of the caller's webhooks.
    ///
    /// # Errors
    /// [`Error::WebhookNotFound`].
    pub async fn find(&self, caller: &Caller, id: WebhookId) -> Result<Webhook, Error> {
        let found = self.core.store.webhook(caller.account.id, id).await.map_err(unavailable)?;
        found.ok_or(Error::WebhookNotFound)
    }

    /// Changes a webhook. One that is active afterwards is told at once of what waits, and what failed before counts
    /// no longer.
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
        let hook = self.core.store.change_webhook(caller.account.id, id, change, caller.by(), now).await;
        self.core.wake_webhooks.notify_one();
        hook.map_err(unavailable)?.ok_or(Error::WebhookNotFound)
    }

    /// Removes a webhook, and all that waits for it. A delivery that is on its way may still arrive.
    ///
    /// # Errors
    /// [`Error::WebhookNotFound`].
    pub async fn remove(&self, caller: &Caller, id: WebhookId) -> Result<(), Error> {
        let now = self.core.clock.now();
        let gone = self
            .core
            .store
            .remove_webhook(caller.account.id, id, caller.by(), now)
            .await
            .map_err(unavailable)?;
        if gone { Ok(()) } else { Err(Error::WebhookNotFound) }
    }

    /// Gives a webhook another secret, which signs from now on.
    ///
    /// # Errors
    /// [`Error::WebhookNotFound`].
    pub async fn rotate_secret(&self, caller: &Caller, id: WebhookId) -> Result<CreatedWebhook, Error> {
        let secret = new_secret()?;
        let (account, now) = (caller.account.id, self.core.clock.now());
        let hook = self.core.store.rotate_webhook_secret(account, id, secret.clone(), caller.by(), now).await;
        let hook = hook.map_err(unavailable)?.ok_or(Error::WebhookNotFound)?;
        Ok(CreatedWebhook { hook, secret })
    }

    /// Has a webhook told that it is tried, soon after this returns.
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

    /// What a webhook is to be told and was told, newest first: all that waits, and the last 100 that are over.
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
        let limit = limit.clamp(1, LIMIT_MAX);
        // One more than asked for says whether there is a next page.
        let mut deliveries = self.core.store.deliveries(id, cursor, limit + 1).await.map_err(unavailable)?;
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        let has_more = deliveries.len() > wanted;
        deliveries.truncate(wanted);
        let next_cursor = deliveries.last().filter(|_| has_more).map(|last| last.id);
        Ok(DeliveryPage { deliveries, next_cursor })
    }

    fn check_url(&self, url: &str) -> Result<String, Error> {
        let target = Target::parse(url, self.core.sender.reach());
        target
            .map(|target| target.as_str().to_owned())
            .map_err(|error| Error::InvalidRequest(error.to_string()))
    }
}

impl Core {
    /// Takes away what is too old for webhooks, in steps.
    pub(crate) async fn sweep_webhooks(&self) -> Result<(), Error> {
        const STEP: u32 = 500;
        let now = self.clock.now();
        let before = now.before(crate::deliver::AGE_MAX);
        while !self.stop.is_cancelled()
            && self.store.clean_up_webhooks(before, DONE_MAX, STEP).await.map_err(unavailable)?
        {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

fn new_secret() -> Result<WebhookSecret, Error> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| {
        tracing::error!(%error, "the system has no randomness");
        Error::Internal
    })?;
    Ok(WebhookSecret::of(&random))
}

fn check_description(text: Option<String>) -> Result<Option<String>, Error> {
    let text = text.filter(|text| !text.trim().is_empty());
    let fits = |text: &String| text.len() <= DESCRIPTION_LEN_MAX && !text.chars().any(char::is_control);
    if text.as_ref().is_some_and(|text| !fits(text)) {
        return Err(Error::InvalidRequest(format!(
            "A description has at most {DESCRIPTION_LEN_MAX} bytes and no control characters"
        )));
    }
    Ok(text)
}
