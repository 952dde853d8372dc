//! `/admin/clusters`: how clusters are, and what is shown of them and their gateways.

use axum::Json;
use axum::extract::State;
use pinfold_model::{ClusterId, ClusterIdError};
use pinfold_service::{ClusterEdit, ClusterInfo, ClusterView, GatewayEdit, Usage};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::{PathText, present, text};
use crate::AppState;
use crate::middleware::auth::RequireAdmin;
use crate::v3::extract::MaybeJson;
use crate::v3::openapi::{Guarded, Missing, WithBody};
use crate::v3::options::agreed;
use crate::v3::reject::Reject;
use crate::v3::service::info::ClusterBody;

/// How a cluster in the path is documented.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "the document reads its fields")]
pub(super) struct ClusterParam {
    /// The cluster.
    #[param(example = "cl0-global")]
    cluster_id: String,
}

/// A cluster's id.
pub(super) struct Id(ClusterId);

impl std::str::FromStr for Id {
    type Err = ClusterIdError;

    fn from_str(text: &str) -> Result<Self, ClusterIdError> {
        ClusterId::parse(text).map(Self)
    }
}

/// All clusters.
#[derive(Serialize, ToSchema)]
pub(super) struct AdminClustersReply {
    clusters: Vec<AdminClusterBody>,
}

/// A cluster, as an operator sees it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminCluster)]
struct AdminClusterBody {
    #[serde(flatten)]
    cluster: ClusterBody,
    /// `configured`, or `saved` if somebody changed what is shown.
    source: &'static str,
    /// `ok` or `failing`.
    health: &'static str,
    /// `null` if it does not answer.
    usage: Option<ClusterUsageBody>,
}

/// What a cluster holds.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ClusterUsage)]
pub(super) struct ClusterUsageBody {
    /// Distinct blocks, and their bytes: each counts once.
    blocks: u64,
    distinct_bytes: u64,
    /// DAGs that are held or on their way.
    dags: u64,
    /// Bytes of all DAGs added up.
    held_bytes: u64,
    /// What is taken on disk.
    disk_bytes: u64,
    damaged_blocks: u64,
}

/// What shall be shown. What is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClusterChangeBody {
    /// What people call it.
    label: Option<String>,
    /// Where it is; `null` for nothing.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    region: Option<Value>,
    /// Its country: two capital letters of ISO 3166, or `null`.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    country: Option<Value>,
    /// Its gateways, best first; they replace all there are.
    gateways: Option<Vec<GatewayChangeBody>>,
}

/// A gateway.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct GatewayChangeBody {
    /// Its base URL, which ends in `/ipfs/`.
    url: Option<String>,
    /// The same, under its other name.
    public_url: Option<String>,
    /// What people call it; the cluster's label if left out.
    label: Option<String>,
}

/// List the clusters
///
/// With their health and what they hold.
#[utoipa::path(get, path = "/admin/clusters", operation_id = "adminListClusters", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    responses((status = 200, description = "All clusters.", body = AdminClustersReply, example = json!(AdminClustersReply::example())), Guarded))]
pub(super) async fn list(
    _operator: RequireAdmin,
    State(app): State<AppState>,
) -> Result<Json<AdminClustersReply>, Reject> {
    let clusters = app.service().admin.clusters().await?;
    Ok(Json(AdminClustersReply { clusters: clusters.iter().map(AdminClusterBody::new).collect() }))
}

/// Change what is shown of a cluster
///
/// Its label, region, country and gateways. `GET /users/me/clusters` shows it at once.
#[utoipa::path(patch, path = "/admin/clusters/{cluster_id}", operation_id = "adminUpdateCluster", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    params(ClusterParam),
    request_body(content = Option<ClusterChangeBody>, example = json!({"label": "Europe", "country": "DE", "gateways": [{"url": "https://gateway.example.org/ipfs/", "label": "Main"}]})),
    responses((status = 200, description = "The cluster as it is shown now.", body = ClusterBody, example = json!(ClusterBody::example())), Missing, Guarded, WithBody))]
pub(super) async fn change(
    operator: RequireAdmin,
    State(app): State<AppState>,
    PathText(Id(id)): PathText<Id>,
    MaybeJson(body): MaybeJson<ClusterChangeBody>,
) -> Result<Json<ClusterBody>, Reject> {
    let info = app.service().admin.change_cluster(operator.by(), &id, body.parse()?).await?;
    Ok(Json(ClusterBody::new(&info)))
}

/// Show of a cluster what is configured
///
/// Forgets what was changed.
#[utoipa::path(post, path = "/admin/clusters/{cluster_id}/reset", operation_id = "adminResetCluster", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    params(ClusterParam),
    responses((status = 200, description = "The cluster as it is shown now.", body = ClusterBody, example = json!(ClusterBody::example())), Missing, Guarded))]
pub(super) async fn reset(
    operator: RequireAdmin,
    State(app): State<AppState>,
    PathText(Id(id)): PathText<Id>,
) -> Result<Json<ClusterBody>, Reject> {
    let info = app.service().admin.reset_cluster(operator.by(), &id).await?;
    Ok(Json(ClusterBody::new(&info)))
}

impl ClusterChangeBody {
    fn parse(self) -> Result<ClusterEdit, Reject> {
        let gateways = self.gateways.map(|all| all.into_iter().map(GatewayChangeBody::parse).collect());
        Ok(ClusterEdit {
            label: self.label,
            region: text("region", self.region.as_ref())?,
            country: text("country", self.country.as_ref())?,
            gateways: gateways.transpose()?,
        })
    }
}

impl GatewayChangeBody {
    fn parse(self) -> Result<GatewayEdit, Reject> {
        let url = agreed(&[("url", self.url.as_deref()), ("publicUrl", self.public_url.as_deref())])?;
        let url = url.ok_or_else(|| Reject::invalid("`gateways`: each has a `url`"))?;
        Ok(GatewayEdit { url: url.to_owned(), label: self.label })
    }
}

impl AdminClustersReply {
    fn example() -> Self {
        let view = ClusterView {
            info: ClusterInfo {
                id: ClusterId::default(),
                label: "Global".to_owned(),
                region: Some("global".to_owned()),
                country: None,
                gateways: Vec::new(),
            },
            is_saved: false,
            problem: None,
            usage: Some(Usage::default()),
        };
        Self { clusters: vec![AdminClusterBody::new(&view)] }
    }
}

impl AdminClusterBody {
    fn new(view: &ClusterView) -> Self {
        Self {
            cluster: ClusterBody::new(&view.info),
            source: if view.is_saved { "saved" } else { "configured" },
            health: if view.problem.is_none() { "ok" } else { "failing" },
            usage: view.usage.as_ref().map(ClusterUsageBody::new),
        }
    }
}

impl ClusterUsageBody {
    pub(super) fn new(usage: &Usage) -> Self {
        Self {
            blocks: usage.blocks,
            distinct_bytes: usage.bytes,
            dags: usage.holds,
            held_bytes: usage.held_bytes,
            disk_bytes: usage.disk_bytes,
            damaged_blocks: usage.damaged_blocks,
        }
    }
}
