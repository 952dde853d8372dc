//! `Prefer` (RFC 7240): how long a client wants to wait for an answer.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header::HeaderName};

/// The header that a client sends.
pub(crate) const PREFER: HeaderName = HeaderName::from_static("prefer");
/// The header that says which preferences were honoured.
pub(crate) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The preferences of a request about waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Preference {
    /// `wait=N`, not yet capped by the server's maximum.
    wait: Option<Duration>,
    /// `respond-async`: the client accepts a 202; without `wait` at once, with it after that time (§4.3).
    respond_async: bool,
}

impl Preference {
    /// Parses the header, which may be repeated. Unknown and malformed preferences are ignored, and the first of two equal
    /// ones counts, as the RFC says.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut read = Self::default();
        let texts = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
        for preference in texts.flat_map(|text| text.split(',')) {
            // Parameters of a preference follow after a semicolon; ours have none.
            let preference = preference.split(';').next().unwrap_or_default();
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            let (name, value) = (name.trim(), value.trim().trim_matches('"'));
            if name.eq_ignore_ascii_case("respond-async") {
                read.respond_async = true;
            } else if name.eq_ignore_ascii_case("wait") && read.wait.is_none() {
                read.wait = value.parse::<u32>().ok().map(|seconds| Duration::from_secs(seconds.into()));
            }
        }
        read
    }

    /// How long to wait, within the server's bounds, and the value of `Preference-Applied`.
    pub(crate) fn resolve(self, default: Duration, max: Duration) -> (Duration, Option<HeaderValue>) {
        let wait = self.wait.unwrap_or(if self.respond_async { Duration::ZERO } else { default }).min(max);
        let applied = match (self.respond_async, self.wait) {
            (false, None) => return (wait, None),
            (true, None) => "respond-async".to_owned(),
            (false, Some(_)) => format!("wait={}", wait.as_secs()),
            (true, Some(_)) => format!("respond-async, wait={}", wait.as_secs()),
        };
        (wait, HeaderValue::try_from(applied).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The wait and the applied preferences, on a server that waits 60 s by default and 300 s at most.
    fn settle(values: &[&'static str]) -> (u64, String) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(PREFER, HeaderValue::from_static(value));
        }
        let (wait, applied) =
            Preference::of(&headers).resolve(Duration::from_secs(60), Duration::from_secs(300));
        let applied = applied.map(|value| value.to_str().expect("plain text").to_owned());
        (wait.as_secs(), applied.unwrap_or_default())
    }

    #[test]
    fn preferences_are_parsed_as_in_the_rfc() {
        assert_eq!(settle(&[]), (60, String::new()));
        assert_eq!(settle(&["wait=10"]), (10, "wait=10".into()));
        assert_eq!(settle(&["Wait = \"7\" ; strict"]), (7, "wait=7".into()));
        assert_eq!(settle(&["wait=1, wait=2"]), (1, "wait=1".into()));
        assert_eq!(settle(&["return=minimal", "Respond-Async"]), (0, "respond-async".into()));
        assert_eq!(settle(&["respond-async, wait=10"]), (10, "respond-async, wait=10".into()));
    }

    #[test]
    fn malformed_preferences_are_ignored() {
        assert_eq!(settle(&["wait=-1"]), (60, String::new()));
        assert_eq!(settle(&["wait=soon, handling=lenient"]), (60, String::new()));
    }

    #[test]
    fn wait_is_capped_and_the_cap_is_reported() {
        assert_eq!(settle(&["wait=9999"]), (300, "wait=300".into()));
    }
}
