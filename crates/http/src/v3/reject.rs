//! Error responses of the API v3: the one place where errors become status codes, codes and messages.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use pinfold_model::{LifetimeError, Scope, Timestamp};
use pinfold_service::{AuthError, BatchError, Error, IdempotencyError, ItemFault, LoginError};
use serde::Serialize;
use utoipa::ToSchema;

use super::error_code::ErrorCode;
use crate::body::BodyError;
use crate::middleware::MiddlewareError;
use crate::middleware::rate_limit::Reading;

/// `Retry-After` if too many pins are in progress: some of them will have completed by then.
const IN_FLIGHT_RETRY: Duration = Duration::from_secs(10);

/// Errors of a batch that are sent. More of them mostly have the same cause.
const ITEM_ERRORS_MAX: usize = 100;

/// An error response. Its message is for the caller and must not contain internal details.
#[derive(Debug)]
pub(crate) struct Reject {
    status: StatusCode,
    headers: HeaderMap,
    // Boxed to keep the `Result` of every handler small.
    body: Box<RejectBody>,
}

/// Body of every error.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Error)]
pub(super) struct RejectBody {
    /// The reason phrase of the status.
    error: &'static str,
    /// Cause of the error, for people.
    message: String,
    /// Cause of the error, for programs. See the reference of error codes.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    required: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reset_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_api_base: Option<&'static str>,
    /// The pin is locked until this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    retain_until: Option<String>,
    /// Errors of the items of a batch; at most 100.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<ItemErrorBody>,
    /// Number of errors of a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_count: Option<usize>,
    /// The exceeded rate limit, for the headers.
    #[serde(skip)]
    reading: Option<Reading>,
}

/// Error of one item of a batch.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ItemError)]
struct ItemErrorBody {
    /// Index in the batch, from 0.
    index: usize,
    cid: Option<String>,
    message: String,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retain_until: Option<String>,
}

/// Error of one item of a batch.
pub(super) struct ItemReject {
    index: usize,
    cid: Option<String>,
    reject: Reject,
}

impl ItemReject {
    pub(super) fn new(index: usize, cid: Option<String>, reject: Reject) -> Self {
        Self { index, cid, reject }
    }

    fn into_body(self) -> ItemErrorBody {
        let RejectBody { message, code, retain_until, .. } = *self.reject.body;
        let code = code.unwrap_or(
            if self.reject.status == StatusCode::NOT_FOUND {
                ErrorCode::NotFound
            } else {
                ErrorCode::Invalid
            }
            .as_str(),
        );
        ItemErrorBody { index: self.index, cid: self.cid, message, code, retain_until }
    }
}

impl From<ItemFault> for ItemReject {
    fn from(fault: ItemFault) -> Self {
        Self::new(fault.index, Some(fault.cid.to_string()), fault.error.into())
    }
}

