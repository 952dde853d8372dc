//! `/admin`: what operators do. Every handler names [`RequireAdmin`](crate::middleware::auth::RequireAdmin) first, so that nobody else even
//! learns what is there.

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

/// The largest page.
const LIMIT_MAX: u32 = 100;
/// A page that nobody asked to be larger or smaller.
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

/// What is said of a path whose percent-encoding is broken.
const UNREADABLE_PATH: &str = "The path can't be read";

/// The last segment of the path as an id, or whatever has such a text.
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

/// How an account's id in the path is documented.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "the document reads its fields")]
struct AccountParam {
    /// The account's id.
    #[param(example = "34407e29d027c000")]
    account_id: String,
}

/// Something was done.
#[derive(Serialize, ToSchema)]
struct DoneReply {
    message: &'static str,
}

/// The filter `field`, parsed; an empty one counts as left out.
fn filter<T: FromStr<Err: std::fmt::Display>>(field: &str, text: Option<&str>) -> Result<Option<T>, Reject> {
    let value = filled(text).map(|text| text.trim().parse::<T>()).transpose();
    value.map_err(|error| Reject::invalid(format!("`{field}`: {error}")))
}

/// A whole number from 0, or nothing, or `null`.
fn size(field: &str, value: Option<&Value>) -> Result<Option<Option<u64>>, Reject> {
    match value {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(value) => match value.as_u64() {
            Some(number) => Ok(Some(Some(number))),
            None => Err(Reject::invalid(format!("`{field}`: a whole number of bytes is needed, or null"))),
        },
    }
}

/// A text, or nothing, or `null`.
fn text(field: &str, value: Option<&Value>) -> Result<Option<Option<String>>, Reject> {
    match value {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(Value::String(text)) => Ok(Some(filled(Some(text)).map(str::to_owned))),
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Err(Reject::invalid(format!("`{field}`: a text is needed, or null")))
        }
    }
}

/// Keeps what a field says also when that is `null`, which is something else than leaving it out.
fn present<'de, D: serde::Deserializer<'de>>(field: D) -> Result<Option<Value>, D::Error> {
    serde::Deserialize::deserialize(field).map(Some)
}
