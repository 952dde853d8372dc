//! `/admin/accounts`: accounts and their API keys.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use pinfold_model::{Account, AccountId, Email, PlanCode, Role, TokenId};
use pinfold_service::{
    AccountEdit, AccountPage, AccountQuery, AccountView, NewAccount, Password, RemoveAccountOutcome,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::{
    AccountParam, DoneReply, LIMIT_DEFAULT, LIMIT_MAX, PathText, UNREADABLE_PATH, filter, present, size,
};
use crate::AppState;
use crate::middleware::auth::RequireAdmin;
use crate::v3::extract::{MaybeJson, QueryOf};
use crate::v3::openapi::{Conflict, Guarded, Missing, WithBody};
use crate::v3::options::filled;
use crate::v3::query::{flag, number, search};
use crate::v3::reject::Reject;
use crate::v3::tokens::TokensReply;

/// The filters as received. An empty value counts as absent.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AccountsQuery {
    /// Text that the address or the name contains.
    #[param(example = "ada")]
    search: Option<String>,
    /// Plan code.
    #[param(example = "free")]
    plan: Option<String>,
    /// Role: `user` or `admin`.
    #[param(example = "user")]
    role: Option<String>,
    /// `true`: only disabled accounts; `false`: only enabled ones.
    #[param(value_type = Option<bool>, example = false)]
    disabled: Option<String>,
    /// Page size, up to 100.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 4294967295_u64, example = 50)]
    limit: Option<String>,
    /// `nextCursor` of the previous page.
    cursor: Option<String>,
}

/// A page of accounts.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AccountsReply {
    accounts: Vec<AccountBody>,
    next_cursor: Option<String>,
}

/// An account, for administrators.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Account)]
pub(super) struct AccountBody {
    id: String,
    email: String,
    name: String,
    role: &'static str,
    /// Plan code.
    plan: String,
    disabled: bool,
    two_factor_enabled: bool,
    /// Bytes charged for all pins.
    used_storage: u64,
    /// Bytes of distinct blocks: shared blocks count once.
    distinct_storage: u64,
    storage_limit: u64,
    /// Storage quota of this account, in bytes; overrides that of the plan.
    storage_override: Option<u64>,
    pins: u64,
    created_at: String,
    /// When the removal of the account began.
    removing_since: Option<String>,
}

/// A new account.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewAccountBody {
    email: Option<String>,
    /// Display name. Default: the part of the address before the `@`.
    name: Option<String>,
    /// Password. An account without one cannot log in, but can have API keys.
    password: Option<String>,
    /// Plan code. Default: `free`.
    plan: Option<String>,
    /// Role: `user` or `admin`.
    role: Option<String>,
}

/// Fields to change. Absent fields keep their value.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AccountChangeBody {
    name: Option<String>,
    /// Plan code. Existing pins stay even if they exceed the new plan.
    plan: Option<String>,
    /// Role: `user` or `admin`.
    role: Option<String>,
    disabled: Option<bool>,
    /// Storage quota of this account, in bytes; `null` to use that of the plan.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u64>, maximum = 9007199254740991_u64)]
    storage_override: Option<Value>,
}

/// The new password.
#[derive(Default, Deserialize, ToSchema)]
pub(super) struct NewPasswordBody {
    password: Option<String>,
}

/// Ended sessions.
#[derive(Serialize, ToSchema)]
pub(super) struct SessionsReply {
    message: &'static str,
    /// Number of sessions.
    ended: u64,
}

/// Query of the removal of an account.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct RemoveQuery {
    /// Also remove the pins of the account, including locked ones.
    #[param(value_type = Option<bool>, example = true)]
    force: Option<String>,
}

/// Progress of the removal of an account.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LeavingReply {
    message: &'static str,
    removed: bool,
    /// Pins that are removed before the account.
    pins: u64,
}

/// List accounts
///
/// Newest first. A page examines a bounded number of accounts, so it can have fewer entries than `limit` and still have a
/// `nextCursor`.
#[utoipa::path(get, path = "/admin/accounts", operation_id = "adminListAccounts", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    params(AccountsQuery),
    responses((status = 200, description = "A page of accounts.", body = AccountsReply, example = json!(AccountsReply::example())), Guarded))]
