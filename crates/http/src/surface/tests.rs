//! A second, trivial surface next to the API v3: it shares the middleware, and every answer is in its own words.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use axum::http::request::Builder;
use axum::routing::{get, post};
use pinfold_cluster::Scripted;
use pinfold_model::{ClusterId, Email, IpRules, ManualClock, PlanCode, Role, TokenName};
use pinfold_service::{ClusterInfo, ClusterSetup, NewAccount, NewToken, Service};
use pinfold_store::Store;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::middleware::RoutePolicy;
use crate::middleware::auth::{FilesWrite, RequireScope};
use crate::{Rate, Settings, v3};

/// The words of the second surface, one for each refusal.
fn words(error: MiddlewareError) -> Response {
    use MiddlewareError as E;
    let (status, word) = match error {
        E::RateLimited { .. } => (429, "rate"),
        E::NoCredential => (401, "anonymous"),
        E::Credential(_) => (401, "credential"),
        E::MissingScope(_) => (403, "scope"),
        E::SessionRequired => (403, "session"),
        E::AdminRequired => (403, "admin"),
        E::RepeatedIdempotencyKey => (400, "keys"),
        E::InvalidIdempotencyKey(_) => (400, "key"),
        E::Idempotency(_) => (409, "key in use"),
        E::AnswerNotStored { status } => (409, if status == 200 { "done" } else { "answered" }),
        E::Body(_) => (400, "body"),
        E::MethodNotAllowed => (405, "method"),
        E::Service(_) => (503, "service"),
        E::Internal => (500, "panic"),
    };
    (StatusCode::from_u16(status).expect("a status"), format!("tiny: {word}")).into_response()
}

async fn secret(_caller: RequireScope<FilesWrite>, body: String) -> String {
    format!("secret of {body}")
}

async fn panics() -> StatusCode {
    panic!("a handler of the test")
}

fn tiny() -> Surface {
    let routes = Router::new()
        .route("/tiny/open", get(|| async { "open" }))
        .route("/tiny/undeclared", post(secret))
        .route("/tiny/stored", post(secret))
        .route("/tiny/panic", get(panics));
    let mut policies = RoutePolicies::default();
    policies.declare("/tiny/stored", RoutePolicy::STRICT.answer_stored());
    let fallback = |_: &Uri| (StatusCode::NOT_FOUND, "tiny: nothing here").into_response();
    Surface { prefix: "/tiny", routes, policies, fallback, error_body: ErrorBody::new(words) }
}

struct Server {
    router: Router,
    service: Service,
    _folder: TempDir,
}

impl Server {
    async fn start(settings: Settings) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(&folder.path().join("pinfold.db")).await.expect("a database");
        let clock = Arc::new(ManualClock::default());
        let info = ClusterInfo {
            id: ClusterId::default(),
            label: "Test".to_owned(),
            region: None,
            country: None,
            gateways: Vec::new(),
        };
        let setup = ClusterSetup { info, driver: Arc::new(Scripted::default()) };
        let service = Service::new(store, vec![setup], clock.clone(), pinfold_service::Settings::default());
        let service = service.await.expect("a service");
        let app = AppState::new(service.clone(), settings, clock, CancellationToken::new());
        let router = compose(&app, [v3::surface(), tiny()]);
        Self { router, service, _folder: folder }
    }

    async fn key(&self, scopes: &str) -> String {
        let account = NewAccount {
            email: Email::parse("ada@example.org").expect("an address"),
            name: "Ada".to_owned(),
            plan: PlanCode::new("free"),
            role: Role::User,
            password: None,
        };
        let account = self.service.accounts.create(account).await.expect("an account");
        let token = NewToken {
            name: TokenName::parse("test").expect("a name"),
            label: None,
            scopes: scopes.parse().expect("scopes"),
            ip_allowlist: IpRules::default(),
            expires_at: None,
        };
        let created = self.service.tokens.create(account.id, token).await.expect("a key");
        created.secret.reveal().to_owned()
    }

    async fn send(&self, request: Builder) -> (u16, String) {
        let request = request.body(Body::from("body")).expect("a request");
        let response = self.router.clone().oneshot(request).await.expect("a router never fails");
        for name in ["x-request-id", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"] {
            assert!(response.headers().contains_key(name), "{name}");
        }
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 64 * 1024).await.expect("a body");
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.send(Request::get(path)).await
    }
}

