//! `/tokens`: the API keys of the account. The secret of a key is sent once, when the key is created.

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use pinfold_model::{IpRules, ScopeSet, Timestamp, Token, TokenLife, TokenName};
use pinfold_service::{Caller, CreatedToken, Error, NewToken};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::extract::MaybeJson;
use super::openapi::{Conflict, Guarded, Missing, WithBody};
use super::options::filled;
use super::reject::Reject;
use crate::AppState;
use crate::middleware::auth::{RequireScope, TokensDelete, TokensRead, TokensWrite};
use crate::v3::uploads::disposition::percent_decoded;

/// Label of a key that is created without one.
const LABEL_DEFAULT: &str = "cli-access";

/// The segment before the name of a key in the path.
const BEFORE_NAME: &str = "/revoke/";

/// A new API key.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct GenerateBody {
    /// Name, 1 to 100 bytes, unique in the account.
    name: Option<String>,
    /// Note of up to 255 bytes. Default: `cli-access`.
    label: Option<String>,
    /// Scopes, as a list or as a comma-separated string. Default: `user:read` and `files:read`.
    #[schema(value_type = Option<Vec<String>>)]
    scopes: Option<Value>,
    /// Older name of `scopes`. Ignored if `scopes` is given.
    #[schema(value_type = Option<Vec<String>>)]
    permissions: Option<Value>,
    /// Lifetime in days, 1 to 3650. Default: unlimited, or that of the key that creates this one.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 3650)]
    expires_in_days: Option<Value>,
    /// IP addresses and networks that may use the key. Default: all, or those of the key that creates this one.
    #[schema(value_type = Option<Vec<String>>)]
    ip_allowlist: Option<Value>,
    #[serde(flatten)]
    factor: FactorBody,
}

/// Code of the second factor. Required for accounts with two-factor authentication.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct FactorBody {
    /// Six-digit code, as a string or as a number.
    #[schema(value_type = Value, required = false, example = "123456")]
    totp_code: Option<Value>,
    /// Same as `totpCode`.
    #[schema(value_type = Value, required = false, example = "123456")]
    two_factor_code: Option<Value>,
}

/// The key to revoke.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct RevokeBody {
    /// Name of the key.
    name: Option<String>,
    #[serde(flatten)]
    factor: FactorBody,
}

impl GenerateBody {
    fn parse(&self, now: Timestamp) -> Result<NewToken, Reject> {
        let older = words("permissions", self.permissions.as_ref())?;
        let scopes = words("scopes", self.scopes.as_ref())?.or(older);
        let scopes = scopes.map(|words| words.join(",").parse::<ScopeSet>()).transpose();
        let rules = words("ipAllowlist", self.ip_allowlist.as_ref())?.unwrap_or_default();
        let rules = IpRules::parse(rules.iter().map(String::as_str));
        let life = days(self.expires_in_days.as_ref())?;
        Ok(NewToken {
            name: parse_name(self.name.as_deref())?,
            label: Some(filled(self.label.as_deref()).unwrap_or(LABEL_DEFAULT).to_owned()),
            scopes: scopes
                .map_err(|error| Reject::invalid(error.to_string()))?
                .unwrap_or_else(ScopeSet::default_for_key),
            ip_allowlist: rules.map_err(|error| Reject::invalid(format!("`ipAllowlist`: {error}")))?,
            expires_at: life.map(|life| life.ends_at(now)),
        })
    }
}

fn parse_name(text: Option<&str>) -> Result<TokenName, Reject> {
    let text = filled(text).ok_or_else(|| Reject::invalid("`name`: give the key a name"))?;
    TokenName::parse(text).map_err(|error| Reject::invalid(format!("`name`: {error}")))
}

