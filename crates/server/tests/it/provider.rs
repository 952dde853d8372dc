//! The other nodes: real ones, each with its own identity, store and swarm, in the process of the tests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cid::Cid;
use pinfold_node::blocks::MemoryBlocks;
use pinfold_node::{
    Blocks, FetchError, FetchLimits, FetchRequest, HoldName, HoldStats, Node, NodeConfig, Progress,
};

use crate::content::Dag;
use crate::server::{PATIENCE, TestServer};

/// A node that has content, or asks for it.
pub(crate) struct Provider<B: Blocks = MemoryBlocks> {
    node: Node,
    blocks: Arc<B>,
}

impl Provider {
    /// A node with all of `dag`.
    pub(crate) async fn of(dag: &Dag) -> Self {
        let provider = Self::over(MemoryBlocks::new(), &[]).await;
        provider.add(dag).await;
        provider
    }

    /// A node with all of `dag` that connects to the server by itself.
    pub(crate) async fn beside(server: &TestServer, dag: &Dag) -> Self {
        let blocks = MemoryBlocks::new();
        store(&blocks, dag).await;
        Self::over(blocks, server.addresses()).await
    }

    /// Gives it more.
    pub(crate) async fn add(&self, dag: &Dag) {
        store(&self.blocks, dag).await;
    }
}

impl<B: Blocks> Provider<B> {
    /// A node over these blocks that stays connected with these peers.
    pub(crate) async fn over(blocks: B, peers: &[String]) -> Self {
        let blocks = Arc::new(blocks);
        let peers = peers.iter().map(|peer| peer.parse().unwrap()).collect();
        let config = NodeConfig { peers, ..NodeConfig::loopback() };
        Self { node: Node::start(config, blocks.clone()).await.unwrap(), blocks }
    }

    /// Its address, with `/p2p/ID`.
    pub(crate) async fn address(&self) -> String {
        let addresses = self.node.listen_addresses().await;
        let address = addresses.first().expect("it listens").to_string();
        if address.contains("/p2p/") { address } else { format!("{address}/p2p/{}", self.node.peer_id()) }
    }

    /// Ends it: its connections close.
    pub(crate) async fn stop(self) {
        self.node.stop().await;
    }
}

/// Fetches a DAG from the server over bitswap with a node that has nothing, and says what it got.
async fn fetch_from(server: &TestServer, root: &Cid, patience: Duration) -> Result<HoldStats, FetchError> {
    let reader = Provider::over(MemoryBlocks::new(), server.addresses()).await;
    let request = FetchRequest {
        root: *root,
        hold: HoldName::parse("read").unwrap(),
        origins: server.addresses().iter().map(|address| address.parse().unwrap()).collect(),
        limits: FetchLimits {
            bytes_max: u64::MAX,
            blocks_max: u64::MAX,
            find_time: patience,
            stall_time: patience,
        },
    };
    let got = reader.node.fetch(request, Arc::new(Progress::default())).await;
    reader.stop().await;
    got
}

/// The server has every block of the DAG: another node gets all of them from it, each verified.
pub(crate) async fn assert_held(server: &TestServer, dag: &Dag) {
    let got = fetch_from(server, dag.root(), PATIENCE).await.unwrap();
    assert_eq!(got.bytes, dag.bytes());
}

/// The server does not have the root any more, or soon will not: space comes back in the background.
pub(crate) async fn assert_not_held(server: &TestServer, root: &Cid) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match fetch_from(server, root, Duration::from_secs(1)).await {
            Err(FetchError::NotFound(_)) => return,
            got => assert!(Instant::now() < deadline, "it is still there: {got:?}"),
        }
    }
}

async fn store(blocks: &MemoryBlocks, dag: &Dag) {
    let hold = blocks.open(&HoldName::parse("content").unwrap()).unwrap();
    for block in &dag.blocks {
        blocks.put(hold, block.clone()).await.unwrap();
    }
    blocks.seal(hold).await.unwrap();
}
