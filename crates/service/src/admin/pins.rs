//! The pins of all accounts: listing, reading, removing.

use std::collections::HashMap;
use std::sync::Arc;

use cid::Cid;
use pinfold_model::{AccountId, Actor, AdminPinsCursor, ClusterId, Email, PinId, PinState};
use pinfold_store::{AdminPinsFilter, PinRecord};

use super::Admin;
use crate::error::log_store_error;
use crate::{Error, PinView};

/// Maximum pins per page.
const LIMIT_MAX: u32 = 100;
/// Maximum owners that are listed for one placement.
const OWNERS_MAX: u32 = 100;

/// Which pins to list.
#[derive(Debug, Clone, Default)]
pub struct OwnedPinQuery {
    /// Only pins of this account.
    pub account: Option<AccountId>,
    /// Only pins of this CID.
    pub cid: Option<Cid>,
    /// Only pins in this state.
    pub state: Option<PinState>,
    /// Only pins in this cluster.
    pub cluster: Option<ClusterId>,
    /// Only pins with damaged blocks.
    pub is_damaged: bool,
    /// Pins per page; clamped to 1 to 100.
    pub limit: u32,
    /// Where to continue.
    pub cursor: Option<AdminPinsCursor>,
}

/// A pin and its owner.
#[derive(Debug, Clone)]
pub struct OwnedPin {
    pub view: PinView,
    pub account: AccountId,
    /// The owner's e-mail address; `None` if the account was just removed.
    pub email: Option<Email>,
    /// Number of blocks that are known to be damaged.
    pub damaged_blocks: u64,
    /// Why the pin failed, or why the last attempt failed.
    pub error: Option<String>,
}

/// A page of pins. A page with fewer pins than requested, or none, may not be the last.
#[derive(Debug, Clone)]
pub struct OwnedPinPage {
    pub pins: Vec<OwnedPin>,
    /// Where the next page begins; `None` on the last page.
    pub next_cursor: Option<AdminPinsCursor>,
}

/// A pin, and all pins of the same CID in the same cluster.
#[derive(Debug, Clone)]
pub struct PinOwners {
    pub pin: OwnedPin,
    /// All pins of the placement, including this one, oldest first; at most 100.
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
        let list = self.store.list_admin_pins(&filter, cursor, limit).await.map_err(log_store_error)?;
        Ok(OwnedPinPage { pins: self.owned(list.pins).await?, next_cursor: list.next })
    }

    /// Reads a pin, and all pins of its placement.
    ///
    /// # Errors
    /// [`Error::PinNotFound`].
    pub async fn pin(&self, id: PinId) -> Result<PinOwners, Error> {
        let store = &self.store;
        let pin = store.pin(id).await.map_err(log_store_error)?.ok_or(Error::PinNotFound)?;
        let all = store.pins_of_placement(pin.placement.id, OWNERS_MAX).await.map_err(log_store_error)?;
        let owners = self.owned(all).await?;
        let pin = self.owned(vec![pin]).await?.pop().ok_or(Error::PinNotFound)?;
        Ok(PinOwners { pin, owners })
    }

    /// Removes a pin of any account, even if it is locked. Returns when that is durable.
    ///
    /// # Errors
    /// [`Error::PinNotFound`].
    pub async fn remove_pin(&self, actor: Actor, id: PinId) -> Result<(), Error> {
        let (placements, now) = (Arc::clone(&self.placements), self.clock.now());
        let removed = async move {
            let ended = placements.store.admin_remove_pin(id, actor, now).await.map_err(log_store_error)?;
            let ended = ended.ok_or(Error::PinNotFound)?;
            placements.notify(ended.placement, None);
            placements.wake_worker();
            Ok(())
        };
        self.placements.tasks.run_to_end(removed).await?
    }

    async fn owned(&self, pins: Vec<PinRecord>) -> Result<Vec<OwnedPin>, Error> {
        let ids: Vec<AccountId> = pins.iter().map(|pin| pin.account).collect();
        let emails = self.store.emails(&ids).await.map_err(log_store_error)?;
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
