//! `/admin/statistics`: statistics of the whole service, from maintained sums.

use axum::Json;
use axum::extract::State;
use pinfold_model::{ClusterId, PlanCode};
use pinfold_service::{ClusterStatistics, PinCounts, PlanAccounts, Statistics, Usage};
use serde::Serialize;
use utoipa::ToSchema;

use super::clusters::ClusterUsageBody;
use crate::AppState;
use crate::middleware::auth::RequireAdmin;
use crate::v3::openapi::Guarded;
use crate::v3::reject::Reject;

/// Statistics.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatisticsReply {
    accounts: AccountsCount,
    /// Pins of all accounts, by status.
    pins: PinsCount,
    bytes: BytesCount,
    clusters: Vec<ClusterCount>,
    /// Placements waiting for work, including those that wait for their next attempt; counted up to 100,000.
    queue: u64,
    damaged: DamagedCount,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AccountsCount {
    total: u64,
    disabled: u64,
    by_plan: Vec<PlanCount>,
}

#[derive(Serialize, ToSchema)]
struct PlanCount {
    plan: String,
    accounts: u64,
    disabled: u64,
}

#[derive(Serialize, ToSchema, Default, Clone, Copy)]
struct PinsCount {
    total: u64,
    queued: u64,
    pinning: u64,
    pinned: u64,
    failed: u64,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct BytesCount {
    /// Bytes charged to accounts: content pinned by two accounts counts twice.
    logical: u64,
    /// Bytes of distinct blocks.
    distinct: u64,
    /// Bytes on disk.
    on_disk: u64,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ClusterCount {
    cluster_id: String,
    pins: PinsCount,
    logical_bytes: u64,
    damaged_dags: u64,
    /// `null` if the cluster does not respond.
    usage: Option<ClusterUsageBody>,
}

#[derive(Serialize, ToSchema)]
struct DamagedCount {
    /// DAGs with damaged blocks; counted up to 100,000.
    dags: u64,
    blocks: u64,
}

/// Get statistics
///
/// The sums are maintained with each change, so that the cost of this request does not depend on the number of pins.
#[utoipa::path(get, path = "/admin/statistics", operation_id = "adminGetStatistics", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    responses((status = 200, description = "The statistics.", body = StatisticsReply, example = json!(StatisticsReply::example())), Guarded))]
pub(super) async fn show(
    _operator: RequireAdmin,
    State(app): State<AppState>,
) -> Result<Json<StatisticsReply>, Reject> {
    Ok(Json(StatisticsReply::new(&app.service().admin.statistics().await?)))
}

impl StatisticsReply {
    fn new(statistics: &Statistics) -> Self {
        let Statistics { accounts, clusters, queue } = statistics;
        let usage = |read: fn(&Usage) -> u64| clusters.iter().flat_map(|one| &one.usage).map(read).sum();
        Self {
            accounts: AccountsCount {
                total: accounts.iter().map(|sum| sum.accounts).sum(),
                disabled: accounts.iter().map(|sum| sum.disabled).sum(),
                by_plan: accounts.iter().map(PlanCount::new).collect(),
            },
            pins: clusters.iter().map(|cluster| PinsCount::new(&cluster.pins)).fold(
                PinsCount::default(),
                |all, one| PinsCount {
                    total: all.total + one.total,
                    queued: all.queued + one.queued,
                    pinning: all.pinning + one.pinning,
                    pinned: all.pinned + one.pinned,
                    failed: all.failed + one.failed,
                },
            ),
            bytes: BytesCount {
                logical: clusters.iter().map(|cluster| cluster.charged_bytes).sum(),
                distinct: usage(|usage| usage.bytes),
                on_disk: usage(|usage| usage.disk_bytes),
            },
            damaged: DamagedCount {
                dags: clusters.iter().map(|cluster| cluster.damaged_dags).sum(),
                blocks: usage(|usage| usage.damaged_blocks),
            },
            clusters: clusters.iter().map(ClusterCount::new).collect(),
            queue: *queue,
        }
    }

    fn example() -> Self {
        let cluster = ClusterStatistics {
            cluster: ClusterId::default(),
            pins: PinCounts { queued: 3, pinning: 1, pinned: 1_200, failed: 4 },
            charged_bytes: 5_033_164_800,
            damaged_dags: 0,
            usage: Some(Usage { blocks: 19_200, bytes: 5_000_000_000, ..Usage::default() }),
        };
        let plan = PlanAccounts { plan: PlanCode::new("free"), accounts: 12, disabled: 1 };
        Self::new(&Statistics { accounts: vec![plan], clusters: vec![cluster], queue: 4 })
    }
}

impl PlanCount {
    fn new(sum: &PlanAccounts) -> Self {
        Self { plan: sum.plan.to_string(), accounts: sum.accounts, disabled: sum.disabled }
    }
}

impl PinsCount {
    fn new(pins: &PinCounts) -> Self {
        let PinCounts { queued, pinning, pinned, failed } = *pins;
        Self { total: queued + pinning + pinned + failed, queued, pinning, pinned, failed }
    }
}

impl ClusterCount {
    fn new(cluster: &ClusterStatistics) -> Self {
        Self {
            cluster_id: cluster.cluster.to_string(),
            pins: PinsCount::new(&cluster.pins),
            logical_bytes: cluster.charged_bytes,
            damaged_dags: cluster.damaged_dags,
            usage: cluster.usage.as_ref().map(ClusterUsageBody::new),
        }
    }
}
