//! Route policy: what middleware needs to know about a route, declared where the route is added.

use std::collections::HashMap;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::Middleware;

/// What middleware does with the requests of a route. Handlers and extractors find it in the request's extensions.
///
/// A route for which nothing is declared has [`RoutePolicy::STRICT`]. The permission that a route needs is not here: it is
/// in the handler's signature, where the type is the proof ([`Require`](super::auth::Require)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RoutePolicy {
    pub(crate) rate: RateClass,
    pub(crate) idempotency: IdempotencyPolicy,
    pub(crate) body: BodyLimit,
}

/// Which budget the requests of a route are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RateClass {
    /// The common budget.
    Calls,
    /// `GET` and `HEAD` have a budget of their own, because clients repeat them while they wait; other methods are calls.
    Polls,
    /// The small budget of requests that try passwords or create accounts, counted for each network whatever the
    /// credential.
    Logins,
}

/// What an `Idempotency-Key` does on the POST of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdempotencyPolicy {
    /// The header is ignored.
    Ignored,
    /// The request runs once. Of a successful answer only the status is stored, since the answer may hold a secret.
    StatusStored,
    /// The request runs once, and its answer is stored and sent again.
    AnswerStored,
}

/// How large the body of a request may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyLimit {
    /// `json_bytes_max` of the settings.
    Json,
    /// `batch_bytes_max` of the settings.
    Batch,
    /// The handler reads a stream, and bounds it by the account's plan.
    Stream,
}

impl RoutePolicy {
    /// The default: nothing of a successful answer is stored, bodies are small, and requests count as calls.
    pub(crate) const STRICT: Self =
        Self { rate: RateClass::Calls, idempotency: IdempotencyPolicy::StatusStored, body: BodyLimit::Json };

    /// Reads are polls.
    pub(crate) const fn polled(self) -> Self {
        Self { rate: RateClass::Polls, ..self }
    }

    /// Requests try passwords or create accounts.
    pub(crate) const fn login(self) -> Self {
        Self { rate: RateClass::Logins, ..self }
    }

    /// `Idempotency-Key` is ignored: the answer is a secret for a caller who was not known before.
    pub(crate) const fn without_idempotency(self) -> Self {
        Self { idempotency: IdempotencyPolicy::Ignored, ..self }
    }

    /// Answers hold no secret and may be stored.
    pub(crate) const fn answer_stored(self) -> Self {
        Self { idempotency: IdempotencyPolicy::AnswerStored, ..self }
    }

    pub(crate) const fn body(self, body: BodyLimit) -> Self {
        Self { body, ..self }
    }
}

/// The declared policies of a surface, by path template as the router matches it (`/api/v3/status/{cid}`).
#[derive(Debug, Default)]
pub(crate) struct RoutePolicies(HashMap<String, RoutePolicy>);

impl RoutePolicies {
    /// Declares the policy of a path, for all of its methods.
    pub(crate) fn declare(&mut self, path: impl Into<String>, policy: RoutePolicy) {
        self.0.insert(path.into(), policy);
    }

    /// Takes over the policies of routes that are nested under `base`.
    pub(crate) fn declare_under(&mut self, base: &str, inner: Self) {
        self.0.extend(inner.0.into_iter().map(|(path, policy)| (format!("{base}{path}"), policy)));
    }

    /// The policy of a path; the strict one if none was declared.
    pub(crate) fn of(&self, path: &str) -> RoutePolicy {
        self.0.get(path).copied().unwrap_or(RoutePolicy::STRICT)
    }
}

/// Gives a request the policy of its route, and the error body of its surface.
pub(super) async fn attach(
    State(middleware): State<Middleware>,
    mut request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let policy = route.map_or(RoutePolicy::STRICT, |route| middleware.policies.of(route.as_str()));
    request.extensions_mut().insert(policy);
    request.extensions_mut().insert(middleware.error_body);
    next.run(request).await
}

/// The policy of a request's route.
pub(super) fn policy_of(request: &Request) -> RoutePolicy {
    request.extensions().get().copied().unwrap_or(RoutePolicy::STRICT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn route_without_declared_policy_is_strict() {
        let mut policies = RoutePolicies::default();
        policies.declare("/a/{id}", RoutePolicy::STRICT.answer_stored());
        assert_eq!(policies.of("/a/{id}").idempotency, IdempotencyPolicy::AnswerStored);
        for undeclared in ["/a", "/a/{id}/b", ""] {
            let policy = policies.of(undeclared);
            assert_eq!(policy.idempotency, IdempotencyPolicy::StatusStored, "{undeclared}");
            assert_eq!((policy.rate, policy.body), (RateClass::Calls, BodyLimit::Json), "{undeclared}");
        }
    }

    #[test]
    fn nested_policies_have_full_paths() {
        let (mut outer, mut inner) = (RoutePolicies::default(), RoutePolicies::default());
        inner.declare("/status/{cid}", RoutePolicy::STRICT.polled());
        outer.declare_under("/api/v3", inner);
        assert_eq!(outer.of("/api/v3/status/{cid}").rate, RateClass::Polls);
        assert_eq!(outer.of("/status/{cid}").rate, RateClass::Calls);
    }
}
