//! The whole HTTP server in one process: router, service, a database in a temporary folder, and scripted clusters. Nothing
//! listens on a port.

use std::collections::HashMap;
use std::future::{Future, IntoFuture};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request, request};
use axum::response::Response;
use pinfold_cluster::{Fate, Gate, Scripted};
use pinfold_http::{AppState, Rate, Rates, Settings, router};
use pinfold_model::{AccountId, Clock, ClusterId, Email, ManualClock, PlanCode, Role, TokenName, parse_cid};
use pinfold_service::{
    Background, ClusterInfo, ClusterSetup, GatewayInfo, NewAccount, NewToken, Password, Service,
};
use pinfold_store::Store;
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// `hello`, as one raw block.
pub(crate) const HELLO: &str = "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq";
/// The same in base16, base32 in capitals, base36, base58btc and base64url, and percent-encoded.
pub(crate) const HELLO_FORMS: [&str; 6] = [
    "f015512202cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    "BAFKREIBM6JG3UX5QUMHCN2B3FLC3TYU6DMLB4XA7U5BF44YEGNRJHC4YEQ",
    "k2cwue9rqdypmt3thjky14z1tk9fi9f0o5w7b3ofitdewlcf87lismqs",
    "zb2rhZfjRh2FHHB2RkHVEvL2vJnCTcu7kwRqgVsf9gpkLgteo",
    "uAVUSICzyTbpfsKMOJug7KsW54p4bFh5cH6dCXnMEM2KTi5gk",
    "%62afkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq",
];
/// `world`, as one raw block.
pub(crate) const WORLD: &str = "bafkreicin2sgejgrxnh3nahtj56jvwlkr4sozcf6opvi4wtmmuta5hfyu4";

/// A server for one test.
pub(crate) struct Api {
    router: Router,
    service: Service,
    _background: Background,
    clusters: [Scripted; 2],
    clock: Arc<ManualClock>,
    stopping: CancellationToken,
    owners: Mutex<HashMap<String, AccountId>>,
    _folder: TempDir,
}

impl Api {
    pub(crate) async fn start() -> Self {
        Self::start_with(Settings::default()).await
    }

    pub(crate) async fn start_with(settings: Settings) -> Self {
        Self::start_on(settings, pinfold_service::Settings::default()).await
    }

    /// Starts a server with these settings of the service, too.
    pub(crate) async fn start_on(settings: Settings, service_settings: pinfold_service::Settings) -> Self {
        Self::start_counting(settings, service_settings, AppState::new).await
    }

    /// Starts a server whose rate limits use the manual clock.
    pub(crate) async fn start_timeless(settings: Settings) -> Self {
        let service_settings = pinfold_service::Settings::default();
        Self::start_counting(settings, service_settings, AppState::counting_by_clock).await
    }

    async fn start_counting(
        settings: Settings,
        service_settings: pinfold_service::Settings,
        state: fn(Service, Settings, Arc<dyn Clock>, CancellationToken) -> AppState,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(&folder.path().join("pinfold.db")).await.expect("a database");
        let clusters = [Scripted::default(), Scripted::default()];
        for cluster in &clusters {
            assert_eq!(cluster.publish("hello", 5).to_string(), HELLO);
            assert_eq!(cluster.publish("world", 5).to_string(), WORLD);
        }
        let clock = Arc::new(ManualClock::default());
        let setups =
            ["cl0-global", "cl1-eu"].into_iter().zip(&clusters).map(|(id, driver)| setup(id, driver));
        let service = Service::new(store, setups.collect(), clock.clone(), service_settings).await;
        let service = service.expect("a service");
        let _background = service.run();
        let stopping = CancellationToken::new();
        let app = state(service.clone(), settings, clock.clone(), stopping.clone());
        let (router, owners) = (router(app), Mutex::default());
        Self { router, service, _background, clusters, clock, stopping, owners, _folder: folder }
    }