/// A list of strings or a comma-separated string; `None` if it is empty.
fn words(field: &str, value: Option<&Value>) -> Result<Option<Vec<String>>, Reject> {
    let wrong = || Reject::invalid(format!("`{field}`: a list of words is needed, or text with commas"));
    let words: Vec<String> = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.split(',').map(str::to_owned).collect(),
        Some(Value::Array(list)) => list
            .iter()
            .map(|word| word.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(wrong)?,
        Some(Value::Bool(_) | Value::Number(_) | Value::Object(_)) => return Err(wrong()),
    };
    let words: Vec<_> = words.into_iter().filter(|word| !word.trim().is_empty()).collect();
    Ok((!words.is_empty()).then_some(words))
}

/// A number of days, as a number or as text.
fn days(value: Option<&Value>) -> Result<Option<TokenLife>, Reject> {
    let number = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() => return Ok(None),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(Value::Number(number)) => number.as_i64(),
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => None,
    };
    let number = number.ok_or_else(|| Reject::invalid("`expiresInDays`: a whole number is needed"))?;
    let life =
        TokenLife::days(number).map_err(|error| Reject::invalid(format!("`expiresInDays`: {error}")))?;
    Ok(Some(life))
}

impl FactorBody {
    /// The code, in either field.
    fn code(&self) -> Option<String> {
        self.code_or(None)
    }

    /// The code in one field. A code sent as a number has lost its leading zeros.
    pub(super) fn code_or(&self, first: Option<&Value>) -> Option<String> {
        let text = |value: &Value| match value {
            Value::String(text) => filled(Some(text)).map(|text| text.trim().to_owned()),
            Value::Number(number) => number.as_u64().map(|number| format!("{number:06}")),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        let others = [self.totp_code.as_ref(), self.two_factor_code.as_ref()];
        first.into_iter().chain(others.into_iter().flatten()).find_map(text)
    }
}

/// An API key without its secret.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TokenBody {
    id: String,
    name: String,
    label: Option<String>,
    /// First characters of the secret.
    prefix: String,
    scopes: Vec<&'static str>,
    /// IP addresses and networks that may use the key; empty for all.
    ip_allowlist: Vec<String>,
    created_at: String,
    /// Approximate time of the last use.
    last_used_at: Option<String>,
    expires_at: Option<String>,
}

/// A new API key with its secret.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct GenerateReply {
    /// The secret. It cannot be retrieved later.
    token: String,
    #[serde(flatten)]
    body: TokenBody,
}

/// API keys of the account.
#[derive(Serialize, ToSchema)]
pub(super) struct TokensReply {
    tokens: Vec<TokenBody>,
    total: usize,
}

/// The revoked key.
#[derive(Serialize, ToSchema)]
pub(super) struct RevokedReply {
    message: &'static str,
    name: String,
    revoked: bool,
}

/// Create an API key
///
/// An API key cannot create a key with scopes that it lacks, with a longer lifetime, or for more IP addresses.
#[utoipa::path(post, path = "/tokens/generate", operation_id = "createToken", tag = "tokens", security(("key" = ["tokens:write"]), ("session" = [])),
    request_body(content = GenerateBody, example = json!({"name": "ci", "scopes": ["files:write"], "expiresInDays": 90})),
    responses((status = 201, description = "The key with its secret, which cannot be retrieved later.", body = GenerateReply, example = json!(GenerateReply::example())),
        Guarded, WithBody, Conflict))]
pub(super) async fn generate(
    State(app): State<AppState>,
    caller: RequireScope<TokensWrite>,
    MaybeJson(body): MaybeJson<GenerateBody>,
) -> Result<(StatusCode, Json<GenerateReply>), Reject> {
    let (new, code) = (body.parse(app.now())?, body.factor.code());
    let made = app.service().tokens.create_for(&caller, new, code.as_deref()).await?;
    Ok((StatusCode::CREATED, Json(GenerateReply::new(&made))))
}

/// List API keys
///
/// Oldest first, without secrets.
#[utoipa::path(get, path = "/tokens/list", operation_id = "listTokens", tag = "tokens", security(("key" = ["tokens:read"]), ("session" = [])),
    responses((status = 200, description = "All keys of the account.", body = TokensReply, example = json!(TokensReply::example())), Guarded))]
