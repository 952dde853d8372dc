//! The node: block storage, block exchange and swarm behind one handle.

use std::fmt;
use std::sync::Arc;

use libp2p::{Multiaddr, PeerId};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::NodeConfig;
use crate::exchange::Bitswap;
use crate::fetch::{Fetcher, Survey, SurveyRequest};
use crate::sources::DhtSource;
use crate::swarm::{self, DialError, PeerInfo, StartError, SwarmHandle};
use crate::{Blocks, FetchError, FetchRequest, HoldStats, Progress};

/// A running IPFS node. Cheap to clone. [`stop`](Self::stop) closes its connections and waits for its tasks. When the last
/// clone is dropped without that, the node stops without closing connections gracefully.
#[derive(Clone)]
pub struct Node {
    swarm: SwarmHandle,
    blocks: Arc<dyn Blocks>,
    bitswap: Bitswap,
    fetcher: Fetcher,
    stopping: CancellationToken,
    swarm_task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Node {
    /// Starts a node that serves from `blocks` and fetches into it. Returns once it listens; it is not connected to any peer
    /// yet. Must be called on a Tokio runtime with time and I/O enabled.
    ///
    /// # Errors
    /// [`StartError`]: for example an address in use, or a peer address without a peer id.
    pub async fn start(config: NodeConfig, blocks: Arc<dyn Blocks>) -> Result<Self, StartError> {
        let (exchange, bitswap) = Bitswap::new(Arc::clone(&blocks), config.bitswap.clone());
        let (swarm, task) = swarm::start(&config, exchange).await?;
        let dht = Arc::new(DhtSource::new(swarm.clone()));
        // Further sources are added to this list.
        let fetcher = Fetcher::new(Arc::clone(&blocks), bitswap.clone(), Arc::new(swarm.clone()), vec![dht]);
        let swarm_task = Arc::new(Mutex::new(Some(task)));
        let stopping = CancellationToken::new();
        Ok(Self { swarm, blocks, bitswap, fetcher, stopping, swarm_task })
    }

    /// The peer id of this node.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.swarm.local_peer_id()
    }

    /// The addresses of this node, announced ones first, each with `/p2p/ID` and the actual port.
    pub async fn listen_addresses(&self) -> Vec<Multiaddr> {
        self.swarm.listen_addresses().await
    }

    /// The connected peers.
    pub async fn peers(&self) -> Vec<PeerInfo> {
        self.swarm.peers().await
    }

    /// The block store.
    #[must_use]
    pub fn blocks(&self) -> &Arc<dyn Blocks> {
        &self.blocks
    }

    /// The block exchange: for its statistics, and to report blocks that were stored without it.
    #[must_use]
    pub fn bitswap(&self) -> &Bitswap {
        &self.bitswap
    }

    /// The swarm.
    #[must_use]
    pub fn swarm(&self) -> &SwarmHandle {
        &self.swarm
    }

