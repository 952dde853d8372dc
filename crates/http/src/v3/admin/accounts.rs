//! `/admin/accounts`: accounts and their keys.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use pinfold_model::{Account, AccountId, Email, PlanCode, Role, TokenId};
use pinfold_service::{AccountEdit, AccountPage, AccountQuery, AccountView, Leaving, NewAccount, Password};
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

/// The filters as they came; an empty one counts as left out.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AccountsQuery {
    /// Only accounts with this text in the address or the name.
    #[param(example = "ada")]
    search: Option<String>,
    /// Only accounts with this plan.
    #[param(example = "free")]
    plan: Option<String>,
    /// Only accounts with this role: `user` or `admin`.
    #[param(example = "user")]
    role: Option<String>,
    /// Only accounts that are disabled, or (`false`) are not.
    #[param(value_type = Option<bool>, example = false)]
    disabled: Option<String>,
    /// Accounts on a page, up to 100.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 4294967295_u64, example = 50)]
    limit: Option<String>,
    /// Where to go on: `nextCursor` of the answer before.
    cursor: Option<String>,
}

/// A page of accounts.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AccountsReply {
    accounts: Vec<AccountBody>,
    next_cursor: Option<String>,
}

/// An account, as an operator sees it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Account)]
pub(super) struct AccountBody {
    id: String,
    email: String,
    name: String,
    role: &'static str,
    /// The code of its plan.
    plan: String,
    disabled: bool,
    two_factor_enabled: bool,
    /// The bytes that its pins are charged with.
    used_storage: u64,
    /// The same when blocks that its pins share count once.
    distinct_storage: u64,
    storage_limit: u64,
    /// Its own storage, whatever its plan says.
    storage_override: Option<u64>,
    pins: u64,
    created_at: String,
    /// Since when it is on its way out.
    removing_since: Option<String>,
}

/// A new account.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewAccountBody {
    email: Option<String>,
    /// What it calls itself; the part of the address before the `@` if left out.
    name: Option<String>,
    /// Its password; without one it can't log in, but have keys.
    password: Option<String>,
    /// The code of its plan; `free` if left out.
    plan: Option<String>,
    /// `user` or `admin`.
    role: Option<String>,
}

/// What shall be different. What is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AccountChangeBody {
    name: Option<String>,
    /// The code of its plan. Pins stay, also when they don't fit.
    plan: Option<String>,
    /// `user` or `admin`.
    role: Option<String>,
    disabled: Option<bool>,
    /// A storage of its own, in bytes; `null` for that of its plan.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u64>, maximum = 9007199254740991_u64)]
    storage_override: Option<Value>,
}

/// A password.
#[derive(Default, Deserialize, ToSchema)]
pub(super) struct NewPasswordBody {
    password: Option<String>,
}

/// Sessions that ended.
#[derive(Serialize, ToSchema)]
pub(super) struct SessionsReply {
    message: &'static str,
    /// How many there were.
    ended: u64,
}

/// How to remove an account.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct RemoveQuery {
    /// Whether its pins go with it, also those that are locked.
    #[param(value_type = Option<bool>, example = true)]
    force: Option<String>,
}

/// How an account goes.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LeavingReply {
    message: &'static str,
    removed: bool,
    /// The pins that go first.
    pins: u64,
}

/// List accounts
///
/// Newest first. A page looks at a bounded number of accounts: it can have fewer than asked for and still name a
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

/// Make an account
#[utoipa::path(post, path = "/admin/accounts", operation_id = "adminCreateAccount", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    request_body(content = NewAccountBody, example = json!({"email": "ada@example.org", "name": "Ada", "password": "correct horse battery", "plan": "free"})),
    responses((status = 201, description = "The account.", body = AccountBody, example = json!(AccountBody::example())), Guarded, WithBody, Conflict))]
pub(super) async fn create(
    operator: RequireAdmin,
    State(app): State<AppState>,
    MaybeJson(body): MaybeJson<NewAccountBody>,
) -> Result<(StatusCode, Json<AccountBody>), Reject> {
    let account = app.service().accounts.create_by(operator.by(), body.parse()?).await?;
    Ok((StatusCode::CREATED, Json(AccountBody::of(&account))))
}

/// See an account
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

/// Change an account
///
/// All or nothing. The last account with the role admin that is not disabled stays so (409 `last_admin`).
#[utoipa::path(patch, path = "/admin/accounts/{account_id}", operation_id = "adminUpdateAccount", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    params(AccountParam),
    request_body(content = Option<AccountChangeBody>, example = json!({"plan": "premium", "disabled": false})),
    responses((status = 200, description = "The account as it is now.", body = AccountBody, example = json!(AccountBody::example())), Missing, Guarded, WithBody, Conflict))]
