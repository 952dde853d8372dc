//! What can go wrong, split by what the caller can do about it.

use std::time::Duration;

use pinfold_model::{LifetimeError, PinState, Timestamp};

/// Why a use case failed. Its text is one sentence for the person who asked; nothing internal is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Something in the request is not right; the sentence says what.
    #[error("{0}")]
    InvalidRequest(String),
    /// No such cluster.
    #[error("Unknown cluster")]
    UnknownCluster,
    /// The plan has no timelock.
    #[error("Your plan does not allow a timelock")]
    TimelockNotAllowed,
    /// The plan has no lock against removal.
    #[error("Your plan does not allow retainUntil")]
    RetentionNotAllowed,
    /// The pin is locked against its removal.
    #[error("This pin is locked until {until} and can't be removed before")]
    RetentionLocked {
        /// Until when.
        until: Timestamp,
    },
    /// The pin can't have these times.
    #[error("{0}")]
    Lifetime(LifetimeError),
    /// The same pin stands twice in a batch.
    #[error("The same CID in the same cluster is item {first} of the batch already")]
    Twice {
        /// Its first place, from 0.
        first: usize,
    },
    /// The plan does not include the cluster.
    #[error("Your plan does not include this cluster")]
    ClusterNotAllowed,
    /// More than what is left of the account's storage. Nothing was kept.
    #[error("Not enough storage left in your plan")]
    QuotaExceeded,
    /// The file is larger than the plan allows one to be. Nothing was kept.
    #[error("Your plan allows files of at most {bytes_max} bytes")]
    FileTooLarge {
        /// How large it may be.
        bytes_max: u64,
    },
    /// The directory's files are larger than the plan allows them to be together. Nothing was kept.
    #[error("Your plan allows directories of at most {bytes_max} bytes")]
    DirectoryTooLarge {
        /// How large it may be.
        bytes_max: u64,
    },
    /// Nobody delivered the content within the find time. Nothing was kept.
    #[error("CID not found")]
    CidNotFound,
    /// The account has no such pin.
    #[error("Pin not found for this CID")]
    PinNotFound,
    /// The account has no upload of this id.
    #[error("You have no upload of this id")]
    UploadNotFound,
    /// The account has the pin, but its content is not here whole.
    #[error("This pin is {0}; what is in it can be listed once it is pinned")]
    NotPinned(PinState),
    /// The folder is below no root that the operator set up.
    #[error("The operator of this server allows no uploads from this folder")]
    FolderNotAllowed,
    /// The account has no key of this name.
    #[error("No API key of this name")]
    TokenNotFound,
    /// No such account.
    #[error("No such account")]
    AccountNotFound,
    /// A key of the account has this name.
    #[error("An API key of this name exists already")]
    NameTaken,
    /// No such plan; or it is configured, and can't be deleted here.
    #[error("No such saved plan")]
    PlanNotFound,
    /// No such cluster, where one is named by the path.
    #[error("No such cluster")]
    ClusterNotFound,
    /// Accounts have the plan, and no other takes its place.
    #[error("Accounts have this plan; give them another one first")]
    PlanInUse,
    /// Only the operator gives this plan.
    #[error("Only the operator of this service can give you this plan; ask them")]
    PlanChangeNotAllowed,
    /// The account's pins don't fit into the plan.
    #[error("Your pins take {used_bytes} bytes, and this plan has {limit_bytes}; remove some first")]
    PlanTooSmall {
        /// What they take.
        used_bytes: u64,
        /// What the plan has.
        limit_bytes: u64,
    },
    /// Nobody else would be left who may change anything.
    #[error("This is the last account with the role admin that is not disabled; make another one first")]
    LastAdmin,
    /// The account has pins.
    #[error("The account has {pins} pins; remove them first, or use force=true")]
    AccountHasPins {
        /// How many.
        pins: u64,
    },
    /// The account is on its way out.
    #[error("The account is being removed")]
    AccountLeaving,
    /// The address belongs to an account.
    #[error("An account with this e-mail address exists already")]
    EmailTaken,
    /// A new key would have scopes that its maker lacks.
    #[error("An API key can't grant scopes that it does not hold itself")]
    ScopeNotHeld,
    /// A new key would live longer than its maker.
    #[error("An API key can't make one that lives longer than itself")]
    LifeNotHeld,
    /// A new key could be used from where its maker can't.
    #[error("An API key can't make one that may be used from more addresses than itself")]
    AddressesNotHeld,
    /// The key that asked was revoked meanwhile.
    #[error("The API key was revoked meanwhile")]
    CredentialGone,
    /// A login, or what only somebody who has logged in may do, was refused.
    #[error("{0}")]
    Login(LoginError),
    /// The content stopped coming. Nothing was kept.
    #[error("The content stopped coming: {0}")]
    Stalled(String),
    /// The content can never be pinned here; the sentence says why.
    #[error("{0}")]
    Unfit(String),
    /// The cluster has no space left. Nothing was kept.
    #[error("The storage is full; try again later")]
    StorageFull,
    /// A dependency can't be reached.
    #[error("The service can't do this right now; try again later")]
    Unavailable {
        /// When to try again, where that is known.
        retry_after: Option<Duration>,
    },
    /// The account has too many pins on their way.
    #[error("At most {limit} of your pins can be on their way at once; wait for some of them")]
    TooManyInFlight {
        /// How many may be.
        limit: u32,
        /// When that was found.
        at: Timestamp,
    },
    /// The account watches too many pins at one time.
    #[error("At most {limit} of your requests can watch pins at once; end some of them")]
    TooManyWatches {
        /// How many may.
        limit: u32,
        /// When that was found.
        at: Timestamp,
    },
    /// The body of an upload broke off, or could not be read. Nothing was kept.
    #[error("The upload was cut off")]
    UploadCutOff,
    /// The account has no such webhook.
    #[error("No such webhook")]
    WebhookNotFound,
    /// The webhook is told nothing.
    #[error("The webhook is not active; turn it on first")]
    WebhookInactive,
    /// The name of the request is taken.
    #[error("{0}")]
    NameOfRequest(IdempotencyError),
    /// A fault of the service; logged where it arose.
    #[error("Internal error")]
    Internal,
}

