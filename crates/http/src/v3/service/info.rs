//! Service information: name and version, health, peers and clusters.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use pinfold_model::ClusterId;
use pinfold_service::{ClusterHealth, ClusterInfo, GatewayInfo, Health, PeerInfo};
use serde::Serialize;
use utoipa::ToSchema;

use crate::AppState;
use crate::middleware::auth::{ClusterRead, RequireScope};
use crate::v3::BASE;
use crate::v3::openapi::{Anyone, Guarded};
use crate::v3::reject::Reject;

/// Name, version and links of the service.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceReply {
    name: &'static str,
    version: &'static str,
    api_version: &'static str,
    links: Links,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Links {
    #[serde(rename = "self")]
    base: &'static str,
    health: &'static str,
    peers: &'static str,
    pin: &'static str,
    upload: &'static str,
    upload_directory: &'static str,
    remove: &'static str,
    upload_folder: &'static str,
    rename: &'static str,
    uploads: &'static str,
    entries: &'static str,
    status: &'static str,
    events: &'static str,
    allocations: &'static str,
    clusters: &'static str,
    docs: &'static str,
}

/// Get the name and version of the server
#[utoipa::path(get, path = "/", operation_id = "getRoot", tag = "service", security(()),
    responses((status = 200, description = "Name, version and links.", body = ServiceReply, example = json!(ServiceReply::new())), Anyone))]
pub(crate) async fn root() -> Json<ServiceReply> {
    Json(ServiceReply::new())
}

/// Get the name and version of the API
#[utoipa::path(get, path = "", operation_id = "getService", tag = "service", security(()),
    responses((status = 200, description = "Name, version and links.", body = ServiceReply, example = json!(ServiceReply::new())), Anyone))]
pub(crate) async fn service() -> Json<ServiceReply> {
    Json(ServiceReply::new())
}

impl ServiceReply {
    fn new() -> Self {
        Self {
            name: "Pinfold",
            version: env!("CARGO_PKG_VERSION"),
            api_version: "v3",
            links: Links {
                base: BASE,
                health: "/api/v3/health",
                peers: "/api/v3/peers",
                pin: "/api/v3/files/pin/{cid}",
                upload: "/api/v3/files",
                upload_directory: "/api/v3/files/directory-dag",
                remove: "/api/v3/files/remove/{cid}",
                upload_folder: "/api/v3/files/directory",
                rename: "/api/v3/files/rename/{uploadId}",
                uploads: "/api/v3/users/me/uploads",
                entries: "/api/v3/users/me/uploads/dag/{cid}",
                status: "/api/v3/status/{cid}",
                events: "/api/v3/status/{cid}/events",
                allocations: "/api/v3/allocations/{cid}",
                clusters: "/api/v3/users/me/clusters",
                docs: "/api/v3/docs",
            },
        }
    }
}

/// Health of the service. Causes of failures are logged and not sent.
#[derive(Serialize, ToSchema)]
pub(crate) struct HealthReply {
    status: &'static str,
    version: &'static str,
    dependencies: Dependencies,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
}

#[derive(Serialize, ToSchema)]
struct Dependencies {
    database: Condition,
    clusters: BTreeMap<String, Condition>,
}

#[derive(Serialize, ToSchema)]
struct Condition {
    status: &'static str,
}

/// Get the health of the service (root path)
#[utoipa::path(get, path = "/health", operation_id = "getRootHealth", tag = "service", security(()),
    responses(
        Anyone,
        (status = 200, description = "All dependencies work.", body = HealthReply, example = json!(HealthReply::example(None))),
        (status = 503, description = "A dependency fails.", body = HealthReply, example = json!(HealthReply::example(Some("disk"))))))]
pub(crate) async fn root_health(app: State<AppState>) -> HealthReply {
    health(app).await
}

