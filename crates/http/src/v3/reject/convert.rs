//! Which answer each error of the service, of middleware and of a request's body gets. Every `match` is exhaustive, so that
//! a new error does not compile without its answer.

use axum::http::StatusCode;
use pinfold_model::LifetimeError;
use pinfold_service::{AuthError, Error, IdempotencyError, LoginError};

use super::Reject;
use crate::body::BodyError;
use crate::middleware::MiddlewareError;
use crate::middleware::rate_limit::Reading;

impl From<Error> for Reject {
    fn from(error: Error) -> Self {
        use StatusCode as S;
        let message = error.to_string();
        match error {
            Error::InvalidRequest(_) | Error::UnknownCluster | Error::Unfit(_) => Self::invalid(message),
            Error::UploadCutOff => Self::invalid(message),
            Error::TimelockNotAllowed => Self::new(S::FORBIDDEN, message).code("timelock_not_allowed"),
            Error::RetentionNotAllowed => Self::new(S::FORBIDDEN, message).code("retention_not_allowed"),
            Error::RetentionLocked { until } => {
                Self::new(S::FORBIDDEN, message).code("retention_locked").locked_until(until)
            }
            Error::Lifetime(LifetimeError::Shortened { until }) => {
                Self::invalid(message).code("retention_shortened").locked_until(until)
            }
            Error::Lifetime(LifetimeError::EndsBeforeLock { until }) => {
                Self::invalid(message).code("timelock_before_retention").locked_until(until)
            }
            Error::Lifetime(LifetimeError::LockBeyondEnd { .. }) => {
                Self::invalid(message).code("retention_beyond_timelock")
            }
            Error::Twice { .. } => Self::invalid(message).code("duplicate_item"),
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
            Error::PlanNotFound | Error::ClusterNotFound => Self::new(S::NOT_FOUND, message),
            Error::PlanChangeNotAllowed => Self::new(S::FORBIDDEN, message).code("plan_change_not_allowed"),
            Error::PlanTooSmall { .. } => Self::new(S::FORBIDDEN, message).code("quota_exceeded"),
            Error::PlanInUse => Self::new(S::CONFLICT, message).code("plan_in_use"),
            Error::LastAdmin => Self::new(S::CONFLICT, message).code("last_admin"),
            Error::AccountHasPins { .. } => Self::new(S::CONFLICT, message).code("account_has_pins"),
            Error::AccountLeaving => Self::new(S::CONFLICT, message).code("account_leaving"),
            Error::WebhookNotFound => Self::new(S::NOT_FOUND, message),
            Error::NameTaken | Error::EmailTaken => Self::new(S::CONFLICT, message),
            Error::WebhookInactive => Self::new(S::CONFLICT, message).code("webhook_inactive"),
            Error::NameOfRequest(error) => error.into(),
            Error::TooManyInFlight { limit, at } | Error::TooManyWatches { limit, at } => {
                Self::too_many_at_once(message, limit, at)
            }
            Error::Login(error) => error.into(),
            Error::Stalled(_) => Self::new(S::SERVICE_UNAVAILABLE, message).code("stalled"),
            Error::StorageFull => Self::new(S::INSUFFICIENT_STORAGE, message).code("storage_full"),
            Error::Unavailable { retry_after: None } => Self::new(S::SERVICE_UNAVAILABLE, message),
            Error::Unavailable { retry_after: Some(wait) } => {
                Self::new(S::SERVICE_UNAVAILABLE, message).retry_after(wait)
            }
            Error::Internal => Self::internal(),
        }
    }
}

impl From<IdempotencyError> for Reject {
    fn from(error: IdempotencyError) -> Self {
        let message = error.to_string();
        match error {
            IdempotencyError::Reused => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, message).code("idempotency_key_reused")
            }
            IdempotencyError::Running { retry_after } => Self::new(StatusCode::CONFLICT, message)
                .code("idempotency_in_progress")
                .retry_after(retry_after),
        }
    }
}

impl From<LoginError> for Reject {
    fn from(error: LoginError) -> Self {
        use StatusCode as S;
        let message = error.to_string();
        match error {
            LoginError::SignupClosed => Self::new(S::FORBIDDEN, message).code("signup_closed"),
            LoginError::WrongLogin => Self::new(S::UNAUTHORIZED, message).code("invalid_credentials"),
            LoginError::TemporaryTokenInvalid => {
                Self::new(S::UNAUTHORIZED, message).code("temporary_token_invalid")
            }
            LoginError::WrongPassword => Self::new(S::FORBIDDEN, message).code("wrong_password"),
            LoginError::AccountDisabled => Self::new(S::FORBIDDEN, message).code("account_disabled"),
            LoginError::SessionNeeded => Self::new(S::FORBIDDEN, message).code("session_required"),
            LoginError::SecondFactorRequired => Self::invalid(message).code("2fa_required"),
            LoginError::SecondFactorInvalid => Self::invalid(message).code("2fa_invalid"),
            LoginError::SecondFactorOn => Self::new(S::CONFLICT, message).code("2fa_already_enabled"),
            LoginError::SecondFactorOff => Self::new(S::CONFLICT, message).code("2fa_not_enabled"),
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
                Self::new(StatusCode::UNAUTHORIZED, message).code("INVALID_API_KEY").challenge()
            }
            AuthError::IpNotAllowed => Self::new(StatusCode::FORBIDDEN, message).code("ip_not_allowed"),
            AuthError::AccountDisabled => Self::new(StatusCode::FORBIDDEN, message).code("account_disabled"),
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