pub(super) async fn list(
    _operator: RequireAdmin,
    State(app): State<AppState>,
    QueryOf(query): QueryOf<AccountsQuery>,
) -> Result<Json<AccountsReply>, Reject> {
    let page = app.service().admin.accounts(query.parse()?).await?;
    Ok(Json(AccountsReply::new(&page)))
}

/// Create an account
#[utoipa::path(post, path = "/admin/accounts", operation_id = "adminCreateAccount", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    request_body(content = NewAccountBody, example = json!({"email": "ada@example.org", "name": "Ada", "password": "correct horse battery", "plan": "free"})),
    responses((status = 201, description = "The account.", body = AccountBody, example = json!(AccountBody::example())), Guarded, WithBody, Conflict))]
pub(super) async fn create(
    operator: RequireAdmin,
    State(app): State<AppState>,
    MaybeJson(body): MaybeJson<NewAccountBody>,
) -> Result<(StatusCode, Json<AccountBody>), Reject> {
    let account = app.service().accounts.create_by(operator.actor(), body.parse()?).await?;
    Ok((StatusCode::CREATED, Json(AccountBody::of(&account))))
}

/// Get an account
#[utoipa::path(get, path = "/admin/accounts/{account_id}", operation_id = "adminGetAccount", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    params(AccountParam),
    responses((status = 200, description = "The account.", body = AccountBody, example = json!(AccountBody::example())), Missing, Guarded))]
pub(super) async fn show(
    _operator: RequireAdmin,
    State(app): State<AppState>,
    PathText(id): PathText<AccountId>,
) -> Result<Json<AccountBody>, Reject> {
    Ok(Json(AccountBody::new(&app.service().admin.account(id).await?)))
}

/// Update an account
///
/// Applies all changes or none. The last enabled account with the role `admin` cannot be demoted or disabled (409 `last_admin`).
#[utoipa::path(patch, path = "/admin/accounts/{account_id}", operation_id = "adminUpdateAccount", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    params(AccountParam),
    request_body(content = Option<AccountChangeBody>, example = json!({"plan": "premium", "disabled": false})),
    responses((status = 200, description = "The updated account.", body = AccountBody, example = json!(AccountBody::example())), Missing, Guarded, WithBody, Conflict))]
pub(super) async fn change(
    operator: RequireAdmin,
    State(app): State<AppState>,
    PathText(id): PathText<AccountId>,
    MaybeJson(body): MaybeJson<AccountChangeBody>,
) -> Result<Json<AccountBody>, Reject> {
    app.service().admin.change_account(operator.actor(), id, body.parse()?).await?;
    Ok(Json(AccountBody::new(&app.service().admin.account(id).await?)))
}

/// Remove an account
///
/// Removes the account with its API keys and sessions. An account with pins is removed only with `force=true` (else 409
/// `account_has_pins`): it is disabled immediately, its pins are removed in the background, and then the account. Its audit
/// log stays.
#[utoipa::path(delete, path = "/admin/accounts/{account_id}", operation_id = "adminRemoveAccount", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    params(AccountParam, RemoveQuery),
    responses((status = 200, description = "The account is removed.", body = LeavingReply, example = json!(LeavingReply::of(RemoveAccountOutcome::Removed))),
        (status = 202, description = "The removal has begun; the account's pins are being removed.", body = LeavingReply, example = json!(LeavingReply::of(RemoveAccountOutcome::Begun { pins: 7 }))),
        Missing, Guarded, Conflict))]
pub(super) async fn remove(
    operator: RequireAdmin,
    State(app): State<AppState>,
    PathText(id): PathText<AccountId>,
    QueryOf(query): QueryOf<RemoveQuery>,
) -> Result<LeavingReply, Reject> {
    let force = flag("force", query.force.as_deref())?.unwrap_or(false);
    Ok(LeavingReply::of(app.service().admin.remove_account(operator.actor(), id, force).await?))
}

/// Set the password of an account
///
/// Ends all its sessions. API keys stay valid.
#[utoipa::path(put, path = "/admin/accounts/{account_id}/password", operation_id = "adminSetAccountPassword", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    params(AccountParam),
    request_body(content = NewPasswordBody, example = json!({"password": "correct horse battery"})),
    responses((status = 200, description = "The password is set.", body = DoneReply, example = json!({"message": "The password is changed, and all sessions have ended"})), Missing, Guarded, WithBody))]
