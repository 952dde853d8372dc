//! Surfaces: the APIs that this server offers under their own paths, each with its own fallback and error body.
//!
//! All surfaces have the same middleware, the same rate limits and the same accounts. [`compose`] puts them together; the
//! list of those that are served is in [`router`](crate::router).

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_http::normalize_path::NormalizePathLayer;

use crate::AppState;
use crate::middleware::{ErrorBody, Middleware, MiddlewareError, RoutePolicies};

/// An API under a prefix of its own.
pub(crate) struct Surface {
    /// What all of its paths start with, such as `/psa`; empty for the surface that gets every other path.
    pub(crate) prefix: &'static str,
    /// Its routes, by their full paths.
    pub(crate) routes: Router<AppState>,
    /// What its routes declare.
    pub(crate) policies: RoutePolicies,
    /// Answers requests for paths that it has no route for.
    pub(crate) fallback: fn(&Uri) -> Response,
    /// Words what middleware refuses.
    pub(crate) error_body: ErrorBody,
}

impl Surface {
    /// The surface as a router with all middleware. Each path is also served with a trailing slash.
    fn into_router(self, app: &AppState) -> Router {
        let Self { routes, policies, fallback, error_body, .. } = self;
        let router = routes
            .method_not_allowed_fallback(move || async move {
                error_body.response(MiddlewareError::MethodNotAllowed)
            })
            .fallback(move |uri: Uri| async move { fallback(&uri) })
            .with_state(app.clone());
        let router = Middleware::new(app.context().clone(), error_body, policies).wrap(router);
        // A router matches before its own layers run, so the slash must be removed before it is called.
        Router::new().fallback_service(NormalizePathLayer::trim_trailing_slash().layer(router))
    }
}

/// One router for several surfaces: a request goes to the one with the longest prefix that fits.
pub(crate) fn compose(app: &AppState, surfaces: impl IntoIterator<Item = Surface>) -> Router {
    let mut routers: Vec<(&'static str, Router)> =
        surfaces.into_iter().map(|surface| (surface.prefix, surface.into_router(app))).collect();
    routers.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
    let routers: Arc<[_]> = routers.into();
    Router::new().fallback_service(service_fn(move |request: Request| {
        let router = routers.iter().find(|(prefix, _)| is_under(request.uri().path(), prefix));
        let router = router.map(|(_, router)| router.clone());
        async move {
            match router {
                Some(router) => router.oneshot(request).await,
                None => Ok(StatusCode::NOT_FOUND.into_response()),
            }
        }
    }))
}

/// Whether a path is `prefix` or below it.
pub(crate) fn is_under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests;
