//! The API v3: its routes, with the policy of each, and its error body.
//!
//! Behind the middleware, a request passes the extractors in the order in which its handler names them (permission, then
//! syntax), and the service (plan, quota, network).

mod account;
mod admin;
mod error_code;
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

use axum::Extension;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use openapi::{Document, Documented};
use reject::Reject;
use utoipa_axum::routes;

use crate::middleware::{BodyLimit, ErrorBody, MiddlewareError, RoutePolicy};
use crate::surface::{Surface, is_under};

/// Where the API lives.
const BASE: &str = "/api/v3";

/// The versions of the API that are gone.
const GONE: [&str; 2] = ["/api/v1", "/api/v2"];

/// What other servers of this API have here, and this one has not.
const PAYMENTS: &str = "/api/v3/payments";

/// What an `Idempotency-Key` does where answers hold no secret: they are stored and sent again.
const STORED: RoutePolicy = RoutePolicy::STRICT.answer_stored();
/// Reads that clients repeat while they wait for a pin.
const POLLED: RoutePolicy = RoutePolicy::STRICT.polled();
/// Sessions and second factors.
const AUTH: RoutePolicy = RoutePolicy::STRICT.without_idempotency();
/// Attempts to get a session, by callers who have no credential.
const LOGIN: RoutePolicy = AUTH.login();

/// The API v3, and what is at `/`.
pub(crate) fn surface() -> Surface {
    let (routes, policies, api) = documented().split();
    Surface {
        prefix: "",
        routes: routes.layer(Extension(Document::of(&api))),
        policies,
        fallback: no_route,
        error_body: ErrorBody::new(error_body),
    }
}

fn error_body(error: MiddlewareError) -> Response {
    Reject::from(error).into_response()
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
        .with_policy(LOGIN, routes!(account::auth::signup))
        .with_policy(LOGIN, routes!(account::auth::login))
        .with_policy(AUTH, routes!(account::auth::logout))
        .with_policy(AUTH, routes!(account::second_factor::status))
        .with_policy(AUTH, routes!(account::second_factor::set_up))
        .with_policy(AUTH, routes!(account::second_factor::enable))
        .with_policy(AUTH, routes!(account::second_factor::disable))
        .with_policy(LOGIN, routes!(account::second_factor::verify_login))
        .with(routes!(account::me::show, account::me::change))
        .with(routes!(account::me::change_password))
        .with(routes!(account::me::preferences, account::me::set_preferences))
        .with_policy(STORED.body(BodyLimit::Stream), routes!(uploads::file::file))
        .with_policy(STORED.body(BodyLimit::Stream), routes!(uploads::directory::form))
        .with_policy(STORED, routes!(uploads::directory::folder))
        .with_policy(STORED, routes!(pins::pin::pin))
        .with_policy(STORED.body(BodyLimit::Batch), routes!(pins::batch::pin_all, pins::batch::remove_all))
        .with(routes!(pins::pin::remove))
        .with(routes!(pins::rename::rename))
        .with(routes!(pins::pin::remove_upload))
        .with_policy(POLLED, routes!(uploads::list::list))
        .with(routes!(uploads::entries::list))
        .with_policy(POLLED, routes!(pins::status::status))
        .with_policy(POLLED, routes!(pins::events::events))
        .with_policy(POLLED, routes!(pins::status::allocations))
        .with_policy(POLLED, routes!(pins::status::status_allocations))
        .with(routes!(tokens::generate))
        .with(routes!(tokens::list))
        .with(routes!(tokens::revoke))
        .with_policy(STORED, routes!(tokens::revoke_named))
        .with(routes!(account::logs::list))
        .with(routes!(account::referrals::list))
        .with(routes!(service::locales::languages))
        .with(routes!(service::locales::countries))
        .with(routes!(webhooks::list, webhooks::create))
        .with(routes!(webhooks::show, webhooks::change, webhooks::remove))
        .with(routes!(webhooks::rotate_secret))
        .with_policy(STORED, routes!(webhooks::test))
        .with(routes!(webhooks::deliveries))
        .with(routes!(account::plans::list))
        .with(routes!(account::plans::mine))
        .with(routes!(account::plans::users_mine))
        .with(routes!(account::plans::change));
    admin::with_routes(routes)
}

fn no_route(uri: &Uri) -> Response {
    let is_under = |base: &str| is_under(uri.path(), base);
    let reject = if GONE.into_iter().any(is_under) {
        Reject::gone(BASE)
    } else if is_under(PAYMENTS) {
        Reject::payments_disabled()
    } else {
        Reject::no_route()
    };
    reject.into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::middleware::IdempotencyPolicy;

    #[test]
    fn answers_that_may_hold_a_secret_are_not_stored() {
        let (_, policies, _) = documented().split();
        let idempotency = |route: &str| policies.of(route).idempotency;
        for stored in [
            "/api/v3/files",
            "/api/v3/files/directory",
            "/api/v3/files/directory-dag",
            "/api/v3/files/pin/{cid}",
            "/api/v3/files/pin-batch",
            "/api/v3/tokens/revoke",
            "/api/v3/webhooks/{id}/test",
        ] {
            assert_eq!(idempotency(stored), IdempotencyPolicy::AnswerStored, "{stored}");
        }
        for secret in ["/api/v3/tokens/generate", "/api/v3/webhooks", "/api/v3/webhooks/{id}/rotate-secret"] {
            assert_eq!(idempotency(secret), IdempotencyPolicy::StatusStored, "{secret}");
        }
        for login in ["/api/v3/auth/signup", "/api/v3/auth/login", "/api/v3/auth/2fa/enable"] {
            assert_eq!(idempotency(login), IdempotencyPolicy::Ignored, "{login}");
        }
    }
}
