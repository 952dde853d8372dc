//! Ends pins whose timelock has passed, including those that expired while no process ran.

use pinfold_model::Timestamp;

use crate::Error;
use crate::error::log_store_error;
use crate::placements::Placements;
use crate::schedule::wait_until_due;

/// Pins that end in one transaction. Bounds how long other writes wait.
const BATCH_MAX: u32 = 1_000;

/// Runs until the service stops.
pub(super) async fn run(placements: &Placements) {
    while !placements.tasks.is_stopping() {
        let woken = placements.expiry_changed.notified();
        let next_due = look(placements).await;
        tokio::select! {
            () = woken => {}
            () = wait_until_due(placements.clock.as_ref(), next_due) => {}
            () = placements.tasks.stopped() => {}
        }
    }
}

async fn look(placements: &Placements) -> Result<Option<Timestamp>, Error> {
    turn(placements).await?;
    placements.store.next_expiry().await.map_err(log_store_error)
}

/// Ends all pins that are due, and returns how many.
pub(super) async fn turn(placements: &Placements) -> Result<usize, Error> {
    let mut ended = 0;
    while !placements.tasks.is_stopping() {
        let now = placements.clock.now();
        let next = placements.store.next_expiry().await.map_err(log_store_error)?;
        if next.is_none_or(|due| due > now) {
            break;
        }
        let pins = placements.store.expire_pins(now, BATCH_MAX).await.map_err(log_store_error)?;
        if pins.is_empty() {
            break;
        }
        ended += pins.len();
        for pin in pins {
            placements.notify(pin.placement, None);
        }
        placements.wake_worker();
    }
    Ok(ended)
}
