//! `GET /users/me/uploads/dag/:cid`: the content of a pinned directory.

use axum::Json;
use axum::extract::State;
use pinfold_service::{EntriesPage, EntriesQuery, EntryKind, Position, WalkEntry};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::AppState;
use crate::middleware::auth::{FilesRead, RequireScope};
use crate::v3::extract::{CidParam, CidText, EXAMPLE_CID, EXAMPLE_DIRECTORY_CID, QueryOf};
use crate::v3::openapi::{Conflict, Guarded, Missing};
use crate::v3::options::{filled, parse_cluster};
use crate::v3::query::{Pagination, number};
use crate::v3::reject::Reject;
use crate::v3::uploads::file::base_name;

/// Page size if the request names none.
const LIMIT_DEFAULT: u32 = 100;
/// Largest page.
const LIMIT_MAX: u32 = 1_000;
/// Largest depth of a listing.
const DEPTH_MAX: u32 = 128;

/// Query of a listing.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// Page number, from 1.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 4294967295_u64, example = 1)]
    page: Option<String>,
    /// Page size, up to 1,000.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 4294967295_u64, example = 100)]
    limit: Option<String>,
    /// Depth of the listing, 1 to 128. 1 lists the direct entries only.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 4294967295_u64, example = 1)]
    depth: Option<String>,
    /// `nextCursor` of the previous page.
    cursor: Option<String>,
    /// Cluster of the pin, if the CID is pinned in several clusters.
    #[param(example = "cl0-global")]
    cl: Option<String>,
}

/// List the entries of a directory
///
/// Lists files and directories inside a directory that the account has pinned, including nested ones; each directory comes before its
/// entries. A page can have fewer entries than `limit`; only a `nextCursor` of `null` marks the last page.
#[utoipa::path(get, path = "/users/me/uploads/dag/{cid}", operation_id = "listDirectoryEntries", tag = "uploads", security(("key" = ["files:read"]), ("session" = [])),
    params(CidParam, PageQuery),
    responses((status = 200, description = "A page of entries.", body = EntriesReply, example = json!(EntriesReply::example())), Missing, Conflict, Guarded))]
pub(crate) async fn list(
    State(app): State<AppState>,
    caller: RequireScope<FilesRead>,
    CidText(cid): CidText,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<EntriesReply>, Reject> {
    let cluster = parse_cluster(query.cl.as_deref())?;
    let query = EntriesQuery {
        page: number("page", query.page.as_deref(), 1)?,
        limit: number("limit", query.limit.as_deref(), LIMIT_DEFAULT)?.min(LIMIT_MAX),
        depth: number("depth", query.depth.as_deref(), DEPTH_MAX)?.min(DEPTH_MAX),
        cursor: parse_cursor(query.cursor.as_deref())?,
    };
    let (page, limit) = (query.page, query.limit);
    let entries = app.service().content.entries(&caller, &cid, cluster.as_ref(), query).await?;
    Ok(Json(EntriesReply::new(&entries, page, limit)))
}

/// Parses the cursor of a listing.
pub(crate) fn parse_cursor(text: Option<&str>) -> Result<Option<Position>, Reject> {
    let cursor = filled(text).map(str::parse::<Position>).transpose();
    cursor.map_err(|_| Reject::invalid("`cursor` must be the `nextCursor` of an earlier answer"))
}

/// A page of the entries of a directory.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Entries)]
pub(crate) struct EntriesReply {
    cid: String,
    upload_id: String,
    cluster_id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    entries: Vec<EntryItem>,
    /// Number of entries; `null` if there are too many to count.
    total: Option<u64>,
    pagination: Pagination,
    next_cursor: Option<String>,
}

/// A file or directory.
#[derive(Serialize, ToSchema)]
#[schema(as = Entry)]
pub(crate) struct EntryItem {
    pub(crate) path: String,
    pub(crate) name: String,
    pub(crate) cid: String,
    /// Length of a file in bytes; `null` for other entries, and if unknown.
    pub(crate) size: Option<u64>,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
}

impl EntriesReply {
    fn example() -> Self {
        let item = EntryItem {
            path: "img/logo.svg".to_owned(),
            name: "logo.svg".to_owned(),
            cid: EXAMPLE_CID.to_owned(),
            size: Some(1_024),
            kind: word(EntryKind::File),
        };
        Self {
            cid: EXAMPLE_DIRECTORY_CID.to_owned(),
            upload_id: "34407e29d027c000".to_owned(),
            cluster_id: "cl0-global".to_owned(),
            kind: word(EntryKind::Directory),
            entries: vec![item],
            total: Some(1),
            pagination: Pagination::new(1, LIMIT_DEFAULT, Some(1)),
            next_cursor: None,
        }
    }

    fn new(page: &EntriesPage, number: u32, limit: u32) -> Self {
        Self {
            cid: page.pin.cid.to_string(),
            upload_id: page.pin.upload_id.to_string(),
            cluster_id: page.pin.cluster.to_string(),
            kind: "directory",
            entries: page.entries.iter().map(EntryItem::new).collect(),
            total: page.total,
            pagination: Pagination::new(number, limit, page.total),
            next_cursor: page.next_cursor.as_ref().map(ToString::to_string),
        }
    }
}

impl EntryItem {
    pub(crate) fn new(entry: &WalkEntry) -> Self {
        Self {
            path: entry.path.clone(),
            name: base_name(&entry.path).to_owned(),
            cid: entry.cid.to_string(),
            size: entry.size_bytes,
            kind: word(entry.kind),
        }
    }
}

fn word(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "file",
        EntryKind::Directory => "directory",
        EntryKind::Other => "unknown",
    }
}
