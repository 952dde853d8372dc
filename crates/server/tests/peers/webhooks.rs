//! Published libraries of the Standard Webhooks specification verify the deliveries of the real server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::pinfold::Pinfold;
use crate::program::{self, Program};
use crate::webhook_receiver::{Receiver, Request};
use crate::{cache, data};

/// Settings that allow webhooks on loopback.
const ALLOW_LOOPBACK: [(&str, &str); 2] =
    [("PINFOLD_WEBHOOKS__ALLOW_HTTP", "true"), ("PINFOLD_WEBHOOKS__ALLOW_PRIVATE", "true")];

/// The result of a library for a request, as `verify-webhook.*` prints it.
const VERIFIED: &str = "verified webhook.test";
const NOT_SIGNED: &str = "rejected No matching signature found";
const TOO_OLD: &str = "rejected Message timestamp too old";
const TOO_NEW: &str = "rejected Message timestamp too new";

impl Pinfold {
    /// Creates a webhook and returns its id and secret.
    async fn webhook(&self, url: &str) -> (String, String) {
        let created = self.post("/api/v3/webhooks", 201, &json!({ "url": url })).await;
        (text(&created["id"]), text(&created["secret"]))
    }

    async fn test_webhook(&self, id: &str) {
        self.post(&format!("/api/v3/webhooks/{id}/test"), 202, &json!({})).await;
    }

    /// Returns the new secret.
    async fn rotate_secret(&self, id: &str) -> String {
        text(&self.post(&format!("/api/v3/webhooks/{id}/rotate-secret"), 200, &json!({})).await["secret"])
    }

    async fn post(&self, path: &str, expected: u16, body: &Value) -> Value {
        let arguments = ["-H", "Content-Type: application/json", "-d", &body.to_string()];
        let (status, answer) = self.request("POST", path, &arguments).await;
        assert_eq!(status, expected, "{path}: {answer}");
        answer
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a string")).to_owned()
}

/// A library, installed by `ci/peers`.
#[derive(Clone, Copy, Debug)]
enum Library {
    Npm,
    Pypi,
}

impl Library {
    const ALL: [Self; 2] = [Self::Npm, Self::Pypi];

    /// Runs a program that imports the library. Node.js finds packages next to the script, so the script is copied
    /// there.
    fn command(self, folder: &Path, script: &str, source: &str) -> Command {
        let path = folder.join(script);
        std::fs::write(&path, source).expect("the script can be written");
        let mut command = match self {
            Self::Npm => {
                let modules = folder.join("node_modules");
                if !modules.exists() {
                    std::os::unix::fs::symlink(cache::webhooks_npm(), modules).expect("a link can be made");
                }
                Command::new(cache::node())
            }
            Self::Pypi => {
                let mut command = Command::new("python3");
                command.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONPATH", cache::webhooks_pypi());
                command
            }
        };
        command.arg(path);
        command
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Npm => "mjs",
            Self::Pypi => "py",
        }
    }

    /// The results of the library for each request.
    async fn verify(self, attempts: &[Attempt<'_>]) -> Vec<String> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let name = format!("verify-webhook.{}", self.extension());
        let source = cache::repository().join("crates/server/tests/peers/clients").join(&name);
        let source = std::fs::read_to_string(source).expect("the script is there");
        let command = self.command(folder.path(), &name, &source);
        let input: String = attempts.iter().map(|attempt| format!("{}\n", attempt.json())).collect();
        let output = program::output(&name, command, input.as_bytes()).await;
        output.lines().map(str::to_owned).collect()
    }
}

/// A request to verify.
#[derive(Clone)]
struct Attempt<'a> {
    secret: &'a str,
    request: Request,
    /// Number of seconds by which the clock of the receiver is ahead.
    ahead_seconds: i64,
}

impl<'a> Attempt<'a> {
    fn new(secret: &'a str, request: &Request) -> Self {
        Self { secret, request: request.clone(), ahead_seconds: 0 }
    }

    fn changed(mut self, change: impl FnOnce(&mut Request)) -> Self {
        change(&mut self.request);
        self
    }

    fn ahead(self, ahead_seconds: i64) -> Self {
        Self { ahead_seconds, ..self }
    }

    fn json(&self) -> Value {
        json!({
            "secret": self.secret,
            "headers": self.request.headers,
            "body": self.request.body,
            "aheadSeconds": self.ahead_seconds,
        })
    }
}

