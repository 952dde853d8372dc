//! `GET /users/me/logs`: the account's audit log, page by page.

use axum::Json;
use axum::extract::State;
use pinfold_model::{AuditCursor, AuditEntry, AuditStatus, Source, parse_cid};
use pinfold_service::{Caller, LogPage, LogQuery};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::AppState;
use crate::middleware::auth::{LogsRead, RequireScope};
use crate::v3::extract::{EXAMPLE_CID, QueryOf};
use crate::v3::openapi::Guarded;
use crate::v3::options::filled;
use crate::v3::query::{Pagination, number, time};
use crate::v3::reject::Reject;

/// Largest page.
const LIMIT_MAX: u32 = 100;

/// The filters as received. An empty value counts as absent.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogsQuery {
    /// Page number, from 1.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 4294967295_u64, example = 1)]
    page: Option<String>,
    /// Page size, up to 100.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 4294967295_u64, example = 20)]
    limit: Option<String>,
    /// `nextCursor` of the previous page.
    cursor: Option<String>,
    /// Action, such as `pin.create`.
    #[param(example = "pin.create")]
    action: Option<String>,
    /// Earliest time (inclusive).
    #[param(example = "2026-01-01T00:00:00Z")]
    from: Option<String>,
    /// Latest time (exclusive).
    #[param(example = "2026-02-01")]
    to: Option<String>,
}

/// List your audit events
///
/// The audit log of the account: events that it caused or that concern it, newest first. With `cursor`, every page takes the same
/// time to load. `page` reaches the newest 10,000 matching events, and `total` counts at most 10,000.
#[utoipa::path(get, path = "/users/me/logs", operation_id = "listAuditEvents", tag = "users", security(("key" = ["logs:read"]), ("session" = [])),
    params(LogsQuery),
    responses((status = 200, description = "A page of the log.", body = LogsReply, example = json!(LogsReply::example())), Guarded))]
pub(crate) async fn list(
    State(app): State<AppState>,
    caller: RequireScope<LogsRead>,
    QueryOf(query): QueryOf<LogsQuery>,
) -> Result<Json<LogsReply>, Reject> {
    let query = query.parse()?;
    let (page, limit) = (query.page, query.limit);
    let log = app.service().audit_log.list(&caller, query).await?;
    Ok(Json(LogsReply::new(&log, &caller, page, limit)))
}

impl LogsQuery {
    fn parse(&self) -> Result<LogQuery, Reject> {
        let cursor = filled(self.cursor.as_deref()).map(str::parse::<AuditCursor>).transpose();
        Ok(LogQuery {
            page: number("page", self.page.as_deref(), 1)?,
            limit: number("limit", self.limit.as_deref(), 20)?.min(LIMIT_MAX),
            cursor: cursor.map_err(|error| Reject::invalid(format!("`cursor`: {error}")))?,
            action: filled(self.action.as_deref()).map(str::to_owned),
            from: time("from", self.from.as_deref())?,
            to: time("to", self.to.as_deref())?,
        })
    }
}

/// A page of the audit log.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LogsReply {
    logs: Vec<LogItem>,
    /// Number of matching events, counted up to 10,000.
    total: u64,
    /// `false` if there can be more than `total`.
    total_is_exact: bool,
    pagination: Pagination,
    next_cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LogItem {
    id: String,
    action: String,
    /// Object of the action.
    subject: String,
    /// `subject`, if it is a CID.
    cid: Option<String>,
    /// `API`, `WEB`, `OPERATOR` or `SYSTEM`.
    source: &'static str,
    /// `you`, `admin`, `operator`, `system`, or `unknown` for a caller without a valid credential.
    actor: &'static str,
    ip: Option<String>,
    /// `success` or `failure`.
    status: &'static str,
    /// Details, depending on the action.
    #[schema(value_type = Object)]
    details: Value,
    created_at: String,
}

impl LogsReply {
    fn new(log: &LogPage, caller: &Caller, page: u32, limit: u32) -> Self {
        Self {
            logs: log.entries.iter().map(|entry| LogItem::new(entry, caller)).collect(),
            total: log.total,
            total_is_exact: !log.has_uncounted,
            pagination: Pagination::new(page, limit, Some(log.total)),
            next_cursor: log.next_cursor.map(|cursor| cursor.to_string()),
        }
    }

    fn example() -> Self {
        let item = LogItem {
            id: "34407e29d027c000".to_owned(),
            action: "pin.create".to_owned(),
            subject: EXAMPLE_CID.to_owned(),
            cid: Some(EXAMPLE_CID.to_owned()),
            source: Source::Api.as_str(),
            actor: "you",
            ip: Some("192.0.2.7".to_owned()),
            status: AuditStatus::Done.as_str(),
            details: serde_json::json!({"cluster": "cl0-global", "name": "hello.txt"}),
            created_at: "2026-01-01T00:00:00.000Z".to_owned(),
        };
        let pagination = Pagination::new(1, 20, Some(1));
        Self { logs: vec![item], total: 1, total_is_exact: true, pagination, next_cursor: None }
    }
}

impl LogItem {
    fn new(entry: &AuditEntry, caller: &Caller) -> Self {
        let details = entry.details.as_deref().and_then(|text| serde_json::from_str(text).ok());
        Self {
            id: entry.id.to_string(),
            action: entry.action.clone(),
            subject: entry.subject.clone(),
            cid: parse_cid(&entry.subject).is_ok().then(|| entry.subject.clone()),
            source: entry.by.source.as_str(),
            actor: actor(entry, caller),
            ip: entry.by.address.filter(|_| is_own(entry, caller)).map(|address| address.to_string()),
            status: entry.status.as_str(),
            details: details.unwrap_or_else(|| Value::Object(serde_json::Map::new())),
            created_at: entry.at.to_string(),
        }
    }
}

/// Whether the account or an unknown caller caused the event. IP addresses of administrators are not shown.
fn is_own(entry: &AuditEntry, caller: &Caller) -> bool {
    entry.by.actor.is_none_or(|actor| actor == caller.account.id)
}

/// The kind of actor. The account does not learn which administrator it was.
fn actor(entry: &AuditEntry, caller: &Caller) -> &'static str {
    match (entry.by.actor, entry.by.source) {
        (Some(actor), _) if actor == caller.account.id => "you",
        (Some(_), _) => "admin",
        (None, Source::System) => "system",
        (None, Source::Operator) => "operator",
        // The request had no credential, such as a refused login.
        (None, Source::Api | Source::Web) => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(pairs: &[(&str, &str)]) -> Result<LogQuery, String> {
        let object = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        let query: LogsQuery = serde_json::from_value(Value::Object(object)).expect("texts");
        query.parse().map_err(|reject| format!("{reject:?}"))
    }

    #[test]
    fn empty_filters_count_as_absent() {
        let all =
            query(&[("page", ""), ("limit", " "), ("action", ""), ("from", ""), ("to", ""), ("cursor", "")]);
        assert_eq!(all, Ok(LogQuery::default()));
    }

    #[test]
    fn invalid_fields_are_named() {
        for (field, value) in
            [("page", "0"), ("limit", "x"), ("cursor", "x"), ("from", "yesterday"), ("to", "2026-13-01")]
        {
            let fault = query(&[(field, value)]).expect_err(field);
            assert!(fault.contains("400") && fault.contains(&format!("`{field}`")), "{fault}");
        }
    }
}
