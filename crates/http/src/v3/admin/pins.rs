//! `/admin/pins`: pins of all accounts.

use axum::Json;
use axum::extract::State;
use cid::Cid;
use pinfold_model::{AccountId, AdminPinsCursor, PinId, PinState, parse_cid};
use pinfold_service::{OwnedPin, OwnedPinPage, OwnedPinQuery, PinOwners};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{DoneReply, LIMIT_DEFAULT, LIMIT_MAX, PathText, filter};
use crate::AppState;
use crate::middleware::auth::RequireAdmin;
use crate::v3::extract::{EXAMPLE_CID, QueryOf};
use crate::v3::openapi::{Guarded, Missing};
use crate::v3::options::{filled, parse_cluster};
use crate::v3::pins::reply::{shown_name, text};
use crate::v3::query::{flag, number};
use crate::v3::reject::Reject;

/// OpenAPI description of an upload ID in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "the document reads its fields")]
pub(super) struct PinParam {
    /// `uploadId` of the pin.
    #[param(example = "34407e29d027c000")]
    upload_id: String,
}

/// The filters as received. An empty value counts as absent.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AdminPinsQuery {
    /// CID.
    #[param(example = "bafkreiexp7jgrrnl7i37debwszffmd5oqujkwlu6472bthy4ezpvmwfcw4")]
    cid: Option<String>,
    /// Account ID.
    #[param(example = "34407e29d027c000")]
    account: Option<String>,
    /// Status: `queued`, `pinning`, `pinned` or `failed`.
    #[param(example = "failed")]
    status: Option<String>,
    /// Cluster ID.
    #[param(example = "cl0-global")]
    cl: Option<String>,
    /// `true`: only pins with damaged blocks.
    #[param(value_type = Option<bool>, example = true)]
    damaged: Option<String>,
    /// Page size, up to 100.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 4294967295_u64, example = 50)]
    limit: Option<String>,
    /// `nextCursor` of the previous page.
    cursor: Option<String>,
}

/// A page of pins.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AdminPinsReply {
    pins: Vec<AdminPinBody>,
    next_cursor: Option<String>,
}

/// A pin with its account.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminPin)]
struct AdminPinBody {
    upload_id: String,
    account_id: String,
    email: Option<String>,
    cid: String,
    cluster_id: String,
    status: &'static str,
    name: Option<String>,
    original_name: Option<String>,
    custom_name: Option<String>,
    size: u64,
    #[serde(rename = "type")]
    kind: &'static str,
    damaged_blocks: u64,
    error: Option<String>,
    created_at: String,
    expires_at: Option<String>,
    /// The pin cannot be removed before this time.
    retain_until: Option<String>,
}

/// A pin with all pins of the same content.
#[derive(Serialize, ToSchema)]
pub(super) struct AdminPinReply {
    pin: AdminPinBody,
    /// Pins of the same content in the same cluster, including this one, oldest first; at most 100.
    owners: Vec<AdminPinBody>,
}

/// List pins of all accounts
///
/// Newest first; with `cid` or `damaged`, in the order in which the content was added. A page examines a bounded number of
/// pins, so it can have fewer entries than `limit` and still have a `nextCursor`.
#[utoipa::path(get, path = "/admin/pins", operation_id = "adminListPins", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    params(AdminPinsQuery),
    responses((status = 200, description = "A page of pins.", body = AdminPinsReply, example = json!(AdminPinsReply::example())), Guarded))]
pub(super) async fn list(
    _operator: RequireAdmin,
    State(app): State<AppState>,
    QueryOf(query): QueryOf<AdminPinsQuery>,
) -> Result<Json<AdminPinsReply>, Reject> {
    let page = app.service().admin.pins(query.parse()?).await?;
    Ok(Json(AdminPinsReply::new(&page)))
}

/// Get a pin and its owners
#[utoipa::path(get, path = "/admin/pins/{upload_id}", operation_id = "adminGetPin", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    params(PinParam),
    responses((status = 200, description = "The pin.", body = AdminPinReply, example = json!(AdminPinReply::example())), Missing, Guarded))]
