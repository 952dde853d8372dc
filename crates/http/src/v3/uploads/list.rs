//! `GET /users/me/uploads`: the account's pins, page by page.

use axum::Json;
use axum::extract::State;
use cid::Cid;
use pinfold_model::{PinKind, PinState, parse_cid};
use pinfold_service::{Cursor, EntriesPage, EntriesQuery, ListQuery, PinPage, PinView, WalkEntry};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::AppState;
use crate::middleware::auth::{FilesRead, RequireScope};
use crate::v3::extract::{EXAMPLE_CID, QueryOf};
use crate::v3::openapi::{Conflict, Guarded, Missing};
use crate::v3::options::{filled, parse_cluster};
use crate::v3::pins::reply::{shown_name, text};
use crate::v3::query::{Pagination, flag, number, search};
use crate::v3::reject::Reject;
use crate::v3::uploads::entries::{EntryItem, parse_cursor};

/// The largest page.
const LIMIT_MAX: u32 = 100;

/// The filters as received. An empty value counts as absent.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct UploadsQuery {
    /// Page number, from 1.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 4294967295_u64, example = 1)]
    page: Option<String>,
    /// Page size, up to 100.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 4294967295_u64, example = 20)]
    limit: Option<String>,
    /// CID.
    cid: Option<String>,
    /// CID of a pinned directory: lists its content instead of pins. Of the filters only `cl` can be combined with it.
    parent_cid: Option<String>,
    /// `true`: only pins with a timelock; `false`: only pins without one.
    #[param(value_type = Option<bool>, example = true)]
    has_expiration: Option<String>,
    /// Text that a name or the CID contains.
    search: Option<String>,
    /// Status: `queued`, `pinning`, `pinned` or `failed`.
    #[param(example = "pinned")]
    status: Option<String>,
    /// Cluster ID.
    #[param(example = "cl0-global")]
    cl: Option<String>,
    /// `nextCursor` of the previous page.
    cursor: Option<String>,
}

/// List pins
///
/// Newest first. With `cursor`, every page takes the same time to load. With `parentCid`, lists the content of a pinned directory,
/// as `GET /users/me/uploads/dag/{cid}` does; these items have `path` and `parentCid`, and no `uploadId`.
#[utoipa::path(get, path = "/users/me/uploads", operation_id = "listPins", tag = "uploads", security(("key" = ["files:read"]), ("session" = [])),
    params(UploadsQuery),
    responses((status = 200, description = "A page of pins.", body = UploadsReply, example = json!(UploadsReply::example())), Missing, Conflict, Guarded))]
pub(crate) async fn list(
    State(app): State<AppState>,
    caller: RequireScope<FilesRead>,
    QueryOf(query): QueryOf<UploadsQuery>,
) -> Result<Json<UploadsReply>, Reject> {
    if let Some(parent) = query.parent()? {
        let (cluster, query) = (parse_cluster(query.cl.as_deref())?, query.inside()?);
        let (page, limit) = (query.page, query.limit);
        let inside = app.service().content.entries(&caller, &parent, cluster.as_ref(), query).await?;
        return Ok(Json(UploadsReply::inside(&inside, page, limit)));
    }
    let query = query.parse()?;
    let (page, limit) = (query.page, query.limit);
    let pins = app.service().pins.list(&caller, query).await?;
    Ok(Json(UploadsReply::new(&pins, page, limit)))
}

impl UploadsQuery {
    /// The directory whose entries are listed.
    fn parent(&self) -> Result<Option<Cid>, Reject> {
        let parent = filled(self.parent_cid.as_deref()).map(parse_cid).transpose();
        parent.map_err(|error| Reject::invalid(format!("`parentCid`: {error}")))
    }

    /// The page of entries. Filters apply to pins only, and are refused rather than ignored.
    fn inside(&self) -> Result<EntriesQuery, Reject> {
        let filters = [
            ("cid", &self.cid),
            ("search", &self.search),
            ("status", &self.status),
            ("hasExpiration", &self.has_expiration),
        ];
        if let Some((name, _)) = filters.into_iter().find(|(_, value)| filled(value.as_deref()).is_some()) {
            return Err(Reject::invalid(format!("`{name}` can't be combined with `parentCid`")));
        }
        Ok(EntriesQuery {
            page: number("page", self.page.as_deref(), 1)?,
            limit: number("limit", self.limit.as_deref(), 20)?.min(LIMIT_MAX),
            cursor: parse_cursor(self.cursor.as_deref())?,
            ..EntriesQuery::default()
        })
    }

    fn parse(&self) -> Result<ListQuery, Reject> {
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
                .map_err(|_| Reject::invalid("`cursor` must be the `nextCursor` of an earlier answer"))?,
        })
    }
}

/// A page of pins.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UploadsReply {
    uploads: Vec<UploadItem>,
    /// Number of items; `null` if a directory has too many to count.
    total: Option<u64>,
    pagination: Pagination,
    next_cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct UploadItem {
    /// `null` for an item inside a directory, which cannot be renamed or removed.
    upload_id: Option<String>,
    /// Same as `uploadId`.
    #[serde(rename = "_id")]
    id: Option<String>,
    cid: String,
    /// CID of the directory that contains the item.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_cid: Option<String>,
    /// Path in that directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    name: Option<String>,
    original_name: Option<String>,
    custom_name: Option<String>,
    /// Size in bytes; `null` if unknown, which is possible only inside a directory.
    size: Option<u64>,
    #[serde(rename = "type")]
    kind: &'static str,
    cluster_id: String,
    status: &'static str,
    created_at: String,
    uploaded_at: String,
    expires_at: Option<String>,
    retain_until: Option<String>,
}

