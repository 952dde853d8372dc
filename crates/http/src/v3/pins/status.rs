//! `GET /status/:cid`: the status and progress of a pin; and `GET /allocations/:cid`: the nodes that store it.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use cid::Cid;
use pinfold_model::PinState;
use pinfold_service::{Caller, PinStatus};
use serde::Serialize;
use utoipa::ToSchema;

use crate::AppState;
use crate::middleware::auth::{ClusterRead, RequireScope};
use crate::v3::extract::{CidParam, CidText, ClusterFilter, ClusterFilterParams, EXAMPLE_CID};
use crate::v3::openapi::{Guarded, Missing};
use crate::v3::options::parse_cluster;
use crate::v3::reject::Reject;

/// Get the status of a pin
///
/// Includes progress while the content is being fetched, and the last error with the time of the next attempt.
#[utoipa::path(get, path = "/status/{cid}", operation_id = "getPinStatus", tag = "status", security(("key" = ["cluster:read"]), ("session" = [])),
    params(CidParam, ClusterFilterParams),
    responses((status = 200, description = "The status.", body = StatusReply, example = json!(StatusReply::example())), Missing, Guarded))]
pub(crate) async fn status(
    State(app): State<AppState>,
    caller: RequireScope<ClusterRead>,
    CidText(cid): CidText,
    ClusterFilter(hint): ClusterFilter,
) -> Result<Json<StatusReply>, Reject> {
    let cluster = parse_cluster(hint.as_deref())?;
    let status = app.service().pins.status(&caller, &cid, cluster.as_ref()).await?;
    Ok(Json(StatusReply::new(&status)))
}

/// Get the allocations of a pin
///
/// Lists the nodes of the cluster that store the content; empty until it is pinned.
#[utoipa::path(get, path = "/allocations/{cid}", operation_id = "getPinAllocations", tag = "status", security(("key" = ["cluster:read"]), ("session" = [])),
    params(CidParam, ClusterFilterParams),
    responses((status = 200, description = "The allocations.", body = AllocationsReply, example = json!(AllocationsReply::example())), Missing, Guarded))]
pub(crate) async fn allocations(
    State(app): State<AppState>,
    caller: RequireScope<ClusterRead>,
    CidText(cid): CidText,
    ClusterFilter(hint): ClusterFilter,
) -> Result<Json<AllocationsReply>, Reject> {
    get_allocations(&app, &caller, cid, hint).await
}

/// Get the allocations of a pin (older path)
///
/// Same as `GET /allocations/{cid}`.
#[utoipa::path(get, path = "/status/allocations/{cid}", operation_id = "getPinStatusAllocations", tag = "status", security(("key" = ["cluster:read"]), ("session" = [])),
    params(CidParam, ClusterFilterParams),
    responses((status = 200, description = "The allocations.", body = AllocationsReply, example = json!(AllocationsReply::example())), Missing, Guarded))]
pub(crate) async fn status_allocations(
    State(app): State<AppState>,
    caller: RequireScope<ClusterRead>,
    CidText(cid): CidText,
    ClusterFilter(hint): ClusterFilter,
) -> Result<Json<AllocationsReply>, Reject> {
    get_allocations(&app, &caller, cid, hint).await
}

async fn get_allocations(
    app: &AppState,
    caller: &Caller,
    cid: Cid,
    hint: Option<String>,
) -> Result<Json<AllocationsReply>, Reject> {
    let cluster = parse_cluster(hint.as_deref())?;
    let status = app.service().pins.status(caller, &cid, cluster.as_ref()).await?;
    Ok(Json(AllocationsReply::new(&status)))
}

/// Allocations of a pin. The fields in snake case are named as in IPFS Cluster.
#[derive(Serialize, ToSchema)]
#[schema(as = Allocations)]
pub(crate) struct AllocationsReply {
    cid: String,
    #[serde(rename = "clusterId")]
    cluster_id: String,
    status: &'static str,
    allocations: Vec<String>,
    peer_map: BTreeMap<String, PeerBody>,
    replication_factor_min: usize,
    replication_factor_max: usize,
}

impl AllocationsReply {
    fn example() -> Self {
        let (peer, pinned) =
            ("12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf", PinState::Pinned.as_str());
        let body = PeerBody { status: pinned, timestamp: "2026-01-01T00:00:00.000Z".to_owned() };
        Self {
            cid: EXAMPLE_CID.to_owned(),
            cluster_id: "cl0-global".to_owned(),
            status: pinned,
            allocations: vec![peer.to_owned()],
            peer_map: [(peer.to_owned(), body)].into(),
            replication_factor_min: 1,
            replication_factor_max: 1,
        }
    }

    fn new(status: &PinStatus) -> Self {
        // Every node of a cluster stores what is pinned in it, and a cluster has at least one node.
        let factor = status.allocations.len().max(1);
        Self {
            cid: status.view.cid.to_string(),
            cluster_id: status.view.cluster.to_string(),
            status: status.view.state.as_str(),
            allocations: status.allocations.clone(),
            peer_map: peer_map(status),
            replication_factor_min: factor,
            replication_factor_max: factor,
        }
    }
}

fn peer_map(status: &PinStatus) -> BTreeMap<String, PeerBody> {
    let word = status.view.state.as_str();
    let peer =
        |id: &String| (id.clone(), PeerBody { status: word, timestamp: status.updated_at.to_string() });
    status.allocations.iter().map(peer).collect()
}

/// Status of a pin.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatusReply {
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
    retain_until: Option<String>,
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

/// Status of the pin on one node of the cluster.
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
            retain_until: None,
        }
    }

    fn new(status: &PinStatus) -> Self {
        let view = &status.view;
        let error = status.error.as_ref();
        Self {
            cid: view.cid.to_string(),
            status: view.state.as_str(),
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
            peer_map: peer_map(status),
            replication_factor: status.allocations.len(),
            allocations: status.allocations.clone(),
            created_at: view.created_at.to_string(),
            updated_at: status.updated_at.to_string(),
            expires_at: view.expires_at.map(|time| time.to_string()),
            retain_until: view.retain_until.map(|time| time.to_string()),
        }
    }
}
