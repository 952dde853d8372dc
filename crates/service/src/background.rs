//! What goes on without a request: the reconciler.

use std::sync::Arc;

use crate::Error;
use crate::service::Core;

/// Brings what is to what is wanted: fetches, releases, expires. Cheap to clone.
#[derive(Clone)]
pub struct Reconciler {
    pub(crate) core: Arc<Core>,
}

impl Reconciler {
    /// One turn: ends what is due, works once on every placement that is due, and returns how many changed.
    /// For tests and tools; a running service turns by itself.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`] when the store fails.
    pub async fn turn(&self) -> Result<usize, Error> {
        Err(Error::Internal)
    }

    /// Makes the running service look at once, such as after a test moved the clock.
    pub fn wake(&self) {}
}

/// The running background work.
#[must_use = "without it nothing is fetched"]
pub struct Background {}

impl Background {
    /// Stops it: no new work is begun, what runs is told to stop and left for the next start, and nothing
    /// runs any more when this returns.
    pub async fn stop(self) {}
}
