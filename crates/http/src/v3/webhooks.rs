//! `/webhooks`: the webhooks of an account and their deliveries.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use pinfold_model::{DeliveredPin, Delivery, DeliveryId, Webhook, WebhookEvent, WebhookEvents};
use pinfold_service::{CreatedWebhook, DeliveryPage, WebhookDraft, WebhookEdit};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::extract::{EXAMPLE_CID, MaybeJson, QueryOf, WebhookParam, WebhookPath};
use super::openapi::{Conflict, Guarded, Missing, WithBody};
use super::options::filled;
use super::reject::Reject;
use crate::AppState;
use crate::middleware::auth::{RequireScope, WebhooksRead, WebhooksWrite};

/// Deliveries on a page without `limit`.
const LIMIT_DEFAULT: u32 = 20;

/// A webhook to create, or the fields to change.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct WebhookBody {
    /// Where to send events: an `https://` URL of a public host. Required when creating a webhook.
    url: Option<String>,
    /// The event types to send: `pin.pinned`, `pin.failed`, `pin.expired`, `pin.removed`. All of them by default.
    events: Option<Vec<String>>,
    /// A note of up to 255 bytes. An empty text removes it.
    description: Option<String>,
    /// Whether events are sent. `true` by default.
    active: Option<bool>,
}

impl WebhookBody {
    fn draft(self) -> Result<WebhookDraft, Reject> {
        let events = self.events()?.or_else(|| WebhookEvents::new(WebhookEvent::OF_PINS));
        let url = self.url.filter(|url| !url.trim().is_empty());
        Ok(WebhookDraft {
            url: url.ok_or_else(|| Reject::invalid("`url` is required"))?,
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
                Reject::invalid(format!("`events`: unknown event type {word:?}"))
            })
        };
        let events = words.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let none = || Reject::invalid("`events`: at least one is required");
        WebhookEvents::new(events).ok_or_else(none).map(Some)
    }
}

/// List webhooks
#[utoipa::path(get, path = "/webhooks", operation_id = "listWebhooks", tag = "webhooks", security(("key" = ["webhooks:read"]), ("session" = [])),
    responses((status = 200, description = "Your webhooks, oldest first. At most 10.", body = WebhooksReply,
        example = json!(WebhooksReply::example())), Guarded))]
pub(super) async fn list(
    State(app): State<AppState>,
    caller: RequireScope<WebhooksRead>,
) -> Result<Json<WebhooksReply>, Reject> {
    let webhooks = app.service().webhooks.list(&caller).await?;
    Ok(Json(WebhooksReply { webhooks: webhooks.iter().map(WebhookReply::new).collect() }))
}

/// Create a webhook
///
/// The response contains the secret that signs its deliveries. It cannot be read again. Deliveries follow the
/// [Standard Webhooks](https://www.standardwebhooks.com) specification, so that its libraries can verify them.
#[utoipa::path(post, path = "/webhooks", operation_id = "createWebhook", tag = "webhooks", security(("key" = ["webhooks:write"]), ("session" = [])),
    request_body(content = WebhookBody, example = json!({"url": "https://example.org/pinfold", "events": ["pin.pinned", "pin.failed"]})),
    responses((status = 201, description = "The webhook was created.", body = WebhookSecretReply,
        example = json!(WebhookSecretReply::example())), Guarded, WithBody))]
pub(super) async fn create(
    State(app): State<AppState>,
    caller: RequireScope<WebhooksWrite>,
    MaybeJson(body): MaybeJson<WebhookBody>,
) -> Result<(StatusCode, Json<WebhookSecretReply>), Reject> {
    let created = app.service().webhooks.create(&caller, body.draft()?).await?;
    Ok((StatusCode::CREATED, Json(WebhookSecretReply::new(&created))))
}

/// Get a webhook
#[utoipa::path(get, path = "/webhooks/{id}", operation_id = "getWebhook", tag = "webhooks", security(("key" = ["webhooks:read"]), ("session" = [])),
    params(WebhookParam),
    responses((status = 200, description = "The webhook.", body = WebhookReply, example = json!(WebhookReply::example())),
        Missing, Guarded))]
