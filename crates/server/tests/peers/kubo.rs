//! A Kubo daemon on loopback without other peers, controlled by its command line.

use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    Over, cache, data,
    program::{self, Program},
};

/// A running daemon with its own repository.
pub(crate) struct Kubo {
    program: Program,
    folder: TempDir,
    /// Its addresses, each with `/p2p/…`.
    pub(crate) addresses: Vec<String>,
}

impl Kubo {
    /// Starts a daemon that listens and dials only over this transport.
    pub(crate) async fn start(over: Over) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let init = ["init", "--profile=test,unixfs-v1-2025", "--empty-repo"];
        program::output("ipfs init", command(folder.path(), &init), b"").await;
        configure(&folder.path().join("config"), over);

        let mut program = Program::start("kubo", command(folder.path(), &["daemon"]), folder.path());
        program.line(|line| line.contains("Daemon is ready").then_some(())).await;
        program.let_run();

        let id = program::output("ipfs id", command(folder.path(), &["id"]), b"").await;
        let id: Value = serde_json::from_str(&id).expect("`ipfs id` prints JSON");
        let addresses = id["Addresses"].as_array().expect("the daemon has addresses").iter();
        let addresses = addresses.filter_map(Value::as_str).map(str::to_owned).collect();
        Self { program, folder, addresses }
    }

    /// An address of this node for a transport.
    pub(crate) fn address(&self, over: Over) -> &str {
        let found = self.addresses.iter().find(|address| over.fits(address));
        found.unwrap_or_else(|| panic!("no address for {over:?} among {:?}", self.addresses))
    }

    /// Connects to another node.
    pub(crate) async fn connect(&self, address: &str) {
        self.run(&["swarm", "connect", address]).await;
    }

    /// Adds a file or a folder and returns its CID.
    pub(crate) async fn add(&self, path: &Path) -> String {
        self.run(&["add", "-Qr", path.to_str().expect("the path is UTF-8")]).await
    }

    /// Stores a DAG-JSON value as dag-cbor and returns its CID.
    pub(crate) async fn encode(&self, value: &Value) -> String {
        let command = command(self.folder.path(), &["dag", "put", "--pin"]);
        program::output("ipfs dag put", command, value.to_string().as_bytes()).await
    }

    /// Pins a whole DAG, fetched from connected peers or from providers in the DHT.
    pub(crate) async fn pin(&self, cid: &str) {
        self.run(&["pin", "add", "--progress=false", cid]).await;
    }

    /// Every CID below a local root, in order, without using the network.
    pub(crate) async fn refs(&self, cid: &str) -> Vec<String> {
        let refs = self.run(&["refs", "--recursive", "--unique", "--offline", cid]).await;
        let mut refs: Vec<_> = refs.lines().map(str::to_owned).collect();
        refs.sort();
        refs
    }

    /// The SHA-256 of a local file.
    pub(crate) async fn sha256(&self, cid: &str) -> String {
        let output =
            program::finish("ipfs cat", command(self.folder.path(), &["cat", "--offline", cid]), b"").await;
        assert!(output.status.success(), "ipfs cat: {}", String::from_utf8_lossy(&output.stderr));
        data::hex(&Sha256::digest(&output.stdout))
    }

    /// Provides a CID in the DHT.
    pub(crate) async fn provide(&self, cid: &str) {
        self.run(&["routing", "provide", cid]).await;
    }

    /// Kills the daemon.
    pub(crate) async fn kill(self) {
        self.program.kill().await;
    }

    /// Runs one `ipfs` command against the daemon and returns its output.
    pub(crate) async fn run(&self, arguments: &[&str]) -> String {
        let name = format!("ipfs {}", arguments.join(" "));
        program::output(&name, command(self.folder.path(), arguments), b"").await
    }
}

fn command(repository: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(cache::kubo());
    command.env("IPFS_PATH", repository).args(arguments);
    command
}

/// Restricts the daemon to loopback, without public services, and to one transport.
fn configure(path: &Path, over: Over) {
    let mut config = read(path);
    let Value::Object(quiet) = read(&cache::repository().join("ci/kubo.json")) else {
        panic!("ci/kubo.json is not an object");
    };
    for (key, value) in quiet {
        set(&mut config, &key, value);
    }
    let websocket = over == Over::WebSocket;
    set(&mut config, "Addresses.Swarm", json!([over.listen()]));
    set(&mut config, "Swarm.Transports.Network.QUIC", json!(over == Over::Quic));
    set(&mut config, "Swarm.Transports.Network.TCP", json!(over != Over::Quic));
    set(&mut config, "Swarm.Transports.Network.WebTransport", json!(false));
    set(&mut config, "Swarm.Transports.Network.Websocket", json!(websocket));
    match over {
        Over::TcpTls => set(&mut config, "Swarm.Transports.Security.Noise", json!(false)),
        Over::TcpNoise | Over::WebSocket => set(&mut config, "Swarm.Transports.Security.TLS", json!(false)),
        Over::Quic => {}
    }
    std::fs::write(path, config.to_string()).expect("the configuration can be written");
}

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Sets a value in a document by its dotted key, creating the objects on its path.
fn set(document: &mut Value, key: &str, value: Value) {
    let mut at = document;
    for name in key.split('.') {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[name];
    }
    *at = value;
}
