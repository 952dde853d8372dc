//! Wakes those who wait for a placement.
//!
//! Who waits subscribes first and looks second, so nothing that happens between is lost.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use pinfold_model::{Failure, PlacementId};
use tokio::sync::watch;

use crate::core::lock;

/// The last thing that is known of a placement beyond its rows: why it failed, for those whose rows are gone.
pub(crate) type Last = Option<Failure>;

/// One channel for each placement that somebody waits for. Cheap to clone; all clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Signals(Arc<Mutex<HashMap<PlacementId, watch::Sender<Last>>>>);

/// Hears of changes of one placement. Dropping the last one closes its channel: nothing is left of a wait.
pub(crate) struct Subscription {
    signals: Signals,
    id: PlacementId,
    changes: watch::Receiver<Last>,
}

impl Signals {
    /// From now on, changes of the placement are seen.
    pub(crate) fn subscribe(&self, id: PlacementId) -> Subscription {
        let changes = lock(&self.0).entry(id).or_insert_with(|| watch::Sender::new(None)).subscribe();
        Subscription { signals: self.clone(), id, changes }
    }

    /// Tells all who wait that the placement changed.
    pub(crate) fn tell(&self, id: PlacementId, failure: Last) {
        if let Some(channel) = lock(&self.0).get(&id) {
            channel.send_replace(failure);
        }
    }
}

impl Subscription {
    /// Returns after a change that was not heard of yet. Cancel-safe.
    pub(crate) async fn changed(&mut self) {
        // The channel is open for as long as this is there.
        let _ = self.changes.changed().await;
    }

    /// What was told last.
    pub(crate) fn last(&self) -> Last {
        self.changes.borrow().clone()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut channels = lock(&self.signals.0);
        if channels.get(&self.id).is_some_and(|channel| channel.receiver_count() == 1) {
            channels.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_those_who_waited() {
        let signals = Signals::default();
        let id = PlacementId(1);
        let (first, second) = (signals.subscribe(id), signals.subscribe(id));
        drop(first);
        signals.tell(id, None);
        assert!(second.changes.has_changed().unwrap(), "the other still hears");
        drop(second);
        signals.tell(id, None);
        assert!(lock(&signals.0).is_empty());
    }
}