impl Reject {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let error = status.canonical_reason().unwrap_or("Error");
        let body = Box::new(RejectBody { error, message: message.into(), ..RejectBody::default() });
        Self { status, headers: HeaderMap::new(), body }
    }

    /// 400: the request is invalid; `message` says why.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 413.
    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message).code(ErrorCode::TooLarge)
    }

    /// 401: the request has no credential.
    fn no_credential() -> Self {
        let message = "Missing credential; send an API key as X-API-Key or Authorization: Bearer";
        Self::new(StatusCode::UNAUTHORIZED, message).code(ErrorCode::Unauthorized).challenge()
    }

    /// 403: the credential lacks a scope.
    fn missing_scope(required: Scope) -> Self {
        let message = format!("This API key lacks the scope {required}");
        let mut reject = Self::new(StatusCode::FORBIDDEN, message).code(ErrorCode::MissingScope);
        reject.body.required = Some(required.as_str());
        reject
    }

    /// 403: the account is not an administrator.
    fn not_admin() -> Self {
        Self::new(StatusCode::FORBIDDEN, "Only an account with the role admin may do this")
            .code(ErrorCode::AdminOnly)
    }

    /// 429: too many requests.
    fn rate_limited(reading: Reading, retry_after: Duration, now: Timestamp) -> Self {
        let message = format!("Too many requests; try again in {} s", whole_seconds(retry_after));
        Self::over_limit(message, reading, retry_after, now)
    }

    /// 429: a limit is exceeded. The rate-limit headers describe this limit.
    fn over_limit(message: String, reading: Reading, retry_after: Duration, now: Timestamp) -> Self {
        let mut reject = Self::new(StatusCode::TOO_MANY_REQUESTS, message).code(ErrorCode::RateLimit);
        reject.body.limit = Some(reading.limit);
        reject.body.remaining = Some(reading.remaining);
        reject.body.reset_time = Some(now.after(reading.full_in).to_string());
        reject.body.reading = Some(reading);
        reject.retry_after(retry_after)
    }

    /// 429: too many operations are in progress.
    fn too_many_at_once(message: String, limit: u32, now: Timestamp) -> Self {
        let reading = Reading { limit, remaining: 0, full_in: IN_FLIGHT_RETRY };
        Self::over_limit(message, reading, IN_FLIGHT_RETRY, now)
    }

    /// 404: no such route.
    pub(super) fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "No such path; GET /api/v3 lists the API")
    }

    fn invalid_idempotency_key(message: impl Into<String>) -> Self {
        Self::invalid(message).code(ErrorCode::InvalidIdempotencyKey)
    }

    /// 409: the request was carried out earlier, and its answer was not stored.
    fn answer_not_stored(status: u16) -> Self {
        let message = format!(
            "This request was already carried out and answered {status}; its answer was not stored because it may hold a \
             secret"
        );
        Self::new(StatusCode::CONFLICT, message).code(ErrorCode::AnswerNotKept)
    }

    /// 503: the server takes no payments.
    pub(super) fn payments_disabled() -> Self {
        let message = "This server takes no payments; ask its operator for another plan";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message).code(ErrorCode::PaymentsDisabled)
    }

    /// 405. The router adds `Allow`.
    fn wrong_method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed for this path; see the Allow header")
    }

    /// 410: a removed version of the API.
    pub(super) fn gone(current_api_base: &'static str) -> Self {
        let message = format!("This version of the API was removed; use {current_api_base}");
        let mut reject = Self::new(StatusCode::GONE, message);
        reject.body.error = "api_version_deprecated";
        reject.body.current_api_base = Some(current_api_base);
        reject
    }

    /// 500. The log has the cause, under the request ID.
    pub(super) fn internal() -> Self {
        let message = "Internal error; the server's log has details under this X-Request-Id";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// A refused batch. Status and code are those that all errors share; if they differ, 400 and `batch_refused`.
    pub(super) fn of_items(mut faults: Vec<ItemReject>) -> Self {
        faults.sort_by_key(|fault| fault.index);
        let Some(first) = faults.first() else { return Self::internal() };
        let is_one = |what: &dyn Fn(&Reject) -> bool| faults.iter().all(|fault| what(&fault.reject));
        let (status, code) = (first.reject.status, first.reject.body.code);
        let code = code
            .filter(|_| is_one(&|reject| reject.body.code == code))
            .unwrap_or(ErrorCode::BatchRefused.as_str());
        let status = if is_one(&|reject| reject.status == status) { status } else { StatusCode::BAD_REQUEST };
        let message = match faults.len() {
            1 => format!(
                "The batch was refused because of item {}: {}",
                first.index, first.reject.body.message
            ),
            count => format!("The batch was refused: {count} items are invalid; see `errors`"),
        };
        let mut reject = Self::new(status, message);
        reject.body.code = Some(code);
        reject.body.error_count = Some(faults.len());
        reject.body.errors = faults.into_iter().take(ITEM_ERRORS_MAX).map(ItemReject::into_body).collect();
        reject
    }

    /// 503: the server is stopping.
    pub(super) fn stopping() -> Self {
        let message = "The server is stopping; try again in a moment";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message).retry_after(Duration::from_secs(5))
    }

    fn locked_until(mut self, until: Timestamp) -> Self {
        self.body.retain_until = Some(until.to_string());
        self
    }

    pub(super) fn code(mut self, code: ErrorCode) -> Self {
        debug_assert!(code.statuses().contains(&self.status.as_u16()), "{code:?} with {}", self.status);
        self.body.code = Some(code.as_str());
        self
    }

    fn challenge(mut self) -> Self {
        self.headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        self
    }

    /// Sets the retry time, in the header and in the body.
    fn retry_after(mut self, wait: Duration) -> Self {
        let seconds = whole_seconds(wait);
        self.headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        self.body.retry_after = Some(seconds);
        self
    }
}

/// A duration in whole seconds, rounded up: never zero, which clients read as "at once".
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

