//! `/admin/statistics`: figures of the whole service, from sums that are kept.

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

/// The figures.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatisticsReply {
    accounts: AccountsCount,
    /// The pins of all accounts, by state.
    pins: PinsCount,
    bytes: BytesCount,
    clusters: Vec<ClusterCount>,
    /// DAGs that are due to be worked on, now or at their next try; at most 100,000 are counted.
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
    /// What accounts are charged with: content that two pin counts twice.
    logical: u64,
    /// Bytes of distinct blocks: each counts once.
    distinct: u64,
    /// What is taken on disk.
    on_disk: u64,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ClusterCount {
    cluster_id: String,
    pins: PinsCount,
    logical_bytes: u64,
    damaged_dags: u64,
    /// `null` if it does not answer.
    usage: Option<ClusterUsageBody>,
}

#[derive(Serialize, ToSchema)]
struct DamagedCount {
    /// DAGs with damaged blocks; at most 100,000 are counted.
    dags: u64,
    blocks: u64,
}

/// See the figures of the service
///
/// Sums that are kept: asking for them costs the same at ten pins and at ten million.
#[utoipa::path(get, path = "/admin/statistics", operation_id = "adminGetStatistics", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    responses((status = 200, description = "The figures.", body = StatisticsReply, example = json!(StatisticsReply::example())), Guarded))]
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
