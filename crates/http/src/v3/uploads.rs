//! `GET /users/me/uploads`: the account's pins, page by page.

use axum::Json;
use axum::extract::State;
use pinfold_model::{PinState, parse_cid};
use pinfold_service::{Cursor, ListQuery, PinPage, PinView};
use serde::{Deserialize, Serialize};

use super::extract::QueryOf;
use super::gate::{Allowed, FilesRead};
use super::reject::Reject;
use super::reply::{shown_name, text};
use super::terms::{filled, parse_cluster};
use crate::AppState;

/// The longest text that is searched for: longer than any name.
const SEARCH_LENGTH_MAX: usize = 255;
/// The largest page.
const LIMIT_MAX: u32 = 100;

/// The filters as they came; an empty one counts as left out.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UploadsQuery {
    page: Option<String>,
    limit: Option<String>,
    cid: Option<String>,
    parent_cid: Option<String>,
    has_expiration: Option<String>,
    search: Option<String>,
    status: Option<String>,
    cl: Option<String>,
    cursor: Option<String>,
}

/// Lists the account's pins, newest first.
pub(super) async fn list(
    State(app): State<AppState>,
    caller: Allowed<FilesRead>,
    QueryOf(query): QueryOf<UploadsQuery>,
) -> Result<Json<UploadsReply>, Reject> {
    let query = query.parse()?;
    let (page, limit) = (query.page, query.limit);
    let pins = app.service().pins.list(&caller, query).await?;
    Ok(Json(UploadsReply::new(&pins, page, limit)))
}

impl UploadsQuery {
    fn parse(&self) -> Result<ListQuery, Reject> {
        if filled(self.parent_cid.as_deref()).is_some() {
            return Err(Reject::invalid("`parentCid`: listing what is inside a directory is not supported"));
        }
        let invalid = |error: &dyn std::fmt::Display| Reject::invalid(error.to_string());
        let status = filled(self.status.as_deref()).map(str::parse::<PinState>).transpose();
        let cursor = filled(self.cursor.as_deref()).map(str::parse::<Cursor>).transpose();
        let cid = filled(self.cid.as_deref()).map(parse_cid).transpose();
        Ok(ListQuery {
            page: number("page", self.page.as_deref(), 1)?,
            limit: number("limit", self.limit.as_deref(), 20)?.min(LIMIT_MAX),
            cid: cid.map_err(|error| invalid(&error))?,
            search: search(self.search.as_deref())?,
            state: status.map_err(|error| invalid(&error))?,
            cluster: parse_cluster(self.cl.as_deref())?,
            has_expiry: flag("hasExpiration", self.has_expiration.as_deref())?,
            cursor: cursor
                .map_err(|_| Reject::invalid("`cursor`: give a `nextCursor` of an earlier answer"))?,
        })
    }
}

fn number(field: &str, text: Option<&str>, default: u32) -> Result<u32, Reject> {
    let Some(text) = filled(text) else { return Ok(default) };
    let number = text.trim().parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| Reject::invalid(format!("`{field}`: a whole number from 1 is needed")))
}

fn flag(field: &str, text: Option<&str>) -> Result<Option<bool>, Reject> {
    match filled(text).map(str::trim) {
        None => Ok(None),
        Some("true" | "1") => Ok(Some(true)),
        Some("false" | "0") => Ok(Some(false)),
        Some(_) => Err(Reject::invalid(format!("`{field}`: true or false is needed"))),
    }
}

fn search(text: Option<&str>) -> Result<Option<String>, Reject> {
    match filled(text) {
        Some(text) if text.len() > SEARCH_LENGTH_MAX => {
            Err(Reject::invalid(format!("`search`: at most {SEARCH_LENGTH_MAX} bytes")))
        }
        text => Ok(text.map(str::to_owned)),
    }
}

/// A page of pins.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UploadsReply {
    uploads: Vec<UploadItem>,
    total: u64,
    pagination: Pagination,
    next_cursor: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pagination {
    page: u32,
    limit: u32,
    total: u64,
    total_pages: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UploadItem {
    upload_id: String,
    /// The same id, under the name that some clients read.
    #[serde(rename = "_id")]
    id: String,
    cid: String,
    name: Option<String>,
    original_name: Option<String>,
    custom_name: Option<String>,
    size: u64,
    #[serde(rename = "type")]
    kind: &'static str,
    cluster_id: String,
    status: &'static str,
    created_at: String,
    uploaded_at: String,
    expires_at: Option<String>,
}

impl UploadsReply {
    fn new(pins: &PinPage, page: u32, limit: u32) -> Self {
        let total_pages = pins.total.div_ceil(limit.max(1).into());
        Self {
            uploads: pins.pins.iter().map(UploadItem::new).collect(),
            total: pins.total,
            pagination: Pagination { page, limit, total: pins.total, total_pages },
            next_cursor: pins.next_cursor.map(|cursor| cursor.to_string()),
        }
    }
}

impl UploadItem {
    fn new(view: &PinView) -> Self {
        let created_at = view.created_at.to_string();
        Self {
            upload_id: view.upload_id.to_string(),
            id: view.upload_id.to_string(),
            cid: view.cid.to_string(),
            name: shown_name(view),
            original_name: text(view.original_name.as_ref()),
            custom_name: text(view.custom_name.as_ref()),
            size: view.size_bytes,
            kind: view.kind.as_str(),
            cluster_id: view.cluster.to_string(),
            status: view.state.as_str(),
            uploaded_at: created_at.clone(),
            created_at,
            expires_at: view.expires_at.map(|time| time.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(pairs: &[(&str, &str)]) -> Result<ListQuery, String> {
        let object = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        let query: UploadsQuery = serde_json::from_value(serde_json::Value::Object(object)).expect("texts");
        query.parse().map_err(|reject| format!("{reject:?}"))
    }

    #[test]
    fn empty_filters_are_left_out_ones() {
        let all = query(&[("page", ""), ("limit", ""), ("search", " "), ("parentCid", ""), ("cursor", "")]);
        assert_eq!(all, Ok(ListQuery::default()));
    }

    #[test]
    fn a_page_has_at_most_a_hundred() {
        assert_eq!(query(&[("limit", "5000")]).expect("it is cut").limit, 100);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (field, value) in [
            ("page", "0"),
            ("page", "two"),
            ("limit", "-1"),
            ("cid", "hello"),
            ("status", "Pinned"),
            ("hasExpiration", "maybe"),
            ("cl", "no such!"),
            ("cursor", "x"),
            ("parentCid", "bafy"),
            ("search", &"a".repeat(256)),
        ] {
            assert!(query(&[(field, value)]).expect_err(field).contains("400"), "{field}={value}");
        }
    }
}