/// Why a login, or what only somebody who has logged in may do, was refused. Its text is one sentence for the person
/// who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// Nobody can make an account by themselves.
    #[error("Accounts are made by the operator of this server; ask them for one")]
    SignupClosed,
    /// There is no such account, or this is not its password; which of them is not said.
    #[error("The e-mail address or the password is wrong")]
    WrongLogin,
    /// This is not the caller's password.
    #[error("The password is wrong")]
    WrongPassword,
    /// The account is disabled.
    #[error("The account is disabled")]
    AccountDisabled,
    /// An API key can't do this.
    #[error("Log in with your password to do this; an API key can't")]
    SessionNeeded,
    /// The login that waits for a code is over.
    #[error("The login has taken too long or was tried too often; log in again")]
    TemporaryTokenInvalid,
    /// A code of the second factor is needed.
    #[error("A code of your authenticator app is needed")]
    SecondFactorRequired,
    /// The code is wrong, or was used before.
    #[error("The code is wrong or was used before; wait for the next one")]
    SecondFactorInvalid,
    /// A second factor is in force.
    #[error("Two-factor authentication is on already; disable it first")]
    SecondFactorOn,
    /// No second factor is in force, or was set up.
    #[error("Two-factor authentication is not set up")]
    SecondFactorOff,
    /// The account was tried too often.
    #[error("Too many wrong codes; try again later")]
    TooManyTries {
        /// How many may be wrong at once.
        limit: u32,
        /// When that was found.
        at: Timestamp,
        /// When to try again.
        retry_after: Duration,
    },
}

/// Why a request can't run, or be answered, under its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdempotencyError {
    /// Another request has this name.
    #[error("This Idempotency-Key belongs to another request; take a new one for each request")]
    Reused,
    /// The first request of this name is still running.
    #[error("The first request with this Idempotency-Key is still running; try again in a moment")]
    Running {
        /// When to try again.
        retry_after: Duration,
    },
}
