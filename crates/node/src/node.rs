//! The node as a whole: blocks, the exchange and the network behind one handle.

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

/// A running IPFS node. Cheap to clone. When the last clone is dropped it stops, without a farewell to its
/// peers; [`stop`](Self::stop) is the polite way.
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
    /// Starts a node that serves from `blocks` and fetches into it. Returns once it listens; it is not
    /// connected with anybody yet. Must be called on a Tokio runtime with time and I/O.
    ///
    /// # Errors
    /// [`StartError`]: an address in use, a peer address without an identity, and the like.
    pub async fn start(config: NodeConfig, blocks: Arc<dyn Blocks>) -> Result<Self, StartError> {
        let (exchange, bitswap) = Bitswap::new(Arc::clone(&blocks), config.bitswap.clone());
        let (swarm, task) = swarm::start(&config, exchange).await?;
        let dht = Arc::new(DhtSource::new(swarm.clone()));
        // Other ways of finding content are added to this list.
        let fetcher = Fetcher::new(Arc::clone(&blocks), bitswap.clone(), Arc::new(swarm.clone()), vec![dht]);
        let swarm_task = Arc::new(Mutex::new(Some(task)));
        let stopping = CancellationToken::new();
        Ok(Self { swarm, blocks, bitswap, fetcher, stopping, swarm_task })
    }

    /// This node's identity.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.swarm.local_peer_id()
    }

    /// Where this node is reached, announced addresses first, each with `/p2p/ID` and its real port.
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

    /// The block exchange: its figures, and where to report blocks that came in by another way.
    #[must_use]
    pub fn bitswap(&self) -> &Bitswap {
        &self.bitswap
    }

    /// The network.
    #[must_use]
    pub fn swarm(&self) -> &SwarmHandle {
        &self.swarm
    }

    /// Brings a whole DAG under a hold; see [`Fetcher::fetch`]. Dropping the future is safe: the hold
    /// stays unsealed with what came.
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

    /// Brings a DAG under a hold if all of it is here; see [`Fetcher::hold_local`].
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn hold_local(&self, request: FetchRequest) -> Result<Option<HoldStats>, FetchError> {
        self.fetcher.hold_local(request).await
    }

    /// Looks how much of a DAG is here and whether anybody has its root; see [`Fetcher::survey`].
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

    /// Connects with the peer at an address that the operator gave, `/…/p2p/ID`. It may be private; a
    /// name must be public or configured.
    ///
    /// # Errors
    /// [`DialError`], also for an address that leads to no peer.
    pub async fn connect(&self, address: Multiaddr) -> Result<(), DialError> {
        let peer = swarm::peer_of(&address).map_err(|reason| {
            DialError::Failed(format!("{address} is not the address of a peer: {reason}"))
        })?;
        self.swarm.dial_trusted(peer, address).await
    }

    /// Ends all fetches, says goodbye to all peers and stops; returns when the swarm is gone and its ports
    /// are free. Takes two seconds at most. Further calls do nothing.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.swarm.stop().await;
        if let Some(task) = self.swarm_task.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the swarm ended badly");
        }
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
    async fn content_is_fetched_from_a_kept_peer() {
        let source = node_with(&hello()).await;
        let peers = source.listen_addresses().await;
        let reader = node(NodeConfig { peers, ..NodeConfig::loopback() }).await;
        reader.fetch(request(&hello(), vec![]), Arc::default()).await.unwrap();
        source.stop().await;
        reader.stop().await;
    }

    #[tokio::test]
    async fn stopping_ends_a_fetch() {
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
    async fn an_operator_connects_by_address_alone() {
        let (alice, bob) = (node(NodeConfig::loopback()).await, node(NodeConfig::loopback()).await);
        let address = alice.listen_addresses().await.remove(0);
        bob.connect(address.clone()).await.unwrap();
        assert_eq!(bob.peers().await[0].peer, alice.peer_id());
        let mut nobody = address;
        nobody.pop();
        assert!(matches!(bob.connect(nobody).await, Err(DialError::Failed(_))));
        alice.stop().await;
        bob.stop().await;
    }
}
