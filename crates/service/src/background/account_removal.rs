//! Removes accounts that are being deleted: their pins in bounded steps, then the accounts. The rows say what is left to
//! do, so that a removal continues after a restart.

use std::time::Duration;

use pinfold_store::RemovalStep;
use tokio::sync::Notify;

use crate::Error;
use crate::error::log_store_error;
use crate::placements::Placements;

/// Wait between two looks: only another process begins a removal without a wake-up.
const INTERVAL: Duration = Duration::from_secs(60);
/// Pins that end in one transaction. Bounds how long other writes wait.
const PINS_MAX: u32 = 200;

/// Runs until the service stops.
pub(super) async fn run(placements: &Placements, removal_begun: &Notify) {
    while !placements.tasks.is_stopping() {
        let woken = removal_begun.notified();
        if let Err(error) = turn(placements).await {
            tracing::error!(%error, "failed to remove accounts");
        }
        tokio::select! {
            () = woken => {}
            () = tokio::time::sleep(INTERVAL) => {}
            () = placements.tasks.stopped() => {}
        }
    }
}

/// Does all that is left to do. Returns how many pins and accounts were removed.
pub(super) async fn turn(placements: &Placements) -> Result<usize, Error> {
    let mut done = 0;
    while !placements.tasks.is_stopping() {
        let now = placements.clock.now();
        match placements.store.continue_account_removal(PINS_MAX, now).await.map_err(log_store_error)? {
            RemovalStep::Nothing => break,
            RemovalStep::Gone(account) => {
                tracing::info!(%account, "account removed");
                done += 1;
            }
            RemovalStep::Pins(ended) => {
                done += ended.len();
                for pin in &ended {
                    placements.notify(pin.placement, None);
                }
                placements.wake_worker();
            }
        }
    }
    Ok(done)
}
