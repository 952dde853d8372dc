//! Other IPFS nodes, each with its own identity, block store and swarm, in the test process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cid::Cid;
use pinfold_node::blocks::MemoryBlocks;
use pinfold_node::{
    Blocks, FetchError, FetchLimits, FetchRequest, HoldName, HoldStats, Node, NodeConfig, Progress,
};

use crate::content::Dag;
use crate::server::{TIMEOUT, TestServer};

/// A node that provides or fetches content.
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

    /// A node with all of `dag` that connects to the server.
    pub(crate) async fn connected_to(server: &TestServer, dag: &Dag) -> Self {
        let blocks = MemoryBlocks::new();
        store(&blocks, dag).await;
        Self::over(blocks, server.addresses()).await
    }

    /// Adds blocks.
    pub(crate) async fn add(&self, dag: &Dag) {
        store(&self.blocks, dag).await;
    }
}

impl<B: Blocks> Provider<B> {
    /// A node with these blocks that stays connected to these peers.
    pub(crate) async fn over(blocks: B, peers: &[String]) -> Self {
        let blocks = Arc::new(blocks);
        let peers = peers.iter().map(|peer| peer.parse().unwrap()).collect();
        let config = NodeConfig { peers, ..NodeConfig::loopback() };
        Self { node: Node::start(config, blocks.clone()).await.unwrap(), blocks }
    }

    /// Its address, with `/p2p/ID`.
    pub(crate) async fn address(&self) -> String {
        let addresses = self.node.listen_addresses().await;
        let address = addresses.first().expect("the node listens").to_string();
        if address.contains("/p2p/") { address } else { format!("{address}/p2p/{}", self.node.peer_id()) }
    }

    pub(crate) async fn stop(self) {
        self.node.stop().await;
    }
}

/// Fetches a DAG from the server over bitswap with an empty node.
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

/// Asserts that another node can fetch every block of the DAG from the server.
pub(crate) async fn assert_stored(server: &TestServer, dag: &Dag) {
    let got = fetch_from(server, dag.root(), TIMEOUT).await.unwrap();
    assert_eq!(got.bytes, dag.bytes());
}

/// Waits until the server no longer has the root. Space is reclaimed in the background.
pub(crate) async fn assert_not_stored(server: &TestServer, root: &Cid) {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match fetch_from(server, root, Duration::from_secs(1)).await {
            Err(FetchError::NotFound(_)) => return,
            got => assert!(Instant::now() < deadline, "the content is still stored: {got:?}"),
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