fn says(status: u16, text: &str) -> (u16, String) {
    (status, text.to_owned())
}

#[tokio::test]
async fn each_surface_answers_in_its_own_words() {
    let server = Server::start(Settings::default()).await;
    assert_eq!(server.get("/tiny/open").await, says(200, "open"));
    assert_eq!(server.get("/tiny/open/").await, says(200, "open"));
    assert_eq!(server.get("/tiny/nowhere").await, says(404, "tiny: nothing here"));
    assert_eq!(server.get("/tiny").await, says(404, "tiny: nothing here"));
    assert_eq!(server.send(Request::delete("/tiny/open")).await, says(405, "tiny: method"));
    assert_eq!(server.get("/tiny/panic").await, says(500, "tiny: panic"));

    let (status, body) = server.get("/tinyer").await;
    assert!(status == 404 && body.starts_with('{'), "another path belongs to the API v3: {body}");
    let (status, body) = server.send(Request::delete("/api/v3/health")).await;
    assert!(status == 405 && body.starts_with('{'), "{body}");
}

#[tokio::test]
async fn authentication_errors_have_the_body_of_their_surface() {
    let server = Server::start(Settings::default()).await;
    let (reader, post) = (server.key("files:read").await, || Request::post("/tiny/stored"));
    assert_eq!(server.send(post()).await, says(401, "tiny: anonymous"));
    assert_eq!(server.send(post().header("x-api-key", "nonsense")).await, says(401, "tiny: credential"));
    assert_eq!(server.send(post().header("x-api-key", &reader)).await, says(403, "tiny: scope"));
    let pin = Request::post("/api/v3/files/pin/nonsense").header("x-api-key", &reader);
    let (status, body) = server.send(pin).await;
    assert!(status == 403 && body.contains("missing_scope"), "{body}");
}

#[tokio::test]
async fn route_without_declared_policy_does_not_store_its_answer() {
    let server = Server::start(Settings::default()).await;
    let key = server.key("files:write").await;
    let post = |path: &str, name: &str| {
        Request::post(path).header("x-api-key", &key).header("idempotency-key", name)
    };
    for path in ["/tiny/stored", "/tiny/undeclared"] {
        assert_eq!(server.send(post(path, path)).await, says(200, "secret of body"));
    }
    assert_eq!(server.send(post("/tiny/stored", "/tiny/stored")).await, says(200, "secret of body"));
    let again = server.send(post("/tiny/undeclared", "/tiny/undeclared")).await;
    assert_eq!(again, says(409, "tiny: done"), "only its status is stored");
    assert_eq!(server.send(post("/tiny/stored", "/tiny/undeclared")).await, says(409, "tiny: key in use"));
    assert_eq!(server.send(post("/tiny/stored", " ")).await, says(400, "tiny: key"));
}

#[tokio::test]
async fn surfaces_share_one_budget_and_refuse_in_their_own_words() {
    let mut settings = Settings::default();
    settings.rates.anonymous = Rate::new(2, 2);
    let server = Server::start(settings).await;
    assert_eq!(server.get("/tiny/open").await.0, 200);
    assert_eq!(server.get("/api/v3/health").await.0, 200);
    assert_eq!(server.get("/tiny/open").await, says(429, "tiny: rate"));
    let (status, body) = server.get("/api/v3/health").await;
    assert!(status == 429 && body.contains("RATE_LIMIT"), "{body}");
}
