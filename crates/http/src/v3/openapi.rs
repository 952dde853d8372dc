//! The OpenAPI document, generated from the routes, so that it describes exactly what is served.
//!
//! [`Documented`] is the only way to add a route, and accepts only handlers with `#[utoipa::path]`. To write one:
//!
//! - The doc comment's first line is the summary, the rest the description.
//! - `path` is relative to `/api/v3` (see `v3.rs`); `tag` is one of [`TAGS`].
//! - `security(("key" = ["files:read"]), ("session" = []))` names the scope that the handler's [`RequireScope`](crate::middleware::auth::RequireScope)
//!   asks for; a public route has `security(())`; one for sessions alone names `session` alone.
//! - `params`: each path parameter with an example; queries derive `IntoParams`.
//! - `responses`: the successful responses with their body and an `example`, then the groups of errors that apply: [`Anyone`] or
//!   [`Guarded`], [`Missing`], [`Conflict`], [`WithBody`], [`Storage`].
//! - A request body has an `example`, too. Wire types derive `ToSchema`; their names are unique among all of them.
//!
//! - A body that may be left out is `content = Option<…>`. It may also be `null` or `[]`, which the document does not say.
//!
//! Headers that all responses have (`X-Request-Id`, `X-RateLimit-…`, `Retry-After`) are added here.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    Components, ContentBuilder, HeaderBuilder, InfoBuilder, LicenseBuilder, ObjectBuilder, OpenApi,
    OpenApiBuilder, Ref, RefOr, Required, Response, ResponseBuilder, Schema, Server, Type, path::Operation,
    path::PathItem, request_body::RequestBody, tag::TagBuilder,
};
use utoipa::{IntoResponses, PartialSchema, ToSchema};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use super::reject::RejectBody;
use crate::AppState;
use crate::middleware::{IdempotencyPolicy, RoutePolicies, RoutePolicy};

/// The groups of routes, in the order of the page.
pub(super) const TAGS: [(&str, &str); 10] = [
    ("pins", "Pin content from IPFS and remove pins."),
    ("uploads", "Upload files and directories."),
    ("status", "Status of pins and the nodes that store them."),
    ("auth", "Sign-up, login and two-factor authentication."),
    ("users", "The account of the caller."),
    ("tokens", "API keys."),
    ("plans", "Plans and quotas."),
    ("webhooks", "Notifications about pins."),
    ("service", "Service information: health, peers, clusters, documentation."),
    ("admin", "Operations for accounts with the role `admin`."),
];

/// Routes, each with its entry in the document.
pub(super) struct Documented {
    router: OpenApiRouter<AppState>,
    policies: RoutePolicies,
    /// Names of schemas that were registered with different contents.
    clashes: Vec<String>,
}

impl Documented {
    pub(super) fn new() -> Self {
        let info = InfoBuilder::new()
            .title("Pinfold")
            .version(env!("CARGO_PKG_VERSION"))
            .description(Some(
                "An IPFS pinning service. When the status of a pin is `pinned`, every block has been verified and is on disk.\n\nEvery response, including errors, has the headers `X-Request-Id`, `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`.",
            ))
            .license(Some(LicenseBuilder::new().name("MIT OR Apache-2.0").build()))
            .build();
        let tags = TAGS.map(|(name, text)| TagBuilder::new().name(name).description(Some(text)).build());
        let api = OpenApiBuilder::new()
            .info(info)
            .tags(Some(tags))
            .servers(Some([Server::new("/")]))
            .components(Some(components()))
            .build();
        Self {
            router: OpenApiRouter::with_openapi(api),
            policies: RoutePolicies::default(),
            clashes: Vec::new(),
        }
    }

    /// Adds the handlers of one path, with this policy.
    pub(super) fn with_policy(mut self, policy: RoutePolicy, routes: UtoipaMethodRouter<AppState>) -> Self {
        for path in routes.1.paths.keys() {
            self.policies.declare(path.clone(), policy);
        }
        self.with(routes)
    }

    /// Adds the handlers of one path, with the strict policy.
    pub(super) fn with(mut self, routes: UtoipaMethodRouter<AppState>) -> Self {
        let known = self.router.get_openapi().components.as_ref().map(|components| &components.schemas);
        let clash = |(name, schema): &&(String, _)| {
            known.and_then(|known| known.get(name)).is_some_and(|old| old != schema)
        };
        self.clashes.extend(routes.0.iter().filter(clash).map(|(name, _)| name.clone()));
        Self { router: self.router.routes(routes), ..self }
    }

    /// Nests the routes of `inner` under `base`.
    pub(super) fn under(self, base: &str, inner: Self) -> Self {
        let (mut clashes, mut policies) = (self.clashes, self.policies);
        clashes.extend(inner.clashes);
        policies.declare_under(base, inner.policies);
        Self { router: self.router.nest(base, inner.router), policies, clashes }
    }

