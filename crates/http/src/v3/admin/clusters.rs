//! `/admin/clusters`: health, usage, and displayed information of clusters.

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

/// OpenAPI description of a cluster ID in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "the document reads its fields")]
pub(super) struct ClusterParam {
    /// Cluster ID.
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

/// A cluster, for administrators.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminCluster)]
struct AdminClusterBody {
    #[serde(flatten)]
    cluster: ClusterBody,
    /// `configured`, or `saved` if the displayed information was changed.
    source: &'static str,
    /// `ok` or `failing`.
    health: &'static str,
    /// `null` if the cluster does not respond.
    usage: Option<ClusterUsageBody>,
}

/// Usage of a cluster.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ClusterUsage)]
pub(super) struct ClusterUsageBody {
    /// Number of distinct blocks.
    blocks: u64,
    distinct_bytes: u64,
    /// DAGs that are stored or being fetched.
    dags: u64,
    /// Sum of the bytes of all DAGs.
    held_bytes: u64,
    /// Bytes on disk.
    disk_bytes: u64,
    damaged_blocks: u64,
}

/// Displayed information to change. Absent fields keep their value.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClusterChangeBody {
    /// Display name.
    label: Option<String>,
    /// Region, or `null`.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    region: Option<Value>,
    /// ISO 3166-1 code of the country (two capital letters), or `null`.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    country: Option<Value>,
    /// Gateways, best first. The list replaces the existing one.
    gateways: Option<Vec<GatewayChangeBody>>,
}

/// A gateway.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct GatewayChangeBody {
    /// Base URL, which ends in `/ipfs/`.
    url: Option<String>,
    /// Same as `url`.
    public_url: Option<String>,
    /// Display name. Default: the label of the cluster.
    label: Option<String>,
}

/// List clusters
///
/// Includes health and usage.
#[utoipa::path(get, path = "/admin/clusters", operation_id = "adminListClusters", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    responses((status = 200, description = "All clusters.", body = AdminClustersReply, example = json!(AdminClustersReply::example())), Guarded))]
pub(super) async fn list(
    _operator: RequireAdmin,
    State(app): State<AppState>,
) -> Result<Json<AdminClustersReply>, Reject> {
    let clusters = app.service().admin.clusters().await?;
    Ok(Json(AdminClustersReply { clusters: clusters.iter().map(AdminClusterBody::new).collect() }))
}

/// Update a cluster
///
/// Changes its label, region, country and gateways, as `GET /users/me/clusters` displays them.
#[utoipa::path(patch, path = "/admin/clusters/{cluster_id}", operation_id = "adminUpdateCluster", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    params(ClusterParam),
    request_body(content = Option<ClusterChangeBody>, example = json!({"label": "Europe", "country": "DE", "gateways": [{"url": "https://gateway.example.org/ipfs/", "label": "Main"}]})),
    responses((status = 200, description = "The cluster as it is displayed.", body = ClusterBody, example = json!(ClusterBody::example())), Missing, Guarded, WithBody))]
pub(super) async fn change(
    operator: RequireAdmin,
    State(app): State<AppState>,
    PathText(Id(id)): PathText<Id>,
    MaybeJson(body): MaybeJson<ClusterChangeBody>,
) -> Result<Json<ClusterBody>, Reject> {
    let info = app.service().admin.change_cluster(operator.actor(), &id, body.parse()?).await?;
    Ok(Json(ClusterBody::new(&info)))
}

/// Reset a cluster
///
/// Discards the changes, so that the configured information is displayed.
#[utoipa::path(post, path = "/admin/clusters/{cluster_id}/reset", operation_id = "adminResetCluster", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    params(ClusterParam),
    responses((status = 200, description = "The cluster as it is displayed.", body = ClusterBody, example = json!(ClusterBody::example())), Missing, Guarded))]
pub(super) async fn reset(
    operator: RequireAdmin,
    State(app): State<AppState>,
    PathText(Id(id)): PathText<Id>,
) -> Result<Json<ClusterBody>, Reject> {
    let info = app.service().admin.reset_cluster(operator.actor(), &id).await?;
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
