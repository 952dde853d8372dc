//! The words for a pin: what it stands for, how it stands, and why it failed.

use std::fmt;
use std::str::FromStr;

/// A word that is none of the known ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Unknown {what}: {word}")]
pub struct UnknownWord {
    /// What was looked for, such as `status`.
    pub what: &'static str,
    /// The word.
    pub word: String,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $what:literal, { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its word, as it is stored and shown.
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
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownWord { what: $what, word: word.chars().take(64).collect() }),
                }
            }
        }
    };
}
pub(crate) use words;

words!(
    /// How a pin stands, as its owner sees it.
    PinState, "status", {
    /// Its placement waits for its turn, or for the next try.
    Queued = "queued",
    /// Its blocks are being brought in.
    Pinning = "pinning",
    /// Every block is verified, durable and charged.
    Pinned = "pinned",
    /// It was given up; [`Failure`] says why.
    Failed = "failed",
    /// It is gone.
    Unpinned = "unpinned",
});

words!(
    /// How a pin stands, as it is stored. A pin that is not [`PinPhase::Failed`] is *live*: its placement
    /// is wanted.
    PinPhase, "phase", {
    /// Wanted, and not yet there.
    Pending = "pending",
    /// There, and charged to the account.
    Active = "active",
    /// Given up. The row is a record for its owner, and wants nothing.
    Failed = "failed",
});

words!(
    /// What a pin's DAG is.
    PinKind, "kind", {
    /// Not known: not here yet, or no UnixFS.
    Unknown = "unknown",
    /// One file.
    File = "file",
    /// A directory.
    Directory = "directory",
});

words!(
    /// Why a pin failed, by what its owner can do about it.
    FailureCode, "failure", {
    /// Nobody delivered it: make sure that it is provided, and try again.
    NotFound = "not_found",
    /// It stopped coming: the same.
    Stalled = "stalled",
    /// It is larger than what is left of the quota.
    QuotaExceeded = "quota_exceeded",
    /// It can never be pinned here.
    Unfit = "unfit",
    /// The cluster has no space left: try later.
    StorageFull = "storage_full",
    /// The cluster could not be reached, or failed, many times: try later.
    Unavailable = "unavailable",
});

/// Why a pin failed: a code for programs and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The kind.
    pub code: FailureCode,
    /// One sentence; at most [`Failure::DETAIL_LEN_MAX`] bytes.
    pub detail: String,
}

impl Failure {
    /// The longest sentence that is kept, in bytes: it comes from drivers and other machines.
    pub const DETAIL_LEN_MAX: usize = 500;

    /// A failure; a long `detail` is cut.
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
    fn words_read_what_they_write() {
        for state in PinState::ALL {
            assert_eq!(state.as_str().parse(), Ok(*state));
        }
        for code in FailureCode::ALL {
            assert_eq!(code.as_str().parse(), Ok(*code));
        }
        assert!("Pinned".parse::<PinState>().is_err());
    }

    #[test]
    fn a_long_detail_is_cut_between_characters() {
        let failure = Failure::new(FailureCode::Unfit, "ä".repeat(400));
        assert_eq!(failure.detail, "ä".repeat(250));
    }
}
