//! The engine: the connected peers, their tasks, and the two state machines.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use cid::Cid;
use libp2p::PeerId;
use libp2p::swarm::Stream;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::behaviour::{Command, StreamHandler};
use super::client::{Client, PeerKey, SessionKey};
use super::server::{Server, ServerLimits};
use super::session::Inbox;
use super::stats::{Counters, Stats};
use super::{BitswapConfig, lock, reader, writer};
use crate::Blocks;

/// How often wants are checked for time-outs.
const TICK: Duration = Duration::from_millis(500);

/// Inbound streams of one peer that may wait for its reader.
const STREAMS_QUEUED_MAX: usize = 256;

/// The engine, shared by its handles, the network behaviour and the tasks of peers.
pub(super) struct Engine {
    pub(super) config: BitswapConfig,
    pub(super) client: Mutex<Client>,
    pub(super) server: Arc<Server>,
    pub(super) counters: Arc<Counters>,
    pub(super) commands: mpsc::Sender<Command>,
    /// Bytes of messages being received, in KiB.
    pub(super) receiving: Arc<Semaphore>,
    /// Bytes of messages being assembled and sent, in KiB.
    pub(super) sending: Arc<Semaphore>,
    links: Mutex<HashMap<PeerId, Link>>,
    next_key: AtomicU64,
    runtime: Handle,
    stopped: CancellationToken,
    /// All tasks of the exchange, including blocking ones.
    pub(super) tasks: TaskTracker,
}

/// A connected peer.
struct Link {
    key: PeerKey,
    streams: mpsc::Sender<Stream>,
    /// Cancelled to end the tasks of the peer.
    disconnected: CancellationToken,
}

/// Shared by the tasks of a peer.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) key: PeerKey,
    pub(super) id: PeerId,
    pub(super) writer: Arc<Notify>,
    pub(super) disconnected: CancellationToken,
}

impl Engine {
    /// Starts the exchange on the current runtime.
    pub(super) fn start(
        blocks: Arc<dyn Blocks>,
        config: BitswapConfig,
        commands: mpsc::Sender<Command>,
    ) -> Arc<Self> {
        let counters = Arc::new(Counters::default());
        let limits = ServerLimits { peer_wants_max: config.peer_wants_max, wants_max: config.wants_max };
        let engine = Arc::new(Self {
            client: Mutex::new(Client::new(counters.clone())),
            server: Arc::new(Server::new(blocks, limits)),
            counters,
            commands,
            receiving: Arc::new(Semaphore::new(config.receiving_bytes_max / 1024)),
            sending: Arc::new(Semaphore::new(config.sending_bytes_max / 1024)),
            links: Mutex::default(),
            next_key: AtomicU64::new(1),
            runtime: Handle::current(),
            stopped: CancellationToken::new(),
            tasks: TaskTracker::new(),
            config,
        });
        engine.tasks.spawn_on(tick(Arc::downgrade(&engine), engine.stopped.clone()), &engine.runtime);
        engine
    }

    pub(super) fn open_session(&self, inbox: Arc<Inbox>) -> SessionKey {
        if self.stopped.is_cancelled() {
            inbox.close();
        }
        lock(&self.client).open(inbox)
    }

    pub(super) fn close_session(&self, key: SessionKey) {
        lock(&self.client).close(key, Instant::now());
    }

    pub(super) fn want(&self, key: SessionKey, cids: &[Cid]) {
        lock(&self.client).want(key, cids, Instant::now());
    }

    pub(super) fn stats(&self) -> Stats {
        let wants = lock(&self.client).wanted();
        let peers = lock(&self.links).len();
        self.counters.read(wants, peers)
    }

    /// Closes the connections of a peer that misbehaves, and bans it temporarily.
    pub(super) async fn ban(&self, peer: PeerId) {
        Counters::add(&self.counters.peers_banned, 1);
        tracing::warn!(%peer, "banned a peer that misbehaves in bitswap");
        // The receiver is dropped only with the swarm, and then there are no peers.
        let _stopping = self.commands.send(Command::Ban(peer)).await;
    }

    /// The link to a peer, created if a stream arrives before the event that the peer is connected.
    fn link(self: &Arc<Self>, links: &mut HashMap<PeerId, Link>, id: PeerId) -> mpsc::Sender<Stream> {
        if let Some(link) = links.get(&id) {
            return link.streams.clone();
        }
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let (streams, incoming) = mpsc::channel(STREAMS_QUEUED_MAX);
        let disconnected = self.stopped.child_token();
        let writer = Arc::new(Notify::new());
        let peer = Peer { key, id, writer: writer.clone(), disconnected: disconnected.clone() };
        links.insert(id, Link { key, streams: streams.clone(), disconnected });
        self.server.connect(key, writer.clone());
        lock(&self.client).connect(key, id, writer, Instant::now());
        self.tasks.spawn_on(reader::run(self.clone(), peer.clone(), incoming), &self.runtime);
        self.tasks.spawn_on(writer::run(self.clone(), peer), &self.runtime);
        streams
    }
}

impl StreamHandler for Arc<Engine> {
    fn connected(&self, peer: PeerId) {
        self.link(&mut lock(&self.links), peer);
    }

    fn disconnected(&self, peer: PeerId) {
        let Some(link) = lock(&self.links).remove(&peer) else { return };
        link.disconnected.cancel();
        self.server.disconnect(link.key);
        lock(&self.client).disconnect(link.key, Instant::now());
    }

    fn inbound(&self, peer: PeerId, stream: Stream) {
        let streams = self.link(&mut lock(&self.links), peer);
        Counters::add(&self.counters.streams_accepted, 1);
        if streams.try_send(stream).is_err() {
            Counters::add(&self.counters.streams_dropped, 1);
            tracing::debug!(%peer, "dropping a bitswap stream: too many are open");
        }
    }

    fn stopped(&self) {
        self.stopped.cancel();
        self.tasks.close();
        lock(&self.links).clear();
        lock(&self.client).close_all();
    }
}

/// Checks the wants for time-outs until the engine stops.
async fn tick(engine: Weak<Engine>, stopped: CancellationToken) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopped.cancelled() => return,
            _ = interval.tick() => {}
        }
        let Some(engine) = engine.upgrade() else { return };
        lock(&engine.client).tick(Instant::now());
    }
}
