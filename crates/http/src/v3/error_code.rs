//! The codes of errors of the API v3: the one list of them, which `docs/reference/http/errors.md` is generated from.

/// A code with the status codes it comes with, its cause, and what the client can do.
macro_rules! error_codes {
    ($($variant:ident = $text:literal, [$($status:literal),+], $cause:literal, $remedy:literal;)+) => {
        /// A code of an error, by which programs tell errors of one status code apart.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum ErrorCode { $($variant,)+ }

        impl ErrorCode {
            /// The code as it is sent.
            pub(super) fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The status codes that it comes with.
            pub(super) fn statuses(self) -> &'static [u16] {
                match self { $(Self::$variant => &[$($status),+],)+ }
            }
        }

        #[cfg(test)]
        impl ErrorCode {
            const ALL: &[Self] = &[$(Self::$variant,)+];

            fn cause(self) -> &'static str {
                match self { $(Self::$variant => $cause,)+ }
            }

            fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)+ }
            }
        }
    };
}

error_codes! {
    BatchRefused = "batch_refused", [400, 403, 404], "Items of a batch were refused for different reasons. Nothing was done.", "See `errors`; each item has its own `code`.";
    DuplicateItem = "duplicate_item", [400], "A batch has the same CID and cluster twice.", "Remove one of the items.";
    Invalid = "invalid", [400], "An item of a batch is invalid. Only in `errors`.", "See the `message` of the item.";
    InvalidCid = "invalid_cid", [400], "The CID of a batch item is missing or malformed.", "Send a CID of version 0 or 1.";
    InvalidIdempotencyKey = "invalid_idempotency_key", [400], "The `Idempotency-Key` is empty, too long, sent twice, or has characters other than printable ASCII.", "Send one key of 1 to 255 characters, such as a UUID.";
    RetentionBeyondTimelock = "retention_beyond_timelock", [400], "`retainUntil` is later than the timelock of the pin.", "Choose an earlier `retainUntil` or a later `timelock`.";
    RetentionShortened = "retention_shortened", [400], "`retainUntil` is earlier than the present one.", "A retention lock can only be extended; `retainUntil` of the error is the present one.";
    SecondFactorInvalid = "2fa_invalid", [400], "The code is wrong, expired or used.", "Send the current code; after ten wrong codes, wait a minute.";
    SecondFactorRequired = "2fa_required", [400], "The account has two-factor authentication and the request has no code.", "Send `code` or `totpCode`.";
    TimelockBeforeRetention = "timelock_before_retention", [400], "`timelock` is earlier than the retention lock of the pin.", "Choose a later `timelock`.";
    InvalidApiKey = "INVALID_API_KEY", [401], "The API key or session token is wrong, expired or revoked.", "Create another key, or log in again.";
    InvalidCredentials = "invalid_credentials", [401], "The email address or the password is wrong.", "Correct them; attempts are limited.";
    TemporaryTokenInvalid = "temporary_token_invalid", [401], "The temporary token of a login is unknown, used or expired, or its five attempts are used up.", "Log in again.";
    Unauthorized = "UNAUTHORIZED", [401], "The request has no credential.", "Send an API key as `X-API-Key` or `Authorization: Bearer`.";
    AccountDisabled = "account_disabled", [403], "The account is disabled.", "Ask the operator.";
    AdminOnly = "admin_only", [403], "The account does not have the role `admin`.", "Use an account with that role.";
    ClusterNotAllowed = "cluster_not_allowed", [403], "The plan does not allow this cluster.", "`GET /users/me/clusters` lists the allowed clusters.";
    ExpiryNotHeld = "expiry_not_held", [403], "The new key would live longer than the key that creates it.", "Choose a shorter `expiresInDays`, or create the key in a session.";
    IpAllowlistNotHeld = "ip_allowlist_not_held", [403], "The new key would be valid for more IP addresses than the key that creates it.", "Restrict `ipAllowlist`, or create the key in a session.";
    IpNotAllowed = "ip_not_allowed", [403], "The key cannot be used from this IP address.", "Use an allowed address or another key.";
    MissingScope = "missing_scope", [403], "The API key lacks a scope; `required` names it.", "Create a key with that scope.";
    PlanChangeNotAllowed = "plan_change_not_allowed", [403], "Accounts cannot change to this plan themselves.", "Ask the operator.";
    QuotaExceeded = "quota_exceeded", [403], "The content does not fit into the storage quota of the account, or the pins do not fit into the new plan.", "Remove pins, or change to a larger plan.";
    RetentionLocked = "retention_locked", [403], "The pin is locked against removal until `retainUntil`.", "Wait until then; an administrator can remove it.";
    RetentionNotAllowed = "retention_not_allowed", [403], "The plan does not allow retention locks.", "Omit `retainUntil`, or change the plan.";
    ScopeNotHeld = "scope_not_held", [403], "The new key would have a scope that the key that creates it lacks.", "Omit the scope, or create the key in a session.";
    ServerFolderNotAllowed = "server_folder_not_allowed", [403], "The folder is not below one of the roots in `uploads.server_roots`.", "Ask the operator.";
    SessionRequired = "session_required", [403], "The route needs the session token of a login; an API key is not enough.", "Log in.";
    SignupClosed = "signup_closed", [403], "Sign-up is disabled.", "Ask the operator for an account.";
    TimelockNotAllowed = "timelock_not_allowed", [403], "The plan does not allow timelocks.", "Omit `timelock`, or change the plan.";
    WrongPassword = "wrong_password", [403], "The present password is wrong.", "Correct it; attempts are limited.";
    NotFound = "not_found", [404], "An item of a batch does not exist. Only in `errors`.", "Remove the item.";
    NotAcceptable = "not_acceptable", [406], "The client does not accept event streams.", "Send `Accept: text/event-stream`.";
    AccountHasPins = "account_has_pins", [409], "The account has pins.", "Remove it with `force=true`, which removes its pins, too.";
    AccountLeaving = "account_leaving", [409], "The account is being removed.", "None: the removal cannot be undone.";
    AnswerNotKept = "answer_not_kept", [409], "The request was executed before, and its response was not stored because it contained a secret.", "Check whether the first request took effect, and repeat it with a new `Idempotency-Key` if needed.";
    IdempotencyInProgress = "idempotency_in_progress", [409], "The first request with this `Idempotency-Key` is still running.", "Repeat the request after `Retry-After`.";
    LastAdmin = "last_admin", [409], "The account is the last enabled one with the role `admin`.", "Give another account the role first.";
    NotPinned = "not_pinned", [409], "The directory is not pinned yet.", "Wait until its status is `pinned`.";
    PlanInUse = "plan_in_use", [409], "Accounts have the plan.", "Give those accounts another plan first.";
    SecondFactorOff = "2fa_not_enabled", [409], "Two-factor authentication is not enabled.", "None needed.";
    SecondFactorOn = "2fa_already_enabled", [409], "Two-factor authentication is already enabled.", "Disable it first to set it up again.";
    WebhookInactive = "webhook_inactive", [409], "The webhook is not active.", "Activate it first.";
    TooLarge = "FILE_TOO_LARGE", [413], "A body, a form field, a file or a directory exceeds its limit; `message` names the limit.", "Send less; see [limits](limits.md).";
    IdempotencyKeyReused = "idempotency_key_reused", [422], "The `Idempotency-Key` belongs to a different request.", "Use a new key for each request.";
    RateLimit = "RATE_LIMIT", [429], "Too many requests, too many pins in progress, or too many event streams.", "Wait for `Retry-After` seconds.";
    PaymentsDisabled = "payments_disabled", [503], "The server takes no payments.", "Ask the operator for another plan.";
    Stalled = "stalled", [503], "The content stopped arriving while it was being fetched.", "Repeat the request; make sure that a provider is online.";
    StorageFull = "storage_full", [507], "The disk of the server is full. Nothing was stored.", "Try again later.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use pinfold_model::FailureCode;

    use super::*;

    const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/http/errors.md");

    /// Set to write the document instead of comparing with it.
    const UPDATE: &str = "PINFOLD_UPDATE_DOCS";

    #[test]
    fn codes_are_distinct() {
        let distinct: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.as_str().to_lowercase()).collect();
        assert_eq!(distinct.len(), ErrorCode::ALL.len());
    }

    #[test]
    fn reference_lists_every_error_code() {
        let mut text = std::fs::read_to_string(Path::new(DOCUMENT)).expect("the reference exists");
        for (name, table) in [("codes", error_table()), ("failures", failure_table())] {
            let (begin, end) = (format!("<!-- generated: {name} -->\n"), "<!-- end -->".to_owned());
            let (before, rest) = text.split_once(&begin).expect("it has the mark of the table");
            let (_, after) = rest.split_once(&end).expect("the table ends");
            text = format!("{before}{begin}\n{table}\n{end}{after}");
        }
        if std::env::var_os(UPDATE).is_some() {
            std::fs::write(DOCUMENT, &text).expect("the reference can be written");
        }
        let written = std::fs::read_to_string(DOCUMENT).expect("the reference exists");
        assert_eq!(written, text, "run this test with {UPDATE}=1 to update {DOCUMENT}");
    }

    fn error_table() -> String {
        let row = |code: &ErrorCode| {
            let statuses: Vec<_> = code.statuses().iter().map(u16::to_string).collect();
            let (text, cause, remedy) = (code.as_str(), code.cause(), code.remedy());
            format!("| `{text}` | {} | {cause} | {remedy} |\n", statuses.join(", "))
        };
        let rows: String = ErrorCode::ALL.iter().map(row).collect();
        format!("| code | status | cause | what to do |\n| --- | --- | --- | --- |\n{rows}")
    }

    fn failure_table() -> String {
        let row = |code: &FailureCode| {
            let (cause, remedy) = match code {
                FailureCode::NotFound => (
                    "No peer delivered the content.",
                    "Make sure that a provider is online, and pin it again.",
                ),
                FailureCode::Stalled => (
                    "The content stopped arriving.",
                    "Make sure that a provider is online, and pin it again.",
                ),
                FailureCode::QuotaExceeded => (
                    "The content does not fit into the storage quota.",
                    "Remove pins, or change to a larger plan.",
                ),
                FailureCode::Unfit => (
                    "The content cannot be pinned, for example because it has too many blocks; `error` gives the reason.",
                    "None: the content is refused each time.",
                ),
                FailureCode::StorageFull => ("The disk of the cluster is full.", "Pin it again later."),
                FailureCode::Unavailable => {
                    ("The cluster could not be reached, or failed, in all attempts.", "Pin it again later.")
                }
            };
            format!("| `{}` | {cause} | {remedy} |\n", code.as_str())
        };
        let rows: String = FailureCode::ALL.iter().map(row).collect();
        format!("| `errorCode` | cause | what to do |\n| --- | --- | --- |\n{rows}")
    }
}