impl From<Error> for Reject {
    fn from(error: Error) -> Self {
        use ErrorCode as C;
        use StatusCode as S;
        let message = error.to_string();
        match error {
            Error::InvalidRequest(_) | Error::UnknownCluster | Error::Unfit(_) => Self::invalid(message),
            Error::UploadCutOff => Self::invalid(message),
            Error::TimelockNotAllowed => Self::new(S::FORBIDDEN, message).code(C::TimelockNotAllowed),
            Error::RetentionNotAllowed => Self::new(S::FORBIDDEN, message).code(C::RetentionNotAllowed),
            Error::RetentionLocked { until } => {
                Self::new(S::FORBIDDEN, message).code(C::RetentionLocked).locked_until(until)
            }
            Error::Lifetime(LifetimeError::Shortened { until }) => {
                Self::invalid(message).code(C::RetentionShortened).locked_until(until)
            }
            Error::Lifetime(LifetimeError::EndsBeforeLock { until }) => {
                Self::invalid(message).code(C::TimelockBeforeRetention).locked_until(until)
            }
            Error::Lifetime(LifetimeError::LockBeyondEnd { .. }) => {
                Self::invalid(message).code(C::RetentionBeyondTimelock)
            }
            Error::Twice { .. } => Self::invalid(message).code(C::DuplicateItem),
            Error::ClusterNotAllowed => Self::new(S::FORBIDDEN, message).code(C::ClusterNotAllowed),
            Error::FileTooLarge { .. } | Error::DirectoryTooLarge { .. } => Self::too_large(message),
            Error::QuotaExceeded => Self::new(S::FORBIDDEN, message).code(C::QuotaExceeded),
            Error::ScopeNotHeld => Self::new(S::FORBIDDEN, message).code(C::ScopeNotHeld),
            Error::FolderNotAllowed => Self::new(S::FORBIDDEN, message).code(C::ServerFolderNotAllowed),
            Error::CidNotFound | Error::PinNotFound | Error::UploadNotFound => {
                Self::new(S::NOT_FOUND, message)
            }
            Error::NotPinned(_) => Self::new(S::CONFLICT, message).code(C::NotPinned),
            Error::LifeNotHeld => Self::new(S::FORBIDDEN, message).code(C::ExpiryNotHeld),
            Error::AddressesNotHeld => Self::new(S::FORBIDDEN, message).code(C::IpAllowlistNotHeld),
            Error::CredentialGone => Self::new(S::UNAUTHORIZED, message).code(C::InvalidApiKey).challenge(),
            Error::TokenNotFound | Error::AccountNotFound => Self::new(S::NOT_FOUND, message),
            Error::PlanNotFound | Error::ClusterNotFound => Self::new(S::NOT_FOUND, message),
            Error::PlanChangeNotAllowed => Self::new(S::FORBIDDEN, message).code(C::PlanChangeNotAllowed),
            Error::PlanTooSmall { .. } => Self::new(S::FORBIDDEN, message).code(C::QuotaExceeded),
            Error::PlanInUse => Self::new(S::CONFLICT, message).code(C::PlanInUse),
            Error::LastAdmin => Self::new(S::CONFLICT, message).code(C::LastAdmin),
            Error::AccountHasPins { .. } => Self::new(S::CONFLICT, message).code(C::AccountHasPins),
            Error::AccountLeaving => Self::new(S::CONFLICT, message).code(C::AccountLeaving),
            Error::WebhookNotFound => Self::new(S::NOT_FOUND, message),
            Error::NameTaken | Error::EmailTaken => Self::new(S::CONFLICT, message),
            Error::WebhookInactive => Self::new(S::CONFLICT, message).code(C::WebhookInactive),
            Error::Idempotency(error) => error.into(),
            Error::TooManyInFlight { limit, at } | Error::TooManyEventStreams { limit, at } => {
                Self::too_many_at_once(message, limit, at)
            }
            Error::Login(error) => error.into(),
            Error::Stalled(_) => Self::new(S::SERVICE_UNAVAILABLE, message).code(C::Stalled),
            Error::StorageFull => Self::new(S::INSUFFICIENT_STORAGE, message).code(C::StorageFull),
            Error::Unavailable { retry_after: None } => Self::new(S::SERVICE_UNAVAILABLE, message),
            Error::Unavailable { retry_after: Some(wait) } => {
                Self::new(S::SERVICE_UNAVAILABLE, message).retry_after(wait)
            }
            Error::Internal => Self::internal(),
        }
    }
}

impl From<BatchError> for Reject {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Items(faults) => Self::of_items(faults.into_iter().map(ItemReject::from).collect()),
            BatchError::Whole(error) => error.into(),
        }
    }
}

impl From<IdempotencyError> for Reject {
    fn from(error: IdempotencyError) -> Self {
        let message = error.to_string();
        match error {
            IdempotencyError::Reused => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, message).code(ErrorCode::IdempotencyKeyReused)
            }
            IdempotencyError::Running { retry_after } => Self::new(StatusCode::CONFLICT, message)
                .code(ErrorCode::IdempotencyInProgress)
                .retry_after(retry_after),
        }
    }
}