pub(super) async fn show(
    State(app): State<AppState>,
    caller: RequireScope<WebhooksRead>,
    WebhookPath(id): WebhookPath,
) -> Result<Json<WebhookReply>, Reject> {
    let webhook = app.service().webhooks.find(&caller, id).await?;
    Ok(Json(WebhookReply::new(&webhook)))
}

/// Change a webhook
///
/// Fields that are left out stay unchanged. If the webhook is active afterwards, its pending deliveries are sent
/// immediately.
#[utoipa::path(put, path = "/webhooks/{id}", operation_id = "updateWebhook", tag = "webhooks", security(("key" = ["webhooks:write"]), ("session" = [])),
    params(WebhookParam),
    request_body(content = Option<WebhookBody>, example = json!({"active": true})),
    responses((status = 200, description = "The changed webhook.", body = WebhookReply,
        example = json!(WebhookReply::example())), Missing, Guarded, WithBody))]
pub(super) async fn change(
    State(app): State<AppState>,
    caller: RequireScope<WebhooksWrite>,
    WebhookPath(id): WebhookPath,
    MaybeJson(body): MaybeJson<WebhookBody>,
) -> Result<Json<WebhookReply>, Reject> {
    let webhook = app.service().webhooks.edit(&caller, id, body.edit()?).await?;
    Ok(Json(WebhookReply::new(&webhook)))
}

/// Remove a webhook
///
/// Its pending deliveries are removed too.
#[utoipa::path(delete, path = "/webhooks/{id}", operation_id = "deleteWebhook", tag = "webhooks", security(("key" = ["webhooks:write"]), ("session" = [])),
    params(WebhookParam),
    responses((status = 200, description = "The webhook was removed.", body = WebhookRemovedReply,
        example = json!({"id": "34407e29d027c000", "removed": true})), Missing, Guarded))]
pub(super) async fn remove(
    State(app): State<AppState>,
    caller: RequireScope<WebhooksWrite>,
    WebhookPath(id): WebhookPath,
) -> Result<Json<WebhookRemovedReply>, Reject> {
    app.service().webhooks.remove(&caller, id).await?;
    Ok(Json(WebhookRemovedReply { id: id.to_string(), removed: true }))
}

/// Rotate the secret of a webhook
///
/// The response contains the new secret, which cannot be read again. For 24 hours, each request has two signatures: one
/// made with the new secret and one made with the previous secret. A second rotation ends that at once.
#[utoipa::path(post, path = "/webhooks/{id}/rotate-secret", operation_id = "rotateWebhookSecret", tag = "webhooks",
    security(("key" = ["webhooks:write"]), ("session" = [])), params(WebhookParam),
    responses((status = 200, description = "The webhook and its new secret.", body = WebhookSecretReply,
        example = json!(WebhookSecretReply::example())), Missing, Guarded))]
pub(super) async fn rotate_secret(
    State(app): State<AppState>,
    caller: RequireScope<WebhooksWrite>,
    WebhookPath(id): WebhookPath,
) -> Result<Json<WebhookSecretReply>, Reject> {
    let created = app.service().webhooks.rotate_secret(&caller, id).await?;
    Ok(Json(WebhookSecretReply::new(&created)))
}

/// Test a webhook
///
/// Sends the event `webhook.test`. The list of deliveries shows the result.
#[utoipa::path(post, path = "/webhooks/{id}/test", operation_id = "testWebhook", tag = "webhooks",
    security(("key" = ["webhooks:write"]), ("session" = [])), params(WebhookParam),
    responses((status = 202, description = "The event will be sent.", body = DeliveryReply,
        example = json!(DeliveryReply::test_example())), Missing, Conflict, Guarded))]
pub(super) async fn test(
    State(app): State<AppState>,
    caller: RequireScope<WebhooksWrite>,
    WebhookPath(id): WebhookPath,
) -> Result<(StatusCode, Json<DeliveryReply>), Reject> {
    let delivery = app.service().webhooks.test(&caller, id).await?;
    Ok((StatusCode::ACCEPTED, Json(DeliveryReply::new(&delivery))))
}

