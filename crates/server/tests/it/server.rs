//! The server under test: the real binary, on free ports of loopback and a data folder of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::faulty_disk::Disk;

/// How long anything may take before a story counts as failed. Generous: machines differ.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The binary that cargo built for these tests.
const PINFOLD: &str = env!("CARGO_BIN_EXE_pinfold");

/// A running server, or one that was stopped and can be started again on the same data.
pub(crate) struct TestServer {
    folder: TempDir,
    settings: Vec<(String, String)>,
    http: reqwest::Client,
    /// What its data folder lies on, if that is not the machine's own.
    disk: Option<Disk>,
    running: Option<Running>,
    /// The first account's key, with every scope.
    pub(crate) key: String,
}

struct Running {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    url: String,
    addresses: Vec<String>,
}

/// An account with its own key.
pub(crate) struct Client<'a> {
    server: &'a TestServer,
    key: String,
}

impl TestServer {
    /// A server with the defaults.
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// A server with these settings, such as `("pins.find_seconds", "1")`.
    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        let mut server = Self::prepare(settings);
        server.first_start().await;
        server
    }

    /// The same on a disk that can lose its power and fail.
    pub(crate) async fn on_disk(settings: &[(&str, &str)]) -> Self {
        let mut server = Self::prepare_on_disk(settings);
        server.first_start().await;
        server
    }

    /// The same, not started yet.
    pub(crate) fn prepare_on_disk(settings: &[(&str, &str)]) -> Self {
        let mut server = Self::prepare(settings);
        // A request that is refused before its body is read ends its connection: no other may count on it.
        server.http = client().pool_max_idle_per_host(0).build().unwrap();
        server.disk = Some(Disk::under(&server.data_dir(), &server.folder.path().join("journal")));
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

    /// A server whose first start prints no key.
    pub(crate) async fn without_key(settings: &[(&str, &str)]) -> Self {
        let mut server = Self::prepare(settings);
        assert_eq!(server.run().await.get("firstKey"), None);
        server
    }

    /// What a start says that fails.
    pub(crate) async fn failing(settings: &[(&str, &str)]) -> String {
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

    /// The disk of [`on_disk`](Self::on_disk).
    pub(crate) fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("it has one")
    }

    /// A server on a folder of its own that is made from a backup, with the same accounts and settings. `options`
    /// are those of `pinfold restore`.
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

    /// Starts it again on the same data.
    pub(crate) async fn restart(&mut self) {
        let ready = self.run().await;
        assert_eq!(ready.get("firstKey"), None, "a key is made once");
    }

    /// Starts it and kills it after this time, ready or not. Gives its first key if it said it.
    pub(crate) async fn start_and_kill(&mut self, after: Duration) -> Option<String> {
        let mut child = self.spawn();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        tokio::time::sleep(after).await;
        child.kill().await.unwrap();
        let line = stdout.next_line().await.unwrap()?;
        // It may have been killed in the middle of the line.
        let ready: Value = serde_json::from_str(&line).ok()?;
        ready["firstKey"].as_str().map(str::to_owned)
    }

    fn spawn(&self) -> Child {
        assert!(self.running.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        self.command(&["serve", "--json", "--listen", "127.0.0.1:0", "--no-bootstrap"])
            .args(["--swarm-listen", "/ip4/127.0.0.1/tcp/0"])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// Starts it and gives what it says when it is ready.
    pub(crate) async fn run(&mut self) -> Value {
        let mut child = self.spawn();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(PATIENCE, stdout.next_line()).await.expect("it is ready in time");
        let line = line.unwrap().unwrap_or_else(|| panic!("it did not start:\n{}", self.log_text()));
        let ready: Value = serde_json::from_str(&line).unwrap();
        let addresses = ready["addresses"].as_array().unwrap().iter().map(|a| a.as_str().unwrap().to_owned());
        let url = ready["url"].as_str().unwrap().to_owned();
        self.running = Some(Running { child, stdout, url, addresses: addresses.collect() });
        ready
    }

    /// A `pinfold` command on this server's data folder and with its settings, but nothing else of the
    /// tester's environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PINFOLD);
        command.args(args).kill_on_drop(true).env_clear();
        command.envs(self.settings.iter().map(|(key, value)| (key, value)));
        command.env("PINFOLD_DATA_DIR", self.data_dir()).env("PINFOLD_API_KEY", &self.key);
        // A command that works without a server reaches nobody else either.
        command.env("PINFOLD_NODE__BOOTSTRAP", "");
        command.envs(self.disk.iter().flat_map(Disk::environment));
        if let Some(running) = &self.running {
            command.env("PINFOLD_SERVER", &running.url);
        }
        command
    }

    /// Runs a `pinfold` command to its end.
    pub(crate) async fn cli(&self, args: &[&str]) -> Output {
        let output = self.command(args).stdin(Stdio::null()).output();
        tokio::time::timeout(PATIENCE, output).await.expect("the command ends").unwrap()
    }

    /// The same, which must succeed; gives its stdout.
    pub(crate) async fn cli_ok(&self, args: &[&str]) -> String {
        let output = self.cli(args).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {errors}\n{}", self.log_text());
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// The same with what it reads from stdin.
    pub(crate) async fn cli_with(&self, args: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let write = async move {
            // It may have refused what came so far.
            let _ = stdin.write_all(input).await;
        };
        let run = async { tokio::join!(write, child.wait_with_output()).1 };
        tokio::time::timeout(PATIENCE, run).await.expect("the command ends").unwrap()
    }

    /// What `pinfold blocks stats` says, once `is_it` is so: space comes back in the background.
    pub(crate) async fn until_stats(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stats = self.cli_ok(&["blocks", "stats", "--json"]).await;
            let stats = serde_json::from_str(&stats).unwrap();
            if is_it(&stats) {
                return stats;
            }
            assert!(Instant::now() < deadline, "the store never was {what}: {stats}\n{}", self.log_text());
        }
    }

    /// The segments of its store.
    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.data_dir().join("blocks/segments")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Flips a bit of these bytes, wherever they are in a segment.
    pub(crate) fn damage(&self, bytes: &[u8]) {
        for path in self.segments() {
            let mut segment = std::fs::read(&path).unwrap();
            if let Some(at) = segment.windows(bytes.len()).position(|window| window == bytes) {
                segment[at + bytes.len() / 2] ^= 1;
                std::fs::write(&path, segment).unwrap();
                return;
            }
        }
        panic!("no segment has these bytes");
    }

    /// SIGKILL: nothing that it holds in memory survives.
    pub(crate) async fn kill(&mut self) {
        let mut running = self.running.take().expect("it runs");
        running.child.kill().await.unwrap();
    }

    /// SIGTERM, without waiting.
    pub(crate) async fn terminate(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status().await.unwrap();
        assert!(sent.success());
    }

    /// SIGTERM, and waits for the end.
    pub(crate) async fn stop(&mut self) {
        self.terminate().await;
        self.stopped().await;
    }

    /// Waits for the end, which must be a good one.
    pub(crate) async fn stopped(&mut self) {
        let mut running = self.running.take().expect("it runs");
        let status = tokio::time::timeout(PATIENCE, running.child.wait()).await.expect("it stops").unwrap();
        assert!(status.success(), "{status}\n{}", self.log_text());
        assert_eq!(running.stdout.next_line().await.unwrap(), None, "stdout has the one line");
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.running.as_ref().and_then(|running| running.child.id()).expect("it runs")
    }

    /// Its data folder.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Something to send plain requests with.
    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Where it answers HTTP.
    pub(crate) fn url(&self) -> &str {
        &self.running.as_ref().expect("it runs").url
    }

    /// What `GET /metrics` answers to this key.
    pub(crate) async fn metrics(&self, key: &str) -> (StatusCode, String) {
        let mut request = self.http.get(format!("{}/metrics", self.url()));
        if !key.is_empty() {
            request = request.bearer_auth(key);
        }
        let response = request.send().await.unwrap();
        (response.status(), response.text().await.unwrap())
    }

    /// Its addresses for other nodes, each with `/p2p/ID`.
    pub(crate) fn addresses(&self) -> &[String] {
        &self.running.as_ref().expect("it runs").addresses
    }

    /// The first account.
    pub(crate) fn admin(&self) -> Client<'_> {
        Client { server: self, key: self.key.clone() }
    }

    /// Whoever has this key.
    pub(crate) fn client(&self, key: &str) -> Client<'_> {
        Client { server: self, key: key.to_owned() }
    }

    /// A new account with a key of every scope.
    pub(crate) async fn account(&self, name: &str) -> Client<'_> {
        let email = format!("{name}@example.org");
        self.cli_ok(&["user", "create", "--email", &email, "--no-password"]).await;
        let key = self.cli_ok(&["token", "create", "--email", &email, "--name", "test"]).await;
        Client { server: self, key }
    }

    /// What it logged.
    pub(crate) fn log_text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Looks at the disk until the blocks take less than this.
    pub(crate) async fn until_disk_is_below(&self, bytes: u64) {
        self.until_below("blocks", bytes).await;
    }

    /// Looks at the disk until the segments of the blocks take less than this.
    pub(crate) async fn until_segments_are_below(&self, bytes: u64) {
        self.until_below("blocks/segments", bytes).await;
    }

    async fn until_below(&self, folder: &str, bytes: u64) {
        let folder = self.data_dir().join(folder);
        let deadline = Instant::now() + PATIENCE;
        let mut looks = tokio::time::interval(Duration::from_millis(100));
        while bytes_of(&folder) >= bytes {
            looks.tick().await;
            assert!(Instant::now() < deadline, "{} still take {} bytes", folder.display(), bytes_of(&folder));
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// The bytes on disk under the blocks' folder, as the file system counts them (holes cost nothing).
    pub(crate) fn disk_bytes(&self) -> u64 {
        bytes_of(&self.data_dir().join("blocks"))
    }
}

fn client() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy().timeout(PATIENCE * 2)
}

