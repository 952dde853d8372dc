//! `/admin/plans`: plans saved in the database, which override the configured ones.

use axum::Json;
use axum::extract::State;
use pinfold_model::{ClusterId, Plan, PlanCode, PlanCodeError};
use pinfold_service::{PlanSource, PlanView};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::{DoneReply, PathText, present, size};
use crate::AppState;
use crate::middleware::auth::RequireAdmin;
use crate::v3::account::plans::PlanBody;
use crate::v3::extract::MaybeJson;
use crate::v3::openapi::{Conflict, Guarded, Missing, WithBody};
use crate::v3::reject::Reject;

/// Highest accepted price.
const PRICE_MAX: f64 = 10_000_000.0;

/// OpenAPI description of a plan code in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "the document reads its fields")]
pub(super) struct CodeParam {
    /// Plan code: `a-z`, `0-9`, `-` and `_`.
    #[param(example = "team")]
    code: String,
}

/// A plan's code.
pub(super) struct Code(PlanCode);

impl std::str::FromStr for Code {
    type Err = PlanCodeError;

    fn from_str(text: &str) -> Result<Self, PlanCodeError> {
        PlanCode::parse(text).map(Self)
    }
}

/// All plans.
#[derive(Serialize, ToSchema)]
pub(super) struct AdminPlansReply {
    plans: Vec<AdminPlanBody>,
}

/// A plan, for administrators.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminPlan)]
pub(super) struct AdminPlanBody {
    #[serde(flatten)]
    plan: PlanBody,
    /// Whether the plan limits the size of a file.
    has_file_limit: bool,
    has_directory_limit: bool,
    /// Whether the plan allows every cluster, including future ones.
    allows_all_clusters: bool,
    /// `configured`; `saved`; or `overridden`: saved, and also configured.
    source: &'static str,
    /// Number of accounts with the plan.
    accounts: u64,
}

/// A plan to save. Absent fields keep their value, or are those of `free` for a new plan.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PlanSaveBody {
    /// Display name. Default for a new plan: its code.
    name: Option<String>,
    descriptions: Option<Vec<String>>,
    /// Storage quota of an account, in bytes. Required for a new plan.
    #[schema(maximum = 9007199254740991_u64)]
    storage_limit: Option<u64>,
    /// Largest uploaded file, in bytes; `null` for no limit besides the storage quota.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 9007199254740991_u64)]
    max_file_size_bytes: Option<Value>,
    /// Largest uploaded directory (sum of its files), in bytes; `null` for no limit besides the storage quota.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 9007199254740991_u64)]
    max_directory_size_bytes: Option<Value>,
    timelock_allowed: Option<bool>,
    retention_lock_allowed: Option<bool>,
    /// Allowed clusters; `null` for all.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Vec<String>>)]
    allowed_cluster_ids: Option<Value>,
    /// Price to display.
    price_per_month: Option<f64>,
    /// Whether accounts may change to this plan themselves.
    self_service: Option<bool>,
    /// Pins that can be in progress at the same time.
    #[schema(value_type = Option<u64>, maximum = 4294967295_u64)]
    max_pins_in_flight: Option<u32>,
    /// Requests per minute of one API key.
    #[schema(value_type = Option<u64>, maximum = 4294967295_u64)]
    requests_per_minute: Option<u32>,
    /// Requests per second of one API key.
    #[schema(value_type = Option<u64>, maximum = 4294967295_u64)]
    requests_per_second: Option<u32>,
}

/// List plans
///
/// Includes configured and saved plans.
#[utoipa::path(get, path = "/admin/plans", operation_id = "adminListPlans", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    responses((status = 200, description = "All plans.", body = AdminPlansReply, example = json!(AdminPlansReply::example())), Guarded))]
pub(super) async fn list(
    _operator: RequireAdmin,
    State(app): State<AppState>,
) -> Result<Json<AdminPlansReply>, Reject> {
    let ids = app.service().clusters.ids();
    let plans = app.service().admin.plans().await?;
    Ok(Json(AdminPlansReply { plans: plans.iter().map(|view| AdminPlanBody::new(view, &ids)).collect() }))
}