    /// Fetches a whole DAG into a hold; see [`Fetcher::fetch`]. Dropping the future is safe: the hold stays unsealed with the
    /// blocks received so far.
    ///
    /// # Errors
    /// [`FetchError`]; [`FetchError::Stopping`] once [`stop`](Self::stop) was called.
    pub async fn fetch(
        &self,
        request: FetchRequest,
        progress: Arc<Progress>,
    ) -> Result<HoldStats, FetchError> {
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => Err(FetchError::Stopping),
            outcome = self.fetcher.fetch(request, progress) => outcome,
        }
    }

    /// Adds a DAG to a hold if all of it is stored locally; see [`Fetcher::hold_local`].
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn hold_local(&self, request: FetchRequest) -> Result<Option<HoldStats>, FetchError> {
        self.fetcher.hold_local(request).await
    }

    /// Determines how much of a DAG is stored locally and whether its root can be found; see [`Fetcher::survey`].
    ///
    /// # Errors
    /// [`FetchError`]; [`FetchError::Stopping`] once [`stop`](Self::stop) was called.
    pub async fn survey(&self, request: SurveyRequest) -> Result<Survey, FetchError> {
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => Err(FetchError::Stopping),
            survey = self.fetcher.survey(request) => survey,
        }
    }

    /// Connects to the peer at an address from the operator, `/…/p2p/ID`. The address may be private. A DNS name must be
    /// configured, or resolve to a public address.
    ///
    /// # Errors
    /// [`DialError`], also for an address without a peer id.
    pub async fn connect(&self, address: Multiaddr) -> Result<(), DialError> {
        let peer = swarm::peer_of(&address)
            .map_err(|reason| DialError::Failed(format!("{address} is not a peer address: {reason}")))?;
        self.swarm.dial_trusted(peer, address).await
    }

    /// Ends all fetches, closes all connections and stops. Returns when all tasks of the node have ended and its ports are
    /// free. Connections get at most two seconds to close. Further calls only wait.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.swarm.stop().await;
        if let Some(task) = self.swarm_task.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "swarm task failed");
        }
        self.bitswap.stopped().await;
        self.fetcher.stopped().await;
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("peer", &self.peer_id()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod repair_tests;
#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use cid::Version;

    use super::*;
    use crate::blocks::MemoryBlocks;
    use crate::{Block, FetchLimits, HoldName};

    async fn node(config: NodeConfig) -> Node {
        Node::start(config, Arc::new(MemoryBlocks::default())).await.unwrap()
    }

    fn request(root: &Block, origins: Vec<Multiaddr>) -> FetchRequest {
        let limits = FetchLimits {
            bytes_max: 1 << 20,
            blocks_max: 100,
            find_time: Duration::from_secs(20),
            stall_time: Duration::from_secs(20),
        };
        FetchRequest { root: *root.cid(), hold: hold(), origins, limits }
    }

    fn hold() -> HoldName {
        HoldName::parse("test").unwrap()
    }

    /// A node that has one block.
    async fn node_with(block: &Block) -> Node {
        let node = node(NodeConfig::loopback()).await;
        let id = node.blocks().open(&hold()).unwrap();
        node.blocks().put(id, block.clone()).await.unwrap();
        node.blocks().seal(id).await.unwrap();
        node
    }

    fn hello() -> Block {
        Block::hash(Version::V1, 0x55, 0x12, Bytes::from_static(b"hello")).unwrap()
    }

    #[tokio::test]
    async fn content_is_fetched_from_an_origin() {
        let source = node_with(&hello()).await;
        let reader = node(NodeConfig::loopback()).await;
        let origins = source.listen_addresses().await;
        let stats = reader.fetch(request(&hello(), origins), Arc::default()).await.unwrap();
        assert_eq!(stats, HoldStats { blocks: 1, bytes: 5 });
        assert_eq!(reader.blocks().get(hello().cid()).unwrap(), Some(hello()));
        source.stop().await;
        reader.stop().await;
    }

    #[tokio::test]
    async fn content_is_fetched_from_a_peered_node() {
        let source = node_with(&hello()).await;
        let peers = source.listen_addresses().await;
        let reader = node(NodeConfig { peers, ..NodeConfig::loopback() }).await;
        reader.fetch(request(&hello(), vec![]), Arc::default()).await.unwrap();
        source.stop().await;
        reader.stop().await;
    }

    #[tokio::test]
    async fn stop_ends_a_fetch() {
        let node = node(NodeConfig::loopback()).await;
        let fetching = tokio::spawn({
            let node = node.clone();
            async move { node.fetch(request(&hello(), vec![]), Arc::default()).await }
        });
        node.stop().await;
        assert!(matches!(fetching.await.unwrap(), Err(FetchError::Stopping)));
        node.stop().await;
    }

    #[tokio::test]
    async fn connect_dials_a_peer_address() {
        let (alice, bob) = (node(NodeConfig::loopback()).await, node(NodeConfig::loopback()).await);
        let address = alice.listen_addresses().await.remove(0);
        bob.connect(address.clone()).await.unwrap();
        assert_eq!(bob.peers().await[0].peer, alice.peer_id());
        let mut without_peer = address;
        without_peer.pop();
        assert!(matches!(bob.connect(without_peer).await, Err(DialError::Failed(_))));
        alice.stop().await;
        bob.stop().await;
    }
}
