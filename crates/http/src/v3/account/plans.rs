//! Plans: the list, the plan of the caller, and changing it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use pinfold_model::{Account, ClusterId, Plan, PlanCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::AppState;
use crate::middleware::auth::{PlansRead, PlansWrite, RequireScope};
use crate::v3::extract::MaybeJson;
use crate::v3::openapi::{Anyone, Guarded, WithBody};
use crate::v3::options::agreed;
use crate::v3::reject::Reject;

/// A plan.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Plan)]
pub(crate) struct PlanBody {
    /// Same as `code`.
    id: String,
    code: String,
    name: String,
    descriptions: Vec<String>,
    /// Storage quota of all pins, in bytes.
    storage_limit: u64,
    /// Largest uploaded file, in bytes.
    max_file_size_bytes: u64,
    /// Largest uploaded directory (sum of its files), in bytes.
    max_directory_size_bytes: u64,
    timelock_allowed: bool,
    retention_lock_allowed: bool,
    /// Clusters that the plan allows.
    allowed_cluster_ids: Vec<String>,
    price_per_month: f64,
    /// Whether accounts may change to this plan themselves.
    self_service: bool,
    /// Pins that can be in progress at the same time.
    max_pins_in_flight: u32,
    requests_per_minute: u32,
    requests_per_second: u32,
    rate_limits: RateLimitsBody,
}

/// Request rates of one API key.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RateLimits)]
struct RateLimitsBody {
    requests_per_minute: u32,
    requests_per_second: u32,
}

/// All plans.
#[derive(Serialize, ToSchema)]
pub(crate) struct PlansReply {
    plans: Vec<PlanBody>,
}

/// The plan of the caller and its usage.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MyPlanReply {
    plan: PlanBody,
    usage: UsageBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
}

/// Usage of an account.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PlanUsage)]
struct UsageBody {
    /// Bytes charged for all pins.
    used_storage: u64,
    /// Bytes of distinct blocks: shared blocks count once. Updated with a short delay.
    distinct_storage: u64,
    /// Storage quota in bytes: that of the plan, unless the operator has set one for the account.
    storage_limit: u64,
    remaining_storage: u64,
    /// Number of pins, including failed ones.
    pins: u64,
}

/// The plan to change to. One of the fields is needed.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PlanChangeBody {
    /// `id` of the plan.
    plan_id: Option<String>,
    /// Same as `planId`.
    plan: Option<String>,
    /// Same as `planId`.
    code: Option<String>,
}

/// List plans
#[utoipa::path(get, path = "/plans", operation_id = "listPlans", tag = "plans", security(()),
    responses((status = 200, description = "The plans. The first one is that of new accounts.", body = PlansReply, example = json!(PlansReply::example())), Anyone))]
pub(crate) async fn list(State(app): State<AppState>) -> Json<PlansReply> {
    let ids = app.service().clusters.ids();
    let plans = app.service().subscriptions.plans();
    Json(PlansReply { plans: plans.iter().map(|plan| PlanBody::new(plan, &ids)).collect() })
}

/// Get your plan
#[utoipa::path(get, path = "/plans/my-plan", operation_id = "getMyPlan", tag = "plans", security(("key" = ["plans:read"]), ("session" = [])),
    responses((status = 200, description = "The plan and its usage.", body = MyPlanReply, example = json!(MyPlanReply::example())), Guarded))]
pub(crate) async fn mine(
    State(app): State<AppState>,
    caller: RequireScope<PlansRead>,
) -> Result<Json<MyPlanReply>, Reject> {
    let (account, plan) = app.service().subscriptions.of(&caller).await?;
    Ok(Json(MyPlanReply::new(&account, &plan, &app.service().clusters.ids())))
}

/// Get your plan (other path)
///
/// Same as `GET /plans/my-plan`.
#[utoipa::path(get, path = "/users/me/plans", operation_id = "getUserPlan", tag = "plans", security(("key" = ["plans:read"]), ("session" = [])),
    responses((status = 200, description = "The plan and its usage.", body = MyPlanReply, example = json!(MyPlanReply::example())), Guarded))]
pub(crate) async fn users_mine(
    state: State<AppState>,
    caller: RequireScope<PlansRead>,
) -> Result<Json<MyPlanReply>, Reject> {
    mine(state, caller).await
}

