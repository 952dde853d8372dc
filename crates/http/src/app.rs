//! The state that handlers share.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use pinfold_model::{Clock, Timestamp};
use pinfold_service::Service;
use tokio_util::sync::CancellationToken;

use crate::Settings;
use crate::middleware::Context;
use crate::middleware::rate_limit::{RateLimiter, TimeSource};

/// The service, the settings and the clock, and whether the server is stopping. Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    context: Context,
    stopping: CancellationToken,
}

impl AppState {
    /// When `stopping` is cancelled, [`serve`](crate::serve) ends, and requests that wait
    /// for a pin are answered at once.
    #[must_use]
    pub fn new(
        service: Service,
        settings: Settings,
        clock: Arc<dyn Clock>,
        stopping: CancellationToken,
    ) -> Self {
        let limiter = RateLimiter::new(settings.rates.holders_max, TimeSource::Machine(Instant::now()));
        Self::with(service, settings, clock, limiter, stopping)
    }

    /// As [`new`](Self::new), with rate limits that take the time from `clock` instead of the machine's monotonic clock: for
    /// tests of rate limits.
    #[must_use]
    pub fn counting_by_clock(
        service: Service,
        settings: Settings,
        clock: Arc<dyn Clock>,
        stopping: CancellationToken,
    ) -> Self {
        let limiter = RateLimiter::new(settings.rates.holders_max, TimeSource::Clock(Arc::clone(&clock)));
        Self::with(service, settings, clock, limiter, stopping)
    }

    fn with(
        service: Service,
        settings: Settings,
        clock: Arc<dyn Clock>,
        limiter: RateLimiter,
        stopping: CancellationToken,
    ) -> Self {
        Self { context: Context::new(service, settings, clock, limiter), stopping }
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    pub(crate) fn service(&self) -> &Service {
        self.context.service()
    }

    pub(crate) fn settings(&self) -> &Settings {
        self.context.settings()
    }

    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.context.now()
    }

    /// Runs `work` to its end, or drops it when the server stops and returns `None`.
    pub(crate) async fn until_stopping<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.stopping.cancelled() => None,
        }
    }
}
