//! Attends a request from its first to its last moment: gives it a name, a span and one log line.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

use crate::middleware::request_id::{RequestId, X_REQUEST_ID};

/// Runs the rest of the request inside a span, and puts its id on the answer. The span has the route, not the
/// path: paths are what clients write, and never a header, which may be a secret.
pub(crate) async fn attend(request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str);
    let span = tracing::info_span!("request", id = id.as_str(), method = %request.method(), route);
    let begun = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(parent: &span, status = response.status().as_u16(), elapsed_ms, "answered");
    response.headers_mut().insert(X_REQUEST_ID, id.into_header());
    response
}
