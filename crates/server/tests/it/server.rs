//! The server under test: the real binary on free loopback ports, with its own data directory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::faulty_disk::FaultyDisk;

/// Maximum time for any single step of a test. Generous, for slow machines.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);

/// The binary that cargo built for these tests.
const PINFOLD: &str = env!("CARGO_BIN_EXE_pinfold");

/// A server that can be stopped, killed and restarted on the same data directory.
pub(crate) struct TestServer {
    folder: TempDir,
    settings: Vec<(String, String)>,
    http: reqwest::Client,
    /// The simulated disk, if any.
    disk: Option<FaultyDisk>,
    running: Option<Running>,
    /// API key of the first account, with all scopes.
    pub(crate) key: String,
}

struct Running {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    url: String,
    addresses: Vec<String>,
}

/// A client with the API key of an account.
pub(crate) struct Client<'a> {
    server: &'a TestServer,
    key: String,
}

impl TestServer {
    /// A server with the default settings.
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// A server with these settings, such as `("pins.find_seconds", "1")`.
    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        let mut server = Self::prepare(settings);
        server.first_start().await;
        server
    }

    /// A server on a simulated disk that can fail and lose power.
    pub(crate) async fn on_faulty_disk(settings: &[(&str, &str)]) -> Self {
        let mut server = Self::prepare_on_faulty_disk(settings);
        server.first_start().await;
        server
    }

    /// The same, not yet started.
    pub(crate) fn prepare_on_faulty_disk(settings: &[(&str, &str)]) -> Self {
        let mut server = Self::prepare(settings);
        // A request that is rejected before its body is read closes its connection, so connections are not reused.
        server.http = client().pool_max_idle_per_host(0).build().unwrap();
        server.disk = Some(FaultyDisk::under(&server.data_dir(), &server.folder.path().join("journal")));
        server
    }

    fn prepare(settings: &[(&str, &str)]) -> Self {
        let settings = settings.iter().map(|(key, value)| {
            (format!("PINFOLD_{}", key.to_uppercase().replace('.', "__")), (*value).to_owned())
        });
        let _already = rustls::crypto::ring::default_provider().install_default();
        Self {
            folder: tempfile::tempdir().unwrap(),
            settings: settings.collect(),
            http: client().build().unwrap(),
            disk: None,
            running: None,
            key: String::new(),
        }
    }

    /// A server whose first start does not print a key.
    pub(crate) async fn without_key(settings: &[(&str, &str)]) -> Self {
        let mut server = Self::prepare(settings);
        assert_eq!(server.run().await.get("firstKey"), None);
        server
    }

    /// Starts a server that must fail, and returns its stderr.
    pub(crate) async fn fail_to_start(settings: &[(&str, &str)]) -> String {
        let server = Self::prepare(settings);
        let arguments =
            ["serve", "--listen", "127.0.0.1:0", "--no-bootstrap", "--swarm-listen", "/ip4/127.0.0.1/tcp/0"];
        let output = server.cli(&arguments).await;
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    }

    async fn first_start(&mut self) {
        self.key = self.run().await["firstKey"].as_str().expect("the first start prints a key").to_owned();
    }

    /// The disk of [`on_faulty_disk`](Self::on_faulty_disk).
    pub(crate) fn disk(&self) -> &FaultyDisk {
        self.disk.as_ref().expect("the server has a simulated disk")
    }

    /// A new server that is restored from a backup, with the same settings. `options` are passed to `pinfold restore`.
    pub(crate) async fn restored(&self, backup: &Path, options: &[&str]) -> Self {
        let mut server = Self {
            folder: tempfile::tempdir().unwrap(),
            settings: self.settings.clone(),
            http: self.http.clone(),
            disk: None,
            running: None,
            key: self.key.clone(),
        };
        server.cli_ok(&[&["restore", backup.to_str().unwrap()], options].concat()).await;
        server.restart().await;
        server
    }

    /// Starts it again on the same data directory.
    pub(crate) async fn restart(&mut self) {
        let ready = self.run().await;
        assert_eq!(ready.get("firstKey"), None, "a key is created only at the first start");
    }

    /// Starts it and kills it after this time, ready or not. Returns its first key if it was printed.
    pub(crate) async fn start_and_kill(&mut self, after: Duration) -> Option<String> {
        let mut child = self.spawn();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        tokio::time::sleep(after).await;
        child.kill().await.unwrap();
        let line = stdout.next_line().await.unwrap()?;
        // The process may have been killed in the middle of the line.
        let ready: Value = serde_json::from_str(&line).ok()?;
        ready["firstKey"].as_str().map(str::to_owned)
    }

    fn spawn(&self) -> Child {
        assert!(self.running.is_none(), "the server is already running");
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        self.command(&["serve", "--json", "--listen", "127.0.0.1:0", "--no-bootstrap"])
            .args(["--swarm-listen", "/ip4/127.0.0.1/tcp/0"])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// Starts it and returns its startup output.
    pub(crate) async fn run(&mut self) -> Value {
        let mut child = self.spawn();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let line =
            tokio::time::timeout(TIMEOUT, stdout.next_line()).await.expect("the server is ready in time");
        let line = line.unwrap().unwrap_or_else(|| panic!("the server did not start:\n{}", self.log_text()));
        let ready: Value = serde_json::from_str(&line).unwrap();
        let addresses = ready["addresses"].as_array().unwrap().iter().map(|a| a.as_str().unwrap().to_owned());
        let url = ready["url"].as_str().unwrap().to_owned();
        self.running = Some(Running { child, stdout, url, addresses: addresses.collect() });
        ready
    }

    /// A `pinfold` command with this server's data directory and settings, without other environment variables.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PINFOLD);
        command.args(args).kill_on_drop(true).env_clear();
        command.envs(self.settings.iter().map(|(key, value)| (key, value)));
        command.env("PINFOLD_DATA_DIR", self.data_dir()).env("PINFOLD_API_KEY", &self.key);
        // A command that starts its own node must not connect to the public DHT.
        command.env("PINFOLD_NODE__BOOTSTRAP", "");
        command.envs(self.disk.iter().flat_map(FaultyDisk::environment));
        if let Some(running) = &self.running {
            command.env("PINFOLD_SERVER", &running.url);
        }
        command
    }

    /// Runs a `pinfold` command.
    pub(crate) async fn cli(&self, args: &[&str]) -> Output {
        let output = self.command(args).stdin(Stdio::null()).output();
        tokio::time::timeout(TIMEOUT, output).await.expect("the command ends").unwrap()
    }

    /// Runs a `pinfold` command that must succeed, and returns its stdout.
    pub(crate) async fn cli_ok(&self, args: &[&str]) -> String {
        let output = self.cli(args).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {errors}\n{}", self.log_text());
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Runs a `pinfold` command with input on stdin.
    pub(crate) async fn cli_with(&self, args: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let write = async move {
            // The command may exit without reading all input.
            let _ = stdin.write_all(input).await;
        };
        let run = async { tokio::join!(write, child.wait_with_output()).1 };
        tokio::time::timeout(TIMEOUT, run).await.expect("the command ends").unwrap()
    }

    /// Polls `pinfold blocks stats` until `condition` holds. Space is reclaimed in the background.
    pub(crate) async fn until_stats(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let stats = self.cli_ok(&["blocks", "stats", "--json"]).await;
            let stats = serde_json::from_str(&stats).unwrap();
            if condition(&stats) {
                return stats;
            }
            assert!(
                Instant::now() < deadline,
                "the block store never became {what}: {stats}\n{}",
                self.log_text()
            );
        }
    }

    /// The segment files of its block store.
    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.data_dir().join("blocks/segments")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Flips a bit of these bytes in the segment that contains them.
    pub(crate) fn damage(&self, bytes: &[u8]) {
        for path in self.segments() {
            let mut segment = std::fs::read(&path).unwrap();
            if let Some(at) = segment.windows(bytes.len()).position(|window| window == bytes) {
                segment[at + bytes.len() / 2] ^= 1;
                std::fs::write(&path, segment).unwrap();
                return;
            }
        }
        panic!("no segment contains these bytes");
    }

    /// Sends SIGKILL.
    pub(crate) async fn kill(&mut self) {
        let mut running = self.running.take().expect("the server is running");
        running.child.kill().await.unwrap();
    }

    /// Sends SIGTERM without waiting.
    pub(crate) async fn terminate(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status().await.unwrap();
        assert!(sent.success());
    }

    /// Sends SIGTERM and waits for the process to exit.
    pub(crate) async fn stop(&mut self) {
        self.terminate().await;
        self.stopped().await;
    }

    /// Waits until the process exits, which must be with status 0.
    pub(crate) async fn stopped(&mut self) {
        let mut running = self.running.take().expect("the server is running");
        let status = tokio::time::timeout(TIMEOUT, running.child.wait())
            .await
            .expect("the server stops in time")
            .unwrap();
        assert!(status.success(), "{status}\n{}", self.log_text());
        assert_eq!(running.stdout.next_line().await.unwrap(), None, "stdout has only the startup line");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running.as_ref().and_then(|running| running.child.id()).expect("the server is running")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The HTTP client of the tests.
    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Base URL of the HTTP API.
    pub(crate) fn url(&self) -> &str {
        &self.running.as_ref().expect("the server is running").url
    }

    /// Requests `GET /metrics` with this key, or without one if it is empty.
    pub(crate) async fn metrics(&self, key: &str) -> (StatusCode, String) {
        let mut request = self.http.get(format!("{}/metrics", self.url()));
        if !key.is_empty() {
            request = request.bearer_auth(key);
        }
        let response = request.send().await.unwrap();
        (response.status(), response.text().await.unwrap())
    }

    /// Multiaddrs of its node, each with `/p2p/ID`.
    pub(crate) fn addresses(&self) -> &[String] {
        &self.running.as_ref().expect("the server is running").addresses
    }

    /// A client of the first account.
    pub(crate) fn admin(&self) -> Client<'_> {
        Client { server: self, key: self.key.clone() }
    }

    /// A client with this key.
    pub(crate) fn client(&self, key: &str) -> Client<'_> {
        Client { server: self, key: key.to_owned() }
    }

    /// Creates an account with a key that has all scopes.
    pub(crate) async fn account(&self, name: &str) -> Client<'_> {
        let email = format!("{name}@example.org");
        self.cli_ok(&["user", "create", "--email", &email, "--no-password"]).await;
        let key = self.cli_ok(&["token", "create", "--email", &email, "--name", "test"]).await;
        Client { server: self, key }
    }

    pub(crate) fn log_text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Waits until the block store needs less disk space than this.
    pub(crate) async fn until_disk_is_below(&self, bytes: u64) {
        self.until_below("blocks", bytes).await;
    }

    /// Waits until the segment files need less disk space than this.
    pub(crate) async fn until_segments_are_below(&self, bytes: u64) {
        self.until_below("blocks/segments", bytes).await;
    }

    async fn until_below(&self, folder: &str, bytes: u64) {
        let folder = self.data_dir().join(folder);
        let deadline = Instant::now() + TIMEOUT;
        let mut looks = tokio::time::interval(Duration::from_millis(100));
        while disk_space(&folder) >= bytes {
            looks.tick().await;
            assert!(
                Instant::now() < deadline,
                "{} still needs {} bytes",
                folder.display(),
                disk_space(&folder)
            );
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Disk space of the block store in bytes, without holes.
    pub(crate) fn disk_bytes(&self) -> u64 {
        disk_space(&self.data_dir().join("blocks"))
    }
}

fn client() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy().timeout(TIMEOUT * 2)
}