/// Get the health of the service
///
/// 200 if all dependencies work, else 503; `dependencies` names those that fail.
#[utoipa::path(get, path = "/health", operation_id = "getHealth", tag = "service", security(()),
    responses(
        Anyone,
        (status = 200, description = "All dependencies work.", body = HealthReply, example = json!(HealthReply::example(None))),
        (status = 503, description = "A dependency fails.", body = HealthReply, example = json!(HealthReply::example(Some("disk"))))))]
pub(crate) async fn health(State(app): State<AppState>) -> HealthReply {
    HealthReply::new(&app.service().clusters.health().await)
}

impl HealthReply {
    fn example(problem: Option<&str>) -> Self {
        let problem = problem.map(str::to_owned);
        Self::new(&Health {
            store: None,
            clusters: vec![ClusterHealth { cluster: ClusterId::default(), problem }],
        })
    }

    fn new(health: &Health) -> Self {
        let clusters = health
            .clusters
            .iter()
            .map(|part| (part.cluster.to_string(), Condition::new(part.problem.as_deref())));
        let is_well = health.is_well();
        Self {
            status: if is_well { "ok" } else { "unavailable" },
            version: env!("CARGO_PKG_VERSION"),
            dependencies: Dependencies {
                clusters: clusters.collect(),
                database: Condition::new(health.store.as_deref()),
            },
            error: (!is_well).then_some("Service Unavailable"),
            message: (!is_well).then_some("A dependency fails; see `dependencies`"),
        }
    }
}

impl Condition {
    fn new(problem: Option<&str>) -> Self {
        Self { status: if problem.is_none() { "ok" } else { "failing" } }
    }
}

impl IntoResponse for HealthReply {
    fn into_response(self) -> Response {
        let status = if self.error.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Json(self)).into_response()
    }
}

/// Peers of the clusters.
#[derive(Serialize, ToSchema)]
pub(crate) struct PeersReply {
    peers: Vec<PeerBody>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Peer)]
struct PeerBody {
    id: String,
    addresses: Vec<String>,
    #[serde(rename = "self")]
    is_self: bool,
    connected: bool,
    agent: Option<String>,
}

/// List peers
///
/// The first entry is this node; the others are peers that it knows.
#[utoipa::path(get, path = "/peers", operation_id = "listPeers", tag = "service", security(()),
    responses((status = 200, description = "The peers.", body = PeersReply, example = json!(PeersReply::example())), Anyone))]
pub(crate) async fn peers(State(app): State<AppState>) -> Result<Json<PeersReply>, Reject> {
    let peers = app.service().clusters.peers().await?;
    Ok(Json(PeersReply { peers: peers.into_iter().map(PeerBody::new).collect() }))
}

impl PeersReply {
    fn example() -> Self {
        let id = "12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf".to_owned();
        let addresses = vec!["/ip4/192.0.2.1/tcp/4001".to_owned()];
        Self {
            peers: vec![PeerBody {
                id,
                addresses,
                is_self: true,
                connected: true,
                agent: Some("pinfold".to_owned()),
            }],
        }
    }
}

impl PeerBody {
    fn new(peer: PeerInfo) -> Self {
        let PeerInfo { id, addresses, is_self, connected, agent } = peer;
        Self { id, addresses, is_self, connected, agent }
    }
}

/// A cluster that the caller can pin in. `id` and `clusterId` are the same.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Cluster)]
pub(crate) struct ClusterBody {
    id: String,
    cluster_id: String,
    name: String,
    label: String,
    region: Option<String>,
    country: Option<String>,
    gateways: Vec<GatewayBody>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Gateway)]
struct GatewayBody {
    public_url: String,
    url: String,
    label: String,
    order: usize,
}

/// List your clusters
#[utoipa::path(get, path = "/users/me/clusters", operation_id = "listClusters", tag = "users", security(("key" = ["cluster:read"]), ("session" = [])),
    responses((status = 200, description = "The clusters that the plan allows.", body = [ClusterBody], example = json!([ClusterBody::example()])), Guarded))]
