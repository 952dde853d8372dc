//! `/webhooks`: where an account is told what happens to its pins.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use pinfold_model::{DeliveryId, Webhook, WebhookEvent, WebhookEvents};
use pinfold_service::{CreatedWebhook, DeliveredPin, Delivery, DeliveryPage, WebhookDraft, WebhookEdit};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::extract::{EXAMPLE_CID, MaybeJson, QueryOf, WebhookParam, WebhookPath};
use super::openapi::{Conflict, Guarded, Missing, WithBody};
use super::options::filled;
use super::reject::Reject;
use crate::AppState;
use crate::middleware::auth::{RequireScope, WebhooksRead, WebhooksWrite};

/// Deliveries on a page that says nothing of it.
const LIMIT_DEFAULT: u32 = 20;

/// What a client says of a webhook.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct WebhookBody {
    /// Where to tell: an `https://` URL of a public host.
    url: Option<String>,
    /// Of what: `pin.pinned`, `pin.failed`, `pin.expired`, `pin.removed`; all of them if left out.
    events: Option<Vec<String>>,
    /// A note, up to 255 bytes.
    description: Option<String>,
    /// Whether to tell at all.
    active: Option<bool>,
}

impl WebhookBody {
    fn draft(self) -> Result<WebhookDraft, Reject> {
        let events = self.events()?.or_else(|| WebhookEvents::new(WebhookEvent::OF_PINS));
        let url = self.url.filter(|url| !url.trim().is_empty());
        Ok(WebhookDraft {
            url: url.ok_or_else(|| Reject::invalid("`url`: say where to tell"))?,
            events: events.ok_or_else(Reject::internal)?,
            description: self.description,
            active: self.active.unwrap_or(true),
        })
    }

    fn edit(self) -> Result<WebhookEdit, Reject> {
        Ok(WebhookEdit {
            events: self.events()?,
            url: self.url,
            description: self.description,
            active: self.active,
        })
    }

    fn events(&self) -> Result<Option<WebhookEvents>, Reject> {
        let Some(words) = &self.events else { return Ok(None) };
        let parse = |word: &String| {
            let event = WebhookEvent::OF_PINS.into_iter().find(|event| event.as_str() == word.trim());
            event.ok_or_else(|| {
                let word: String = word.chars().take(64).collect();
                Reject::invalid(format!("`events`: there is no event {word:?}"))
            })
        };
        let events = words.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let none = || Reject::invalid("`events`: name at least one");
        WebhookEvents::new(events).ok_or_else(none).map(Some)
    }
}

/// List webhooks
#[utoipa::path(get, path = "/webhooks", operation_id = "listWebhooks", tag = "webhooks", security(("key" = ["webhooks:read"]), ("session" = [])),
    responses((status = 200, description = "Your webhooks, oldest first; at most 10.", body = WebhooksReply,
        example = json!(WebhooksReply::example())), Guarded))]
pub(super) async fn list(
    State(app): State<AppState>,
    caller: RequireScope<WebhooksRead>,
) -> Result<Json<WebhooksReply>, Reject> {
    let hooks = app.service().webhooks.list(&caller).await?;
    Ok(Json(WebhooksReply { webhooks: hooks.iter().map(WebhookReply::new).collect() }))
}

/// Make a webhook
///
/// The answer holds its secret, which signs what is told and is shown only now.
#[utoipa::path(post, path = "/webhooks", operation_id = "createWebhook", tag = "webhooks", security(("key" = ["webhooks:write"]), ("session" = [])),
    request_body(content = WebhookBody, example = json!({"url": "https://example.org/hook", "events": ["pin.pinned", "pin.failed"]})),
    responses((status = 201, description = "It is told from now on.", body = WebhookSecretReply,
        example = json!(WebhookSecretReply::example())), Guarded, WithBody))]
pub(super) async fn create(
    State(app): State<AppState>,
    caller: RequireScope<WebhooksWrite>,
    MaybeJson(body): MaybeJson<WebhookBody>,
) -> Result<(StatusCode, Json<WebhookSecretReply>), Reject> {
    let opened = app.service().webhooks.create(&caller, body.draft()?).await?;
    Ok((StatusCode::CREATED, Json(WebhookSecretReply::new(&opened))))
}

