//! A Helia node on loopback, controlled by lines through `ci/helia/peer.mjs`.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{Over, cache, program::Program};

/// A running node; its blocks are in memory.
pub(crate) struct Helia {
    program: Program,
    /// Its address, with `/p2p/…`.
    pub(crate) address: String,
    _folder: TempDir,
}

impl Helia {
    /// Starts a node that uses only this transport. Helia has no QUIC.
    pub(crate) async fn start(over: Over) -> Self {
        let (transport, security) = match over {
            Over::TcpTls => ("tcp", "tls"),
            Over::TcpNoise => ("tcp", "noise"),
            Over::WebSocket => ("ws", "noise"),
            Over::Quic => panic!("Helia has no QUIC"),
        };
        // JavaScript resolves packages next to the script, so the script is copied next to the packages.
        let folder = tempfile::tempdir().expect("a temporary folder");
        let script = folder.path().join("peer.mjs");
        std::fs::copy(cache::repository().join("ci/helia/peer.mjs"), &script)
            .expect("ci/helia/peer.mjs exists");
        std::os::unix::fs::symlink(cache::node_modules(), folder.path().join("node_modules"))
            .expect("a link");

        let mut command = Command::new(cache::node());
        command.arg(script).args([transport, security]);
        let mut program = Program::start("helia", command, folder.path());
        let hello: Value = program.line(|line| serde_json::from_str(line).ok()).await;
        let address = hello["addresses"][0].as_str().expect("the node listens").to_owned();
        Self { program, address, _folder: folder }
    }

    /// Adds a file or a folder and returns its CID.
    pub(crate) async fn add(&mut self, path: &Path) -> String {
        text(&self.ask(json!({"do": "import", "path": path})).await["cid"])
    }

    /// Stores a DAG-JSON value as dag-cbor and returns its CID.
    pub(crate) async fn encode(&mut self, value: &Value) -> String {
        text(&self.ask(json!({"do": "encode", "value": value})).await["cid"])
    }

    /// Connects to another node.
    pub(crate) async fn connect(&mut self, address: &str) {
        self.ask(json!({"do": "dial", "address": address})).await;
    }

    /// Fetches and pins a whole DAG from connected peers, and returns its number of blocks.
    pub(crate) async fn pin(&mut self, cid: &str) -> u64 {
        self.ask(json!({"do": "fetch", "cid": cid})).await["blocks"].as_u64().expect("a count")
    }

    /// The SHA-256 of a file.
    pub(crate) async fn sha256(&mut self, cid: &str) -> String {
        text(&self.ask(json!({"do": "read", "cid": cid})).await["sha256"])
    }

    /// Kills the node.
    pub(crate) async fn kill(self) {
        self.program.kill().await;
    }

    async fn ask(&mut self, command: Value) -> Value {
        self.program.write_line(&command.to_string()).await;
        let answer: Value = self.program.line(|line| serde_json::from_str(line).ok()).await;
        assert!(answer.get("error").is_none(), "Helia, asked {command}: {}", answer["error"]);
        answer
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a string")).to_owned()
}
