//! Takes accounts away that were told to go: their pins in bounded steps, then themselves. What is left to do stands in
//! the rows, so that it goes on after a restart.

use std::time::Duration;

use pinfold_store::RemovalStep;

use crate::Error;
use crate::core::{Core, unavailable};

/// The rest between two looks: only another process tells accounts to go without a wake-up.
const PAUSE: Duration = Duration::from_secs(60);
/// Pins that end in one transaction: other writes wait so long.
const PINS_MAX: u32 = 200;

/// Works until the service stops.
pub(crate) async fn run(core: &Core) {
    while !core.stop.is_cancelled() {
        let woken = core.wake_removal.notified();
        if let Err(error) = look(core).await {
            tracing::error!(%error, "removing accounts");
        }
        tokio::select! {
            () = woken => {}
            () = tokio::time::sleep(PAUSE) => {}
            () = core.stop.cancelled() => {}
        }
    }
}

/// Does all there is to do; gives how much that was.
pub(crate) async fn look(core: &Core) -> Result<usize, Error> {
    let mut done = 0;
    while !core.stop.is_cancelled() {
        let step =
            core.store.continue_account_removal(PINS_MAX, core.clock.now()).await.map_err(unavailable)?;
        match step {
            RemovalStep::Nothing => break,
            RemovalStep::Gone(account) => {
                tracing::info!(%account, "an account is gone");
                done += 1;
            }
            RemovalStep::Pins(ended) => {
                done += ended.len();
                for pin in &ended {
                    core.signals.tell(pin.placement, None);
                }
                core.wake.notify_one();
            }
        }
    }
    Ok(done)
}