pub(crate) async fn clusters(
    State(app): State<AppState>,
    caller: RequireScope<ClusterRead>,
) -> Json<Vec<ClusterBody>> {
    Json(app.service().clusters.list(&caller).iter().map(ClusterBody::new).collect())
}

impl ClusterBody {
    pub(crate) fn example() -> Self {
        let url = "https://gateway.example.org/ipfs/".to_owned();
        let gateway = GatewayBody { public_url: url.clone(), url, label: "Gateway".to_owned(), order: 0 };
        let id = ClusterId::default().to_string();
        Self {
            cluster_id: id.clone(),
            id,
            name: "Global".to_owned(),
            label: "Global".to_owned(),
            region: Some("eu-central".to_owned()),
            country: Some("DE".to_owned()),
            gateways: vec![gateway],
        }
    }

    pub(crate) fn new(info: &ClusterInfo) -> Self {
        Self {
            id: info.id.to_string(),
            cluster_id: info.id.to_string(),
            name: info.label.clone(),
            label: info.label.clone(),
            region: info.region.clone(),
            country: info.country.clone(),
            gateways: info.gateways.iter().enumerate().map(GatewayBody::new).collect(),
        }
    }
}

impl GatewayBody {
    fn new((order, gateway): (usize, &GatewayInfo)) -> Self {
        let url = gateway.url.clone();
        Self { public_url: url.clone(), url, label: gateway.label.clone(), order }
    }
}

/// Information at the path of a gateway.
#[derive(Serialize, ToSchema)]
#[schema(as = GatewayPath)]
pub(crate) struct GatewayReply {
    name: &'static str,
    message: &'static str,
    links: GatewayLinks,
}

#[derive(Serialize, ToSchema)]
struct GatewayLinks {
    api: &'static str,
    gateways: &'static str,
}

/// Get information about gateways
///
/// This server has no gateway of its own. `GET /users/me/clusters` lists the gateways of the clusters.
#[utoipa::path(get, path = "/ipfs", operation_id = "getGateway", tag = "service", security(()),
    responses((status = 200, description = "Links to the API and the list of gateways.", body = GatewayReply, example = json!(GatewayReply::new())), Anyone))]
pub(crate) async fn gateway() -> Json<GatewayReply> {
    Json(GatewayReply::new())
}

impl GatewayReply {
    fn new() -> Self {
        Self {
            name: "Pinfold",
            message: "This server has no gateway; GET /api/v3/users/me/clusters lists the gateways of your clusters",
            links: GatewayLinks { api: BASE, gateways: "/api/v3/users/me/clusters" },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(store: Option<&str>, cluster: Option<&str>) -> (StatusCode, String) {
        let part = ClusterHealth { cluster: ClusterId::default(), problem: cluster.map(str::to_owned) };
        let reply = HealthReply::new(&Health { store: store.map(str::to_owned), clusters: vec![part] });
        let text = serde_json::to_string(&reply).expect("it is plain data");
        (reply.into_response().status(), text.replace(env!("CARGO_PKG_VERSION"), "[version]"))
    }

    #[test]
    fn health_names_failed_checks_without_details() {
        let (status, text) = health(None, None);
        assert_eq!(status, StatusCode::OK);
        insta::assert_snapshot!(text, @r#"{"status":"ok","version":"[version]","dependencies":{"database":{"status":"ok"},"clusters":{"cl0-global":{"status":"ok"}}}}"#);

        let (status, text) = health(None, Some("/var/lib/pinfold: I/O error"));
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        insta::assert_snapshot!(text, @r#"{"status":"unavailable","version":"[version]","dependencies":{"database":{"status":"ok"},"clusters":{"cl0-global":{"status":"failing"}}},"error":"Service Unavailable","message":"A dependency fails; see `dependencies`"}"#);
        assert_eq!(health(Some("locked"), None).0, StatusCode::SERVICE_UNAVAILABLE);
    }
}