/// Change your plan
///
/// Changes to a plan with `selfService`, unless the operator has configured otherwise (403 `plan_change_not_allowed`). The
/// account's pins must fit into the new plan (403 `quota_exceeded`). Pins keep their timelocks even if the new plan allows none.
#[utoipa::path(put, path = "/plans/change", operation_id = "changePlan", tag = "plans", security(("key" = ["plans:write"]), ("session" = [])),
    request_body(content = PlanChangeBody, example = json!({"planId": "free"})),
    responses((status = 200, description = "The plan and its usage.", body = MyPlanReply, example = json!(MyPlanReply::example())), Guarded, WithBody))]
pub(crate) async fn change(
    State(app): State<AppState>,
    caller: RequireScope<PlansWrite>,
    MaybeJson(body): MaybeJson<PlanChangeBody>,
) -> Result<Json<MyPlanReply>, Reject> {
    let (account, plan) = app.service().subscriptions.change(&caller, &body.parse()?).await?;
    let reply = MyPlanReply::new(&account, &plan, &app.service().clusters.ids());
    Ok(Json(MyPlanReply { message: Some("Your plan is changed"), ..reply }))
}

impl PlanChangeBody {
    fn parse(&self) -> Result<PlanCode, Reject> {
        let text = agreed(&[
            ("planId", self.plan_id.as_deref()),
            ("plan", self.plan.as_deref()),
            ("code", self.code.as_deref()),
        ])?;
        let text =
            text.ok_or_else(|| Reject::invalid("`planId`: name a plan; GET /api/v3/plans lists them"))?;
        PlanCode::parse(text).map_err(|error| Reject::invalid(format!("`planId`: {error}")))
    }
}

impl PlanBody {
    /// `clusters` are all there are.
    pub(crate) fn new(plan: &Plan, clusters: &[ClusterId]) -> Self {
        let limits = &plan.limits;
        let (requests_per_minute, requests_per_second) =
            (limits.requests_per_minute, limits.requests_per_second);
        Self {
            id: plan.code.to_string(),
            code: plan.code.to_string(),
            name: plan.name.clone(),
            descriptions: plan.descriptions.clone(),
            storage_limit: limits.storage_bytes,
            max_file_size_bytes: limits.file_bytes_max.unwrap_or(limits.storage_bytes),
            max_directory_size_bytes: limits.directory_bytes_max.unwrap_or(limits.storage_bytes),
            timelock_allowed: limits.timelock,
            retention_lock_allowed: limits.retention_lock,
            allowed_cluster_ids: clusters
                .iter()
                .filter(|id| plan.allows(id))
                .map(ToString::to_string)
                .collect(),
            price_per_month: price(plan.price_cents),
            self_service: plan.self_service,
            max_pins_in_flight: limits.in_flight_pins_max,
            requests_per_minute,
            requests_per_second,
            rate_limits: RateLimitsBody { requests_per_minute, requests_per_second },
        }
    }

    pub(crate) fn example() -> Self {
        Self::new(&Plan::free(), &[ClusterId::default()])
    }
}

/// A price as people write it.
#[expect(clippy::cast_precision_loss, reason = "prices are far below what a float has exactly")]
fn price(cents: u64) -> f64 {
    cents as f64 / 100.0
}

impl PlansReply {
    fn example() -> Self {
        Self { plans: vec![PlanBody::example()] }
    }
}

impl MyPlanReply {
    fn new(account: &Account, plan: &Arc<Plan>, clusters: &[ClusterId]) -> Self {
        let usage = UsageBody {
            used_storage: account.used_bytes,
            distinct_storage: account.dedup_bytes,
            storage_limit: account.storage_limit_bytes,
            remaining_storage: account.remaining_bytes(),
            pins: account.pins,
        };
        Self { plan: PlanBody::new(plan, clusters), usage, message: None }
    }

    fn example() -> Self {
        let usage = UsageBody {
            used_storage: 4_194_304,
            distinct_storage: 4_194_304,
            storage_limit: 1 << 30,
            remaining_storage: (1 << 30) - 4_194_304,
            pins: 1,
        };
        Self { plan: PlanBody::example(), usage, message: None }
    }
}
