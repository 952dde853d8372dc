//! Why a request of the API v3 got no better answer: the one place where faults become status codes and words.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use pinfold_model::{Scope, Timestamp};
use pinfold_service::{AuthError, Error};
use serde::Serialize;
use utoipa::ToSchema;

use crate::limits::Reading;
use crate::upload_body::BodyFault;

/// When to come back if too many pins are on their way: some of them will have settled by then.
const IN_FLIGHT_RETRY: Duration = Duration::from_secs(10);

/// An answer that is an error. Its text is for the person who called; nothing internal may stand in it.
#[derive(Debug)]
pub(crate) struct Reject {
    status: StatusCode,
    headers: HeaderMap,
    // Boxed, so that every handler's `Result` stays small.
    body: Box<RejectBody>,
}

/// What every error says.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Error)]
pub(super) struct RejectBody {
    /// The reason phrase of the status.
    error: &'static str,
    /// A sentence to act on.
    message: String,
    /// A word for programs.
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
}

impl Reject {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let error = status.canonical_reason().unwrap_or("Error");
        let body = Box::new(RejectBody { error, message: message.into(), ..RejectBody::default() });
        Self { status, headers: HeaderMap::new(), body }
    }

    /// 400: something in the request is not right; the sentence says what.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 413.
    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message).code("FILE_TOO_LARGE")
    }

    /// 401: there was no credential.
    pub(crate) fn no_credential() -> Self {
        let message = "Send an API key in X-API-Key or as Authorization: Bearer";
        Self::new(StatusCode::UNAUTHORIZED, message).code("UNAUTHORIZED").challenge()
    }

    /// 403: the credential is good, but not for this.
    pub(crate) fn missing_scope(required: Scope) -> Self {
        let message = format!("This API key lacks the scope {required}");
        let mut reject = Self::new(StatusCode::FORBIDDEN, message).code("missing_scope");
        reject.body.required = Some(required.as_str());
        reject
    }

    /// 403: only an operator may do this.
    pub(crate) fn not_admin() -> Self {
        Self::new(StatusCode::FORBIDDEN, "Only an account with the role admin may do this").code("admin_only")
    }

    /// 429: too many requests.
    pub(crate) fn rate_limited(reading: Reading, retry_after: Duration, now: Timestamp) -> Self {
        let message = format!("Too many requests; try again in {} s", whole_seconds(retry_after));
        let mut reject = Self::new(StatusCode::TOO_MANY_REQUESTS, message).code("RATE_LIMIT");
        reject.body.limit = Some(reading.limit);
        reject.body.remaining = Some(reading.remaining);
        reject.body.reset_time = Some(now.after(reading.whole_in).to_string());
        reject.retry_after(retry_after)
    }

    /// 404: no such route.
    pub(crate) fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "There is nothing at this path; GET /api/v3 lists what there is")
    }

    /// 503: there is nothing to pay here.
    pub(crate) fn payments_disabled() -> Self {
        let message = "This server takes no payments; ask its operator for another plan";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message).code("payments_disabled")
    }

    /// 405. The router adds `Allow`.
    pub(crate) fn wrong_method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "This path does not take this method; see the header Allow")
    }

    /// 410: an API that is gone.
    pub(crate) fn gone(current_api_base: &'static str) -> Self {
        let message = format!("This version of the API is gone; use {current_api_base}");
        let mut reject = Self::new(StatusCode::GONE, message);
        reject.body.error = "api_version_deprecated";
        reject.body.current_api_base = Some(current_api_base);
        reject
    }

    /// 500. What happened is in the log, under the request's id.
    pub(crate) fn internal() -> Self {
        let message = "The server failed at this; the operator finds more under the X-Request-Id";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    pub(crate) fn code(mut self, code: &'static str) -> Self {
        self.body.code = Some(code);
        self
    }

    fn challenge(mut self) -> Self {
        self.headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        self
    }

    /// Says when to come back, in the header and in the body.
    fn retry_after(mut self, wait: Duration) -> Self {
        let seconds = whole_seconds(wait);
        self.headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        self.body.retry_after = Some(seconds);
        self
    }
}

/// A wait in whole seconds, rounded up: never zero, which clients take as "at once".
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