/// Paging of deliveries.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DeliveriesQuery {
    /// The number of deliveries on a page, up to 100.
    #[param(value_type = Option<u32>, minimum = 1, example = 20)]
    limit: Option<String>,
    /// The `nextCursor` of the previous page.
    cursor: Option<String>,
}

/// List the deliveries of a webhook
///
/// Newest first: all pending deliveries and the last 100 finished ones.
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
        let limit = limit.ok_or_else(|| Reject::invalid("`limit` must be a positive integer"))?;
        let cursor = filled(self.cursor.as_deref()).map(str::parse::<DeliveryId>).transpose();
        let invalid = |_| Reject::invalid("`cursor` must be the `nextCursor` of an earlier response");
        Ok((cursor.map_err(invalid)?, limit))
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
    /// Why the server deactivated the webhook. `null` if you did.
    disabled_reason: Option<String>,
    /// When the first of the failures since the last successful attempt occurred.
    failing_since: Option<String>,
    pending_deliveries: u64,
    /// Events that were discarded because too many deliveries were pending.
    dropped_events: u64,
    created_at: String,
    updated_at: String,
}

/// A webhook with its new secret.
#[derive(Serialize, ToSchema)]
pub(super) struct WebhookSecretReply {
    #[serde(flatten)]
    webhook: WebhookReply,
    /// The secret that signs deliveries: `whsec_` and the base64 of the key. It cannot be read again.
    secret: String,
    /// After a rotation: until when each request also has a signature made with the previous secret.
    #[serde(rename = "previousSecretExpiresAt")]
    previous_secret_expires_at: Option<String>,
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

/// The delivery of an event to a webhook.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Delivery)]
pub(super) struct DeliveryReply {
    /// The `webhook-id` of the request, the same in each attempt.
    id: String,
    #[serde(rename = "type")]
    event: &'static str,
    /// When the event occurred.
    created_at: String,
    /// `pending`, `delivered` or `failed`.
    status: &'static str,
    attempts: u32,
    next_attempt_at: Option<String>,
    last_attempt_at: Option<String>,
    /// The HTTP status of the last response.
    response_status: Option<u16>,
    /// Why the last attempt failed.
    error: Option<String>,
    cid: Option<String>,
    cluster_id: Option<String>,
    upload_id: Option<String>,
}

impl WebhookReply {
    fn new(webhook: &Webhook) -> Self {
        Self {
            id: webhook.id.to_string(),
            url: webhook.url.clone(),
            description: webhook.description.clone(),
            events: webhook.events.iter().map(WebhookEvent::as_str).collect(),
            active: webhook.active,
            disabled_reason: webhook.disabled_reason.clone(),
            failing_since: webhook.failing_since.map(|at| at.to_string()),
            pending_deliveries: webhook.pending,
            dropped_events: webhook.dropped,
            created_at: webhook.created_at.to_string(),
            updated_at: webhook.updated_at.to_string(),
        }
    }

    fn example() -> Self {
        Self {
            id: "34407e29d027c000".to_owned(),
            url: "https://example.org/pinfold".to_owned(),
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
    fn new(created: &CreatedWebhook) -> Self {
        Self {
            webhook: WebhookReply::new(&created.webhook),
            secret: created.secret.reveal(),
            previous_secret_expires_at: created.previous_secret_until.map(|at| at.to_string()),
        }
    }

    fn example() -> Self {
        Self {
            webhook: WebhookReply::example(),
            secret: "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=".to_owned(),
            previous_secret_expires_at: None,
        }
    }
}

impl DeliveryReply {
    fn new(delivery: &Delivery) -> Self {
        let pin_field = |field: fn(&DeliveredPin) -> String| delivery.pin.as_ref().map(field);
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
            cid: pin_field(|pin| pin.cid.to_string()),
            cluster_id: pin_field(|pin| pin.cluster.to_string()),
            upload_id: pin_field(|pin| pin.id.to_string()),
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
            ..Self::test_example()
        }
    }

    fn test_example() -> Self {
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
