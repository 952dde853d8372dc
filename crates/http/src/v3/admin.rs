//! `/admin`: operations for administrators. Every handler names [`RequireAdmin`](crate::middleware::auth::RequireAdmin) first, so that other
//! callers cannot learn which objects exist.

mod accounts;
mod audit;
mod clusters;
mod pins;
mod plans;
mod statistics;

use std::str::FromStr;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::openapi::Documented;
use super::options::filled;
use super::reject::Reject;
use crate::AppState;

/// Largest page.
const LIMIT_MAX: u32 = 100;
/// Page size if the request names none.
const LIMIT_DEFAULT: u32 = 50;

/// Adds the routes.
pub(super) fn with_routes(routes: Documented) -> Documented {
    routes
        .with(routes!(accounts::list, accounts::create))
        .with(routes!(accounts::show, accounts::change, accounts::remove))
        .with(routes!(accounts::password))
        .with(routes!(accounts::second_factor))
        .with(routes!(accounts::sessions))
        .with(routes!(accounts::tokens))
        .with(routes!(accounts::revoke_token))
        .with(routes!(plans::list))
        .with(routes!(plans::save, plans::delete))
        .with(routes!(clusters::list))
        .with(routes!(clusters::change))
        .with(routes!(clusters::reset))
        .with(routes!(pins::list))
        .with(routes!(pins::show, pins::remove))
        .with(routes!(audit::list))
        .with(routes!(statistics::show))
}

/// Error message for a path with invalid percent-encoding.
const UNREADABLE_PATH: &str = "The path can't be read";

/// The last segment of the path, parsed.
pub(super) struct PathText<T>(pub(super) T);

impl<T> FromRequestParts<AppState> for PathText<T>
where
    T: FromStr<Err: std::fmt::Display>,
{
    type Rejection = Reject;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Reject> {
        let text = Path::<String>::from_request_parts(parts, app).await;
        let Path(text) = text.map_err(|_| Reject::invalid(UNREADABLE_PATH))?;
        text.parse().map(Self).map_err(|error: T::Err| Reject::invalid(error.to_string()))
    }
}

/// OpenAPI description of an account ID in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "the document reads its fields")]
struct AccountParam {
    /// Account ID.
    #[param(example = "34407e29d027c000")]
    account_id: String,
}

/// Confirmation.
#[derive(Serialize, ToSchema)]
struct DoneReply {
    message: &'static str,
}

/// Parses the filter `field`. An empty value counts as absent.
fn filter<T: FromStr<Err: std::fmt::Display>>(field: &str, text: Option<&str>) -> Result<Option<T>, Reject> {
    let value = filled(text).map(|text| text.trim().parse::<T>()).transpose();
    value.map_err(|error| Reject::invalid(format!("`{field}`: {error}")))
}

/// A number of bytes, `null`, or absent.
fn size(field: &str, value: Option<&Value>) -> Result<Option<Option<u64>>, Reject> {
    match value {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(value) => match value.as_u64() {
            Some(number) => Ok(Some(Some(number))),
            None => Err(Reject::invalid(format!("`{field}` must be a whole number of bytes or null"))),
        },
    }
}

/// A string, `null`, or absent.
fn text(field: &str, value: Option<&Value>) -> Result<Option<Option<String>>, Reject> {
    match value {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(Value::String(text)) => Ok(Some(filled(Some(text)).map(str::to_owned))),
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Err(Reject::invalid(format!("`{field}` must be a string or null")))
        }
    }
}

/// Distinguishes a `null` field from an absent one.
fn present<'de, D: serde::Deserializer<'de>>(field: D) -> Result<Option<Value>, D::Error> {
    serde::Deserialize::deserialize(field).map(Some)
}
