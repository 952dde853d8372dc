//! Extractors of handlers: they parse each part of a request once.

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use cid::Cid;
use pinfold_model::{WebhookId, parse_cid};
use pinfold_service::Error;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use super::reject::Reject;
use crate::AppState;
use crate::body;
use crate::middleware::{BodyLimit, RoutePolicy};
use crate::prefer::Preference;

/// The header that names a cluster where neither body nor query does.
const X_CLUSTER: &str = "x-cluster";

/// CID in examples: a file of 12 bytes.
pub(super) const EXAMPLE_CID: &str = "bafkreiexp7jgrrnl7i37debwszffmd5oqujkwlu6472bthy4ezpvmwfcw4";

/// CID of a directory in examples.
pub(super) const EXAMPLE_DIRECTORY_CID: &str = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";

/// OpenAPI description of a CID in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "the document reads its fields")]
pub(super) struct CidParam {
    /// CID, version 0 or 1, in any multibase.
    #[param(example = "bafkreiexp7jgrrnl7i37debwszffmd5oqujkwlu6472bthy4ezpvmwfcw4")]
    cid: String,
}

/// OpenAPI description of a webhook ID in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "the document reads its fields")]
pub(super) struct WebhookParam {
    /// Webhook ID.
    #[param(example = "34407e29d027c000")]
    id: String,
}

/// OpenAPI description of the cluster of a new pin.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the document reads its fields")]
pub(super) struct ClusterParams {
    /// Cluster to pin in; also as header `X-Cluster`. Default: `cl0-global`.
    #[param(example = "cl0-global")]
    cl: Option<String>,
}

/// OpenAPI description of the cluster of an existing pin.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the document reads its fields")]
pub(super) struct ClusterFilterParams {
    /// Cluster of the pin, if the CID is pinned in several clusters.
    #[param(example = "cl0-global")]
    cl: Option<String>,
}

/// OpenAPI description of `Prefer`.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "the document reads its fields")]
pub(super) struct PreferParam {
    /// How long to wait for the pin (RFC 7240): `wait=N` for at most N seconds, `respond-async` not at all.
    #[param(rename = "Prefer", example = "wait=5")]
    prefer: Option<String>,
}

/// Deepest nesting of a JSON body, including ignored fields. Known bodies have two levels.
const JSON_DEPTH_MAX: usize = 32;

/// The last segment of the path as a CID, in any multibase, percent-encoded or not.
pub(super) struct CidText(pub(super) Cid);

impl FromRequestParts<AppState> for CidText {
    type Rejection = Reject;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Reject> {
        let text = Path::<String>::from_request_parts(parts, app).await;
        // The path is not text if its percent-encoding is invalid.
        let Path(text) = text.map_err(|_| Reject::invalid("Invalid CID"))?;
        parse_cid(&text).map(Self).map_err(|error| Reject::invalid(error.to_string()))
    }
}

/// The webhook in the path. A malformed id belongs to no webhook.
pub(super) struct WebhookPath(pub(super) WebhookId);

impl FromRequestParts<AppState> for WebhookPath {
    type Rejection = Reject;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Reject> {
        let text = Path::<String>::from_request_parts(parts, app).await;
        let id = text.ok().and_then(|Path(text)| text.parse().ok());
        Ok(Self(id.ok_or(Error::WebhookNotFound)?))
    }
}

/// The query, whose unknown fields are ignored.
pub(super) struct QueryOf<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for QueryOf<T> {
    type Rejection = Reject;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Reject> {
        let query = Query::<T>::from_request_parts(parts, app).await;
        query.map(|Query(query)| Self(query)).map_err(|error| Reject::invalid(error.body_text()))
    }
}

/// The cluster in the query's `cl`, or else in the header `X-Cluster`; not yet parsed, because the body may name another
/// one.
pub(super) struct ClusterHint(pub(super) Option<String>);

impl FromRequestParts<AppState> for ClusterHint {
    type Rejection = Reject;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Reject> {
        let ClusterFilter(cl) = ClusterFilter::from_request_parts(parts, app).await?;
        let in_header = || {
            let value = parts.headers.get(X_CLUSTER)?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        Ok(Self(cl.or_else(in_header)))
    }
}

/// The cluster in the query's `cl`, for requests about an existing pin. The header is ignored: clients send it with every
/// request, and it chooses the cluster of new pins.
pub(super) struct ClusterFilter(pub(super) Option<String>);

#[derive(Deserialize)]
struct ClusterQuery {
    cl: Option<String>,
}

impl FromRequestParts<AppState> for ClusterFilter {
    type Rejection = Reject;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Reject> {
        let QueryOf(ClusterQuery { cl }) = QueryOf::from_request_parts(parts, app).await?;
        Ok(Self(cl.filter(|cl| !cl.trim().is_empty())))
    }
}

impl FromRequestParts<AppState> for Preference {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _app: &AppState) -> Result<Self, Self::Rejection> {
        Ok(Self::of(&parts.headers))
    }
}

