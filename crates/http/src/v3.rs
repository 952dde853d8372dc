//! The API v3: its routes and their order of checks.
//!
//! A request passes, from the outside in: its name and its log line ([`attend`](crate::attend)), CORS, the
//! gate that counts it and looks at its credential, a net for panics, the route, the extractors in the order
//! in which its handler names them (scope, then syntax), and the service (plan, quota, network).

mod extract;
mod form;
mod gate;
mod info;
mod metrics;
mod pin;
pub(crate) mod reject;
mod reply;
mod status;
mod terms;
mod upload;
mod uploads;

use std::any::Any;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, post};
use reject::Reject;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, Any as AnyValue, CorsLayer};

use crate::attend::attend;
use crate::{AppState, Settings};

/// Where the API lives.
const BASE: &str = "/api/v3";

/// Every route of the API, and what else this server answers.
pub(crate) fn router(app: AppState) -> Router {
    let cors = cors(app.settings());
    Router::new()
        .route("/", get(info::service))
        .route("/health", get(info::health))
        .route("/metrics", get(metrics::metrics))
        .nest(BASE, routes())
        .route(BASE, get(info::service))
        .route("/api/v1", any(info::gone))
        .route("/api/v1/{*rest}", any(info::gone))
        .route("/api/v2", any(info::gone))
        .route("/api/v2/{*rest}", any(info::gone))
        .method_not_allowed_fallback(|| async { Reject::wrong_method() })
        .fallback(|| async { Reject::no_route() })
        .layer(CatchPanicLayer::custom(on_panic))
        .layer(from_fn_with_state(app.clone(), gate::count))
        .layer(cors)
        .layer(from_fn(attend))
        .with_state(app)
}

fn routes() -> Router<AppState> {
    Router::new()
        .route("/health", get(info::health))
        .route("/peers", get(info::peers))
        .route("/files", post(upload::file))
        .route("/files/directory-dag", post(upload::directory))
        .route("/files/pin/{cid}", post(pin::pin))
        .route("/files/remove/{cid}", delete(pin::remove))
        .route("/users/me/uploads", get(uploads::list))
        .route("/users/me/uploads/{cid}", delete(pin::remove))
        .route("/users/me/clusters", get(info::clusters))
        .route("/status/{cid}", get(status::status))
}

/// Browsers of the configured origins may call, without cookies, and may read every header.
fn cors(settings: &Settings) -> CorsLayer {
    if settings.cors_origins.is_empty() {
        return CorsLayer::new();
    }
    CorsLayer::new()
        .allow_origin(settings.cors_origins.clone())
        .allow_methods(AnyValue)
        // Browsers do not count `Authorization` as part of `*`.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(AnyValue)
}

/// A panic is a fault of ours: logged with its text, answered without it.
fn on_panic(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
    tracing::error!(panic = text, "a handler panicked");
    Reject::internal().into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn a_panics_text_stays_here() {
        for panic in [Box::new("secret") as Box<dyn Any + Send>, Box::new("secret".to_owned()), Box::new(7)] {
            let response = on_panic(panic);
            assert_eq!(response.status(), 500);
            let body = to_bytes(response.into_body(), 1024).await.expect("a body");
            let text = String::from_utf8_lossy(&body).into_owned();
            assert!(text.contains("Internal Server Error") && !text.contains("secret"), "{text}");
        }
    }
}