impl From<LoginError> for Reject {
    fn from(error: LoginError) -> Self {
        use StatusCode as S;
        let message = error.to_string();
        match error {
            LoginError::SignupClosed => Self::new(S::FORBIDDEN, message).code(ErrorCode::SignupClosed),
            LoginError::WrongLogin => Self::new(S::UNAUTHORIZED, message).code(ErrorCode::InvalidCredentials),
            LoginError::TemporaryTokenInvalid => {
                Self::new(S::UNAUTHORIZED, message).code(ErrorCode::TemporaryTokenInvalid)
            }
            LoginError::WrongPassword => Self::new(S::FORBIDDEN, message).code(ErrorCode::WrongPassword),
            LoginError::AccountDisabled => Self::new(S::FORBIDDEN, message).code(ErrorCode::AccountDisabled),
            LoginError::SessionNeeded => Self::new(S::FORBIDDEN, message).code(ErrorCode::SessionRequired),
            LoginError::SecondFactorRequired => Self::invalid(message).code(ErrorCode::SecondFactorRequired),
            LoginError::SecondFactorInvalid => Self::invalid(message).code(ErrorCode::SecondFactorInvalid),
            LoginError::SecondFactorOn => Self::new(S::CONFLICT, message).code(ErrorCode::SecondFactorOn),
            LoginError::SecondFactorOff => Self::new(S::CONFLICT, message).code(ErrorCode::SecondFactorOff),
            LoginError::TooManyTries { limit, at, retry_after } => {
                let reading = Reading { limit, remaining: 0, full_in: retry_after };
                Self::over_limit(message, reading, retry_after, at)
            }
        }
    }
}

impl From<AuthError> for Reject {
    fn from(error: AuthError) -> Self {
        let message = error.to_string();
        match error {
            AuthError::Invalid => {
                Self::new(StatusCode::UNAUTHORIZED, message).code(ErrorCode::InvalidApiKey).challenge()
            }
            AuthError::IpNotAllowed => {
                Self::new(StatusCode::FORBIDDEN, message).code(ErrorCode::IpNotAllowed)
            }
            AuthError::AccountDisabled => {
                Self::new(StatusCode::FORBIDDEN, message).code(ErrorCode::AccountDisabled)
            }
            AuthError::Unavailable => Self::new(StatusCode::SERVICE_UNAVAILABLE, message),
        }
    }
}

impl From<BodyError> for Reject {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::CutOff | BodyError::EndlessHead => Self::invalid(error.to_string()),
            BodyError::TooSlow => Self::new(StatusCode::REQUEST_TIMEOUT, error.to_string()),
            BodyError::TooLarge { bytes_max } => {
                Self::too_large(format!("The JSON body exceeds {bytes_max} bytes"))
            }
        }
    }
}

impl From<MiddlewareError> for Reject {
    fn from(error: MiddlewareError) -> Self {
        use MiddlewareError as E;
        match error {
            E::RateLimited { reading, retry_after, now } => Self::rate_limited(reading, retry_after, now),
            E::NoCredential => Self::no_credential(),
            E::Credential(error) => error.into(),
            E::MissingScope(scope) => Self::missing_scope(scope),
            E::SessionRequired => LoginError::SessionNeeded.into(),
            E::AdminRequired => Self::not_admin(),
            E::RepeatedIdempotencyKey => {
                Self::invalid_idempotency_key("Send exactly one Idempotency-Key header")
            }
            E::InvalidIdempotencyKey(error) => Self::invalid_idempotency_key(error.to_string()),
            E::Idempotency(error) => error.into(),
            E::AnswerNotStored { status } => Self::answer_not_stored(status),
            E::Body(BodyError::TooLarge { bytes_max }) => Self::too_large(format!(
                "With an Idempotency-Key, a body that is not multipart may have at most {bytes_max} bytes"
            )),
            E::Body(error) => error.into(),
            E::MethodNotAllowed => Self::wrong_method(),
            E::Service(error) => error.into(),
            E::Internal => Self::internal(),
        }
    }
}