pub(super) async fn password(
    operator: RequireAdmin,
    State(app): State<AppState>,
    PathText(id): PathText<AccountId>,
    MaybeJson(body): MaybeJson<NewPasswordBody>,
) -> Result<Json<DoneReply>, Reject> {
    let password = body.password.ok_or_else(|| Reject::invalid("`password`: give a new one"))?;
    let password = parse_password(password)?;
    app.service().admin.reset_password(operator.actor(), id, password).await?;
    Ok(Json(DoneReply { message: "The password is changed, and all sessions have ended" }))
}

/// Disable two-factor authentication of an account
///
/// For an owner who has lost access to the authenticator app.
#[utoipa::path(delete, path = "/admin/accounts/{account_id}/2fa", operation_id = "adminRemoveAccountTwoFactor", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    params(AccountParam),
    responses((status = 200, description = "Two-factor authentication is disabled.", body = DoneReply, example = json!({"message": "The second factor is removed"})), Missing, Conflict, Guarded))]
pub(super) async fn second_factor(
    operator: RequireAdmin,
    State(app): State<AppState>,
    PathText(id): PathText<AccountId>,
) -> Result<Json<DoneReply>, Reject> {
    app.service().admin.remove_second_factor(operator.actor(), id).await?;
    Ok(Json(DoneReply { message: "The second factor is removed" }))
}

/// End all sessions of an account
///
/// API keys stay valid.
#[utoipa::path(delete, path = "/admin/accounts/{account_id}/sessions", operation_id = "adminEndAccountSessions", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    params(AccountParam),
    responses((status = 200, description = "The sessions have ended.", body = SessionsReply, example = json!(SessionsReply::of(2))), Missing, Guarded))]
pub(super) async fn sessions(
    operator: RequireAdmin,
    State(app): State<AppState>,
    PathText(id): PathText<AccountId>,
) -> Result<Json<SessionsReply>, Reject> {
    Ok(Json(SessionsReply::of(app.service().admin.end_sessions(operator.actor(), id).await?)))
}

/// List an account's API keys
///
/// Without their secrets.
#[utoipa::path(get, path = "/admin/accounts/{account_id}/tokens", operation_id = "adminListAccountTokens", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    params(AccountParam),
    responses((status = 200, description = "The keys.", body = TokensReply, example = json!(TokensReply::example())), Missing, Guarded))]
pub(super) async fn tokens(
    _operator: RequireAdmin,
    State(app): State<AppState>,
    PathText(id): PathText<AccountId>,
) -> Result<Json<TokensReply>, Reject> {
    Ok(Json(TokensReply::new(&app.service().admin.tokens(id).await?)))
}

/// Revoke an account's API key
#[utoipa::path(delete, path = "/admin/accounts/{account_id}/tokens/{token_id}", operation_id = "adminRevokeAccountToken", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    params(AccountParam, ("token_id" = String, Path, description = "The key's id.", example = "34407e29d027c001")),
    responses((status = 200, description = "The key is revoked.", body = DoneReply, example = json!({"message": "The API key is revoked"})), Missing, Guarded))]