    /// Splits into the router, the policies of its routes, and the finished document.
    pub(super) fn split(self) -> (axum::Router<AppState>, RoutePolicies, OpenApi) {
        debug_assert!(self.clashes.is_empty(), "schemas with one name: {:?}", self.clashes);
        let (router, mut api) = self.router.split_for_parts();
        let policies = self.policies;
        for (path, item) in &mut api.paths.paths {
            let ignores_keys = policies.of(path).idempotency == IdempotencyPolicy::Ignored;
            if let Some(post) = item.post.as_mut().filter(|post| !ignores_keys && needs_credential(post)) {
                add_idempotency_key(post);
            }
        }
        // OpenAPI has no wildcard parameters: `{*name}` becomes `{name}`.
        let paths = std::mem::take(&mut api.paths.paths);
        api.paths.paths = paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
        for item in api.paths.paths.values_mut() {
            for operation in operations_mut(item) {
                complete(operation);
            }
        }
        (router, policies, api)
    }
}

/// The serialized document.
#[derive(Clone)]
pub(super) struct Document {
    pub(super) json: Bytes,
    pub(super) yaml: Bytes,
}

impl Document {
    /// Serializes the document once.
    pub(super) fn of(api: &OpenApi) -> Arc<Self> {
        let (json, yaml) = (api.to_json(), api.to_yaml());
        if let Err(error) = &json {
            tracing::error!(%error, "failed to serialize the OpenAPI document");
        }
        if let Err(error) = &yaml {
            tracing::error!(%error, "failed to serialize the OpenAPI document");
        }
        Arc::new(Self { json: json.unwrap_or_default().into(), yaml: yaml.unwrap_or_default().into() })
    }
}

fn components() -> Components {
    let mut components = Components::new();
    components.schemas.insert(RejectBody::name().into_owned(), RejectBody::schema());
    let key =
        ApiKeyValue::with_description("X-API-Key", "An API key. `Authorization: Bearer KEY` works as well.");
    components.add_security_scheme("key", SecurityScheme::ApiKey(ApiKey::Header(key)));
    let session = Http::builder()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some("The session token of a login. It has every scope of the account."))
        .build();
    components.add_security_scheme("session", SecurityScheme::Http(session));
    components
}

fn operations_mut(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, options, head, patch, trace, .. } = item;
    [get, put, post, delete, options, head, patch, trace].into_iter().flatten()
}

/// Whether an operation needs a credential.
fn needs_credential(operation: &Operation) -> bool {
    operation.security.iter().flatten().any(|way| *way != SecurityRequirement::default())
}

/// Documents the `Idempotency-Key` of a POST.
fn add_idempotency_key(post: &mut Operation) {
    let schema =
        ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(255)).build();
    let key = ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .description(Some("A name that you choose for this request, valid for 24 h. A repeated request with the same key gets the first response and is not executed again."))
        .schema(Some(schema))
        .example(Some(json!("5e7c0f0e-6c0f-4b7e-9a51-0d6f4c1f3f6e")))
        .build();
    post.parameters.get_or_insert_default().push(RefOr::T(key));
    for (status, refusal) in [
        refusal(
            "409",
            "The first request with this `Idempotency-Key` is still running (`idempotency_in_progress`), or its response contained a secret and was not stored (`answer_not_kept`).",
            json!({"error": "Conflict", "message": "The first request with this Idempotency-Key is still running; try again in a moment", "code": "idempotency_in_progress", "retryAfter": 2}),
        ),
        refusal(
            "422",
            "The `Idempotency-Key` belongs to a different request.",
            json!({"error": "Unprocessable Entity", "message": "This Idempotency-Key belongs to another request; take a new one for each request", "code": "idempotency_key_reused"}),
        ),
    ] {
        post.responses.responses.entry(status).or_insert(refusal);
    }
}

/// Describes an optional JSON body by its object alone.
///
/// The server also takes `null` and `[]`, which some clients send for an empty object. Generators would make a union
/// type of those, and no client needs to send them.
fn describe_as_object(body: &mut RequestBody) {
    if body.required == Some(Required::True) {
        return;
    }
    let Some(RefOr::T(content)) = body.content.get_mut("application/json") else { return };
    match &mut content.schema {
        Some(RefOr::T(Schema::OneOf(ways))) => {
            let object = ways.items.iter().find(|way| matches!(way, RefOr::Ref(_))).cloned();
            content.schema = object.or_else(|| content.schema.take());
        }
        Some(RefOr::T(Schema::Object(object))) => object.schema_type = Type::Object.into(),
        Some(RefOr::T(_) | RefOr::Ref(_)) | None => {}
    }
}

/// Moves the example of an optional parameter into its schema's `examples`.
///
/// The API page fills its forms with `example`. A form that filters a list by every filter, or sends the same
/// `Idempotency-Key` with every request, would be useless.
fn unfill(parameter: &mut Parameter) {
    if parameter.required == Required::True {
        return;
    }
    // The type has no getter for it.
    let as_json = serde_json::to_value(&*parameter).unwrap_or_default();
    let Some(example) = as_json.get("example") else { return };
    if let Some(RefOr::T(Schema::Object(schema))) = &mut parameter.schema {
        schema.examples.push(example.clone());
    }
    let bare = std::mem::replace(parameter, Parameter::new(String::new()));
    *parameter = ParameterBuilder::from(bare).example(None).build();
}