impl UploadsReply {
    fn new(pins: &PinPage, page: u32, limit: u32) -> Self {
        Self {
            uploads: pins.pins.iter().map(UploadItem::new).collect(),
            total: Some(pins.total),
            pagination: Pagination::new(page, limit, Some(pins.total)),
            next_cursor: pins.next_cursor.map(|cursor| cursor.to_string()),
        }
    }

    fn inside(page: &EntriesPage, number: u32, limit: u32) -> Self {
        Self {
            uploads: page.entries.iter().map(|entry| UploadItem::inside(&page.pin, entry)).collect(),
            total: page.total,
            pagination: Pagination::new(number, limit, page.total),
            next_cursor: page.next_cursor.as_ref().map(ToString::to_string),
        }
    }
}

impl UploadsReply {
    fn example() -> Self {
        let created_at = "2026-01-01T00:00:00.000Z".to_owned();
        let item = UploadItem {
            upload_id: Some("34407e29d027c000".to_owned()),
            id: Some("34407e29d027c000".to_owned()),
            cid: EXAMPLE_CID.to_owned(),
            parent_cid: None,
            path: None,
            name: Some("hello.txt".to_owned()),
            original_name: None,
            custom_name: Some("hello.txt".to_owned()),
            size: Some(12),
            kind: PinKind::File.as_str(),
            cluster_id: "cl0-global".to_owned(),
            status: PinState::Pinned.as_str(),
            uploaded_at: created_at.clone(),
            created_at,
            expires_at: None,
            retain_until: None,
        };
        Self {
            uploads: vec![item],
            total: Some(1),
            pagination: Pagination::new(1, 20, Some(1)),
            next_cursor: None,
        }
    }
}

impl UploadItem {
    fn new(view: &PinView) -> Self {
        let created_at = view.created_at.to_string();
        Self {
            upload_id: Some(view.upload_id.to_string()),
            id: Some(view.upload_id.to_string()),
            cid: view.cid.to_string(),
            parent_cid: None,
            path: None,
            name: shown_name(view),
            original_name: text(view.original_name.as_ref()),
            custom_name: text(view.custom_name.as_ref()),
            size: Some(view.size_bytes),
            kind: view.kind.as_str(),
            cluster_id: view.cluster.to_string(),
            status: view.state.as_str(),
            uploaded_at: created_at.clone(),
            created_at,
            expires_at: view.expires_at.map(|time| time.to_string()),
            retain_until: view.retain_until.map(|time| time.to_string()),
        }
    }

    /// An entry of a pinned directory. Fields that an entry lacks are those of the pin.
    fn inside(pin: &PinView, entry: &WalkEntry) -> Self {
        let item = EntryItem::new(entry);
        Self {
            upload_id: None,
            id: None,
            cid: item.cid,
            parent_cid: Some(pin.cid.to_string()),
            path: Some(item.path),
            name: Some(item.name.clone()),
            original_name: Some(item.name),
            custom_name: None,
            size: item.size,
            kind: item.kind,
            ..Self::new(pin)
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

    fn inside(pairs: &[(&str, &str)]) -> Result<EntriesQuery, String> {
        let object = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        let query: UploadsQuery = serde_json::from_value(serde_json::Value::Object(object)).expect("texts");
        query.parent().and_then(|_| query.inside()).map_err(|reject| format!("{reject:?}"))
    }

    #[test]
    fn directory_listing_has_pages_and_no_filters() {
        assert_eq!(inside(&[("page", "2"), ("limit", "500"), ("search", "")]).expect("a page").limit, 100);
        for (field, value) in
            [("parentCid", "bafy"), ("search", "a"), ("status", "pinned"), ("cursor", "x.y")]
        {
            let fault = inside(&[(field, value)]).expect_err(field);
            assert!(fault.contains("400") && fault.contains(field), "{fault}");
        }
    }

    #[test]
    fn empty_filters_count_as_absent() {
        let all = query(&[("page", ""), ("limit", ""), ("search", " "), ("parentCid", ""), ("cursor", "")]);
        assert_eq!(all, Ok(ListQuery::default()));
    }

    #[test]
    fn flags_are_parsed_as_many_languages_write_them() {
        for (text, flag) in [("true", true), ("True", true), ("1", true), ("FALSE", false), (" 0 ", false)] {
            assert_eq!(query(&[("hasExpiration", text)]).expect(text).has_expiry, Some(flag), "{text}");
        }
    }

    #[test]
    fn page_has_at_most_100_items() {
        assert_eq!(query(&[("limit", "5000")]).expect("it is cut").limit, 100);
    }

    #[test]
    fn invalid_fields_are_named() {
        for (field, value) in [
            ("page", "0"),
            ("page", "two"),
            ("limit", "-1"),
            ("cid", "hello"),
            ("status", "Pinned"),
            ("hasExpiration", "maybe"),
            ("cl", "no such!"),
            ("cursor", "x"),
            ("search", &"a".repeat(256)),
        ] {
            assert!(query(&[(field, value)]).expect_err(field).contains("400"), "{field}={value}");
        }
    }
}