/// See a webhook
#[utoipa::path(get, path = "/webhooks/{id}", operation_id = "getWebhook", tag = "webhooks", security(("key" = ["webhooks:read"]), ("session" = [])),
    params(WebhookParam),
    responses((status = 200, description = "The webhook.", body = WebhookReply, example = json!(WebhookReply::example())),
        Missing, Guarded))]
pub(super) async fn show(
    State(app): State<AppState>,
    caller: RequireScope<WebhooksRead>,
    WebhookPath(id): WebhookPath,
) -> Result<Json<WebhookReply>, Reject> {
    let hook = app.service().webhooks.find(&caller, id).await?;
    Ok(Json(WebhookReply::new(&hook)))
}

/// Change a webhook
///
/// What is left out stays. One that is active afterwards is told at once of what waits, however often that failed.
#[utoipa::path(put, path = "/webhooks/{id}", operation_id = "updateWebhook", tag = "webhooks", security(("key" = ["webhooks:write"]), ("session" = [])),
    params(WebhookParam),
    request_body(content = Option<WebhookBody>, example = json!({"active": true})),
    responses((status = 200, description = "The webhook as it is now.", body = WebhookReply,
        example = json!(WebhookReply::example())), Missing, Guarded, WithBody))]
pub(super) async fn change(
    State(app): State<AppState>,
    caller: RequireScope<WebhooksWrite>,
    WebhookPath(id): WebhookPath,
    MaybeJson(body): MaybeJson<WebhookBody>,
) -> Result<Json<WebhookReply>, Reject> {
    let hook = app.service().webhooks.edit(&caller, id, body.edit()?).await?;
    Ok(Json(WebhookReply::new(&hook)))
}

/// Remove a webhook
///
/// What waits for it goes with it.
#[utoipa::path(delete, path = "/webhooks/{id}", operation_id = "deleteWebhook", tag = "webhooks", security(("key" = ["webhooks:write"]), ("session" = [])),
    params(WebhookParam),
    responses((status = 200, description = "It is gone.", body = WebhookRemovedReply,
        example = json!({"id": "34407e29d027c000", "removed": true})), Missing, Guarded))]
pub(super) async fn remove(
    State(app): State<AppState>,
    caller: RequireScope<WebhooksWrite>,
    WebhookPath(id): WebhookPath,
) -> Result<Json<WebhookRemovedReply>, Reject> {
    app.service().webhooks.remove(&caller, id).await?;
    Ok(Json(WebhookRemovedReply { id: id.to_string(), removed: true }))
}

/// Give a webhook another secret
///
/// The new one signs from now on; the answer is the only time that it is shown.
#[utoipa::path(post, path = "/webhooks/{id}/rotate-secret", operation_id = "rotateWebhookSecret", tag = "webhooks",
    security(("key" = ["webhooks:write"]), ("session" = [])), params(WebhookParam),
    responses((status = 200, description = "The webhook and its new secret.", body = WebhookSecretReply,
        example = json!(WebhookSecretReply::example())), Missing, Guarded))]
pub(super) async fn rotate_secret(
    State(app): State<AppState>,
    caller: RequireScope<WebhooksWrite>,
    WebhookPath(id): WebhookPath,
) -> Result<Json<WebhookSecretReply>, Reject> {
    let opened = app.service().webhooks.rotate_secret(&caller, id).await?;
    Ok(Json(WebhookSecretReply::new(&opened)))
}

/// Try a webhook
///
/// It is told the event `webhook.test` soon after; the list of deliveries says how that went.
#[utoipa::path(post, path = "/webhooks/{id}/test", operation_id = "testWebhook", tag = "webhooks",
    security(("key" = ["webhooks:write"]), ("session" = [])), params(WebhookParam),
    responses((status = 202, description = "It will be told.", body = DeliveryReply,
        example = json!(DeliveryReply::example_of_a_test())), Missing, Conflict, Guarded))]