pub(super) async fn change(
    operator: RequireAdmin,
    State(app): State<AppState>,
    PathText(id): PathText<AccountId>,
    MaybeJson(body): MaybeJson<AccountChangeBody>,
) -> Result<Json<AccountBody>, Reject> {
    app.service().admin.change_account(operator.by(), id, body.parse()?).await?;
    Ok(Json(AccountBody::new(&app.service().admin.account(id).await?)))
}

/// Remove an account
///
/// With its keys and its sessions. One that has pins goes only with `force=true` (409 `account_has_pins` else): it is
/// disabled at once, its pins end in the background, over restarts, and then it is gone. Its audit log stays.
#[utoipa::path(delete, path = "/admin/accounts/{account_id}", operation_id = "adminRemoveAccount", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    params(AccountParam, RemoveQuery),
    responses((status = 200, description = "It is gone.", body = LeavingReply, example = json!(LeavingReply::of(Leaving::Gone))),
        (status = 202, description = "It goes when its pins are removed.", body = LeavingReply, example = json!(LeavingReply::of(Leaving::Begun { pins: 7 }))),
        Missing, Guarded, Conflict))]
pub(super) async fn remove(
    operator: RequireAdmin,
    State(app): State<AppState>,
    PathText(id): PathText<AccountId>,
    QueryOf(query): QueryOf<RemoveQuery>,
) -> Result<LeavingReply, Reject> {
    let force = flag("force", query.force.as_deref())?.unwrap_or(false);
    Ok(LeavingReply::of(app.service().admin.remove_account(operator.by(), id, force).await?))
}

/// Give an account another password
///
/// All its sessions end; its API keys go on.
#[utoipa::path(put, path = "/admin/accounts/{account_id}/password", operation_id = "adminSetAccountPassword", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    params(AccountParam),
    request_body(content = NewPasswordBody, example = json!({"password": "correct horse battery"})),
    responses((status = 200, description = "It counts at once.", body = DoneReply, example = json!({"message": "The password is changed, and all sessions have ended"})), Missing, Guarded, WithBody))]
pub(super) async fn password(
    operator: RequireAdmin,
    State(app): State<AppState>,
    PathText(id): PathText<AccountId>,
    MaybeJson(body): MaybeJson<NewPasswordBody>,
) -> Result<Json<DoneReply>, Reject> {
    let password = body.password.ok_or_else(|| Reject::invalid("`password`: give a new one"))?;
    let password = parse_password(password)?;
    app.service().admin.reset_password(operator.by(), id, password).await?;
    Ok(Json(DoneReply { message: "The password is changed, and all sessions have ended" }))
}

/// Remove an account's second factor
///
/// For an owner who has lost it.
#[utoipa::path(delete, path = "/admin/accounts/{account_id}/2fa", operation_id = "adminRemoveAccountTwoFactor", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    params(AccountParam),
    responses((status = 200, description = "Logging in needs none any more.", body = DoneReply, example = json!({"message": "The second factor is removed"})), Missing, Conflict, Guarded))]
pub(super) async fn second_factor(
    operator: RequireAdmin,
    State(app): State<AppState>,
    PathText(id): PathText<AccountId>,
) -> Result<Json<DoneReply>, Reject> {
    app.service().admin.remove_second_factor(operator.by(), id).await?;
    Ok(Json(DoneReply { message: "The second factor is removed" }))
}

/// End all sessions of an account
///
/// Its API keys go on.
#[utoipa::path(delete, path = "/admin/accounts/{account_id}/sessions", operation_id = "adminEndAccountSessions", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    params(AccountParam),
    responses((status = 200, description = "They prove nothing any more.", body = SessionsReply, example = json!(SessionsReply::of(2))), Missing, Guarded))]
pub(super) async fn sessions(
    operator: RequireAdmin,
    State(app): State<AppState>,
    PathText(id): PathText<AccountId>,
) -> Result<Json<SessionsReply>, Reject> {
    Ok(Json(SessionsReply::of(app.service().admin.end_sessions(operator.by(), id).await?)))
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
    responses((status = 200, description = "It proves nothing any more.", body = DoneReply, example = json!({"message": "The API key is revoked"})), Missing, Guarded))]
pub(super) async fn revoke_token(
    operator: RequireAdmin,
    State(app): State<AppState>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<DoneReply>, Reject> {
    let Path((account, token)) = path.map_err(|_| Reject::invalid(UNREADABLE_PATH))?;
    let wrong = |error: pinfold_model::IdError| Reject::invalid(error.to_string());
    let (account, token): (AccountId, TokenId) =
        (account.parse().map_err(wrong)?, token.parse().map_err(wrong)?);
    app.service().admin.revoke_token(operator.by(), account, token).await?;
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
            distinct_storage: account.distinct_bytes,
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
    fn of(leaving: Leaving) -> Self {
        match leaving {
            Leaving::Gone => Self { message: "The account is gone", removed: true, pins: 0 },
            Leaving::Begun { pins } => {
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
