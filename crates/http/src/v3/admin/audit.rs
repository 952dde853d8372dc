//! `/admin/audit`: the audit log of all accounts.

use axum::Json;
use axum::extract::State;
use pinfold_model::{AccountId, AuditCursor, AuditEntry, AuditStatus, Source};
use pinfold_service::{LogPage, LogQuery};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::{LIMIT_DEFAULT, LIMIT_MAX, filter};
use crate::AppState;
use crate::middleware::auth::RequireAdmin;
use crate::v3::extract::QueryOf;
use crate::v3::openapi::Guarded;
use crate::v3::options::filled;
use crate::v3::query::{number, time};
use crate::v3::reject::Reject;

/// The filters as received. An empty value counts as absent.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// Account ID: only events in its log.
    #[param(example = "34407e29d027c000")]
    account: Option<String>,
    /// Account ID: only events caused by it.
    #[param(example = "34407e29d027c000")]
    actor: Option<String>,
    /// Action, such as `pin.create`.
    #[param(example = "account.disable")]
    action: Option<String>,
    /// Earliest time (inclusive).
    #[param(example = "2026-01-01T00:00:00Z")]
    from: Option<String>,
    /// Latest time (exclusive).
    #[param(example = "2026-02-01")]
    to: Option<String>,
    /// Page size, up to 100.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 4294967295_u64, example = 50)]
    limit: Option<String>,
    /// `nextCursor` of the previous page.
    cursor: Option<String>,
}

/// A page of the audit log.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuditReply {
    entries: Vec<AuditItem>,
    next_cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AuditItem {
    id: String,
    /// Account whose log has the event; `null` if it concerns no account.
    account_id: Option<String>,
    /// Account that caused the event; `null` for the command line and the service.
    actor_id: Option<String>,
    action: String,
    /// Object of the action.
    subject: String,
    /// `API`, `WEB`, `OPERATOR` or `SYSTEM`.
    source: &'static str,
    ip: Option<String>,
    /// `success` or `failure`.
    status: &'static str,
    /// Details, depending on the action.
    #[schema(value_type = Object)]
    details: Value,
    created_at: String,
}

/// List audit events of all accounts
///
/// Newest first. Events of removed accounts are kept.
#[utoipa::path(get, path = "/admin/audit", operation_id = "adminListAuditEvents", tag = "admin", security(("key" = ["admin"]), ("session" = [])),
    params(AuditQuery),
    responses((status = 200, description = "A page of the log.", body = AuditReply, example = json!(AuditReply::example())), Guarded))]
pub(super) async fn list(
    _operator: RequireAdmin,
    State(app): State<AppState>,
    QueryOf(query): QueryOf<AuditQuery>,
) -> Result<Json<AuditReply>, Reject> {
    let account = filter::<AccountId>("account", query.account.as_deref())?;
    let actor = filter::<AccountId>("actor", query.actor.as_deref())?;
    let page = app.service().audit_log.list_all(account, actor, query.parse()?).await?;
    Ok(Json(AuditReply::new(&page)))
}

impl AuditQuery {
    fn parse(&self) -> Result<LogQuery, Reject> {
        Ok(LogQuery {
            page: 1,
            limit: number("limit", self.limit.as_deref(), LIMIT_DEFAULT)?.min(LIMIT_MAX),
            cursor: filter::<AuditCursor>("cursor", self.cursor.as_deref())?,
            action: filled(self.action.as_deref()).map(str::to_owned),
            from: time("from", self.from.as_deref())?,
            to: time("to", self.to.as_deref())?,
        })
    }
}

impl AuditReply {
    fn new(page: &LogPage) -> Self {
        Self {
            entries: page.entries.iter().map(AuditItem::new).collect(),
            next_cursor: page.next_cursor.map(|cursor| cursor.to_string()),
        }
    }

    fn example() -> Self {
        let item = AuditItem {
            id: "34407e29d027c002".to_owned(),
            account_id: Some("34407e29d027c000".to_owned()),
            actor_id: Some("34407e29d0200000".to_owned()),
            action: "account.disable".to_owned(),
            subject: String::new(),
            source: Source::Api.as_str(),
            ip: Some("192.0.2.7".to_owned()),
            status: AuditStatus::Done.as_str(),
            details: serde_json::json!({}),
            created_at: "2026-01-01T00:00:00.000Z".to_owned(),
        };
        Self { entries: vec![item], next_cursor: None }
    }
}

impl AuditItem {
    fn new(entry: &AuditEntry) -> Self {
        let details = entry.details.as_deref().and_then(|text| serde_json::from_str(text).ok());
        Self {
            id: entry.id.to_string(),
            account_id: entry.account.map(|id| id.to_string()),
            actor_id: entry.by.actor.map(|id| id.to_string()),
            action: entry.action.clone(),
            subject: entry.subject.clone(),
            source: entry.by.source.as_str(),
            ip: entry.by.address.map(|address| address.to_string()),
            status: entry.status.as_str(),
            details: details.unwrap_or_else(|| Value::Object(serde_json::Map::new())),
            created_at: entry.at.to_string(),
        }
    }
}