/// Save a plan
///
/// Creates a plan or overrides the one with this code. It takes effect immediately for all accounts with the plan.
#[utoipa::path(put, path = "/admin/plans/{code}", operation_id = "adminSavePlan", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    params(CodeParam),
    request_body(content = Option<PlanSaveBody>, example = json!({"name": "Team", "storageLimit": 1_099_511_627_776_u64, "timelockAllowed": true, "pricePerMonth": 9.5})),
    responses((status = 200, description = "The saved plan.", body = AdminPlanBody, example = json!(AdminPlanBody::example())), Guarded, WithBody))]
pub(super) async fn save(
    operator: RequireAdmin,
    State(app): State<AppState>,
    PathText(Code(code)): PathText<Code>,
    MaybeJson(body): MaybeJson<PlanSaveBody>,
) -> Result<Json<AdminPlanBody>, Reject> {
    let plans = app.service().subscriptions.plans();
    let now = plans.iter().find(|plan| plan.code == code).map(AsRef::as_ref);
    let plan = body.over(now, code)?;
    let view = app.service().admin.save_plan(operator.actor(), plan).await?;
    Ok(Json(AdminPlanBody::new(&view, &app.service().clusters.ids())))
}

/// Delete a saved plan
///
/// The configured plan with the same code takes effect again. If there is none, a plan that accounts have is not deleted (409
/// `plan_in_use`).
#[utoipa::path(delete, path = "/admin/plans/{code}", operation_id = "adminDeletePlan", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    params(CodeParam),
    responses((status = 200, description = "The plan is deleted.", body = DoneReply, example = json!({"message": "The plan is deleted"})), Missing, Guarded, Conflict))]
pub(super) async fn delete(
    operator: RequireAdmin,
    State(app): State<AppState>,
    PathText(Code(code)): PathText<Code>,
) -> Result<Json<DoneReply>, Reject> {
    app.service().admin.delete_plan(operator.actor(), &code).await?;
    Ok(Json(DoneReply { message: "The plan is deleted" }))
}

impl PlanSaveBody {
    /// Applies the given fields to the present plan, or to a new one.
    fn over(self, now: Option<&Plan>, code: PlanCode) -> Result<Plan, Reject> {
        let mut plan = match now {
            Some(plan) => plan.clone(),
            None if self.storage_limit.is_none() => {
                return Err(Reject::invalid("`storageLimit`: a new plan needs it"));
            }
            None => {
                let (name, descriptions) = (code.to_string(), Vec::new());
                Plan { name, code, descriptions, self_service: false, ..Plan::free() }
            }
        };
        let limits = &mut plan.limits;
        replace(self.storage_limit, &mut limits.storage_bytes);
        replace(size("maxFileSizeBytes", self.max_file_size_bytes.as_ref())?, &mut limits.file_bytes_max);
        let directory = size("maxDirectorySizeBytes", self.max_directory_size_bytes.as_ref())?;
        replace(directory, &mut limits.directory_bytes_max);
        replace(self.timelock_allowed, &mut limits.timelock);
        replace(self.retention_lock_allowed, &mut limits.retention_lock);
        replace(clusters(self.allowed_cluster_ids.as_ref())?, &mut limits.clusters);
        replace(self.max_pins_in_flight, &mut limits.in_flight_pins_max);
        replace(self.requests_per_minute, &mut limits.requests_per_minute);
        replace(self.requests_per_second, &mut limits.requests_per_second);
        replace(self.name, &mut plan.name);
        replace(self.descriptions, &mut plan.descriptions);
        replace(self.price_per_month.map(cents).transpose()?, &mut plan.price_cents);
        replace(self.self_service, &mut plan.self_service);
        Ok(plan)
    }
}

