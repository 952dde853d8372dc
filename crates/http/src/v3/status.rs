//! `GET /status/:cid`: how a pin stands, with its progress while it is fetched.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use pinfold_model::PinState;
use pinfold_service::PinStatus;
use serde::Serialize;
use utoipa::ToSchema;

use super::extract::{CidParam, CidText, ClusterHint, ClusterParams, EXAMPLE_CID};
use super::gate::{Allowed, ClusterRead};
use super::openapi::{Guarded, Missing};
use super::reject::Reject;
use super::terms::parse_cluster;
use crate::AppState;

/// See how a pin stands
///
/// With its progress while it is fetched.
#[utoipa::path(get, path = "/status/{cid}", tag = "status", security(("key" = ["cluster:read"]), ("session" = [])),
    params(CidParam, ClusterParams),
    responses((status = 200, description = "How it stands.", body = StatusReply, example = json!(StatusReply::example())), Missing, Guarded))]
pub(super) async fn status(
    State(app): State<AppState>,
    caller: Allowed<ClusterRead>,
    CidText(cid): CidText,
    ClusterHint(hint): ClusterHint,
) -> Result<Json<StatusReply>, Reject> {
    let cluster = parse_cluster(hint.as_deref())?;
    let status = app.service().pins.status(&caller, &cid, cluster.as_ref()).await?;
    Ok(Json(StatusReply::new(&status)))
}

/// How a pin stands.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatusReply {
    cid: String,
    status: &'static str,
    cluster_id: String,
    upload_id: String,
    progress: ProgressBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'static str>,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_try_at: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    damaged_blocks: u64,
    #[serde(rename = "peer_map")]
    peer_map: BTreeMap<String, PeerBody>,
    allocations: Vec<String>,
    replication_factor: usize,
    created_at: String,
    updated_at: String,
    expires_at: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ProgressBody {
    blocks: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_bytes: Option<u64>,
    peers: u64,
}

/// What one node of the cluster has of it.
#[derive(Serialize, ToSchema)]
#[schema(as = PeerStatus)]
struct PeerBody {
    status: &'static str,
    timestamp: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl StatusReply {
    fn example() -> Self {
        let time = "2026-01-01T00:00:00.000Z";
        Self {
            cid: EXAMPLE_CID.to_owned(),
            status: PinState::Pinning.as_str(),
            cluster_id: "cl0-global".to_owned(),
            upload_id: "34407e29d027c000".to_owned(),
            progress: ProgressBody { blocks: 12, bytes: 3_145_728, total_bytes: None, peers: 2 },
            error: None,
            error_code: None,
            attempts: 0,
            next_try_at: None,
            damaged_blocks: 0,
            peer_map: BTreeMap::new(),
            allocations: Vec::new(),
            replication_factor: 0,
            created_at: time.to_owned(),
            updated_at: time.to_owned(),
            expires_at: None,
        }
    }

    fn new(status: &PinStatus) -> Self {
        let view = &status.view;
        let word = view.state.as_str();
        let peer =
            |id: &String| (id.clone(), PeerBody { status: word, timestamp: status.updated_at.to_string() });
        let error = status.error.as_ref();
        Self {
            cid: view.cid.to_string(),
            status: word,
            cluster_id: view.cluster.to_string(),
            upload_id: view.upload_id.to_string(),
            progress: ProgressBody {
                blocks: status.progress.blocks,
                bytes: status.progress.bytes,
                total_bytes: status.progress.total_bytes,
                peers: status.progress.peers,
            },
            error: error.map(|failure| failure.detail.clone()),
            error_code: error.map(|failure| failure.code.as_str()),
            attempts: status.attempts,
            damaged_blocks: status.damaged_blocks,
            next_try_at: status.next_try_at.map(|time| time.to_string()),
            peer_map: status.allocations.iter().map(peer).collect(),
            replication_factor: status.allocations.len(),
            allocations: status.allocations.clone(),
            created_at: view.created_at.to_string(),
            updated_at: status.updated_at.to_string(),
            expires_at: view.expires_at.map(|time| time.to_string()),
        }
    }
}
