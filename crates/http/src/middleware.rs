//! What every HTTP surface needs around its routes: request ids and tracing, CORS, authentication, rate limits,
//! idempotency, and an answer when a handler panics.
//!
//! Middleware knows no surface. When it refuses a request it yields a [`MiddlewareError`], which the surface's
//! [`ErrorBody`] turns into a response. What it needs to know about a route is that route's [`RoutePolicy`].

pub(crate) mod auth;
mod context;
mod cors;
pub(crate) mod drain;
mod error;
mod idempotency;
mod panic;
pub(crate) mod peer;
mod policy;
pub(crate) mod rate_limit;
mod request_id;
mod trace;

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};

pub(crate) use context::Context;
pub(crate) use error::{ErrorBody, MiddlewareError};
pub(crate) use policy::{BodyLimit, IdempotencyPolicy, RoutePolicies, RoutePolicy};

/// The middleware of one surface. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Middleware {
    context: Context,
    error_body: ErrorBody,
    policies: Arc<RoutePolicies>,
}

impl Middleware {
    pub(crate) fn new(context: Context, error_body: ErrorBody, policies: RoutePolicies) -> Self {
        Self { context, error_body, policies: Arc::new(policies) }
    }

    /// Wraps all routes and the fallback of a router.
    ///
    /// A request passes, from the outside in: the request id, the span and the log line, the policy of its route, CORS,
    /// the credential and the rate limits, idempotency, and the panic handler.
    pub(crate) fn wrap(self, router: Router) -> Router {
        let cors = cors::layer(self.context.settings());
        router
            .layer(panic::layer(self.error_body))
            .layer(from_fn_with_state(self.clone(), idempotency::run_once))
            .layer(from_fn_with_state(self.clone(), auth::authenticate))
            .layer(cors)
            .layer(from_fn_with_state(self.clone(), rate_limit::set_rate_limit_headers))
            .layer(from_fn_with_state(self, policy::attach))
            .layer(from_fn(trace::trace))
    }
}
