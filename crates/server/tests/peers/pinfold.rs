//! The real `pinfold`, controlled by its command line and with curl.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    Over,
    program::{self, Program},
};

const BINARY: &str = env!("CARGO_BIN_EXE_pinfold");

/// A running server with its own data folder.
pub(crate) struct Pinfold {
    program: Program,
    /// Base URL of its HTTP API, without a trailing slash.
    pub(crate) url: String,
    /// The first account's API key, which has every scope.
    pub(crate) key: String,
    addresses: Vec<String>,
    data: TempDir,
}

impl Pinfold {
    /// Starts a server that joins no DHT and stays connected to one peer.
    pub(crate) async fn connected_to(peer: &str) -> Self {
        Self::start(&["--no-bootstrap", "--peer", peer]).await
    }

    /// Starts a server that listens on every transport, on loopback.
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[]).await
    }

    /// The same with settings from the environment.
    pub(crate) async fn start_with(arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        let data = tempfile::tempdir().expect("a temporary folder");
        let mut serve = Command::new(BINARY);
        serve.args(["serve", "--json", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data.path());
        for over in [Over::TcpTls, Over::Quic, Over::WebSocket] {
            serve.args(["--swarm-listen", over.listen()]);
        }
        serve.args(arguments).envs(settings.iter().copied());
        let mut program = Program::start("pinfold", serve, data.path());
        let ready: Ready = program.line(|line| serde_json::from_str(line).ok()).await;
        program.let_run();
        let url = ready.url.trim_end_matches('/').to_owned();
        Self { program, url, key: ready.first_key, addresses: ready.addresses, data }
    }

    /// Creates an account with the plan premium and returns its key, which has every scope.
    pub(crate) async fn account(&self, email: &str, password: &str) -> String {
        let command = |arguments: &[&str]| {
            let mut command = Command::new(BINARY);
            command.args(arguments).arg("--data-dir").arg(self.data.path());
            command
        };
        let create = command(&["user", "create", "--email", email, "--plan", "premium", "--password-stdin"]);
        program::output("pinfold user create", create, format!("{password}\n").as_bytes()).await;
        let create = command(&["token", "create", "--email", email, "--name", "client"]);
        program::output("pinfold token create", create, b"").await
    }

    /// An address of this server for a transport.
    pub(crate) fn address(&self, over: Over) -> &str {
        let found = self.addresses.iter().find(|address| over.fits(address));
        found.unwrap_or_else(|| panic!("no address for {over:?} among {:?}", self.addresses))
    }

    /// Sends the pin request of the original API page and asserts that the CID is pinned by its response.
    pub(crate) async fn pin(&self, cid: &str) {
        let body = json!({"cl": "cl0-global"}).to_string();
        let header = ["-H", "Content-Type: application/json", "-H", "Prefer: wait=120", "-d", &body];
        let (status, answer) = self.request("POST", &format!("/api/v3/files/pin/{cid}"), &header).await;
        assert_eq!(status, 201, "pinning {cid}: {answer}\n{}", self.program.log_tail());
        assert_eq!(answer["cid"], cid);
        assert_eq!(answer["status"], "pinned");
    }

    /// Its OpenAPI document.
    pub(crate) async fn document(&self) -> Value {
        let (status, document) = self.request("GET", "/api/v3/docs/openapi.json", &[]).await;
        assert_eq!(status, 200);
        document
    }

    /// Uploads a file with `POST /files` and returns its CID.
    pub(crate) async fn upload(&self, path: &Path) -> String {
        let form = format!("file=@{}", path.display());
        let (status, answer) = self.request("POST", "/api/v3/files", &["-F", &form]).await;
        assert_eq!(status, 201, "uploading {}: {answer}\n{}", path.display(), self.program.log_tail());
        answer["cid"].as_str().unwrap_or_else(|| panic!("no CID in {answer}")).to_owned()
    }

    /// Uploads a file with `pinfold add` and returns its CID.
    pub(crate) async fn add(&self, path: &Path) -> String {
        let mut command = Command::new(BINARY);
        command.env("PINFOLD_SERVER", &self.url).env("PINFOLD_API_KEY", &self.key);
        command.args(["add", "--quiet"]).arg(path);
        program::output("pinfold add", command, b"").await
    }

    /// Sends a request with curl; returns status and JSON of the response.
    pub(crate) async fn request(&self, method: &str, path: &str, arguments: &[&str]) -> (u16, Value) {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "170", "--write-out", "\n%{http_code}"]);
        command.args(["--request", method, "--header", &format!("X-API-Key: {}", self.key)]);
        command.args(arguments).arg(format!("{}{path}", self.url));
        let output = program::output(&format!("curl {path}"), command, b"").await;
        let (body, status) = output.rsplit_once('\n').expect("curl ends with the status");
        let body = serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error} in {body}"));
        (status.parse().expect("a status is a number"), body)
    }
}

/// The line that `pinfold serve --json` prints when it is ready.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    url: String,
    addresses: Vec<String>,
    first_key: String,
}
