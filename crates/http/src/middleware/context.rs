//! What the middleware of all surfaces shares.

use std::sync::Arc;

use pinfold_model::{Clock, Timestamp};
use pinfold_service::Service;

use super::rate_limit::RateLimiter;
use crate::Settings;

/// The service, the settings, the clock and the rate limits: one of each in a process, so that a client's budget is the
/// same on every surface. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Context(Arc<Shared>);

struct Shared {
    service: Service,
    settings: Settings,
    clock: Arc<dyn Clock>,
    limiter: RateLimiter,
}

impl Context {
    pub(crate) fn new(
        service: Service,
        settings: Settings,
        clock: Arc<dyn Clock>,
        limiter: RateLimiter,
    ) -> Self {
        Self(Arc::new(Shared { service, settings, clock, limiter }))
    }

    pub(crate) fn service(&self) -> &Service {
        &self.0.service
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub(crate) fn limiter(&self) -> &RateLimiter {
        &self.0.limiter
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }
}