pub(super) async fn test(
    State(app): State<AppState>,
    caller: RequireScope<WebhooksWrite>,
    WebhookPath(id): WebhookPath,
) -> Result<(StatusCode, Json<DeliveryReply>), Reject> {
    let delivery = app.service().webhooks.test(&caller, id).await?;
    Ok((StatusCode::ACCEPTED, Json(DeliveryReply::new(&delivery))))
}

/// Which deliveries.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DeliveriesQuery {
    /// Deliveries on a page, up to 100.
    #[param(value_type = Option<u32>, minimum = 1, example = 20)]
    limit: Option<String>,
    /// The `nextCursor` of the page before.
    cursor: Option<String>,
}

/// See what a webhook was told
///
/// Newest first: all that waits, and the last 100 that are over.
#[utoipa::path(get, path = "/webhooks/{id}/deliveries", operation_id = "listWebhookDeliveries", tag = "webhooks",
    security(("key" = ["webhooks:read"]), ("session" = [])), params(WebhookParam, DeliveriesQuery),
    responses((status = 200, description = "A page of deliveries.", body = DeliveriesReply,
        example = json!(DeliveriesReply::example())), Missing, Guarded))]
pub(super) async fn deliveries(
    State(app): State<AppState>,
    caller: RequireScope<WebhooksRead>,
    WebhookPath(id): WebhookPath,
    QueryOf(query): QueryOf<DeliveriesQuery>,
) -> Result<Json<DeliveriesReply>, Reject> {
    let (cursor, limit) = query.parse()?;
    let page = app.service().webhooks.deliveries(&caller, id, cursor, limit).await?;
    Ok(Json(DeliveriesReply::new(&page)))
}

impl DeliveriesQuery {
    fn parse(&self) -> Result<(Option<DeliveryId>, u32), Reject> {
        let limit = match filled(self.limit.as_deref()) {
            Some(text) => text.trim().parse().ok().filter(|limit| *limit > 0),
            None => Some(LIMIT_DEFAULT),
        };
        let limit = limit.ok_or_else(|| Reject::invalid("`limit`: a whole number from 1 is needed"))?;
        let cursor = filled(self.cursor.as_deref()).map(str::parse::<DeliveryId>).transpose();
        let strange = |_| Reject::invalid("`cursor`: give a `nextCursor` of an earlier answer");
        Ok((cursor.map_err(strange)?, limit))
    }
}

/// An account's webhooks.
#[derive(Serialize, ToSchema)]
pub(super) struct WebhooksReply {
    webhooks: Vec<WebhookReply>,
}

/// A webhook.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Webhook)]
pub(super) struct WebhookReply {
    id: String,
    url: String,
    description: Option<String>,
    events: Vec<&'static str>,
    active: bool,
    /// Why it was turned off, if you did not do it.
    disabled_reason: Option<String>,
    /// Since when nothing could be told, if the last try failed.
    failing_since: Option<String>,
    pending_deliveries: u64,
    /// Events that were not written down because too many waited.
    dropped_events: u64,
    created_at: String,
    updated_at: String,
}

/// A webhook with its secret.
#[derive(Serialize, ToSchema)]
pub(super) struct WebhookSecretReply {
    #[serde(flatten)]
    webhook: WebhookReply,
    /// What signs. It is shown only this once.
    secret: String,
}

/// A removed webhook.
#[derive(Serialize, ToSchema)]
pub(super) struct WebhookRemovedReply {
    id: String,
    removed: bool,
}

/// A page of deliveries.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeliveriesReply {
    deliveries: Vec<DeliveryReply>,
    next_cursor: Option<String>,
}

/// Something that a webhook is to be told, or was.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Delivery)]
pub(super) struct DeliveryReply {
    id: String,
    #[serde(rename = "type")]
    event: &'static str,
    created_at: String,
    /// `pending`, `delivered` or `failed`.
    status: &'static str,
    attempts: u32,
    next_attempt_at: Option<String>,
    last_attempt_at: Option<String>,
    /// The HTTP status of the last answer.
    response_status: Option<u16>,
    /// Why the last try failed.
    error: Option<String>,
    cid: Option<String>,
    cluster_id: Option<String>,
    upload_id: Option<String>,
}

