//! States and kinds of pins, and reasons for failure. Each enum has a text form that is stored and shown.

use std::fmt;
use std::str::FromStr;

/// The text is not one of the known values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Unknown {what}: {value}")]
pub struct UnknownValue {
    /// The expected kind of value, such as `status`.
    pub what: &'static str,
    /// The text, cut to 64 characters.
    pub value: String,
}

macro_rules! string_enum {
    ($(#[$doc:meta])* $name:ident, $what:literal, { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// All values.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The stored and displayed form.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownValue;

            fn from_str(text: &str) -> Result<Self, UnknownValue> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownValue { what: $what, value: text.chars().take(64).collect() }),
                }
            }
        }
    };
}
pub(crate) use string_enum;

string_enum!(
    /// Status of a pin, as its owner sees it.
    PinState, "status", {
    /// The placement waits for a worker, or for the next attempt.
    Queued = "queued",
    /// Blocks are being fetched.
    Pinning = "pinning",
    /// Every block is verified and durable, and the pin is charged to the account.
    Pinned = "pinned",
    /// The pin failed, without further attempts. [`Failure`] states why.
    Failed = "failed",
    /// The pin was removed.
    Unpinned = "unpinned",
});

string_enum!(
    /// Phase of a pin, as stored. A pin that is not [`PinPhase::Failed`] is *live*: it requires its placement.
    PinPhase, "phase", {
    /// Not all blocks are held yet.
    Pending = "pending",
    /// All blocks are held, and the pin is charged to the account.
    Active = "active",
    /// Failed, without further attempts. The row is a record for the owner and requires no placement.
    Failed = "failed",
});

string_enum!(
    /// Type of the content of a pin.
    PinKind, "kind", {
    /// Not known: the root is not held yet, or it is not UnixFS.
    Unknown = "unknown",
    File = "file",
    Directory = "directory",
});

string_enum!(
    /// Reason for the failure of a pin. Distinguishes what the owner can do about it.
    FailureCode, "failure", {
    /// No peer provided the content. Retry after making sure that it is provided.
    NotFound = "not_found",
    /// The transfer stopped before it was complete. Retry after making sure that the content is provided.
    Stalled = "stalled",
    /// The content is larger than the remaining quota of the account.
    QuotaExceeded = "quota_exceeded",
    /// The content can never be pinned here, for example because it violates a limit.
    Unfit = "unfit",
    /// The cluster has no space left. Retry later.
    StorageFull = "storage_full",
    /// The cluster was unreachable or failed repeatedly. Retry later.
    Unavailable = "unavailable",
});

/// Reason for the failure of a pin: a code for programs and a message for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: FailureCode,
    /// At most [`Failure::DETAIL_LEN_MAX`] bytes.
    pub detail: String,
}

impl Failure {
    /// Maximum length of `detail` in bytes. Bounded because the text comes from drivers and other machines.
    pub const DETAIL_LEN_MAX: usize = 500;

    /// A failure with this reason. A longer `detail` is truncated at a character boundary.
    #[must_use]
    pub fn new(code: FailureCode, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        let mut end = detail.len().min(Self::DETAIL_LEN_MAX);
        while !detail.is_char_boundary(end) {
            end -= 1;
        }
        detail.truncate(end);
        Self { code, detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enums_round_trip_through_text() {
        for state in PinState::ALL {
            assert_eq!(state.as_str().parse(), Ok(*state));
        }
        for code in FailureCode::ALL {
            assert_eq!(code.as_str().parse(), Ok(*code));
        }
        assert!("Pinned".parse::<PinState>().is_err());
    }

    #[test]
    fn long_detail_is_truncated_at_a_character_boundary() {
        let failure = Failure::new(FailureCode::Unfit, "ä".repeat(400));
        assert_eq!(failure.detail, "ä".repeat(250));
    }
}
