//! `PUT /files/rename/:uploadId`: sets the name of a pin.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use pinfold_model::{PinId, PinName};
use pinfold_service::{Error, PinView};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::AppState;
use crate::middleware::auth::{FilesRename, RequireScope};
use crate::v3::extract::{EXAMPLE_CID, MaybeJson};
use crate::v3::openapi::{Guarded, Missing, WithBody};
use crate::v3::options::parse_name;
use crate::v3::pins::reply::{shown_name, text};
use crate::v3::reject::Reject;

/// OpenAPI description of an upload ID in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "the document reads its fields")]
struct UploadIdParam {
    /// The `uploadId` of a pin.
    #[param(example = "34407e29d027c000")]
    upload_id: String,
}

/// The new name.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Rename)]
pub(crate) struct RenameBody {
    /// The new name: 1 to 255 bytes without control characters.
    #[schema(value_type = String, example = "hello.txt")]
    new_name: Option<String>,
}

/// Rename a pin
///
/// Sets `customName`. `originalName` does not change.
#[utoipa::path(put, path = "/files/rename/{upload_id}", operation_id = "renamePin", tag = "pins", security(("key" = ["files:rename"]), ("session" = [])),
    params(UploadIdParam),
    request_body(content = RenameBody, example = json!({"newName": "hello.txt"})),
    responses((status = 200, description = "The pin is renamed.", body = RenamedReply, example = json!(RenamedReply::example())), Missing, Guarded, WithBody))]
pub(crate) async fn rename(
    State(app): State<AppState>,
    caller: RequireScope<FilesRename>,
    upload_id: Result<Path<String>, PathRejection>,
    MaybeJson(body): MaybeJson<RenameBody>,
) -> Result<Json<RenamedReply>, Reject> {
    let name = body.parse()?;
    // A malformed id belongs to no upload.
    let id = upload_id.ok().and_then(|Path(id)| id.parse::<PinId>().ok());
    let pin = id.ok_or(Error::UploadNotFound)?;
    let view = app.service().pins.rename(&caller, pin, name).await?;
    Ok(Json(RenamedReply::new(&view)))
}

impl RenameBody {
    fn parse(&self) -> Result<PinName, Reject> {
        let name = parse_name("newName", self.new_name.as_deref())?;
        name.ok_or_else(|| Reject::invalid("`newName` is missing or empty"))
    }
}

/// The renamed pin.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Renamed)]
pub(crate) struct RenamedReply {
    updated: bool,
    new_name: Option<String>,
    upload_id: String,
    cid: String,
    cluster_id: String,
    name: Option<String>,
    original_name: Option<String>,
    custom_name: Option<String>,
}

impl RenamedReply {
    fn example() -> Self {
        let name = || Some("hello.txt".to_owned());
        Self {
            updated: true,
            new_name: name(),
            upload_id: "34407e29d027c000".to_owned(),
            cid: EXAMPLE_CID.to_owned(),
            cluster_id: "cl0-global".to_owned(),
            name: name(),
            original_name: None,
            custom_name: name(),
        }
    }

    fn new(view: &PinView) -> Self {
        Self {
            updated: true,
            new_name: text(view.custom_name.as_ref()),
            upload_id: view.upload_id.to_string(),
            cid: view.cid.to_string(),
            cluster_id: view.cluster.to_string(),
            name: shown_name(view),
            original_name: text(view.original_name.as_ref()),
            custom_name: text(view.custom_name.as_ref()),
        }
    }
}