pub(super) async fn list(
    State(app): State<AppState>,
    caller: RequireScope<TokensRead>,
) -> Result<Json<TokensReply>, Reject> {
    let tokens = app.service().tokens.list(caller.account.id).await?;
    Ok(Json(TokensReply::new(&tokens)))
}

/// Revoke an API key
///
/// The key is invalid from then on. The name may contain slashes and may be percent-encoded.
#[utoipa::path(delete, path = "/tokens/revoke/{*name}", operation_id = "revokeToken", tag = "tokens", security(("key" = ["tokens:delete"]), ("session" = [])),
    params(NameParam),
    request_body(content = Option<FactorBody>, description = "Needed only for accounts with two-factor authentication.", example = json!({"totpCode": "123456"})),
    responses((status = 200, description = "The key is revoked.", body = RevokedReply, example = json!(RevokedReply::example())),
        Missing, Guarded, WithBody))]
pub(super) async fn revoke(
    State(app): State<AppState>,
    caller: RequireScope<TokensDelete>,
    NameText(names): NameText,
    MaybeJson(factor): MaybeJson<FactorBody>,
) -> Result<Json<RevokedReply>, Reject> {
    // A code is valid once, so the name is resolved before the code is checked.
    let name = app.service().tokens.first_of(caller.account.id, &names).await?;
    Ok(Json(revoke_one(&app, &caller, &name, factor.code().as_deref()).await?))
}

/// Revoke an API key (name in the body)
///
/// Same as `DELETE /tokens/revoke/{name}`.
#[utoipa::path(post, path = "/tokens/revoke", operation_id = "revokeTokenByName", tag = "tokens", security(("key" = ["tokens:delete"]), ("session" = [])),
    request_body(content = RevokeBody, example = json!({"name": "ci"})),
    responses((status = 200, description = "The key is revoked.", body = RevokedReply, example = json!(RevokedReply::example())),
        Missing, Guarded, WithBody))]
pub(super) async fn revoke_named(
    State(app): State<AppState>,
    caller: RequireScope<TokensDelete>,
    MaybeJson(body): MaybeJson<RevokeBody>,
) -> Result<Json<RevokedReply>, Reject> {
    let name = parse_name(body.name.as_deref())?;
    Ok(Json(revoke_one(&app, &caller, &name, body.factor.code().as_deref()).await?))
}

async fn revoke_one(
    app: &AppState,
    caller: &Caller,
    name: &TokenName,
    code: Option<&str>,
) -> Result<RevokedReply, Error> {
    app.service().tokens.revoke_for(caller, name, code).await?;
    Ok(RevokedReply { message: "The API key is revoked", name: name.to_string(), revoked: true })
}

/// OpenAPI description of the name of a key in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "the document reads its fields")]
pub(super) struct NameParam {
    /// Name of the key.
    #[param(example = "ci")]
    name: String,
}

/// The names that the rest of the path can mean: the percent-decoded text, and the text itself, since some clients do not
/// encode.
pub(super) struct NameText(Vec<TokenName>);

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

impl TokenBody {
    fn new(token: &Token) -> Self {
        Self {
            id: token.id.to_string(),
            name: token.name.to_string(),
            label: token.label.clone(),
            prefix: token.prefix.clone(),
            scopes: token.scopes.iter().map(|scope| scope.as_str()).collect(),
            ip_allowlist: token.ip_allowlist.iter().collect(),
            created_at: token.created_at.to_string(),
            last_used_at: token.last_used_at.map(|at| at.to_string()),
            expires_at: token.expires_at.map(|at| at.to_string()),
        }
    }

    fn example() -> Self {
        Self {
            id: "34407e29d027c000".to_owned(),
            name: "ci".to_owned(),
            label: Some(LABEL_DEFAULT.to_owned()),
            prefix: "pnf_k3qz".to_owned(),
            scopes: vec!["files:write"],
            ip_allowlist: vec!["192.0.2.0/24".to_owned()],
            created_at: "2026-01-01T00:00:00.000Z".to_owned(),
            last_used_at: None,
            expires_at: Some("2026-04-01T00:00:00.000Z".to_owned()),
        }
    }
}

