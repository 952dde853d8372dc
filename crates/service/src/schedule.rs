//! Waiting for the next due row.

use std::time::Duration;

use pinfold_model::{Clock, Timestamp};

use crate::Error;

/// Maximum time between two looks at the rows: another process may have changed them.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Maximum time between two looks at the clock. A sleep does not notice that the system clock was set or the machine was
/// suspended, and a pin must end within 5 s of its time in any case.
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Wait after a failure of the store.
const WAIT_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Returns when there may be work again. `next_due` is the result of the last look: the time of the next due row.
pub(crate) async fn wait_until_due(clock: &dyn Clock, next_due: Result<Option<Timestamp>, Error>) {
    match next_due {
        Ok(due) => wait_until(clock, due).await,
        // The store's error was logged where it occurred.
        Err(_) => tokio::time::sleep(WAIT_AFTER_FAILURE).await,
    }
}

/// Returns when the clock reaches `due` or is set back, or after [`WAIT_MAX`].
async fn wait_until(clock: &dyn Clock, due: Option<Timestamp>) {
    let mut now = clock.now();
    let end = now.after(WAIT_MAX);
    let due = due.map_or(end, |due| due.min(end));
    while now < due {
        tokio::time::sleep(due.since(now).min(CLOCK_CHECK_INTERVAL)).await;
        let before = std::mem::replace(&mut now, clock.now());
        if now < before {
            return;
        }
    }
}
