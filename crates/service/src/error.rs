//! Errors of the service, split by what the caller can do.

use std::time::Duration;

use pinfold_model::{LifetimeError, PinState, Timestamp};
use pinfold_store::StoreError;

/// Why an operation failed. The text is one sentence for the client, without internal details.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request is invalid; the sentence says why.
    #[error("{0}")]
    InvalidRequest(String),
    #[error("Unknown cluster")]
    UnknownCluster,
    #[error("Your plan does not allow a timelock")]
    TimelockNotAllowed,
    #[error("Your plan does not allow `retainUntil`")]
    RetentionNotAllowed,
    #[error("This pin is locked until {until} and can't be removed before")]
    RetentionLocked { until: Timestamp },
    /// The requested times conflict with each other or with the pin's.
    #[error("{0}")]
    Lifetime(LifetimeError),
    /// A batch has the same pin twice. `first` is the index of the first one, from 0.
    #[error("This CID is a duplicate of item {first} of the batch")]
    Twice { first: usize },
    #[error("Your plan does not include this cluster")]
    ClusterNotAllowed,
    /// The content is larger than the storage that is left. Nothing was stored.
    #[error("Not enough storage left in your plan")]
    QuotaExceeded,
    /// Nothing was stored.
    #[error("Your plan allows files of at most {bytes_max} bytes")]
    FileTooLarge { bytes_max: u64 },
    /// The files of the directory are too large together. Nothing was stored.
    #[error("Your plan allows directories of at most {bytes_max} bytes")]
    DirectoryTooLarge { bytes_max: u64 },
    /// No peer delivered the content within the find time. The pin was removed.
    #[error("CID not found")]
    CidNotFound,
    #[error("Pin not found for this CID")]
    PinNotFound,
    #[error("No upload with this id")]
    UploadNotFound,
    /// The account has the pin, but its content is not complete.
    #[error("This pin is {0}; its content can be listed once it is pinned")]
    NotPinned(PinState),
    /// The folder is not below a configured root.
    #[error("Uploads from this folder are not allowed on this server")]
    FolderNotAllowed,
    #[error("No API key with this name")]
    TokenNotFound,
    #[error("Account not found")]
    AccountNotFound,
    #[error("An API key with this name exists already")]
    NameTaken,
    /// The plan does not exist, or it is only configured and can't be deleted.
    #[error("No saved plan with this code")]
    PlanNotFound,
    /// As [`UnknownCluster`](Self::UnknownCluster), if the cluster is the resource of the request.
    #[error("Cluster not found")]
    ClusterNotFound,
    /// Accounts have the plan, and no configured plan replaces it.
    #[error("Accounts have this plan; change their plan first")]
    PlanInUse,
    #[error("Only the operator of this service can assign this plan; contact them")]
    PlanChangeNotAllowed,
    #[error("Your pins use {used_bytes} bytes, and this plan includes {limit_bytes}; remove some pins first")]
    PlanTooSmall { used_bytes: u64, limit_bytes: u64 },
    #[error("This is the last enabled account with the role admin; create another one first")]
    LastAdmin,
    #[error("The account has {pins} pins; remove them first, or use force=true")]
    AccountHasPins { pins: u64 },
    #[error("The account is being removed")]
    AccountLeaving,
    #[error("An account with this e-mail address exists already")]
    EmailTaken,
    /// A new key would have scopes that the key that creates it lacks.
    #[error("An API key can't grant scopes that it does not have itself")]
    ScopeNotHeld,
    /// A new key would expire later than the key that creates it.
    #[error("An API key can't create a key that expires later than itself")]
    LifeNotHeld,
    /// A new key would allow addresses that the key that creates it does not.
    #[error("An API key can't create a key that allows more addresses than itself")]
    AddressesNotHeld,
    /// The API key of the request was revoked during the request.
    #[error("The API key was revoked")]
    CredentialGone,
    /// A login, or an operation that requires a session, was refused.
    #[error("{0}")]
    Login(LoginError),
    /// The fetch made no progress for too long. The pin was removed.
    #[error("The fetch stalled: {0}")]
    Stalled(String),
    /// The content can't be pinned by this service; the sentence says why.
    #[error("{0}")]
    Unfit(String),
    /// The cluster has no space left. Nothing was stored.
    #[error("The storage is full; try again later")]
    StorageFull,
    /// A dependency is unavailable. `retry_after` is when to retry, if that is known.
    #[error("The service is temporarily unavailable; try again later")]
    Unavailable { retry_after: Option<Duration> },
    /// `at` is when the limit was found to be reached.
    #[error("At most {limit} pins can be in flight; wait until some of them complete")]
    TooManyInFlight { limit: u32, at: Timestamp },
    /// `at` is when the limit was found to be reached.
    #[error("At most {limit} event streams can be open; close some of them")]
    TooManyEventStreams { limit: u32, at: Timestamp },
    /// The body of an upload ended early or could not be read. Nothing was stored.
    #[error("The upload was interrupted")]
    UploadCutOff,
    #[error("Webhook not found")]
    WebhookNotFound,
    #[error("The webhook is not active; activate it first")]
    WebhookInactive,
    #[error("{0}")]
    Idempotency(IdempotencyError),
    /// A fault of the service, which is logged where it occurs.
    #[error("Internal error")]
    Internal,
}

/// Why a login, or an operation that requires a session, was refused. The text is one sentence for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    #[error("Sign-up is closed; ask the operator of this server for an account")]
    SignupClosed,
    /// The account does not exist, or the password is wrong; the response does not say which.
    #[error("The e-mail address or the password is wrong")]
    WrongLogin,
    #[error("The password is wrong")]
    WrongPassword,
    #[error("The account is disabled")]
    AccountDisabled,
    #[error("This requires a login with your password; an API key is not sufficient")]
    SessionNeeded,
    /// The login that waits for a code has ended.
    #[error("The login took too long or had too many attempts; log in again")]
    TemporaryTokenInvalid,
    #[error("A code of your authenticator app is required")]
    SecondFactorRequired,
    #[error("The code is wrong or was used before; wait for the next one")]
    SecondFactorInvalid,
    #[error("Two-factor authentication is enabled already; disable it first")]
    SecondFactorOn,
    #[error("Two-factor authentication is not set up")]
    SecondFactorOff,
    /// `limit` is the number of wrong codes in a row; `at` is when it was found to be reached.
    #[error("Too many wrong codes; try again later")]
    TooManyTries { limit: u32, at: Timestamp, retry_after: Duration },
}

/// Why a request with an idempotency key can't run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdempotencyError {
    /// Another request has this key.
    #[error("This Idempotency-Key was used for another request; use a new key for each request")]
    Reused,
    #[error("The first request with this Idempotency-Key is still running; try again later")]
    Running { retry_after: Duration },
}

/// The error for a cluster that can't be reached.
pub(crate) const UNREACHABLE: Error = Error::Unavailable { retry_after: Some(Duration::from_secs(30)) };

/// Logs a store error, and maps it to the error for the caller.
pub(crate) fn log_store_error(error: StoreError) -> Error {
    tracing::error!(%error, "database operation failed");
    match error {
        StoreError::Full => Error::StorageFull,
        StoreError::Busy => Error::Unavailable { retry_after: Some(Duration::from_secs(1)) },
        StoreError::Closed | StoreError::Disk(_) => Error::Unavailable { retry_after: None },
        StoreError::Strange { .. } | StoreError::Incompatible(_) | StoreError::Failed(_) => Error::Internal,
    }
}