#[tokio::test]
async fn published_libraries_verify_deliveries() {
    let pinfold = Pinfold::start_with(&["--no-bootstrap"], &ALLOW_LOOPBACK).await;
    let receiver = Receiver::start().await;
    let (id, secret) = pinfold.webhook(&receiver.url()).await;
    pinfold.test_webhook(&id).await;
    let request = receiver.until_requests(1).await.remove(0);

    let genuine = Attempt::new(&secret, &request);
    let set = |name: &str, value: &str| {
        let (name, value) = (name.to_owned(), value.to_owned());
        genuine.clone().changed(|request| drop(request.headers.insert(name, value)))
    };
    let other_secret = format!("whsec_{}=", "A".repeat(43));
    let earlier = (request.timestamp() - 60).to_string();
    let attempts = [
        (genuine.clone(), VERIFIED),
        (genuine.clone().changed(|request| request.body = request.body.replace("test", "tent")), NOT_SIGNED),
        (set("webhook-id", "0000000000000000"), NOT_SIGNED),
        (set("webhook-timestamp", &earlier), NOT_SIGNED),
        (Attempt::new(&other_secret, &request), NOT_SIGNED),
        // The same request, sent again ten minutes later, and to a receiver whose clock is late.
        (genuine.clone().ahead(600), TOO_OLD),
        (genuine.clone().ahead(-600), TOO_NEW),
    ];
    let (attempts, expected): (Vec<_>, Vec<_>) = attempts.into_iter().unzip();
    for library in Library::ALL {
        assert_eq!(library.verify(&attempts).await, expected, "{library:?}");
    }

    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), data::bytes("a webhook", 100_000)).expect("the file can be written");
    pinfold.upload(file.path()).await;
    let request = receiver.until_requests(2).await.remove(1);
    for library in Library::ALL {
        let verified = library.verify(&[Attempt::new(&secret, &request)]).await;
        assert_eq!(verified, ["verified pin.pinned"], "{library:?}");
    }
}

#[tokio::test]
async fn published_libraries_verify_deliveries_with_either_secret_after_a_rotation() {
    let pinfold = Pinfold::start_with(&["--no-bootstrap"], &ALLOW_LOOPBACK).await;
    let receiver = Receiver::start().await;
    let (id, first) = pinfold.webhook(&receiver.url()).await;
    let second = pinfold.rotate_secret(&id).await;
    pinfold.test_webhook(&id).await;
    let after_one = receiver.until_requests(1).await.remove(0);
    let third = pinfold.rotate_secret(&id).await;
    pinfold.test_webhook(&id).await;
    let after_two = receiver.until_requests(2).await.remove(1);

    let attempts = [
        Attempt::new(&first, &after_one),
        Attempt::new(&second, &after_one),
        Attempt::new(&third, &after_one),
        Attempt::new(&first, &after_two),
        Attempt::new(&second, &after_two),
        Attempt::new(&third, &after_two),
    ];
    for library in Library::ALL {
        let expected = [VERIFIED, VERIFIED, NOT_SIGNED, NOT_SIGNED, VERIFIED, VERIFIED];
        assert_eq!(library.verify(&attempts).await, expected, "{library:?}");
    }
}

/// A receiver from the guide, running.
struct GuideReceiver {
    program: Program,
    _folder: TempDir,
}

impl GuideReceiver {
    async fn start(library: Library, port: u16, secret: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let script = format!("receiver.{}", library.extension());
        let mut command = library.command(folder.path(), &script, &block_of_the_guide(&script));
        command.env("WEBHOOK_SECRET", secret).env("PORT", port.to_string());
        let program = Program::start("receiver", command, folder.path());
        let listens = async {
            let mut polls = tokio::time::interval(Duration::from_millis(50));
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                polls.tick().await;
            }
        };
        let listens = tokio::time::timeout(Duration::from_secs(60), listens).await;
        assert!(listens.is_ok(), "{script} does not listen:\n{}", program.log_tail());
        Self { program, _folder: folder }
    }
}

/// The block of docs/guides/webhooks.md that is written to this file.
fn block_of_the_guide(file: &str) -> String {
    let path: PathBuf = cache::repository().join("docs/guides/webhooks.md");
    let page = std::fs::read_to_string(path).expect("the guide is there");
    let (_, block) = page.split_once(&format!("file={file}\n")).expect("the guide has this file");
    block.split_once("```\n").expect("the block has an end").0.to_owned()
}

#[tokio::test]
async fn receivers_of_the_guide_accept_deliveries_and_reject_forged_requests() {
    let pinfold = Pinfold::start_with(&["--no-bootstrap"], &ALLOW_LOOPBACK).await;
    for library in Library::ALL {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let url = format!("http://127.0.0.1:{port}/pinfold");
        let (id, secret) = pinfold.webhook(&url).await;
        let mut receiver = GuideReceiver::start(library, port, &secret).await;
        pinfold.test_webhook(&id).await;
        receiver.program.line(|line| line.contains("webhook.test").then_some(())).await;

        let mut forged = Command::new("curl");
        forged.args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}"]);
        forged.args(["-H", "webhook-id: 1", "-H", "webhook-signature: v1,AAAA"]);
        forged.args(["-H", &format!("webhook-timestamp: {}", i64::from(u16::MAX))]);
        forged.args(["-d", r#"{"type":"pin.pinned","data":null}"#, &url]);
        assert_eq!(program::output("curl", forged, b"").await, "401", "{library:?}");
        receiver.program.kill().await;
    }
}