impl GenerateReply {
    fn new(made: &CreatedToken) -> Self {
        Self { token: made.secret.reveal().to_owned(), body: TokenBody::new(&made.token) }
    }

    fn example() -> Self {
        Self { token: "pnf_k3qz…".to_owned(), body: TokenBody::example() }
    }
}

impl TokensReply {
    pub(super) fn new(tokens: &[Token]) -> Self {
        Self { total: tokens.len(), tokens: tokens.iter().map(TokenBody::new).collect() }
    }

    pub(super) fn example() -> Self {
        Self { tokens: vec![TokenBody::example()], total: 1 }
    }
}

impl RevokedReply {
    fn example() -> Self {
        Self { message: "The API key is revoked", name: "ci".to_owned(), revoked: true }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(body: Value) -> Result<NewToken, String> {
        let body: GenerateBody = serde_json::from_value(body).expect("any kind of value is taken");
        body.parse(Timestamp::from_ms(0)).map_err(|reject| format!("{reject:?}"))
    }

    #[test]
    fn what_is_left_out_is_as_clients_expect() {
        for body in [
            json!({"name": " ci "}),
            json!({"name": "ci", "label": "", "scopes": [], "expiresInDays": null, "ipAllowlist": ""}),
            json!({"name": "ci", "scopes": " , ", "expiresInDays": " "}),
        ] {
            let new = parsed(body).expect("nothing is wrong");
            assert_eq!((new.name.as_str(), new.label.as_deref()), ("ci", Some("cli-access")));
            assert_eq!((new.scopes, new.expires_at), (ScopeSet::default_for_key(), None));
            assert!(new.ip_allowlist.is_empty());
        }
    }

    #[test]
    fn scopes_come_as_a_list_or_as_text_and_under_two_names() {
        for scopes in [json!(["files:write", "files:read"]), json!("files:read, files:write")] {
            for field in ["scopes", "permissions"] {
                let new = parsed(json!({"name": "ci", field: scopes})).expect("nothing is wrong");
                assert_eq!(new.scopes.to_string(), "files:read,files:write", "{field}");
            }
        }
        let both = parsed(json!({"name": "ci", "scopes": ["logs:read"], "permissions": ["files:read"]}));
        assert_eq!(both.expect("nothing is wrong").scopes.to_string(), "logs:read");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (field, value) in [
            ("name", json!("a\nb")),
            ("name", json!("n".repeat(101))),
            ("scopes", json!(7)),
            ("scopes", json!(["files:read", 7])),
            ("expiresInDays", json!(0)),
            ("expiresInDays", json!(3651)),
            ("expiresInDays", json!(1.5)),
            ("expiresInDays", json!("soon")),
            ("expiresInDays", json!([1])),
            ("ipAllowlist", json!(["example.org"])),
            ("ipAllowlist", json!({"a": 1})),
        ] {
            let mut body = json!({"name": "ci"});
            body[field] = value.clone();
            let fault = parsed(body).expect_err(field);
            assert!(fault.contains("400") && fault.contains(&format!("`{field}`")), "{value}: {fault}");
        }
        assert!(
            parsed(json!({"name": "ci", "scopes": ["files:burn"]}))
                .expect_err("no scope")
                .contains("files:burn")
        );
        assert!(parsed(json!({})).expect_err("no name").contains("`name`"));
    }

    #[test]
    fn a_code_has_two_names_and_two_kinds() {
        for body in [
            json!({"totpCode": "001234"}),
            json!({"twoFactorCode": " 001234 "}),
            json!({"totpCode": 1234}),
            json!({"totpCode": "", "twoFactorCode": "001234"}),
        ] {
            let factor: FactorBody = serde_json::from_value(body).expect("it parses");
            assert_eq!(factor.code().as_deref(), Some("001234"));
        }
        assert_eq!(FactorBody::default().code(), None);
    }

    #[test]
    fn a_path_can_mean_two_names() {
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