    /// A key of a new account.
    pub(crate) async fn key(&self, plan: &str, scopes: &str) -> String {
        self.key_with(plan, scopes, None).await
    }

    /// A key of a new account with the role admin.
    pub(crate) async fn admin_key(&self, scopes: &str) -> String {
        self.key_of(Role::Admin, "premium", scopes, None).await
    }

    /// The account behind a key.
    pub(crate) fn owner(&self, key: &str) -> AccountId {
        self.owners.lock().expect("no test panics under it")[key]
    }

    /// A key that expires after so many seconds.
    pub(crate) async fn key_until(&self, plan: &str, scopes: &str, seconds: u64) -> String {
        self.key_with(plan, scopes, Some(Duration::from_secs(seconds))).await
    }

    /// The `Authorization` header of an admin's session, which every route accepts.
    pub(crate) async fn everything(&self) -> String {
        let (email, password) = ("root@example.org", "correct horse");
        let account = NewAccount {
            email: Email::parse(email).expect("an address"),
            name: "Root".to_owned(),
            plan: PlanCode::new("premium"),
            role: Role::Admin,
            password: Some(Password::parse(password).expect("a password")),
        };
        // The account may exist from an earlier call.
        let _ = self.service.accounts.create(account).await;
        let body = serde_json::json!({"email": email, "password": password});
        let answer = self.post("/api/v3/auth/login").body(&body.to_string()).await;
        format!("Bearer {}", answer.json()["token"].as_str().expect("a token"))
    }

    /// Moves the clock.
    pub(crate) fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    async fn key_with(&self, plan: &str, scopes: &str, life: Option<Duration>) -> String {
        self.key_of(Role::User, plan, scopes, life).await
    }

    async fn key_of(&self, role: Role, plan: &str, scopes: &str, life: Option<Duration>) -> String {
        let count = self.owners.lock().expect("no test panics under it").len();
        let account = NewAccount {
            email: Email::parse(&format!("user{count}@example.org")).expect("an address"),
            name: "User".to_owned(),
            plan: PlanCode::new(plan),
            role,
            password: None,
        };
        let account = self.service.accounts.create(account).await.expect("an account");
        let token = NewToken {
            name: key_name(),
            label: None,
            scopes: scopes.parse().expect("scopes"),
            ip_allowlist: pinfold_model::IpRules::default(),
            expires_at: life.map(|life| self.clock.now().after(life)),
        };
        let created = self.service.tokens.create(account.id, token).await.expect("a key");
        let secret = created.secret.reveal().to_owned();
        self.owners.lock().expect("no test panics under it").insert(secret.clone(), account.id);
        secret
    }

    /// Another key of the account that has this one.
    pub(crate) async fn another_key(&self, key: &str, scopes: &str) -> String {
        let (owner, count) = {
            let owners = self.owners.lock().expect("no test panics under it");
            (owners[key], owners.len())
        };
        let token = NewToken {
            name: TokenName::parse(&format!("key {count}")).expect("a name"),
            label: None,
            scopes: scopes.parse().expect("scopes"),
            ip_allowlist: pinfold_model::IpRules::default(),
            expires_at: None,
        };
        let created = self.service.tokens.create(owner, token).await.expect("a key");
        let secret = created.secret.reveal().to_owned();
        self.owners.lock().expect("no test panics under it").insert(secret.clone(), owner);
        secret
    }

    /// How many pins the account of a key has.
    pub(crate) async fn pins_of(&self, key: &str) -> u64 {
        let owner = self.owners.lock().expect("no test panics under it")[key];
        self.service.accounts.by_id(owner).await.expect("an account").pins
    }

    /// Whether the database files contain this text.
    pub(crate) fn database_has(&self, text: &str) -> bool {
        let files = std::fs::read_dir(self._folder.path()).expect("a folder");
        let contents = files.map(|file| std::fs::read(file.expect("an entry").path()).expect("a file"));
        contents.into_iter().any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    }