fn replace<T>(given: Option<T>, slot: &mut T) {
    if let Some(given) = given {
        *slot = given;
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is checked to fit")]
fn cents(price: f64) -> Result<u64, Reject> {
    if (0.0..=PRICE_MAX).contains(&price) {
        Ok((price * 100.0).round() as u64)
    } else {
        Err(Reject::invalid(format!("`pricePerMonth`: a number from 0 to {PRICE_MAX} is needed")))
    }
}

fn clusters(value: Option<&Value>) -> Result<Option<Option<Vec<ClusterId>>>, Reject> {
    let wrong = || Reject::invalid("`allowedClusterIds`: a list of clusters is needed, or null for all");
    match value {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(Value::Array(ids)) => {
            let ids = ids.iter().map(|id| ClusterId::parse(id.as_str()?).ok());
            Ok(Some(Some(ids.collect::<Option<Vec<_>>>().ok_or_else(wrong)?)))
        }
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => Err(wrong()),
    }
}

impl AdminPlansReply {
    fn example() -> Self {
        Self { plans: vec![AdminPlanBody::example()] }
    }
}

impl AdminPlanBody {
    fn new(view: &PlanView, clusters: &[ClusterId]) -> Self {
        let limits = &view.plan.limits;
        Self {
            plan: PlanBody::new(&view.plan, clusters),
            has_file_limit: limits.file_bytes_max.is_some(),
            has_directory_limit: limits.directory_bytes_max.is_some(),
            allows_all_clusters: limits.clusters.is_none(),
            source: match view.source {
                PlanSource::Configured => "configured",
                PlanSource::Saved => "saved",
                PlanSource::Overridden => "overridden",
            },
            accounts: view.accounts,
        }
    }

    fn example() -> Self {
        Self {
            plan: PlanBody::example(),
            has_file_limit: false,
            has_directory_limit: false,
            allows_all_clusters: true,
            source: "configured",
            accounts: 12,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> PlanSaveBody {
        serde_json::from_str(text).expect("a body")
    }

    #[test]
    fn absent_field_is_kept_and_null_is_applied() {
        let now = Plan {
            limits: pinfold_model::PlanLimits { file_bytes_max: Some(7), ..Plan::free().limits },
            ..Plan::free()
        };
        let plan = body(r#"{"pricePerMonth": 9.99}"#).over(Some(&now), now.code.clone()).expect("a plan");
        assert_eq!((plan.limits.file_bytes_max, plan.price_cents), (Some(7), 999));
        let plan = body(r#"{"maxFileSizeBytes": null, "allowedClusterIds": ["cl0-global"]}"#);
        let plan = plan.over(Some(&now), now.code.clone()).expect("a plan");
        assert_eq!((plan.limits.file_bytes_max, plan.limits.clusters.map(|ids| ids.len())), (None, Some(1)));
    }

    #[test]
    fn invalid_fields_are_named() {
        for (text, field) in [
            ("{}", "storageLimit"),
            (r#"{"storageLimit": 1, "maxFileSizeBytes": "many"}"#, "maxFileSizeBytes"),
            (r#"{"storageLimit": 1, "maxDirectorySizeBytes": -1}"#, "maxDirectorySizeBytes"),
            (r#"{"storageLimit": 1, "allowedClusterIds": ["no such!"]}"#, "allowedClusterIds"),
            (r#"{"storageLimit": 1, "allowedClusterIds": "cl0-global"}"#, "allowedClusterIds"),
            (r#"{"storageLimit": 1, "pricePerMonth": -1}"#, "pricePerMonth"),
            (r#"{"storageLimit": 1, "pricePerMonth": 1e300}"#, "pricePerMonth"),
        ] {
            let reject = body(text).over(None, PlanCode::new("team")).expect_err(text);
            assert!(format!("{reject:?}").contains(field), "{text}");
        }
    }
}
