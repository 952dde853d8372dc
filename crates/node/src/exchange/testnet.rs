//! Peers for tests: real swarms on loopback, regular nodes, and peers that are scripted by a test.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cid::{Cid, Version};
use futures::{AsyncWriteExt, StreamExt};
use libp2p::swarm::{Stream, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, noise, tcp, yamux};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::behaviour::{Behaviour, Command, StreamHandler};
use super::wire::{self, Entry, Message, Outgoing, ProtocolVersion};
use super::{Bitswap, BitswapConfig};
use crate::blocks::MemoryBlocks;
use crate::{Block, Blocks, HoldName};

/// The deadline of every wait.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for a future, at most until the deadline.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(DEADLINE, what).await.expect("timed out")
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = tokio::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < DEADLINE, "timed out waiting for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A raw block.
pub(crate) fn raw(data: impl Into<Bytes>) -> Block {
    Block::hash(Version::V1, 0x55, 0x12, data.into()).unwrap()
}

/// `count` different raw blocks of `len` bytes (at least 16).
pub(crate) fn raws(count: usize, len: usize) -> Vec<Block> {
    (0..count)
        .map(|at| {
            let mut data = vec![at as u8; len];
            data[..8].copy_from_slice(&(at as u64).to_le_bytes());
            data[8..16].copy_from_slice(&(len as u64).to_le_bytes());
            raw(data)
        })
        .collect()
}

/// A dag-cbor block: a list of links.
pub(crate) fn node(links: impl IntoIterator<Item = Cid>) -> Block {
    let links: Vec<ipld_core::ipld::Ipld> = links.into_iter().map(ipld_core::ipld::Ipld::Link).collect();
    let data = serde_ipld_dagcbor::to_vec(&links).unwrap();
    Block::hash(Version::V1, 0x71, 0x12, data.into()).unwrap()
}

/// A tree over leaves with `fan` links in each node. Returns all blocks, the root last.
pub(crate) fn tree(leaves: Vec<Block>, fan: usize) -> Vec<Block> {
    let mut level: Vec<Cid> = leaves.iter().map(|block| *block.cid()).collect();
    let mut all = leaves;
    while level.len() > 1 {
        let nodes: Vec<Block> = level.chunks(fan).map(|links| node(links.iter().copied())).collect();
        level = nodes.iter().map(|block| *block.cid()).collect();
        all.extend(nodes);
    }
    all
}

enum Order {
    Dial(Multiaddr),
    Disconnect(PeerId),
}

/// A swarm that runs in the background until it is dropped.
pub(crate) struct TestSwarm {
    pub(crate) id: PeerId,
    pub(crate) address: Multiaddr,
    orders: mpsc::Sender<Order>,
    _running: DropGuard,
}

impl TestSwarm {
    async fn start(behaviour: Behaviour) -> Self {
        let mut swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, || {
                let mut config = yamux::Config::default();
                config.set_max_num_streams(4093);
                config
            })
            .unwrap()
            .with_behaviour(|_| behaviour)
            .unwrap()
            .with_swarm_config(|config| {
                config
                    .with_idle_connection_timeout(Duration::from_secs(600))
                    .with_max_negotiating_inbound_streams(1024)
            })
            .build();
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let id = *swarm.local_peer_id();
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = soon(swarm.select_next_some()).await {
                break address;
            }
        };
        let (orders, incoming) = mpsc::channel(64);
        let running = CancellationToken::new();
        tokio::spawn(drive(swarm, incoming, running.clone()));
        Self { id, address, orders, _running: running.drop_guard() }
    }

    /// The address with `/p2p`.
    pub(crate) fn origin(&self) -> Multiaddr {
        self.address.clone().with_p2p(self.id).unwrap()
    }

    pub(crate) fn disconnect(&self, peer: PeerId) {
        self.orders.try_send(Order::Disconnect(peer)).unwrap();
    }
}

async fn drive(mut swarm: Swarm<Behaviour>, mut orders: mpsc::Receiver<Order>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = swarm.select_next_some() => {}
            order = orders.recv() => match order {
                Some(Order::Dial(address)) => { let _refused = swarm.dial(address); }
                Some(Order::Disconnect(peer)) => { let _gone = swarm.disconnect_peer_id(peer); }
                None => return,
            },
        }
    }
}

/// A regular node.
pub(crate) struct Node {
    pub(crate) swarm: TestSwarm,
    pub(crate) bitswap: Bitswap,
    pub(crate) blocks: Arc<MemoryBlocks>,
}

impl Node {
    pub(crate) async fn start() -> Self {
        Self::with(BitswapConfig::default()).await
    }

