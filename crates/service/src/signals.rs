//! Wakes those who wait for a placement.
//!
//! Who waits subscribes first and looks second, so nothing that happens between is lost.

use std::collections::HashMap;
use std::sync::Mutex;

use pinfold_model::{Failure, PlacementId};
use tokio::sync::watch;

use crate::core::lock;

/// The last thing that is known of a placement beyond its rows: why it failed, for those whose rows are gone.
pub(crate) type Last = Option<Failure>;

/// One channel for each placement that somebody waits for.
#[derive(Default)]
pub(crate) struct Signals(Mutex<HashMap<PlacementId, watch::Sender<Last>>>);

impl Signals {
    /// From now on, changes of the placement are seen.
    pub(crate) fn subscribe(&self, id: PlacementId) -> watch::Receiver<Last> {
        lock(&self.0).entry(id).or_insert_with(|| watch::Sender::new(None)).subscribe()
    }

    /// Tells all who wait that the placement changed.
    pub(crate) fn tell(&self, id: PlacementId, failure: Last) {
        let mut channels = lock(&self.0);
        let Some(channel) = channels.get(&id) else { return };
        channel.send_replace(failure);
        if channel.receiver_count() == 0 {
            channels.remove(&id);
        }
    }
}