pub(super) async fn revoke_token(
    operator: RequireAdmin,
    State(app): State<AppState>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<DoneReply>, Reject> {
    let Path((account, token)) = path.map_err(|_| Reject::invalid(UNREADABLE_PATH))?;
    let wrong = |error: pinfold_model::IdError| Reject::invalid(error.to_string());
    let (account, token): (AccountId, TokenId) =
        (account.parse().map_err(wrong)?, token.parse().map_err(wrong)?);
    app.service().admin.revoke_token(operator.actor(), account, token).await?;
    Ok(Json(DoneReply { message: "The API key is revoked" }))
}

impl AccountsQuery {
    fn parse(&self) -> Result<AccountQuery, Reject> {
        Ok(AccountQuery {
            search: search(self.search.as_deref())?,
            plan: filled(self.plan.as_deref()).map(PlanCode::new),
            role: filter::<Role>("role", self.role.as_deref())?,
            disabled: flag("disabled", self.disabled.as_deref())?,
            limit: number("limit", self.limit.as_deref(), LIMIT_DEFAULT)?.min(LIMIT_MAX),
            cursor: filter::<AccountId>("cursor", self.cursor.as_deref())?,
        })
    }
}

impl NewAccountBody {
    fn parse(self) -> Result<NewAccount, Reject> {
        let email =
            filled(self.email.as_deref()).ok_or_else(|| Reject::invalid("`email`: give an address"))?;
        let email = Email::parse(email).map_err(|error| Reject::invalid(format!("`email`: {error}")))?;
        let before_at = || email.as_str().split('@').next().unwrap_or_default().to_owned();
        Ok(NewAccount {
            name: filled(self.name.as_deref()).map_or_else(before_at, str::to_owned),
            plan: PlanCode::new(filled(self.plan.as_deref()).unwrap_or("free")),
            role: filter::<Role>("role", self.role.as_deref())?.unwrap_or(Role::User),
            password: self.password.map(parse_password).transpose()?,
            email,
        })
    }
}

fn parse_password(text: String) -> Result<Password, Reject> {
    Password::parse(text).map_err(|error| Reject::invalid(format!("`password`: {error}")))
}

impl SessionsReply {
    fn of(ended: u64) -> Self {
        Self { message: "All sessions have ended", ended }
    }
}

impl AccountChangeBody {
    fn parse(&self) -> Result<AccountEdit, Reject> {
        Ok(AccountEdit {
            name: self.name.clone(),
            plan: filled(self.plan.as_deref()).map(PlanCode::new),
            role: filter::<Role>("role", self.role.as_deref())?,
            disabled: self.disabled,
            storage_override_bytes: size("storageOverride", self.storage_override.as_ref())?,
        })
    }
}

impl AccountsReply {
    fn new(page: &AccountPage) -> Self {
        Self {
            accounts: page.accounts.iter().map(AccountBody::new).collect(),
            next_cursor: page.next_cursor.map(|cursor| cursor.to_string()),
        }
    }

    fn example() -> Self {
        Self { accounts: vec![AccountBody::example()], next_cursor: None }
    }
}

impl AccountBody {
    fn new(view: &AccountView) -> Self {
        Self {
            storage_override: view.storage_override_bytes,
            removing_since: view.removing_since.map(|at| at.to_string()),
            ..Self::of(&view.account)
        }
    }

    fn of(account: &Account) -> Self {
        Self {
            id: account.id.to_string(),
            email: account.email.to_string(),
            name: account.name.clone(),
            role: account.role.as_str(),
            plan: account.plan.to_string(),
            disabled: account.disabled,
            two_factor_enabled: account.two_factor,
            used_storage: account.used_bytes,
            distinct_storage: account.dedup_bytes,
            storage_limit: account.storage_limit_bytes,
            storage_override: None,
            pins: account.pins,
            created_at: account.created_at.to_string(),
            removing_since: None,
        }
    }

    fn example() -> Self {
        Self {
            id: "34407e29d027c000".to_owned(),
            email: "ada@example.org".to_owned(),
            name: "Ada".to_owned(),
            role: Role::User.as_str(),
            plan: "free".to_owned(),
            disabled: false,
            two_factor_enabled: false,
            used_storage: 4_194_304,
            distinct_storage: 4_194_304,
            storage_limit: 1 << 30,
            storage_override: None,
            pins: 1,
            created_at: "2026-01-01T00:00:00.000Z".to_owned(),
            removing_since: None,
        }
    }
}

impl LeavingReply {
    fn of(leaving: RemoveAccountOutcome) -> Self {
        match leaving {
            RemoveAccountOutcome::Removed => Self { message: "The account is gone", removed: true, pins: 0 },
            RemoveAccountOutcome::Begun { pins } => {
                Self { message: "The account goes when its pins are removed", removed: false, pins }
            }
        }
    }
}

impl IntoResponse for LeavingReply {
    fn into_response(self) -> Response {
        let status = if self.removed { StatusCode::OK } else { StatusCode::ACCEPTED };
        (status, Json(self)).into_response()
    }
}
