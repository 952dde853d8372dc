//! Rate limits: which buckets a request is counted in, and the `X-RateLimit-…` headers.
//!
//! A request with a valid credential is counted for the key (or for the account's sessions together), for the account,
//! and for the network that it comes from; every other request for the network alone. Requests of routes that try
//! passwords are counted for the network, whatever credential comes with them. The buckets themselves are in
//! [`buckets`].

mod buckets;

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::Method;
use axum::http::header::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use pinfold_service::{Caller, Credential};

use super::auth::Identity;
use super::policy::{RateClass, policy_of};
use super::{Context, Middleware, MiddlewareError, peer};
use crate::settings::Rate;
use buckets::{Budget, Charge, Decision, Subject, hash_of_login};

pub(crate) use buckets::{RateLimiter, Reading, TimeSource, network_of};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// The answer to a request from a network that has sent too many wrong credentials; `None` for every other network.
pub(super) fn refuse_guesses(middleware: &Middleware, network: IpAddr) -> Option<Response> {
    let context = &middleware.context;
    let decision = context.limiter().peek(&[guess(context, network)]);
    let retry_after = decision.retry_after?;
    Some(refuse(middleware, decision, retry_after))
}

/// Counts a wrong credential.
pub(super) fn count_guess(context: &Context, network: IpAddr) {
    context.limiter().take(&[guess(context, network)]);
}

/// Counts a request, and gives the reading of its strictest bucket.
///
/// # Errors
/// The answer to send when one of its buckets is empty. Boxed, because it is large and rare.
pub(super) fn count(
    middleware: &Middleware,
    request: &Request,
    identity: &Identity,
    network: IpAddr,
) -> Result<Reading, Box<Response>> {
    let context = &middleware.context;
    let decision = context.limiter().take(&charges(context, identity, network, budget_of(request)));
    match decision.retry_after {
        None => Ok(decision.reading),
        Some(retry_after) => Err(Box::new(refuse(middleware, decision, retry_after))),
    }
}

/// Counts an attempt on an account's password, from any network, and whether the account exists or not.
///
/// # Errors
/// `RateLimited` if there were too many.
pub(crate) fn count_login(context: &Context, email: &str) -> Result<(), MiddlewareError> {
    let (subject, rate) = (Subject::Login(hash_of_login(email)), context.settings().rates.account_logins);
    let decision = context.limiter().take(&[Charge { subject, budget: Budget::Logins, rate }]);
    match decision.retry_after {
        None => Ok(()),
        Some(retry_after) => {
            Err(MiddlewareError::RateLimited { reading: decision.reading, retry_after, now: context.now() })
        }
    }
}

/// Sets the headers also on answers that were made before anything was counted, such as those to CORS preflights, which
/// cost nothing.
pub(super) async fn set_rate_limit_headers(
    State(middleware): State<Middleware>,
    request: Request,
    next: Next,
) -> Response {
    let context = &middleware.context;
    let address = peer::address_of(request.headers(), request.extensions(), &context.settings().proxies);
    let mut response = next.run(request).await;
    if !response.headers().contains_key(LIMIT) {
        let charges = charges(context, &Identity::Unknown, network_of(address), Budget::Calls);
        write_headers(&mut response, context.limiter().peek(&charges).reading, context);
    }
    response
}

/// Writes the headers. `Reset` is the Unix time, in seconds, when the budget is full again.
pub(super) fn write_headers(response: &mut Response, reading: Reading, context: &Context) {
    let reset_at_s = context.now().after(reading.full_in + Duration::from_millis(999)).as_ms() / 1000;
    let headers = response.headers_mut();
    headers.insert(LIMIT, HeaderValue::from(reading.limit));
    headers.insert(REMAINING, HeaderValue::from(reading.remaining));
    headers.insert(RESET, HeaderValue::from(reset_at_s));
}

fn refuse(middleware: &Middleware, decision: Decision, retry_after: Duration) -> Response {
    let (context, reading) = (&middleware.context, decision.reading);
    let error = MiddlewareError::RateLimited { reading, retry_after, now: context.now() };
    let mut response = middleware.error_body.response(error);
    write_headers(&mut response, reading, context);
    response
}

/// The bucket of a network's wrong credentials.
fn guess(context: &Context, network: IpAddr) -> Charge {
    let rate = context.settings().rates.guesses;
    Charge { subject: Subject::Anonymous(network), budget: Budget::Guesses, rate }
}

/// All buckets that a request must pass.
fn charges(context: &Context, identity: &Identity, network: IpAddr, budget: Budget) -> Vec<Charge> {
    let rates = &context.settings().rates;
    if budget == Budget::Logins {
        return vec![Charge { subject: Subject::Anonymous(network), budget, rate: rates.logins }];
    }
    let charge = |subject, calls: Rate| {
        let rate = if budget == Budget::Polls { calls.max(rates.polls) } else { calls };
        Charge { subject, budget, rate }
    };
    let Identity::Caller(caller) = identity else {
        return vec![charge(Subject::Anonymous(network), rates.anonymous)];
    };
    let one = charge(subject_of(caller), plan_rate(caller));
    let many = |subject, factor| Charge { subject, budget, rate: one.rate.times(factor) };
    let account = many(Subject::Account(caller.account.id), rates.account_factor);
    let address = many(Subject::Network(network, caller.plan.code.clone()), rates.address_factor);
    vec![one, account, address]
}

/// A key has a budget of its own; all sessions of an account share one, so that a new login gives no new budget.
fn subject_of(caller: &Caller) -> Subject {
    match caller.credential {
        Credential::Key(key) => Subject::Key(key),
        Credential::Session(_) | Credential::Operator => Subject::Sessions(caller.account.id),
    }
}

fn plan_rate(caller: &Caller) -> Rate {
    Rate::new(caller.plan.limits.requests_per_minute, caller.plan.limits.requests_per_second)
}

fn budget_of(request: &Request) -> Budget {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    match policy_of(request).rate {
        RateClass::Polls if is_read => Budget::Polls,
        RateClass::Logins => Budget::Logins,
        RateClass::Calls | RateClass::Polls => Budget::Calls,
    }
}
