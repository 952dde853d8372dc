//! Fields of queries that several resources have, and the place of a page among all.

use pinfold_model::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::options::filled;
use super::reject::Reject;

/// The longest text that can be searched for, in bytes: longer than any name.
const SEARCH_LENGTH_MAX: usize = 255;

/// A whole number from 1, for which `field` is the name in the API.
pub(super) fn number(field: &str, text: Option<&str>, default: u32) -> Result<u32, Reject> {
    let Some(text) = filled(text) else { return Ok(default) };
    let number = text.trim().parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| Reject::invalid(format!("`{field}` must be a whole number from 1")))
}

/// A boolean; an empty one counts as absent.
pub(super) fn flag(field: &str, text: Option<&str>) -> Result<Option<bool>, Reject> {
    // Python writes `True` and `False`.
    match filled(text).map(|text| text.trim().to_ascii_lowercase()).as_deref() {
        None => Ok(None),
        Some("true" | "1") => Ok(Some(true)),
        Some("false" | "0") => Ok(Some(false)),
        Some(_) => Err(Reject::invalid(format!("`{field}` must be true or false"))),
    }
}

/// A text to search for, bounded in length.
pub(super) fn search(text: Option<&str>) -> Result<Option<String>, Reject> {
    match filled(text) {
        Some(text) if text.len() > SEARCH_LENGTH_MAX => {
            Err(Reject::invalid(format!("`search` may have at most {SEARCH_LENGTH_MAX} bytes")))
        }
        text => Ok(text.map(str::to_owned)),
    }
}

/// A point in time, for which `field` is the name in the API.
pub(super) fn time(field: &str, text: Option<&str>) -> Result<Option<Timestamp>, Reject> {
    let time = filled(text).map(str::parse::<Timestamp>).transpose();
    time.map_err(|error| Reject::invalid(format!("`{field}`: {error}")))
}

/// Position of a page.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pagination {
    page: u32,
    limit: u32,
    total: Option<u64>,
    total_pages: Option<u64>,
}

impl Pagination {
    /// `total` is `None` if it is unknown.
    pub(super) fn new(page: u32, limit: u32, total: Option<u64>) -> Self {
        let total_pages = total.map(|total| total.div_ceil(limit.max(1).into()));
        Self { page, limit, total, total_pages }
    }
}
