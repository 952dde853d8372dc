//! Types of the audit log: events, entries, actors, and details.

use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::str::FromStr;

use crate::pin::{UnknownValue, string_enum};
use crate::{AccountId, AuditId, Timestamp};

string_enum!(
    /// The interface through which an action was requested.
    Source, "source", {
    /// A program that uses the HTTP API.
    Api = "API",
    /// A web page that uses the HTTP API.
    Web = "WEB",
    /// An operator, on the command line of the server.
    Operator = "OPERATOR",
    /// The service itself, for example when a pin expires.
    System = "SYSTEM",
});

string_enum!(
    /// Result of an action.
    AuditStatus, "status", {
    /// The action succeeded.
    Done = "success",
    /// The action was rejected or failed.
    Refused = "failure",
});

/// Who requested an action, and from where. The `User-Agent` of a client is not recorded, because it is not reliable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Actor {
    /// The account that acts. If an administrator acts on another account, the account of the administrator. `None` for
    /// operators and the service.
    pub actor: Option<AccountId>,
    pub source: Source,
    /// Address of the client, according to the configured trusted proxies.
    pub address: Option<IpAddr>,
}

impl Actor {
    /// The service itself.
    pub const SYSTEM: Self = Self { actor: None, source: Source::System, address: None };

    /// An operator, on the command line of the server.
    pub const OPERATOR: Self = Self { actor: None, source: Source::Operator, address: None };

    /// An account that uses the API from an unknown address.
    #[must_use]
    pub fn account(actor: AccountId) -> Self {
        Self { actor: Some(actor), source: Source::Api, address: None }
    }
}

/// A position in an audit log that is read from the newest entry: after the entry with this time and id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuditCursor {
    pub at: Timestamp,
    pub id: AuditId,
}

/// The text is not an [`AuditCursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The cursor must be a `nextCursor` of an earlier reply")]
pub struct AuditCursorError;

impl fmt::Display for AuditCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.at.as_ms(), self.id)
    }
}

impl FromStr for AuditCursor {
    type Err = AuditCursorError;

    fn from_str(text: &str) -> Result<Self, AuditCursorError> {
        let (at, id) = text.split_once('-').ok_or(AuditCursorError)?;
        let is_plain = (1..=16).contains(&at.len()) && at.bytes().all(|b| b.is_ascii_hexdigit());
        let at = is_plain.then(|| i64::from_str_radix(at, 16).ok()).flatten().ok_or(AuditCursorError)?;
        Ok(Self { at: Timestamp::from_ms(at), id: id.parse().map_err(|_| AuditCursorError)? })
    }
}

/// Details of an action: a bounded list of names and values. Must never contain a secret.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details(Vec<(&'static str, String)>);

impl Details {
    /// Maximum number of entries. Further ones are dropped.
    pub const COUNT_MAX: usize = 12;
    /// Maximum length of a value in bytes. Longer values are truncated.
    pub const VALUE_LEN_MAX: usize = 255;

    /// Adds an entry.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        if self.0.len() < Self::COUNT_MAX {
            self.0.push((name, truncate(&value.to_string(), Self::VALUE_LEN_MAX)));
        }
        self
    }

    /// Adds an entry if it has a value.
    #[must_use]
    pub fn with_some(self, name: &'static str, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// As a JSON object of strings; `None` if there are no entries.
    #[must_use]
    pub fn to_json(&self) -> Option<String> {
        let mut json = String::new();
        for (name, value) in &self.0 {
            json.push(if json.is_empty() { '{' } else { ',' });
            quote(&mut json, name);
            json.push(':');
            quote(&mut json, value);
        }
        (!json.is_empty()).then(|| json + "}")
    }
}

/// Appends a text as a JSON string (RFC 8259, section 7).
fn quote(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                json.push('\\');
                json.push(c);
            }
            // Writing to a string cannot fail.
            c if c.is_control() => drop(write!(json, "\\u{:04x}", u32::from(c))),
            c => json.push(c),
        }
    }
    json.push('"');
}

