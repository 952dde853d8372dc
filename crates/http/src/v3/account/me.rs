//! The account of the caller: profile, password and preferences.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use pinfold_model::{Preference, Role};
use pinfold_service::{Caller, Password};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::AppState;
use crate::middleware::auth::{RequireScope, RequireSession, UserRead, UserWrite};
use crate::middleware::rate_limit::count_login;
use crate::v3::account::auth::{DoneReply, needed};
use crate::v3::extract::MaybeJson;
use crate::v3::openapi::{Guarded, Storage, WithBody};
use crate::v3::options::filled;
use crate::v3::reject::{Reject, RejectBody};
use crate::v3::service::info::ClusterBody;

/// The deepest nesting of a preference.
const PREFERENCE_DEPTH_MAX: usize = 8;

/// The account of the caller.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = User)]
pub(crate) struct UserBody {
    id: String,
    /// Same as `id`.
    #[serde(rename = "_id")]
    id_again: String,
    name: String,
    /// Same as `name`.
    username: String,
    email: String,
    role: &'static str,
    /// Name of the plan.
    plan: String,
    /// Same as `plan`.
    plan_name: String,
    /// Code of the plan, as `PUT /plans/change` takes it.
    plan_id: String,
    /// Clusters that the plan allows.
    clusters: Vec<ClusterBody>,
    /// Bytes charged for all pins.
    used_storage: u64,
    /// Storage quota in bytes.
    storage_limit: u64,
    /// Number of pins, including failed ones.
    uploads_count: u64,
    two_factor_enabled: bool,
    created_at: String,
}

impl UserBody {
    pub(crate) fn new(app: &AppState, caller: &Caller) -> Self {
        let account = &caller.account;
        Self {
            id: account.id.to_string(),
            id_again: account.id.to_string(),
            name: account.name.clone(),
            username: account.name.clone(),
            email: account.email.to_string(),
            role: account.role.as_str(),
            plan: caller.plan.name.clone(),
            plan_name: caller.plan.name.clone(),
            plan_id: caller.plan.code.to_string(),
            clusters: app.service().clusters.list(caller).iter().map(ClusterBody::new).collect(),
            used_storage: account.used_bytes,
            storage_limit: account.storage_limit_bytes,
            uploads_count: account.pins,
            two_factor_enabled: account.two_factor,
            created_at: account.created_at.to_string(),
        }
    }

    pub(crate) fn example() -> Self {
        Self {
            id: "34407e29d0278000".to_owned(),
            id_again: "34407e29d0278000".to_owned(),
            name: "Ada".to_owned(),
            username: "Ada".to_owned(),
            email: "ada@example.org".to_owned(),
            role: Role::User.as_str(),
            plan: "Free".to_owned(),
            plan_name: "Free".to_owned(),
            plan_id: "free".to_owned(),
            clusters: vec![ClusterBody::example()],
            used_storage: 4_194_304,
            storage_limit: 1 << 30,
            uploads_count: 1,
            two_factor_enabled: false,
            created_at: "2026-01-01T00:00:00.000Z".to_owned(),
        }
    }
}

/// Get your account
#[utoipa::path(get, path = "/users/me", operation_id = "getAccount", tag = "users", security(("key" = ["user:read"]), ("session" = [])),
    responses((status = 200, description = "The account.", body = UserBody, example = json!(UserBody::example())), Guarded))]
pub(crate) async fn show(State(app): State<AppState>, caller: RequireScope<UserRead>) -> Json<UserBody> {
    Json(UserBody::new(&app, &caller))
}

/// Fields to change. Absent fields keep their value; unknown fields are ignored.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct ProfileBody {
    /// Display name.
    name: Option<String>,
    /// Same as `name`.
    username: Option<String>,
    /// Must be the present address, which cannot be changed.
    email: Option<String>,
}

/// Update your account
///
/// Changes the display name. The email address cannot be changed.
#[utoipa::path(put, path = "/users/me", operation_id = "updateAccount", tag = "users", security(("key" = ["user:write"]), ("session" = [])),
    request_body(content = Option<ProfileBody>, example = json!({"name": "Ada Lovelace"})),
    responses((status = 200, description = "The updated account.", body = UserBody, example = json!(UserBody::example())), Guarded, WithBody, Storage))]
pub(crate) async fn change(
    State(app): State<AppState>,
    caller: RequireScope<UserWrite>,
    MaybeJson(body): MaybeJson<ProfileBody>,
) -> Result<Json<UserBody>, Reject> {
    let Some(name) = body.parse(&caller)? else { return Ok(Json(UserBody::new(&app, &caller))) };
    let account = app.service().accounts.rename(&caller, name).await?;
    Ok(Json(UserBody::new(&app, &Caller { account, ..(*caller).clone() })))
}