/// Disk space of a file or a directory tree in bytes.
fn disk_space(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = path.symlink_metadata() else { return 0 };
    let inside = std::fs::read_dir(path).into_iter().flatten().flatten();
    if metadata.is_dir() {
        inside.map(|entry| disk_space(&entry.path())).sum()
    } else {
        metadata.blocks() * 512
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = self.log_text();
            let tail: Vec<&str> = text.lines().rev().take(60).collect();
            eprintln!("end of the server log:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}

impl Client<'_> {
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Sends a request and returns status and body.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        prefer: Option<&str>,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let url = format!("{}/api/v3{path}", self.server.url());
        let mut request = self.server.http.request(method, url).header("X-API-Key", &self.key);
        if let Some(prefer) = prefer {
            request = request.header("Prefer", prefer);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status} without JSON: {text:?}"));
        (status, body)
    }

    /// Pins a CID and waits for the result.
    pub(crate) async fn pin(&self, cid: &str) -> (StatusCode, Value) {
        let body = json!({ "cl": "cl0-global" });
        self.send(Method::POST, &format!("/files/pin/{cid}"), None, Some(body)).await
    }

    /// Pins a CID without waiting for the result.
    pub(crate) async fn pin_async(&self, cid: &str) {
        let path = format!("/files/pin/{cid}");
        let (status, body) = self.send(Method::POST, &path, Some("respond-async"), None).await;
        assert!(status.is_success(), "{status} {body}");
    }

    /// Requests the status of a pin.
    pub(crate) async fn status(&self, cid: &str) -> (StatusCode, Value) {
        self.send(Method::GET, &format!("/status/{cid}"), None, None).await
    }

    /// Polls the status of a pin until `condition` holds, and returns it.
    pub(crate) async fn until(&self, cid: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + TIMEOUT;
        let mut looks = tokio::time::interval(Duration::from_millis(50));
        loop {
            looks.tick().await;
            let (status, body) = self.status(cid).await;
            if status.is_success() && condition(&body) {
                return body;
            }
            assert!(Instant::now() < deadline, "{cid} never became {what}: {status} {body}");
        }
    }

    /// Waits until a CID is pinned.
    pub(crate) async fn until_pinned(&self, cid: &str) -> Value {
        self.until(cid, "pinned", |pin| pin["status"] == "pinned").await
    }

    /// Opens the event stream of a pin, after the event with the id `seen`.
    pub(crate) async fn follow(&self, cid: &str, seen: Option<&str>) -> reqwest::Response {
        let url = format!("{}/api/v3/status/{cid}/events", self.server.url());
        let mut request = self.server.http.get(url).header("X-API-Key", &self.key);
        request = request.header("Accept", "text/event-stream");
        if let Some(seen) = seen {
            request = request.header("Last-Event-ID", seen);
        }
        request.send().await.unwrap()
    }

    pub(crate) async fn remove(&self, cid: &str) -> (StatusCode, Value) {
        self.send(Method::DELETE, &format!("/files/remove/{cid}"), None, None).await
    }

    /// Requests the list of pins.
    pub(crate) async fn uploads(&self) -> Value {
        let (status, body) = self.send(Method::GET, "/users/me/uploads", None, None).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    /// Uploads bytes as one file.
    pub(crate) async fn upload(&self, name: &str, bytes: Vec<u8>) -> (StatusCode, Value) {
        use reqwest::multipart::{Form, Part};
        let form = Form::new().part("file", Part::bytes(bytes).file_name(name.to_owned()));
        let url = format!("{}/api/v3/files", self.server.url());
        let request = self.server.http.post(url).header("X-API-Key", &self.key).multipart(form);
        let response = request.send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }
}