impl IntoResponse for Reject {
    fn into_response(self) -> Response {
        let reading = self.body.reading;
        let mut response = (self.status, self.headers, Json(self.body)).into_response();
        // Of several budgets, the headers describe the one that refused.
        if let Some(reading) = reading {
            response.extensions_mut().insert(reading);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(reject: &Reject) -> String {
        serde_json::to_string(&reject.body).expect("it is plain data")
    }

    #[test]
    fn a_person_and_a_program_can_both_read_it() {
        insta::assert_snapshot!(json(&Reject::missing_scope(Scope::FilesWrite)), @r#"{"error":"Forbidden","message":"This API key lacks the scope files:write","code":"missing_scope","required":"files:write"}"#);
        insta::assert_snapshot!(json(&Error::QuotaExceeded.into()), @r#"{"error":"Forbidden","message":"Not enough storage left in your plan","code":"quota_exceeded"}"#);
        insta::assert_snapshot!(json(&Reject::gone("/api/v3")), @r#"{"error":"api_version_deprecated","message":"This version of the API was removed; use /api/v3","currentApiBase":"/api/v3"}"#);
    }

    #[test]
    fn a_refused_request_knows_when_to_come_back() {
        let reading = Reading { limit: 60, remaining: 0, full_in: Duration::from_secs(30) };
        let now = Timestamp::from_ms(1_767_225_600_000);
        let reject = Reject::rate_limited(reading, Duration::from_millis(1), now);
        assert_eq!(reject.headers[header::RETRY_AFTER], "1");
        insta::assert_snapshot!(json(&reject), @r#"{"error":"Too Many Requests","message":"Too many requests; try again in 1 s","code":"RATE_LIMIT","retryAfter":1,"limit":60,"remaining":0,"resetTime":"2026-01-01T00:00:30.000Z"}"#);
    }

    #[test]
    fn a_busy_dependency_says_so() {
        let reject = Reject::from(Error::Unavailable { retry_after: Some(Duration::from_secs(3)) });
        assert_eq!(
            (reject.status, &reject.headers[header::RETRY_AFTER]),
            (StatusCode::SERVICE_UNAVAILABLE, &HeaderValue::from(3))
        );
        let reject = Reject::from(Error::Unavailable { retry_after: None });
        assert!(!reject.headers.contains_key(header::RETRY_AFTER));
        let reject = Reject::from(Error::StorageFull);
        assert_eq!(reject.status, StatusCode::INSUFFICIENT_STORAGE);
        insta::assert_snapshot!(json(&reject), @r#"{"error":"Insufficient Storage","message":"The storage is full; try again later","code":"storage_full"}"#);
    }

    #[test]
    fn a_batch_says_what_its_faults_have_in_common() {
        let item = |index, error: Error| ItemReject::new(index, Some("bafy".to_owned()), error.into());
        let reject = Reject::of_items(vec![item(7, Error::PinNotFound)]);
        assert_eq!(reject.status, StatusCode::NOT_FOUND);
        insta::assert_snapshot!(json(&reject), @r#"{"error":"Not Found","message":"The batch was refused because of item 7: Pin not found for this CID","code":"batch_refused","errors":[{"index":7,"cid":"bafy","message":"Pin not found for this CID","code":"not_found"}],"errorCount":1}"#);
        let until = Timestamp::from_ms(1_767_225_600_000);
        let locked = Error::RetentionLocked { until };
        let reject = Reject::of_items(vec![item(1, locked.clone()), item(0, locked.clone())]);
        assert_eq!((reject.status, reject.body.code), (StatusCode::FORBIDDEN, Some("retention_locked")));
        assert_eq!((reject.body.errors[0].index, reject.body.errors[1].index), (0, 1));
        let mixed = Reject::of_items(vec![item(0, locked), item(1, Error::PinNotFound)]);
        assert_eq!((mixed.status, mixed.body.code), (StatusCode::BAD_REQUEST, Some("batch_refused")));
        let many = Reject::of_items((0..500).map(|index| item(index, Error::PinNotFound)).collect());
        assert_eq!((many.body.errors.len(), many.body.error_count), (100, Some(500)));
    }

    #[test]
    fn a_lock_says_until_when() {
        let until = Timestamp::from_ms(1_767_225_600_000);
        insta::assert_snapshot!(json(&Error::RetentionLocked { until }.into()), @r#"{"error":"Forbidden","message":"This pin is locked until 2026-01-01T00:00:00.000Z and can't be removed before","code":"retention_locked","retainUntil":"2026-01-01T00:00:00.000Z"}"#);
    }

    #[test]
    fn every_credential_fault_has_its_code() {
        assert_eq!(Reject::no_credential().headers[header::WWW_AUTHENTICATE], "Bearer");
        let codes = [AuthError::Invalid, AuthError::AccountDisabled, AuthError::Unavailable]
            .map(Reject::from)
            .map(|reject| (reject.status.as_u16(), reject.body.code));
        assert_eq!(codes, [(401, Some("INVALID_API_KEY")), (403, Some("account_disabled")), (503, None)]);
    }
}