impl ProfileBody {
    /// The new name, if there is one.
    fn parse(self, caller: &Caller) -> Result<Option<String>, Reject> {
        let same = |email: &str| email.trim().to_lowercase() == caller.account.email.as_str();
        if filled(self.email.as_deref()).is_some_and(|email| !same(email)) {
            return Err(Reject::invalid("`email`: the address of an account can't be changed"));
        }
        Ok(self.name.or(self.username).map(|name| name.trim().to_owned()))
    }
}

/// The old and the new password.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PasswordBody {
    /// The present password.
    current_password: Option<String>,
    /// The new password: 8 to 1,024 bytes.
    new_password: Option<String>,
}

/// Change your password
///
/// Ends all other sessions of the account. API keys stay valid.
#[utoipa::path(put, path = "/users/me/password", operation_id = "changePassword", tag = "users", security(("session" = [])),
    request_body(content = PasswordBody, example = json!({"currentPassword": "correct horse battery staple", "newPassword": "purple monkey dishwasher"})),
    responses(Guarded, WithBody, Storage,
        (status = 200, description = "The password is changed.", body = DoneReply, example = json!(DoneReply::new("The password is changed"))),
        (status = 403, description = "The present password is wrong, or the credential is not a session.", body = RejectBody, example = json!({"error": "Forbidden", "message": "The password is wrong", "code": "wrong_password"}))))]
pub(crate) async fn change_password(
    State(app): State<AppState>,
    caller: RequireSession,
    MaybeJson(body): MaybeJson<PasswordBody>,
) -> Result<DoneReply, Reject> {
    let current = needed("currentPassword", body.current_password)?;
    let new = Password::parse(needed("newPassword", body.new_password)?);
    let new = new.map_err(|error| Reject::invalid(format!("`newPassword`: {error}")))?;
    count_login(app.context(), caller.account.email.as_str())?;
    app.service().accounts.change_password(&caller, current, new).await?;
    Ok(DoneReply::new("The password is changed"))
}

/// Preferences by name.
type Preferences = BTreeMap<String, Value>;

/// Get your preferences
///
/// Returns the values that clients have stored, such as `language` and `country`.
#[utoipa::path(get, path = "/users/me/preferences", operation_id = "getPreferences", tag = "users", security(("key" = ["user:read"]), ("session" = [])),
    responses((status = 200, description = "All preferences.", body = BTreeMap<String, Value>, example = json!({"language": "en", "country": "DE"})), Guarded))]
pub(crate) async fn preferences(
    State(app): State<AppState>,
    caller: RequireScope<UserRead>,
) -> Result<Json<Preferences>, Reject> {
    let all = app.service().accounts.preferences(&caller).await?;
    Ok(Json(shown(all)))
}

/// Update your preferences
///
/// Sets each given name to its value, or removes it if the value is `null`. Other names keep their values. All preferences
/// together have at most 16 KiB.
#[utoipa::path(put, path = "/users/me/preferences", operation_id = "updatePreferences", tag = "users", security(("key" = ["user:write"]), ("session" = [])),
    request_body(content = Option<BTreeMap<String, Value>>, example = json!({"language": "en", "country": null})),
    responses((status = 200, description = "All preferences after the update.", body = BTreeMap<String, Value>, example = json!({"language": "en"})), Guarded, WithBody, Storage))]
pub(crate) async fn set_preferences(
    State(app): State<AppState>,
    caller: RequireScope<UserWrite>,
    MaybeJson(changes): MaybeJson<Preferences>,
) -> Result<Json<Preferences>, Reject> {
    let changes = changes.into_iter().map(|(name, value)| {
        if depth(&value) > PREFERENCE_DEPTH_MAX {
            return Err(Reject::invalid(format!(
                "A preference is nested at most {PREFERENCE_DEPTH_MAX} deep"
            )));
        }
        Ok((name, (!value.is_null()).then(|| value.to_string())))
    });
    let all = app.service().accounts.set_preferences(&caller, changes.collect::<Result<_, _>>()?).await?;
    Ok(Json(shown(all)))
}

fn shown(all: Vec<Preference>) -> Preferences {
    // The stored text was serialized from a value.
    all.into_iter().map(|one| (one.name, serde_json::from_str(&one.value).unwrap_or_default())).collect()
}

/// How deep a value is nested. The body's own bound bounds the recursion.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}