/// Adds response headers, and adapts parameters and bodies to the API page and to client generators.
fn complete(operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter {
            unfill(parameter);
        }
    }
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        describe_as_object(body);
    }
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        // Every response has these headers. Repeating them for each error would make the API page slow and generated
        // clients large.
        if !(status.starts_with(['2', '3']) || status == "429") {
            continue;
        }
        let mut header = |name: &str, kind: Type, text: &str| {
            let schema = ObjectBuilder::new().schema_type(kind).build();
            let header = HeaderBuilder::new().schema(Some(schema)).description(Some(text)).build();
            response.headers.insert(name.to_owned(), header.into());
        };
        header(
            "X-Request-Id",
            Type::String,
            "Identifies the request in the server's log. The value that the client sent, if any.",
        );
        header("X-RateLimit-Limit", Type::Integer, "Requests per minute that the strictest limit allows.");
        header("X-RateLimit-Remaining", Type::Integer, "Requests that can be sent immediately.");
        header(
            "X-RateLimit-Reset",
            Type::Integer,
            "Unix time in seconds at which the full budget is available again.",
        );
        if status == "429" {
            header("Retry-After", Type::Integer, "Seconds to wait before the next request.");
        }
    }
}

/// Errors of every route.
pub(super) enum Anyone {}

/// Errors of a route that needs a credential.
pub(super) enum Guarded {}

/// The error of a route whose path names an object that does not exist.
pub(super) enum Missing {}

/// The error of a route that can conflict with the current state.
pub(super) enum Conflict {}

/// Errors of a route that takes a body.
pub(super) enum WithBody {}

/// The error of a route that stores blocks.
pub(super) enum Storage {}

type Refusals = BTreeMap<String, RefOr<Response>>;

impl IntoResponses for Anyone {
    fn responses() -> Refusals {
        [
            refusal("400", "The request is invalid; `message` names the cause.", json!({"error": "Bad Request", "message": "`limit`: a whole number from 1 is needed"})),
            refusal("429", "Too many requests.", json!({"error": "Too Many Requests", "message": "Too many requests; try again in 1 s", "code": "RATE_LIMIT", "retryAfter": 1, "limit": 300, "remaining": 0, "resetTime": "2026-01-01T00:00:30.000Z"})),
            refusal("500", "Internal error. The server's log has details under the `X-Request-Id`.", json!({"error": "Internal Server Error", "message": "The server failed at this; the operator finds more under the X-Request-Id"})),
            refusal("503", "A dependency of the service is unavailable. `Retry-After` is set if the delay is known.", json!({"error": "Service Unavailable", "message": "The service can't do this right now; try again later"})),
        ]
        .into()
    }
}

impl IntoResponses for Guarded {
    fn responses() -> Refusals {
        let mut refusals = Anyone::responses();
        refusals.extend([
            refusal("401", "The credential is missing (`UNAUTHORIZED`), or it is wrong, expired or revoked (`INVALID_API_KEY`).", json!({"error": "Unauthorized", "message": "The API key is not valid", "code": "INVALID_API_KEY"})),
            refusal("403", "The credential, the account or its plan does not permit this; `code` names the reason.", json!({"error": "Forbidden", "message": "This API key lacks the scope files:write", "code": "missing_scope", "required": "files:write"})),
        ]);
        refusals
    }
}

impl IntoResponses for Missing {
    fn responses() -> Refusals {
        [refusal(
            "404",
            "The object does not exist, or it belongs to another account.",
            json!({"error": "Not Found", "message": "Pin not found for this CID"}),
        )]
        .into()
    }
}

impl IntoResponses for Conflict {
    fn responses() -> Refusals {
        [refusal(
            "409",
            "The request conflicts with the current state.",
            json!({"error": "Conflict", "message": "An API key of this name exists already"}),
        )]
        .into()
    }
}

impl IntoResponses for WithBody {
    fn responses() -> Refusals {
        [
            refusal("408", "The request body arrived too slowly.", json!({"error": "Request Timeout", "message": "The body came too slowly"})),
            refusal("413", "The request body is too large.", json!({"error": "Payload Too Large", "message": "A JSON body has at most 65536 bytes", "code": "FILE_TOO_LARGE"})),
        ]
        .into()
    }
}

impl IntoResponses for Storage {
    fn responses() -> Refusals {
        [refusal("507", "The server's disk is full.", json!({"error": "Insufficient Storage", "message": "The storage is full; try again later", "code": "storage_full"}))].into()
    }
}

fn refusal(status: &str, text: &str, example: Value) -> (String, RefOr<Response>) {
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(RejectBody::name())))
        .example(Some(example))
        .build();
    let response = ResponseBuilder::new().description(text).content("application/json", content).build();
    (status.to_owned(), RefOr::T(response))
}
