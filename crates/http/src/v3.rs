//! The API v3: its routes and their order of checks.
//!
//! A request passes, from the outside in: its name and its log line ([`attend`](crate::middleware::trace)), CORS, the
//! gate that counts it and looks at its credential, what does a named request once
//! ([`idempotency`]), a net for panics, the route, the extractors in the order
//! in which its handler names them (scope, then syntax), and the service (plan, quota, network).

mod account;
mod admin;
mod extract;
mod openapi;
mod options;
mod pins;
mod query;
pub(crate) mod reject;
mod service;
mod tokens;
mod uploads;
mod webhooks;

use std::any::Any;

use axum::http::Uri;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use openapi::{Document, Documented};
use reject::Reject;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, Any as AnyValue, CorsLayer};
use utoipa_axum::routes;

use crate::middleware::trace::attend;
use crate::{AppState, Settings};

/// Where the API lives.
const BASE: &str = "/api/v3";

/// The versions of the API that are gone.
const GONE: [&str; 2] = ["/api/v1", "/api/v2"];

/// What other servers of this API have here, and this one has not.
const PAYMENTS: &str = "/api/v3/payments";

/// Every route of the API, and what else this server answers.
pub(crate) fn router(app: AppState) -> Router {
    let cors = cors(app.settings());
    let (router, api) = documented().split();
    router
        .method_not_allowed_fallback(|| async { Reject::wrong_method() })
        .fallback(no_route)
        .layer(Extension(Document::of(&api)))
        .layer(CatchPanicLayer::custom(on_panic))
        .layer(from_fn_with_state(app.clone(), crate::middleware::idempotency::once))
        .layer(from_fn_with_state(app.clone(), crate::middleware::auth::count))
        .layer(cors)
        .layer(from_fn_with_state(app.clone(), crate::middleware::auth::set_rate_limit_headers))
        .layer(from_fn(attend))
        .with_state(app)
}

/// Every route with its entry in the OpenAPI document.
fn documented() -> Documented {
    Documented::new()
        .with(routes!(service::info::root))
        .with(routes!(service::info::root_health))
        .with(routes!(service::metrics::metrics))
        .with(routes!(service::info::gateway))
        .under(BASE, routes())
}

/// The routes under [`BASE`]. A path whose methods are several handlers has them in one line.
fn routes() -> Documented {
    let routes = Documented::new()
        .with(routes!(service::info::service))
        .with(routes!(service::info::health))
        .with(routes!(service::info::peers))
        .with(routes!(service::info::clusters))
        .with(routes!(service::docs::page))
        .with(routes!(service::docs::json))
        .with(routes!(service::docs::yaml))
        .with(routes!(service::docs::file))
        .with(routes!(account::auth::signup))
        .with(routes!(account::auth::login))
        .with(routes!(account::auth::logout))
        .with(routes!(account::second_factor::status))
        .with(routes!(account::second_factor::set_up))
        .with(routes!(account::second_factor::enable))
        .with(routes!(account::second_factor::disable))
        .with(routes!(account::second_factor::verify_login))
        .with(routes!(account::me::show, account::me::change))
        .with(routes!(account::me::change_password))
        .with(routes!(account::me::preferences, account::me::set_preferences))
        .with(routes!(uploads::file::file))
        .with(routes!(uploads::directory::form))
        .with(routes!(uploads::directory::folder))
        .with(routes!(pins::pin::pin))
        .with(routes!(pins::batch::pin_all, pins::batch::remove_all))
        .with(routes!(pins::pin::remove))
        .with(routes!(pins::rename::rename))
        .with(routes!(pins::pin::remove_upload))
        .with(routes!(uploads::list::list))
        .with(routes!(uploads::entries::list))
        .with(routes!(pins::status::status))
        .with(routes!(pins::events::events))
        .with(routes!(pins::status::allocations))
        .with(routes!(pins::status::status_allocations))
        .with(routes!(tokens::generate))
        .with(routes!(tokens::list))
        .with(routes!(tokens::revoke))
        .with(routes!(tokens::revoke_named))
        .with(routes!(account::logs::list))
        .with(routes!(account::referrals::list))
        .with(routes!(service::locales::languages))
        .with(routes!(service::locales::countries))
        .with(routes!(webhooks::list, webhooks::create))
        .with(routes!(webhooks::show, webhooks::change, webhooks::remove))
        .with(routes!(webhooks::rotate_secret))
        .with(routes!(webhooks::test))
        .with(routes!(webhooks::deliveries))
        .with(routes!(account::plans::list))
        .with(routes!(account::plans::mine))
        .with(routes!(account::plans::users_mine))
        .with(routes!(account::plans::change));
    admin::with_routes(routes)
}

async fn no_route(uri: Uri) -> Reject {
    let is_under = |base: &str| {
        uri.path().strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if GONE.into_iter().any(is_under) {
        Reject::gone(BASE)
    } else if is_under(PAYMENTS) {
        Reject::payments_disabled()
    } else {
        Reject::no_route()
    }
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
