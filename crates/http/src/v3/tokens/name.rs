//! The name of a key in the path, which may have slashes and may be percent-encoded.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use pinfold_model::TokenName;

use super::parse_name;
use crate::AppState;
use crate::v3::reject::Reject;
use crate::v3::uploads::disposition::percent_decoded;

/// What precedes a key's name in the path.
const BEFORE_NAME: &str = "/revoke/";

/// The names that the rest of the path can mean: percent-decoded, or else as sent, since some clients don't encode.
pub(in crate::v3) struct NameText(pub(super) Vec<TokenName>);

impl FromRequestParts<AppState> for NameText {
    type Rejection = Reject;

    async fn from_request_parts(parts: &mut Parts, _app: &AppState) -> Result<Self, Reject> {
        let (_, raw) = parts.uri.path().split_once(BEFORE_NAME).unwrap_or_default();
        Self::of(raw)
    }
}

impl NameText {
    fn of(raw: &str) -> Result<Self, Reject> {
        let decoded = percent_decoded(raw).and_then(|bytes| String::from_utf8(bytes).ok());
        let texts = [decoded, Some(raw.to_owned())];
        let mut names: Vec<_> = texts.iter().flatten().flat_map(|text| TokenName::parse(text)).collect();
        names.dedup();
        if names.is_empty() {
            return Err(parse_name(Some(raw)).err().unwrap_or_else(|| Reject::invalid("`name`: no name")));
        }
        Ok(Self(names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_can_mean_two_names() {
        let names = |raw: &str| {
            let names =
                NameText::of(raw).map(|NameText(names)| names).map_err(|reject| format!("{reject:?}"));
            names.map(|names| names.iter().map(TokenName::to_string).collect::<Vec<_>>())
        };
        let is = |raw, expected: &[&str]| {
            assert_eq!(names(raw).expect(raw), expected, "{raw}");
        };
        is("ci", &["ci"]);
        is("a%2Fb%20c", &["a/b c", "a%2Fb%20c"]);
        is("a/b", &["a/b"]);
        is("100%", &["100%"]);
        is("100%25", &["100%", "100%25"]);
        is("%C3%A9", &["é", "%C3%A9"]);
        is("é", &["é"]);
        is("%ff", &["%ff"]);
        assert!(names("").is_err());
        assert!(names(&"n".repeat(101)).is_err_and(|fault| fault.contains("400")));
    }
}
