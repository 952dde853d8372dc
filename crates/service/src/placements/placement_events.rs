//! Notifies waiting requests that a placement changed.
//!
//! A waiter subscribes first and reads the row second, so that no change is lost.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use pinfold_model::{Failure, PlacementId};
use tokio::sync::watch;

use crate::lock::lock;

/// Why the placement failed last, for waiters whose pin is already deleted.
pub(crate) type LastFailure = Option<Failure>;

type Channels = Arc<Mutex<HashMap<PlacementId, watch::Sender<LastFailure>>>>;

/// One channel per placement that has a subscriber. Cheap to clone; all clones are the same.
#[derive(Clone, Default)]
pub(crate) struct PlacementEvents(Channels);

/// Receives the changes of one placement. Dropping the last subscription closes the channel.
pub(crate) struct Subscription {
    channels: Channels,
    id: PlacementId,
    changes: watch::Receiver<LastFailure>,
}

impl PlacementEvents {
    /// Subscribes to the changes of a placement that happen from now on.
    pub(crate) fn subscribe(&self, id: PlacementId) -> Subscription {
        let changes = lock(&self.0).entry(id).or_insert_with(|| watch::Sender::new(None)).subscribe();
        Subscription { channels: Arc::clone(&self.0), id, changes }
    }

    /// Notifies all subscribers that the placement changed.
    pub(crate) fn notify(&self, id: PlacementId, failure: LastFailure) {
        if let Some(channel) = lock(&self.0).get(&id) {
            channel.send_replace(failure);
        }
    }
}

impl Subscription {
    /// Returns after the next change that was not yet returned. Cancel-safe.
    pub(crate) async fn changed(&mut self) {
        // The sender exists as long as this subscription, so this does not fail.
        let _ = self.changes.changed().await;
    }

    /// The failure that the last change carried.
    pub(crate) fn last_failure(&self) -> LastFailure {
        self.changes.borrow().clone()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut channels = lock(&self.channels);
        if channels.get(&self.id).is_some_and(|channel| channel.receiver_count() == 1) {
            channels.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_is_removed_with_its_last_subscription() {
        let events = PlacementEvents::default();
        let id = PlacementId(1);
        let (first, second) = (events.subscribe(id), events.subscribe(id));
        drop(first);
        events.notify(id, None);
        assert!(second.changes.has_changed().unwrap(), "the other subscription still receives changes");
        drop(second);
        events.notify(id, None);
        assert!(lock(&events.0).is_empty());
    }
}