    pub(crate) async fn revoke(&self, key: &str) {
        let owner = self.owners.lock().expect("no test panics under it")[key];
        self.service.tokens.revoke(owner, &key_name()).await.expect("it was there");
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> Sending {
        let request = Request::builder().method(method).uri(path);
        Sending { router: self.router.clone(), request, body: Body::empty() }
    }

    pub(crate) fn get(&self, path: &str) -> Sending {
        self.request("GET", path)
    }

    pub(crate) fn post(&self, path: &str) -> Sending {
        self.request("POST", path)
    }

    pub(crate) fn now_s(&self) -> i64 {
        self.clock.now().as_ms() / 1000
    }

    /// Removes a DAG from the network.
    pub(crate) fn unpublish(&self, cid: &str) {
        let cid = parse_cid(cid).expect("a CID");
        self.clusters.iter().for_each(|cluster| cluster.unpublish(&cid));
    }

    /// Makes the next fetch of a DAG fail, for a reason that is not the client's.
    pub(crate) fn fail(&self, cid: &str) {
        let cid = parse_cid(cid).expect("a CID");
        let fate = Fate::Fails(pinfold_cluster::ClusterError::Stalled("nothing came".to_owned()));
        self.clusters[0].script_hold(&cid, [fate]);
    }

    /// Makes the cluster unreachable for the next fetches and surveys of a DAG.
    pub(crate) fn make_unreachable(&self, cid: &str, times: usize) {
        let cid = parse_cid(cid).expect("a CID");
        let fate =
            Fate::Fails(pinfold_cluster::ClusterError::Unavailable("http://secret:9094 refused".to_owned()));
        self.clusters[0].script_hold(&cid, vec![fate.clone(); times]);
        self.clusters[0].script_survey(&cid, vec![fate; times]);
    }

    /// Blocks the next fetch of a DAG until the gate is opened.
    pub(crate) fn block_fetch(&self, cid: &str) -> Gate {
        let (cid, gate) = (parse_cid(cid).expect("a CID"), Gate::default());
        self.clusters[0].script_hold(&cid, [Fate::Waits(gate.clone())]);
        gate
    }

    /// Reports progress of a blocked fetch.
    pub(crate) fn report_progress(&self, cid: &str, blocks: u64, bytes: u64, peers: u64) {
        self.clusters[0].bring(&parse_cid(cid).expect("a CID"), blocks, bytes, peers);
    }

    /// Tells the server to stop.
    pub(crate) fn stop(&self) {
        self.stopping.cancel();
    }

    /// The status of a pin once it satisfies the condition; wakes the worker meanwhile.
    pub(crate) async fn until_status(&self, key: &str, cid: &str, is: impl Fn(&Value) -> bool) -> Value {
        let path = format!("/api/v3/status/{cid}");
        let polling = async {
            loop {
                let status = self.get(&path).key(key).await.json();
                if is(&status) {
                    break status;
                }
                self.service.workers.wake();
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), polling).await.expect("it comes to that")
    }

    /// Another router for the same service, with another clock.
    pub(crate) fn with_clock(&self, clock: Arc<dyn Clock>) -> Router {
        router(AppState::new(self.service.clone(), unlimited_rates(), clock, self.stopping.clone()))
    }

    /// Waits until every cluster has released the holds of uploads.
    pub(crate) async fn until_uploads_are_released(&self) {
        let is_upload = |name: &String| name.starts_with("upload/");
        let released = async {
            while self.clusters.iter().any(|cluster| cluster.all_names().iter().any(is_upload)) {
                self.service.workers.wake();
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), released).await.expect("all uploads are released");
    }

    /// Waits until no cluster holds anything: releases run in the background.
    pub(crate) async fn until_nothing_is_held(&self) {
        let released = async {
            while self.clusters.iter().any(|cluster| !cluster.all_names().is_empty()) {
                self.service.workers.wake();
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), released).await.expect("all is released");
    }
}

/// Settings without effective rate limits.
pub(crate) fn unlimited_rates() -> Settings {
    let plenty = Rate::new(1_000_000, 1_000_000);
    let rates = Rates {
        anonymous: plenty,
        polls: plenty,
        guesses: plenty,
        logins: plenty,
        account_logins: plenty,
        ..Rates::default()
    };
    Settings { rates, ..Settings::default() }
}

fn setup(id: &str, driver: &Scripted) -> ClusterSetup {
    let gateway = GatewayInfo { url: "http://127.0.0.1:8080/ipfs/".to_owned(), label: "Local".to_owned() };
    let info = ClusterInfo {
        id: ClusterId::parse(id).expect("an id"),
        label: format!("The cluster {id}"),
        region: None,
        country: None,
        gateways: vec![gateway],
    };
    ClusterSetup { info, driver: Arc::new(driver.clone()) }
}

fn key_name() -> TokenName {
    TokenName::parse("test").expect("a name")
}

/// The answer to a request.
pub(crate) struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// A header's value, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("plain text"))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }

    /// The text with every id replaced, since ids differ between runs.
    pub(crate) fn masked(&self) -> String {
        let ids: Vec<String> = ids_in(&self.json());
        ids.iter().fold(self.text.clone(), |text, id| text.replace(id.as_str(), "[id]"))
    }
}

fn ids_in(value: &Value) -> Vec<String> {
    let Some(fields) = value.as_object() else {
        return value.as_array().into_iter().flatten().flat_map(ids_in).collect();
    };
    let is_id = |name: &str| matches!(name, "uploadId" | "_id" | "nextCursor");
    let of_field = |(name, value): (&String, &Value)| match value.as_str() {
        Some(text) if is_id(name) => vec![text.to_owned()],
        _ => ids_in(value),
    };
    fields.iter().flat_map(of_field).collect()
}

/// A request that is sent when awaited.
pub(crate) struct Sending {
    router: Router,
    request: request::Builder,
    body: Body,
}

impl Sending {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    pub(crate) fn key(self, key: &str) -> Self {
        self.header("x-api-key", key)
    }

    /// Sends it to this router.
    pub(crate) fn to(self, router: Router) -> Self {
        Self { router, ..self }
    }

    /// Sends it from this address.
    pub(crate) fn from(mut self, address: &str) -> Self {
        let address: IpAddr = address.parse().expect("an address");
        self.request = self.request.extension(ConnectInfo(SocketAddr::new(address, 9)));
        self
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(&body.to_string())
    }

    pub(crate) fn body(mut self, text: &str) -> Self {
        self.body = Body::from(text.to_owned());
        self
    }

    /// A body that streams.
    pub(crate) fn stream(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// A body out of [`form`].
    pub(crate) fn form(mut self, body: Vec<u8>) -> Self {
        self.body = Body::from(body);
        self.header("content-type", "multipart/form-data; boundary=frontier")
    }
}

impl Sending {
    /// Sends it, and returns the answer with its body unread.
    pub(crate) async fn open(self) -> Response {
        let request = self.request.body(self.body).expect("a request");
        self.router.oneshot(request).await.expect("the router never fails")
    }
}

impl IntoFuture for Sending {
    type Output = Answer;
    type IntoFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (parts, body) = self.open().await.into_parts();
            let body = to_bytes(body, 16 * 1024 * 1024).await.expect("a body");
            let text = String::from_utf8(body.to_vec()).expect("text");
            Answer { status: parts.status.as_u16(), headers: parts.headers, text }
        })
    }
}

/// A multipart body of these parts. A name can include a filename: `file"; filename="a.txt`.
pub(crate) fn form(parts: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, content) in parts {
        let head = format!("--frontier\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content.as_bytes());
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--frontier--\r\n");
    body
}