impl From<Error> for Reject {
    fn from(error: Error) -> Self {
        use StatusCode as S;
        let message = error.to_string();
        match error {
            Error::InvalidRequest(_) | Error::UnknownCluster | Error::Unfit(_) => Self::invalid(message),
            Error::UploadCutOff => Self::invalid(message),
            Error::TimelockNotAllowed => Self::new(S::FORBIDDEN, message).code("timelock_not_allowed"),
            Error::ClusterNotAllowed => Self::new(S::FORBIDDEN, message).code("cluster_not_allowed"),
            Error::FileTooLarge { .. } | Error::DirectoryTooLarge { .. } => Self::too_large(message),
            Error::QuotaExceeded => Self::new(S::FORBIDDEN, message).code("quota_exceeded"),
            Error::ScopeNotHeld => Self::new(S::FORBIDDEN, message).code("scope_not_held"),
            Error::FolderNotAllowed => Self::new(S::FORBIDDEN, message).code("server_folder_not_allowed"),
            Error::CidNotFound | Error::PinNotFound | Error::UploadNotFound => {
                Self::new(S::NOT_FOUND, message)
            }
            Error::NotPinned(_) => Self::new(S::CONFLICT, message).code("not_pinned"),
            Error::LifeNotHeld => Self::new(S::FORBIDDEN, message).code("expiry_not_held"),
            Error::AddressesNotHeld => Self::new(S::FORBIDDEN, message).code("ip_allowlist_not_held"),
            Error::CredentialGone => Self::new(S::UNAUTHORIZED, message).code("INVALID_API_KEY").challenge(),
            Error::TokenNotFound | Error::AccountNotFound => Self::new(S::NOT_FOUND, message),
            Error::NameTaken | Error::EmailTaken => Self::new(S::CONFLICT, message),
            Error::TooManyInFlight { limit } | Error::TooManyWatches { limit } => {
                let mut reject = Self::new(S::TOO_MANY_REQUESTS, message).code("RATE_LIMIT");
                reject.body.limit = Some(limit);
                reject.body.remaining = Some(0);
                reject.retry_after(IN_FLIGHT_RETRY)
            }
            Error::Stalled(_) => Self::new(S::SERVICE_UNAVAILABLE, message).code("stalled"),
            Error::StorageFull => Self::new(S::INSUFFICIENT_STORAGE, message).code("storage_full"),
            Error::Unavailable { retry_after } => {
                let reject = Self::new(S::SERVICE_UNAVAILABLE, message);
                match retry_after {
                    Some(wait) => reject.retry_after(wait),
                    None => reject,
                }
            }
            Error::Internal => Self::internal(),
        }
    }
}

impl From<AuthError> for Reject {
    fn from(error: AuthError) -> Self {
        let message = error.to_string();
        match error {
            AuthError::Invalid => {
                Self::new(StatusCode::UNAUTHORIZED, message).code("INVALID_API_KEY").challenge()
            }
            AuthError::IpNotAllowed => Self::new(StatusCode::FORBIDDEN, message).code("ip_not_allowed"),
            AuthError::AccountDisabled => Self::new(StatusCode::FORBIDDEN, message).code("account_disabled"),
            AuthError::Unavailable => Self::new(StatusCode::SERVICE_UNAVAILABLE, message),
        }
    }
}

impl From<BodyFault> for Reject {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::CutOff | BodyFault::EndlessHead => Self::invalid(fault.to_string()),
            BodyFault::TooSlow => Self::new(StatusCode::REQUEST_TIMEOUT, fault.to_string()),
        }
    }
}

impl IntoResponse for Reject {
    fn into_response(self) -> Response {
        (self.status, self.headers, Json(self.body)).into_response()
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
        insta::assert_snapshot!(json(&Reject::gone("/api/v3")), @r#"{"error":"api_version_deprecated","message":"This version of the API is gone; use /api/v3","currentApiBase":"/api/v3"}"#);
    }

    #[test]
    fn a_refused_request_knows_when_to_come_back() {
        let reading = Reading { limit: 60, remaining: 0, whole_in: Duration::from_secs(30) };
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
    fn every_credential_fault_has_its_code() {
        assert_eq!(Reject::no_credential().headers[header::WWW_AUTHENTICATE], "Bearer");
        let codes = [AuthError::Invalid, AuthError::AccountDisabled, AuthError::Unavailable]
            .map(Reject::from)
            .map(|reject| (reject.status.as_u16(), reject.body.code));
        assert_eq!(codes, [(401, Some("INVALID_API_KEY")), (403, Some("account_disabled")), (503, None)]);
    }
}