/// An optional JSON body: none, an empty one, `null`, `{}` and `[]` (which PHP makes of an empty
/// array) are all the same. Unknown fields and `Content-Type` are ignored. The route's policy bounds its size.
pub(super) struct MaybeJson<T>(pub(super) T);

impl<T: DeserializeOwned + Default> FromRequest<AppState> for MaybeJson<T> {
    type Rejection = Reject;

    async fn from_request(request: Request, app: &AppState) -> Result<Self, Reject> {
        let bounds = &app.settings().bodies;
        let policy = request.extensions().get::<RoutePolicy>().unwrap_or(&RoutePolicy::STRICT);
        let bytes_max = match policy.body {
            BodyLimit::Json | BodyLimit::Stream => bounds.json_bytes_max,
            BodyLimit::Batch => bounds.batch_bytes_max,
        };
        let body = body::read(request.into_body(), bytes_max, bounds.json_time).await?;
        parse(body.trim_ascii()).map(Self)
    }
}

/// Parses a JSON object, or one of the equivalents of an empty one.
pub(super) fn parse<T: DeserializeOwned + Default>(text: &[u8]) -> Result<T, Reject> {
    if text.is_empty() || text == b"null" || is_empty_array(text) {
        return Ok(T::default());
    }
    if !text.starts_with(b"{") {
        return Err(Reject::invalid("The body must be a JSON object"));
    }
    if depth(text) > JSON_DEPTH_MAX {
        return Err(Reject::invalid(format!("The JSON body is nested deeper than {JSON_DEPTH_MAX}")));
    }
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| wording(&error))?;
    reader
        .end()
        .map_err(|_| Reject::invalid("The body is not valid JSON: trailing characters after the object"))?;
    Ok(value)
}

/// How deep brackets are nested, outside of strings. For text that is no JSON, any number.
fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in text {
        match (in_string, *byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'[' | b'{') => depth += 1,
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn is_empty_array(text: &[u8]) -> bool {
    text.strip_prefix(b"[")
        .and_then(|rest| rest.strip_suffix(b"]"))
        .is_some_and(|rest| rest.trim_ascii().is_empty())
}

/// The message of a parse error, with the field's name if it is about one.
fn wording(error: &serde_path_to_error::Error<serde_json::Error>) -> Reject {
    let field = error.path().to_string();
    let inner = error.inner();
    if inner.is_data() && field != "." {
        let what = inner.to_string();
        let what = what.split(" at line ").next().unwrap_or_default();
        return Reject::invalid(format!("`{field}`: {what}"));
    }
    Reject::invalid(format!("The body is not valid JSON: {inner}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    struct Body {
        cl: Option<String>,
        tags: Option<Vec<String>>,
    }

    fn fault(text: &str) -> String {
        let reject = parse::<Body>(text.as_bytes()).expect_err(text);
        format!("{reject:?}")
    }

    #[test]
    fn empty_bodies_are_equivalent() {
        for text in ["", "null", "{}", "[]", "[ \n]", "{ }"] {
            assert_eq!(parse::<Body>(text.as_bytes()).expect(text), Body::default(), "{text:?}");
        }
    }

    #[test]
    fn unknown_fields_and_nulls_are_ignored() {
        let body: Body = parse(br#"{"cl":null,"colour":{"r":[1,2]}}"#).expect("it parses");
        assert_eq!(body, Body::default());
    }

    #[test]
    fn invalid_field_is_named() {
        assert!(fault(r#"{"cl":5}"#).contains("`cl`: invalid type: integer `5`, expected a string"));
        assert!(fault(r#"{"tags":["a",{}]}"#).contains("`tags[1]`"));
        assert!(fault(r#"{"cl":"a","cl":"b"}"#).contains("duplicate field `cl`"));
    }

    #[test]
    fn body_that_is_no_json_object_is_refused() {
        for text in ["[1]", "\"cl\"", "7", "cl=x", "{", "{\"cl\":\"a\"} {}", "\u{feff}{}"] {
            fault(text);
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        assert!(fault(&deep).contains("deeper than 32"));
        let brackets_in_text = format!(r#"{{"cl":"{}\"{}"}}"#, "[".repeat(50), "{".repeat(50));
        parse::<Body>(brackets_in_text.as_bytes()).expect("text is not nesting");
    }
}
