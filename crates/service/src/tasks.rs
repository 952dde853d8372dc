//! Background tasks of the service and the signal that stops them.
//!
//! Every task is spawned here, so that a shutdown can wait for all of them.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Error;

/// The tasks of one service. Cheap to clone; all clones are the same set.
#[derive(Clone, Default)]
pub(crate) struct Tasks {
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Tasks {
    /// Spawns a task that a shutdown waits for.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.tracker.spawn(task)
    }

    /// As [`spawn`](Self::spawn), for callers outside of a runtime's context, such as `Drop`.
    pub(crate) fn spawn_on(&self, task: impl Future<Output = ()> + Send + 'static, runtime: &Handle) {
        self.tracker.spawn_on(task, runtime);
    }

    /// Runs work to its end, also if the future that waits for it is dropped. For a write and what follows from it.
    ///
    /// # Errors
    /// [`Error::Internal`] if the work panics.
    pub(crate) async fn run_to_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        self.spawn(work).await.map_err(|_| Error::Internal)
    }

    /// Whether the service stops.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Returns when the service stops.
    pub(crate) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Sleeps. Returns `false`, and early, if the service stops.
    pub(crate) async fn sleep(&self, time: Duration) -> bool {
        self.stop.run_until_cancelled(tokio::time::sleep(time)).await.is_some()
    }

    /// Tells all tasks to stop.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until no task is left.
    pub(crate) async fn join(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}
