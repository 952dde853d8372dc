//! Everybody's pins: listed, looked at, removed.

use std::collections::HashMap;
use std::sync::Arc;

use cid::Cid;
use pinfold_model::{AccountId, Actor, ClusterId, Email, PinId, PinState};
use pinfold_store::{AdminPinsCursor, AdminPinsFilter, PinRecord};

use super::Admin;
use crate::core::unavailable;
use crate::{Error, PinView};

/// Pins on one page.
const LIMIT_MAX: u32 = 100;
/// Owners that are shown of one placement.
const OWNERS_MAX: u32 = 100;

/// Which pins to list.
#[derive(Debug, Clone, Default)]
pub struct OwnedPinQuery {
    /// Only those of this account.
    pub account: Option<AccountId>,
    /// Only those of this CID.
    pub cid: Option<Cid>,
    /// Only those that stand so.
    pub state: Option<PinState>,
    /// Only those in this cluster.
    pub cluster: Option<ClusterId>,
    /// Only those with damaged blocks.
    pub is_damaged: bool,
    /// Pins on a page, 1 to 100; others are moved to the nearer end.
    pub limit: u32,
    /// Where to go on.
    pub cursor: Option<AdminPinsCursor>,
}

/// A pin, and whose it is.
#[derive(Debug, Clone)]
pub struct OwnedPin {
    /// The pin.
    pub view: PinView,
    /// Whose it is.
    pub account: AccountId,
    /// The owner's address; `None` if the account went a moment ago.
    pub email: Option<Email>,
    /// How many of its blocks are known to be damaged.
    pub damaged_blocks: u64,
    /// Why it failed, or why the last try did.
    pub error: Option<String>,
}

/// A page of pins. It can have fewer than asked for, or none, and still not be the last.
#[derive(Debug, Clone)]
pub struct OwnedPinPage {
    /// The pins.
    pub pins: Vec<OwnedPin>,
    /// Where the next page begins; `None` on the last.
    pub next_cursor: Option<AdminPinsCursor>,
}

/// A pin, and who else pins the same in the same cluster.
#[derive(Debug, Clone)]
pub struct PinOwners {
    /// The pin.
    pub pin: OwnedPin,
    /// The pins of the same content in the same cluster, this one too, oldest first; at most 100.
    pub owners: Vec<OwnedPin>,
}

impl Admin {
    /// Lists pins of all accounts.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn pins(&self, query: OwnedPinQuery) -> Result<OwnedPinPage, Error> {
        let OwnedPinQuery { account, cid, state, cluster, is_damaged, limit, cursor } = query;
        let filter = AdminPinsFilter { account, cid, state, cluster, is_damaged };
        let limit = limit.clamp(1, LIMIT_MAX);
        let list = self.core.store.list_admin_pins(&filter, cursor, limit).await.map_err(unavailable)?;
        Ok(OwnedPinPage { pins: self.owned(list.pins).await?, next_cursor: list.next })
    }

    /// One pin, and who else pins the same.
    ///
    /// # Errors
    /// [`Error::PinNotFound`].
    pub async fn pin(&self, id: PinId) -> Result<PinOwners, Error> {
        let store = &self.core.store;
        let pin = store.pin(id).await.map_err(unavailable)?.ok_or(Error::PinNotFound)?;
        let all = store.pins_of_placement(pin.placement.id, OWNERS_MAX).await.map_err(unavailable)?;
        let owners = self.owned(all).await?;
        let pin = self.owned(vec![pin]).await?.pop().ok_or(Error::PinNotFound)?;
        Ok(PinOwners { pin, owners })
    }

    /// Ends a pin, whosever it is and whatever keeps it. Returns when that is durable.
    ///
    /// # Errors
    /// [`Error::PinNotFound`].
    pub async fn remove_pin(&self, by: Actor, id: PinId) -> Result<(), Error> {
        let (core, now) = (Arc::clone(&self.core), self.core.clock.now());
        let removed = async move {
            let ended = core.store.admin_remove_pin(id, by, now).await.map_err(unavailable)?;
            let ended = ended.ok_or(Error::PinNotFound)?;
            core.signals.tell(ended.placement, None);
            core.wake.notify_one();
            Ok(())
        };
        self.core.see_through(removed).await?
    }

    async fn owned(&self, pins: Vec<PinRecord>) -> Result<Vec<OwnedPin>, Error> {
        let ids: Vec<AccountId> = pins.iter().map(|pin| pin.account).collect();
        let emails = self.core.store.emails(&ids).await.map_err(unavailable)?;
        Ok(pins.iter().map(|pin| OwnedPin::new(pin, &emails)).collect())
    }
}

impl OwnedPin {
    fn new(pin: &PinRecord, emails: &HashMap<AccountId, Email>) -> Self {
        let error = pin.error.as_ref().or(pin.placement.error.as_ref());
        Self {
            view: PinView::from(pin),
            account: pin.account,
            email: emails.get(&pin.account).cloned(),
            damaged_blocks: pin.placement.damaged_blocks,
            error: error.map(|failure| failure.detail.clone()),
        }
    }
}
