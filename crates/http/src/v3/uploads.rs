//! `GET /users/me/uploads`: the account's pins, page by page.

use axum::Json;
use axum::extract::State;
use pinfold_model::{PinKind, PinState, parse_cid};
use pinfold_service::{Cursor, ListQuery, PinPage, PinView};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::extract::{EXAMPLE_CID, QueryOf};
use super::gate::{Allowed, FilesRead};
use super::openapi::Guarded;
use super::reject::Reject;
use super::reply::{shown_name, text};
use super::terms::{filled, parse_cluster};
use crate::AppState;

/// The longest text that is searched for: longer than any name.
const SEARCH_LENGTH_MAX: usize = 255;
/// The largest page.
const LIMIT_MAX: u32 = 100;

/// The filters as they came; an empty one counts as left out.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct UploadsQuery {
    /// The page, from 1.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 4294967295_u64, example = 1)]
    page: Option<String>,
    /// Pins on a page, up to 100.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 4294967295_u64, example = 20)]
    limit: Option<String>,
    /// Only pins of this CID.
    cid: Option<String>,
    /// What is inside this directory.
    parent_cid: Option<String>,
    /// Only pins that end by themselves (or, `false`, do not).
    #[param(value_type = Option<bool>, example = true)]
    has_expiration: Option<String>,
    /// Only pins with this text in a name or in the CID.
    search: Option<String>,
    /// Only pins that stand so.
    #[param(example = "pinned")]
    status: Option<String>,
    /// Only pins of this cluster.
    #[param(example = "cl0-global")]
    cl: Option<String>,
    /// Where to go on: `nextCursor` of the answer before.
    cursor: Option<String>,
}

/// List pins
///
/// Newest first. A page by `cursor` costs the same wherever it is.
#[utoipa::path(get, path = "/users/me/uploads", tag = "uploads", security(("key" = ["files:read"]), ("session" = [])),
    params(UploadsQuery),
    responses((status = 200, description = "A page of pins.", body = UploadsReply, example = json!(UploadsReply::example())), Guarded))]
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
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UploadsReply {
    uploads: Vec<UploadItem>,
    total: u64,
    pagination: Pagination,
    next_cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pagination {
    page: u32,
    limit: u32,
    total: u64,
    total_pages: u64,
}

#[derive(Serialize, ToSchema)]
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

impl UploadsReply {
    fn example() -> Self {
        let created_at = "2026-01-01T00:00:00.000Z".to_owned();
        let item = UploadItem {
            upload_id: "34407e29d027c000".to_owned(),
            id: "34407e29d027c000".to_owned(),
            cid: EXAMPLE_CID.to_owned(),
            name: Some("wiki".to_owned()),
            original_name: None,
            custom_name: Some("wiki".to_owned()),
            size: 4_194_304,
            kind: PinKind::Directory.as_str(),
            cluster_id: "cl0-global".to_owned(),
            status: PinState::Pinned.as_str(),
            uploaded_at: created_at.clone(),
            created_at,
            expires_at: None,
        };
        let pagination = Pagination { page: 1, limit: 20, total: 1, total_pages: 1 };
        Self { uploads: vec![item], total: 1, pagination, next_cursor: None }
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
