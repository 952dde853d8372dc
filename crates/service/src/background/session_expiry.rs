//! Deletes expired sessions and unfinished logins.

use std::time::Duration;

use crate::Error;
use crate::auth::Auth;
use crate::error::log_store_error;
use crate::tasks::Tasks;

/// Rows that are deleted in one transaction.
const BATCH_MAX: u32 = 1_000;
/// Wait between two looks.
const INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Runs until the service stops.
pub(super) async fn run(auth: &Auth, tasks: &Tasks) {
    while !tasks.is_stopping() {
        match turn(auth).await {
            Ok(deleted) if deleted >= u64::from(BATCH_MAX) => continue,
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "failed to delete expired sessions"),
        }
        tasks.sleep(INTERVAL).await;
    }
}

/// One step; returns how many rows were deleted.
pub(super) async fn turn(auth: &Auth) -> Result<u64, Error> {
    auth.store.delete_expired_sessions(auth.clock.now(), BATCH_MAX).await.map_err(log_store_error)
}
