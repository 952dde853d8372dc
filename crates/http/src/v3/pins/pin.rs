//! `POST /files/pin/:cid` and the two routes that remove a pin.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use pinfold_service::{Caller, PinReceipt, PinRequest};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::AppState;
use crate::middleware::auth::{FilesDelete, FilesWrite, RequireScope};
use crate::prefer::Preference;
use crate::v3::extract::{
    CidParam, CidText, ClusterFilter, ClusterFilterParams, ClusterHint, ClusterParams, EXAMPLE_CID,
    MaybeJson, PreferParam, QueryOf,
};
use crate::v3::openapi::{Guarded, Missing, Storage, WithBody};
use crate::v3::options::{PinOptionsBody, parse_cluster};
use crate::v3::pins::dry_run::{DryRunReply, dry_run};
use crate::v3::pins::reply::{PinBody, PinReply};
use crate::v3::query::flag;
use crate::v3::reject::{Reject, RejectBody};

/// Query of a pin request.
#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
pub(crate) struct PinQuery {
    /// `true` estimates the pin within 5 s and stores nothing.
    #[param(example = "false")]
    dry_run: Option<String>,
}

/// A pin, or the estimate of a dry run.
#[derive(ToSchema)]
#[schema(as = PinOrDryRun)]
#[serde(untagged)]
#[expect(dead_code, reason = "the document reads its variants")]
pub(crate) enum PinOrDryRun {
    Pin(PinBody),
    DryRun(DryRunReply),
}

/// Pin content from IPFS
///
/// Fetches the DAG of the CID and keeps it. The request waits up to 60 s for the fetch, or as long as `Prefer` says. When
/// `status` is `pinned`, every block has been verified and is on disk.
#[utoipa::path(post, path = "/files/pin/{cid}", operation_id = "createPin", tag = "pins", security(("key" = ["files:write"]), ("session" = [])),
    params(CidParam, ClusterParams, PinQuery, PreferParam),
    request_body(content = Option<PinOptionsBody>, description = "Options of the pin. The body and each of its fields are optional.",
        example = json!({"customName": "hello.txt", "cl": "cl0-global"})),
    responses(
        (status = 201, description = "The content is pinned; the pin is new.", body = PinBody, example = json!(PinBody::example())),
        (status = 200, description = "The CID was already pinned; the given names and times have been applied. Or the estimate of a dry run.", body = PinOrDryRun,
            examples(("Pinned before" = (value = json!(PinBody::example()))), ("Dry run" = (value = json!(DryRunReply::example()))))),
        (status = 202, description = "The content is still being fetched. `Location` is the URL of the status.", body = PinBody, example = json!(PinBody::example_in_progress())),
        (status = 404, description = "No peer delivered the content. No pin was stored.", body = RejectBody, example = json!({"error": "Not Found", "message": "CID not found"})),
        Guarded, WithBody, Storage))]
pub(crate) async fn pin(
    State(app): State<AppState>,
    caller: RequireScope<FilesWrite>,
    CidText(cid): CidText,
    ClusterHint(hint): ClusterHint,
    QueryOf(query): QueryOf<PinQuery>,
    preference: Preference,
    MaybeJson(body): MaybeJson<PinOptionsBody>,
) -> Result<Response, Reject> {
    let (cluster, options) = (body.cluster(hint.as_deref())?, body.parse(app.now())?);
    let request = PinRequest { cid, cluster, options };
    if flag("dryRun", query.dry_run.as_deref())? == Some(true) {
        return dry_run(&app, &caller, &request, preference).await;
    }
    let (wait, applied) = preference.resolve(app.settings().wait_default, app.settings().wait_max);
    let receipt = pin_and_wait(&app, &caller, request, wait).await?;
    Ok(PinReply::of_pin(&receipt).applied(applied).into_response())
}

/// Creates the pin, and waits for the outcome unless the server stops: then the pin stays, and the next start continues.
async fn pin_and_wait(
    app: &AppState,
    caller: &Caller,
    request: PinRequest,
    wait: Duration,
) -> Result<PinReceipt, Reject> {
    let mut pending = app.service().pins.create(caller, request).await?;
    if !wait.is_zero()
        && let Some(Some(outcome)) = app.until_stopping(pending.outcome(wait)).await
    {
        return Ok(outcome?);
    }
    Ok(pending.detach().await?)
}

/// The removed pin.
#[derive(Serialize, ToSchema)]
pub(crate) struct RemovedReply {
    cid: String,
    removed: bool,
}

impl RemovedReply {
    fn example() -> Self {
        Self { cid: EXAMPLE_CID.to_owned(), removed: true }
    }
}

/// Remove a pin
///
/// The pin is removed immediately. Its disk space is reclaimed shortly after, unless another pin needs the content.
#[utoipa::path(delete, path = "/files/remove/{cid}", operation_id = "removePin", tag = "pins", security(("key" = ["files:delete"]), ("session" = [])),
    params(CidParam, ClusterFilterParams),
    responses((status = 200, description = "The pin is removed.", body = RemovedReply, example = json!(RemovedReply::example())), Missing, Guarded))]
pub(crate) async fn remove(
    State(app): State<AppState>,
    caller: RequireScope<FilesDelete>,
    CidText(cid): CidText,
    ClusterFilter(hint): ClusterFilter,
) -> Result<Json<RemovedReply>, Reject> {
    let cluster = parse_cluster(hint.as_deref())?;
    app.service().pins.remove(&caller, &cid, cluster.as_ref()).await?;
    Ok(Json(RemovedReply { cid: cid.to_string(), removed: true }))
}

/// Remove an upload
///
/// Same as `DELETE /files/remove/{cid}`.
#[utoipa::path(delete, path = "/users/me/uploads/{cid}", operation_id = "removeUpload", tag = "uploads", security(("key" = ["files:delete"]), ("session" = [])),
    params(CidParam, ClusterFilterParams),
    responses((status = 200, description = "The pin is removed.", body = RemovedReply, example = json!(RemovedReply::example())), Missing, Guarded))]
pub(crate) async fn remove_upload(
    app: State<AppState>,
    caller: RequireScope<FilesDelete>,
    cid: CidText,
    hint: ClusterFilter,
) -> Result<Json<RemovedReply>, Reject> {
    remove(app, caller, cid, hint).await
}