impl WebhookReply {
    fn new(hook: &Webhook) -> Self {
        Self {
            id: hook.id.to_string(),
            url: hook.url.clone(),
            description: hook.description.clone(),
            events: hook.events.iter().map(WebhookEvent::as_str).collect(),
            active: hook.active,
            disabled_reason: hook.disabled_reason.clone(),
            failing_since: hook.failing_since.map(|at| at.to_string()),
            pending_deliveries: hook.pending,
            dropped_events: hook.dropped,
            created_at: hook.created_at.to_string(),
            updated_at: hook.updated_at.to_string(),
        }
    }

    fn example() -> Self {
        Self {
            id: "34407e29d027c000".to_owned(),
            url: "https://example.org/hook".to_owned(),
            description: None,
            events: vec!["pin.pinned", "pin.failed"],
            active: true,
            disabled_reason: None,
            failing_since: None,
            pending_deliveries: 0,
            dropped_events: 0,
            created_at: "2026-01-01T00:00:00.000Z".to_owned(),
            updated_at: "2026-01-01T00:00:00.000Z".to_owned(),
        }
    }
}

impl WebhooksReply {
    fn example() -> Self {
        Self { webhooks: vec![WebhookReply::example()] }
    }
}

impl WebhookSecretReply {
    fn new(opened: &CreatedWebhook) -> Self {
        Self { webhook: WebhookReply::new(&opened.hook), secret: opened.secret.reveal().to_owned() }
    }

    fn example() -> Self {
        Self { webhook: WebhookReply::example(), secret: format!("whsec_{}", "0123456789abcdef".repeat(4)) }
    }
}

impl DeliveryReply {
    fn new(delivery: &Delivery) -> Self {
        let of_pin = |field: fn(&DeliveredPin) -> String| delivery.pin.as_ref().map(field);
        Self {
            id: delivery.id.to_string(),
            event: delivery.event.as_str(),
            created_at: delivery.at.to_string(),
            status: delivery.state.as_str(),
            attempts: delivery.attempts,
            next_attempt_at: delivery.due_at.map(|at| at.to_string()),
            last_attempt_at: delivery.tried_at.map(|at| at.to_string()),
            response_status: delivery.response_status,
            error: delivery.error.clone(),
            cid: of_pin(|pin| pin.cid.to_string()),
            cluster_id: of_pin(|pin| pin.cluster.to_string()),
            upload_id: of_pin(|pin| pin.id.to_string()),
        }
    }

    fn example() -> Self {
        Self {
            event: "pin.pinned",
            status: "delivered",
            attempts: 1,
            next_attempt_at: None,
            last_attempt_at: Some("2026-01-01T00:00:00.100Z".to_owned()),
            response_status: Some(204),
            cid: Some(EXAMPLE_CID.to_owned()),
            cluster_id: Some("cl0-global".to_owned()),
            upload_id: Some("34407e29d027c000".to_owned()),
            ..Self::example_of_a_test()
        }
    }

    fn example_of_a_test() -> Self {
        Self {
            id: "34407e29d027c001".to_owned(),
            event: "webhook.test",
            created_at: "2026-01-01T00:00:00.000Z".to_owned(),
            status: "pending",
            attempts: 0,
            next_attempt_at: Some("2026-01-01T00:00:00.000Z".to_owned()),
            last_attempt_at: None,
            response_status: None,
            error: None,
            cid: None,
            cluster_id: None,
            upload_id: None,
        }
    }
}

impl DeliveriesReply {
    fn new(page: &DeliveryPage) -> Self {
        Self {
            deliveries: page.deliveries.iter().map(DeliveryReply::new).collect(),
            next_cursor: page.next_cursor.map(|cursor| cursor.to_string()),
        }
    }

    fn example() -> Self {
        Self { deliveries: vec![DeliveryReply::example()], next_cursor: None }
    }
}