/// The bytes that a file or a folder with all that is in it takes on the disk.
fn bytes_of(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = path.symlink_metadata() else { return 0 };
    let inside = std::fs::read_dir(path).into_iter().flatten().flatten();
    if metadata.is_dir() {
        inside.map(|entry| bytes_of(&entry.path())).sum()
    } else {
        metadata.blocks() * 512
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = self.log_text();
            let tail: Vec<&str> = text.lines().rev().take(60).collect();
            eprintln!("the server's last words:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}

impl Client<'_> {
    /// Its API key.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Sends a request and gives status and body.
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

    /// The seed's request.
    pub(crate) async fn pin(&self, cid: &str) -> (StatusCode, Value) {
        let body = json!({ "cl": "cl0-global" });
        self.send(Method::POST, &format!("/files/pin/{cid}"), None, Some(body)).await
    }

    /// Asks for a pin without waiting for it.
    pub(crate) async fn pin_later(&self, cid: &str) {
        let path = format!("/files/pin/{cid}");
        let (status, body) = self.send(Method::POST, &path, Some("respond-async"), None).await;
        assert!(status.is_success(), "{status} {body}");
    }

    /// The pin's status resource.
    pub(crate) async fn status(&self, cid: &str) -> (StatusCode, Value) {
        self.send(Method::GET, &format!("/status/{cid}"), None, None).await
    }

    /// Looks at a pin until `is_it` is so, and gives how it stands then.
    pub(crate) async fn until(&self, cid: &str, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut looks = tokio::time::interval(Duration::from_millis(50));
        loop {
            looks.tick().await;
            let (status, body) = self.status(cid).await;
            if status.is_success() && is_it(&body) {
                return body;
            }
            assert!(Instant::now() < deadline, "{cid} never was {what}: {status} {body}");
        }
    }

    /// Looks at a pin until it is held.
    pub(crate) async fn until_pinned(&self, cid: &str) -> Value {
        self.until(cid, "pinned", |pin| pin["status"] == "pinned").await
    }

    /// Follows a pin: the stream of its events, after the one with the id `seen`.
    pub(crate) async fn follow(&self, cid: &str, seen: Option<&str>) -> reqwest::Response {
        let url = format!("{}/api/v3/status/{cid}/events", self.server.url());
        let mut request = self.server.http.get(url).header("X-API-Key", &self.key);
        request = request.header("Accept", "text/event-stream");
        if let Some(seen) = seen {
            request = request.header("Last-Event-ID", seen);
        }
        request.send().await.unwrap()
    }

    /// Removes a pin.
    pub(crate) async fn remove(&self, cid: &str) -> (StatusCode, Value) {
        self.send(Method::DELETE, &format!("/files/remove/{cid}"), None, None).await
    }

    /// The list of pins.
    pub(crate) async fn uploads(&self) -> Value {
        let (status, body) = self.send(Method::GET, "/users/me/uploads", None, None).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    /// Uploads bytes as one file and gives the answer.
    pub(crate) async fn upload(&self, name: &str, bytes: Vec<u8>) -> (StatusCode, Value) {
        use reqwest::multipart::{Form, Part};
        let form = Form::new().part("file", Part::bytes(bytes).file_name(name.to_owned()));
        let url = format!("{}/api/v3/files", self.server.url());
        let request = self.server.http.post(url).header("X-API-Key", &self.key).multipart(form);
        let response = request.send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }
}