    pub(crate) async fn speaking(versions: &[ProtocolVersion]) -> Self {
        Self::with(BitswapConfig { versions: versions.into(), ..BitswapConfig::default() }).await
    }

    pub(crate) async fn with(config: BitswapConfig) -> Self {
        let blocks = Arc::new(MemoryBlocks::default());
        let (behaviour, bitswap) = Bitswap::new(blocks.clone(), config);
        Self { swarm: TestSwarm::start(behaviour).await, bitswap, blocks }
    }

    /// Stores blocks, and reports them to the exchange.
    pub(crate) async fn store(&self, blocks: &[Block]) {
        let hold = self.blocks.open(&HoldName::parse("test").unwrap()).unwrap();
        for block in blocks {
            self.blocks.put(hold, block.clone()).await.unwrap();
        }
        self.bitswap.notify_stored(&blocks.iter().map(|block| *block.cid()).collect::<Vec<_>>());
    }

    /// Connects, and waits until the exchange knows the peer.
    pub(crate) async fn connect(&self, other: &TestSwarm) {
        let before = self.bitswap.stats().peers;
        self.swarm.orders.send(Order::Dial(other.origin())).await.unwrap();
        until("a connection", || self.bitswap.stats().peers > before).await;
    }

    /// A queue of addresses, each with `/p2p`, that the node dials.
    pub(crate) fn dial_queue(&self) -> mpsc::Sender<Multiaddr> {
        let (sender, mut addresses) = mpsc::channel::<Multiaddr>(64);
        let orders = self.swarm.orders.clone();
        tokio::spawn(async move {
            while let Some(address) = addresses.recv().await {
                if orders.send(Order::Dial(address)).await.is_err() {
                    return;
                }
            }
        });
        sender
    }
}

/// A peer that sends only what a test makes it send.
pub(super) struct ScriptedPeer {
    pub(super) swarm: TestSwarm,
    commands: mpsc::Sender<Command>,
    messages: mpsc::Receiver<(PeerId, Message)>,
}

struct Recorder {
    messages: mpsc::Sender<(PeerId, Message)>,
}

impl StreamHandler for Recorder {
    fn connected(&self, _: PeerId) {}
    fn disconnected(&self, _: PeerId) {}
    fn inbound(&self, peer: PeerId, mut stream: Stream) {
        let messages = self.messages.clone();
        tokio::spawn(async move {
            while let Ok(Some(length)) = wire::read_length(&mut stream).await {
                let mut frame = vec![0; length];
                if futures::AsyncReadExt::read_exact(&mut stream, &mut frame).await.is_err() {
                    return;
                }
                let Ok(message) = wire::decode(frame.into()) else { return };
                if messages.send((peer, message)).await.is_err() {
                    return;
                }
            }
        });
    }
    fn stopped(&self) {}
}

impl ScriptedPeer {
    pub(super) async fn start(versions: &[ProtocolVersion]) -> Self {
        let (received, messages) = mpsc::channel(4096);
        let (commands, requests) = mpsc::channel(64);
        let behaviour = Behaviour::new(Arc::new(Recorder { messages: received }), requests, versions.into());
        Self { swarm: TestSwarm::start(behaviour).await, commands, messages }
    }

    /// The next message of any peer.
    pub(super) async fn next_message(&mut self) -> (PeerId, Message) {
        soon(self.messages.recv()).await.unwrap()
    }

    /// The wants of the next message that has any, without cancels.
    pub(super) async fn wanted(&mut self) -> (PeerId, Vec<Entry>) {
        loop {
            let (peer, message) = self.next_message().await;
            let mut entries = message.wantlist.map(|list| list.entries).unwrap_or_default();
            entries.retain(|entry| !entry.cancel);
            if !entries.is_empty() {
                return (peer, entries);
            }
        }
    }

    pub(super) async fn open(&self, peer: PeerId) -> Option<(Stream, ProtocolVersion)> {
        let (reply, opened) = oneshot::channel();
        self.commands.send(Command::Open(peer, reply)).await.ok()?;
        soon(opened).await.ok()?.ok()
    }

    /// Sends a message on a new stream, like Kubo; false if that fails.
    pub(super) async fn send(&self, peer: PeerId, message: Outgoing) -> bool {
        let Some((stream, version)) = self.open(peer).await else { return false };
        write(stream, &message.encode(version).concat()).await
    }

    /// Sends bytes on a new stream.
    pub(super) async fn send_bytes(&self, peer: PeerId, bytes: &[u8]) -> bool {
        let Some((stream, _)) = self.open(peer).await else { return false };
        write(stream, bytes).await
    }
}

async fn write(mut stream: Stream, bytes: &[u8]) -> bool {
    stream.write_all(bytes).await.is_ok() && stream.close().await.is_ok()
}