pub(super) async fn show(
    _operator: RequireAdmin,
    State(app): State<AppState>,
    PathText(id): PathText<PinId>,
) -> Result<Json<AdminPinReply>, Reject> {
    Ok(Json(AdminPinReply::new(&app.service().admin.pin(id).await?)))
}

/// Remove a pin
///
/// Removes a pin of any account, including a locked one. The event is recorded in the owner's audit log and, for a locked pin, also
/// in the caller's.
#[utoipa::path(delete, path = "/admin/pins/{upload_id}", operation_id = "adminRemovePin", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    params(PinParam),
    responses((status = 200, description = "The pin is removed.", body = DoneReply, example = json!({"message": "The pin is removed"})), Missing, Guarded))]
pub(super) async fn remove(
    operator: RequireAdmin,
    State(app): State<AppState>,
    PathText(id): PathText<PinId>,
) -> Result<Json<DoneReply>, Reject> {
    app.service().admin.remove_pin(operator.actor(), id).await?;
    Ok(Json(DoneReply { message: "The pin is removed" }))
}

impl AdminPinsQuery {
    fn parse(&self) -> Result<OwnedPinQuery, Reject> {
        let cid = filled(self.cid.as_deref()).map(parse_cid).transpose();
        let cid: Option<Cid> = cid.map_err(|error| Reject::invalid(error.to_string()))?;
        Ok(OwnedPinQuery {
            account: filter::<AccountId>("account", self.account.as_deref())?,
            cid,
            state: filter::<PinState>("status", self.status.as_deref())?,
            cluster: parse_cluster(self.cl.as_deref())?,
            is_damaged: flag("damaged", self.damaged.as_deref())?.unwrap_or(false),
            limit: number("limit", self.limit.as_deref(), LIMIT_DEFAULT)?.min(LIMIT_MAX),
            cursor: filter::<AdminPinsCursor>("cursor", self.cursor.as_deref())?,
        })
    }
}

impl AdminPinsReply {
    fn new(page: &OwnedPinPage) -> Self {
        Self {
            pins: page.pins.iter().map(AdminPinBody::new).collect(),
            next_cursor: page.next_cursor.map(|cursor| cursor.to_string()),
        }
    }

    fn example() -> Self {
        Self { pins: vec![AdminPinBody::example()], next_cursor: None }
    }
}

impl AdminPinReply {
    fn new(pin: &PinOwners) -> Self {
        Self { pin: AdminPinBody::new(&pin.pin), owners: pin.owners.iter().map(AdminPinBody::new).collect() }
    }

    fn example() -> Self {
        Self { pin: AdminPinBody::example(), owners: vec![AdminPinBody::example()] }
    }
}

impl AdminPinBody {
    fn new(pin: &OwnedPin) -> Self {
        let view = &pin.view;
        Self {
            upload_id: view.upload_id.to_string(),
            account_id: pin.account.to_string(),
            email: pin.email.as_ref().map(ToString::to_string),
            cid: view.cid.to_string(),
            cluster_id: view.cluster.to_string(),
            status: view.state.as_str(),
            name: shown_name(view),
            original_name: text(view.original_name.as_ref()),
            custom_name: text(view.custom_name.as_ref()),
            size: view.size_bytes,
            kind: view.kind.as_str(),
            damaged_blocks: pin.damaged_blocks,
            error: pin.error.clone(),
            created_at: view.created_at.to_string(),
            expires_at: view.expires_at.map(|at| at.to_string()),
            retain_until: view.retain_until.map(|at| at.to_string()),
        }
    }

    fn example() -> Self {
        Self {
            upload_id: "34407e29d027c000".to_owned(),
            account_id: "34407e29d0200000".to_owned(),
            email: Some("ada@example.org".to_owned()),
            cid: EXAMPLE_CID.to_owned(),
            cluster_id: "cl0-global".to_owned(),
            status: PinState::Pinned.as_str(),
            name: Some("hello.txt".to_owned()),
            original_name: None,
            custom_name: Some("hello.txt".to_owned()),
            size: 12,
            kind: "file",
            damaged_blocks: 0,
            error: None,
            created_at: "2026-01-01T00:00:00.000Z".to_owned(),
            expires_at: None,
            retain_until: None,
        }
    }
}
