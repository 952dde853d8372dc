//! The request id, the span and the log line of each request.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

use super::request_id::{RequestId, X_REQUEST_ID};

/// Runs a request inside a span, logs its outcome, and puts its id on the answer.
///
/// The span has the route and not the path, because clients choose paths; and it has no header, since those hold secrets.
pub(super) async fn trace(request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str);
    let span = tracing::info_span!("request", id = id.as_str(), method = %request.method(), route);
    let started = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(parent: &span, status = response.status().as_u16(), elapsed_ms, "request answered");
    response.headers_mut().insert(X_REQUEST_ID, id.into_header());
    response
}
