//! What all requests share.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use pinfold_model::{Clock, Timestamp};
use pinfold_service::Service;
use tokio_util::sync::CancellationToken;

use crate::Settings;
use crate::middleware::rate_limit::{Limits, Ticks};

/// What all requests share: the service, the settings, the clock. Cheap to clone.
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

struct Shared {
    service: Service,
    settings: Settings,
    clock: Arc<dyn Clock>,
    limits: Limits,
    stopping: CancellationToken,
}

impl AppState {
    /// Puts it together. When `stopping` is cancelled, [`serve`](crate::server::acceptor) ends, and requests that wait
    /// for a pin are answered at once.
    #[must_use]
    pub fn new(
        service: Service,
        settings: Settings,
        clock: Arc<dyn Clock>,
        stopping: CancellationToken,
    ) -> Self {
        let limits = Limits::new(settings.rates.holders_max, Ticks::Machine(Instant::now()));
        Self::with(service, settings, clock, limits, stopping)
    }

    /// The same, with requests counted by `clock` instead of the machine's own, which is never set: for tests of rates.
    #[must_use]
    pub fn counting_by_clock(
        service: Service,
        settings: Settings,
        clock: Arc<dyn Clock>,
        stopping: CancellationToken,
    ) -> Self {
        let limits = Limits::new(settings.rates.holders_max, Ticks::Clock(Arc::clone(&clock)));
        Self::with(service, settings, clock, limits, stopping)
    }

    fn with(
        service: Service,
        settings: Settings,
        clock: Arc<dyn Clock>,
        limits: Limits,
        stopping: CancellationToken,
    ) -> Self {
        Self(Arc::new(Shared { service, settings, clock, limits, stopping }))
    }

    pub(crate) fn service(&self) -> &Service {
        &self.0.service
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.0.stopping
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// Runs `work` to its end, or until the server stops: `None` then, and the work is dropped.
    pub(crate) async fn until_stopping<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.0.stopping.cancelled() => None,
        }
    }
}