/// Removes control characters and surrounding whitespace, and truncates at a character boundary.
fn truncate(text: &str, len_max: usize) -> String {
    let mut out = String::new();
    for c in text.trim().chars().filter(|c| !c.is_control()) {
        if out.len() + c.len_utf8() > len_max {
            break;
        }
        out.push(c);
    }
    out
}

/// An event to be recorded in the audit log.
#[derive(Debug, Clone)]
pub struct AuditEvent {
    /// The account whose log has the entry: the account that acted, or that was affected. `None` if no account was.
    pub account: Option<AccountId>,
    pub by: Actor,
    /// `noun.verb`.
    pub action: &'static str,
    /// What the action was applied to, such as a CID.
    pub subject: String,
    pub status: AuditStatus,
    pub details: Details,
}

impl AuditEvent {
    /// Maximum length of a stored subject in bytes: CIDs, names and addresses fit.
    pub const SUBJECT_LEN_MAX: usize = 600;

    /// A successful action by an account.
    #[must_use]
    pub fn new(account: AccountId, by: Actor, action: &'static str, subject: impl Into<String>) -> Self {
        let (account, subject) = (Some(account), subject.into());
        Self { account, by, action, subject, status: AuditStatus::Done, details: Details::default() }
    }

    /// The same event with these details.
    #[must_use]
    pub fn with(self, details: Details) -> Self {
        Self { details, ..self }
    }

    /// The subject, shortened to [`SUBJECT_LEN_MAX`](Self::SUBJECT_LEN_MAX).
    #[must_use]
    pub fn stored_subject(&self) -> &str {
        let is_boundary = |end: &usize| self.subject.is_char_boundary(*end);
        let end = (0..=Self::SUBJECT_LEN_MAX).rev().find(is_boundary).unwrap_or(0);
        self.subject.get(..end).unwrap_or(&self.subject)
    }

    /// The same event, rejected or failed.
    #[must_use]
    pub fn refused(self) -> Self {
        Self { status: AuditStatus::Refused, ..self }
    }
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    pub id: AuditId,
    /// The account whose log has the entry.
    pub account: Option<AccountId>,
    pub by: Actor,
    pub at: Timestamp,
    /// `noun.verb`.
    pub action: String,
    /// What the action was applied to, such as a CID.
    pub subject: String,
    pub status: AuditStatus,
    /// A JSON object.
    pub details: Option<String>,
}

impl AuditEntry {
    /// The cursor of the page after this entry.
    #[must_use]
    pub fn cursor(&self) -> AuditCursor {
        AuditCursor { at: self.at, id: self.id }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn details_are_json() {
        assert_eq!(Details::default().to_json(), None);
        let details = Details::default().with("name", "a \"b\" \\ é").with_some("size", Some(7));
        let details = details.with_some("none", None::<u8>);
        assert_eq!(details.to_json().unwrap(), r#"{"name":"a \"b\" \\ é","size":"7"}"#);
    }

    #[test]
    fn details_are_bounded() {
        let many = (0..100).fold(Details::default(), |all, _| all.with("word", "x".repeat(10_000)));
        assert!(many.to_json().unwrap().len() < Details::COUNT_MAX * (Details::VALUE_LEN_MAX + 16));
    }

    #[test]
    fn cursor_round_trips_through_text() {
        let cursor = AuditCursor { at: Timestamp::from_ms(1_767_225_600_000), id: AuditId(77) };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for bad in ["", "-", "1-", "-000000000000004d", "+1-000000000000004d", "1-4d"] {
            assert_eq!(bad.parse::<AuditCursor>(), Err(AuditCursorError), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_encoded_as_json(text in "\\PC{0,80}|[\\x00-\\x7f]{0,80}") {
            let json = Details::default().with("word", &text).to_json().unwrap();
            let is_object = json.starts_with("{\"word\":\"") && json.ends_with("\"}");
            prop_assert!(is_object, "{}", json);
            prop_assert!(!json.chars().any(char::is_control));
        }
    }
}
