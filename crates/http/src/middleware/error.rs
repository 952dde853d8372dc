//! Why middleware refused a request, free of any surface's words.

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use pinfold_model::{IdempotencyKeyError, Scope, Timestamp};
use pinfold_service::{AuthError, Error, IdempotencyError};

use super::rate_limit::Reading;
use crate::body::BodyError;

/// A refusal by middleware, or by one of the extractors that check permissions.
///
/// Each surface turns it into a response in one exhaustive `match`; see [`ErrorBody`].
#[derive(Debug)]
pub(crate) enum MiddlewareError {
    /// A budget is used up. `reading` is that of the bucket that refused, at the time `now`.
    RateLimited { reading: Reading, retry_after: Duration, now: Timestamp },
    /// The request has no credential, and the route needs one.
    NoCredential,
    /// The request has a credential, which is refused.
    Credential(AuthError),
    /// The credential lacks this scope.
    MissingScope(Scope),
    /// The route needs a session; API keys are refused.
    SessionRequired,
    /// The route needs an account with the role admin.
    AdminRequired,
    /// There are several `Idempotency-Key` headers.
    RepeatedIdempotencyKey,
    /// The `Idempotency-Key` is too long, or has characters that are not allowed.
    InvalidIdempotencyKey(IdempotencyKeyError),
    /// The `Idempotency-Key` is in use.
    Idempotency(IdempotencyError),
    /// The request was carried out earlier and answered with this status; the answer itself was not stored.
    AnswerNotStored { status: u16 },
    /// The body of a request with an `Idempotency-Key` can't be read.
    Body(BodyError),
    /// The path exists, but not for this method.
    MethodNotAllowed,
    /// The service failed while middleware used it.
    Service(Error),
    /// A handler panicked, or middleware has a fault of its own. Details are in the log only.
    Internal,
}

impl From<IdempotencyError> for MiddlewareError {
    fn from(error: IdempotencyError) -> Self {
        Self::Idempotency(error)
    }
}

impl From<BodyError> for MiddlewareError {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

impl From<Error> for MiddlewareError {
    fn from(error: Error) -> Self {
        if let Error::Idempotency(error) = error { Self::Idempotency(error) } else { Self::Service(error) }
    }
}

/// How a surface words a [`MiddlewareError`]. Requests carry it as an extension, so that extractors shared by all
/// surfaces answer in the words of the one that they run in.
#[derive(Clone, Copy)]
pub(crate) struct ErrorBody(fn(MiddlewareError) -> Response);

impl ErrorBody {
    pub(crate) const fn new(respond: fn(MiddlewareError) -> Response) -> Self {
        Self(respond)
    }

    pub(crate) fn response(self, error: MiddlewareError) -> Response {
        (self.0)(error)
    }

    /// The error body of the surface that this request belongs to.
    pub(crate) fn of(parts: &Parts) -> Self {
        // A router outside of any surface has no body to give.
        let plain = Self(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response());
        parts.extensions.get::<Self>().copied().unwrap_or(plain)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ErrorBody {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::of(parts))
    }
}
