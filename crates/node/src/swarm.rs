//! The libp2p swarm: transports, connections, peering, and the DHTs.
//!
//! One task owns the swarm (`event_loop`). All others have a [`SwarmHandle`], which sends commands to it over a bounded
//! channel and receives replies.
//!
//! - `transport`: TCP, QUIC, WebSocket and DNS; `security` (TLS, then Noise) and `muxer` (Yamux) upgrade a connection;
//! - `address_scope`: what an address can reach, and therefore whether a request may make the node dial it;
//! - `peering`: peers to which the node stays connected;
//! - `dials`: queued and running dials, and the callers that wait for them;
//! - `dht`, `searches` and `provider_stream`: the two DHTs, and the searches for providers in them.
//!
//! Peers are not trusted: what they claim about themselves and others is bounded and filtered before it is stored. The
//! node dials only addresses that are configured, requested, or found in an enabled DHT.

use std::collections::HashMap;
use std::num::NonZeroU8;

use cid::multihash::Multihash;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{self, NetworkBehaviour, Swarm};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;

mod address_scope;
mod behaviour;
mod dht;
mod dials;
mod event_loop;
mod listen;
mod muxer;
mod peering;
mod provider_stream;
mod read_ahead;
mod searches;
mod security;

mod tls;
mod transport;

#[cfg(test)]
mod tests;

pub use behaviour::AGENT;
pub use dials::DialError;
pub use provider_stream::ProviderStream;

use address_scope::AddressScope;
use behaviour::Behaviour;
use dials::Dials;
use event_loop::{ADDRESSES_PER_DIAL_MAX, EventLoop};
use searches::{ProviderSearch, ProviderSearches};
use transport::NodeTransport;

use crate::config::{Bootstrap, NodeConfig, PEERS_MAX};

/// Commands that may be queued for the event loop; further senders wait.
const COMMANDS_MAX: usize = 256;

/// Peer events that a receiver may lag behind before it misses some.
const EVENTS_MAX: usize = 1024;

/// Addresses of one dial that are tried concurrently.
const ADDRESSES_AT_ONCE: NonZeroU8 = NonZeroU8::new(8).unwrap();

/// Inbound streams of a connection that may be negotiating their protocol. Kubo opens a stream for every message, and
/// streams beyond this limit are reset.
const NEGOTIATING_MAX: usize = 512;

/// Why a node could not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// Another program listens on the address.
    #[error(
        "{address} is in use by another program or a second node: stop it, or choose another port (0 takes a free one)"
    )]
    AddressInUse { address: Multiaddr },
    /// The system refused to listen on the address.
    #[error("cannot listen on {address}: {reason}")]
    Listen { address: Multiaddr, reason: String },
    /// No transport supports the address.
    #[error(
        "cannot listen on {address}: expected /ip4/IP/tcp/PORT, /ip4/IP/tcp/PORT/ws or /ip4/IP/udp/PORT/quic-v1 (or /ip6)"
    )]
    Unsupported { address: Multiaddr },
    /// The address of a peer or bootstrap node has no peer id, or cannot be dialled.
    #[error("{address} is not the address of a peer: {reason}")]
    NotAPeer { address: Multiaddr, reason: &'static str },
    /// More than [`PEERS_MAX`] peers are configured.
    #[error("{0} peers are configured; the maximum is {PEERS_MAX}")]
    TooManyPeers(usize),
    /// TLS or Noise could not be set up with the node's key.
    #[error("cannot set up secure connections: {0}")]
    Security(String),
}

/// A connected peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    pub peer: PeerId,
    /// The remote address of each connection, with `/p2p/ID`.
    pub addresses: Vec<Multiaddr>,
    /// The agent version that it claims, printable and at most 64 characters; `None` until it is identified.
    pub agent: Option<String>,
}

/// A change of a peer's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerEvent {
    /// The first connection was established.
    Connected(PeerId),
    /// It was identified: [`PeerInfo::agent`] is known.
    Identified(PeerId),
    /// The last connection was closed.
    Disconnected(PeerId),
}

/// Statistics of the swarm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SwarmStats {
    /// Current connections, in both directions.
    pub connections: u32,
    /// Dials since the start, including those of the DHT and of peering.
    pub dials: u64,
}

/// The channel for the reply to a command.
type Reply<T> = oneshot::Sender<T>;

enum Command {
    /// `reply` is `None` if no caller waits for the outcome.
    Dial {
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        trusted: bool,
        reply: Option<Reply<Result<(), DialError>>>,
    },
    AddPeering {
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        reply: Reply<Result<(), DialError>>,
    },
    RemovePeering {
        peer: PeerId,
    },
    Peers {
        reply: Reply<Vec<PeerInfo>>,
    },
    ListenAddresses {
        reply: Reply<Vec<Multiaddr>>,
    },
    Stats {
        reply: Reply<SwarmStats>,
    },
    Search(ProviderSearch),
    Stop(Reply<()>),
}

/// A handle on the swarm. Cheap to clone. The swarm stops when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct SwarmHandle {
    local: PeerId,
    commands: mpsc::Sender<Command>,
    events: broadcast::Sender<PeerEvent>,
}

impl SwarmHandle {
    /// This node's identity.
    #[must_use]
    pub fn local_peer_id(&self) -> PeerId {
        self.local
    }

    /// Connects to a peer, and returns once it is connected. `addresses` (with or without `/p2p/ID`, at most 32 are used)
    /// are tried in addition to those that the DHT knows. Private and loopback addresses are ignored unless
    /// [`NodeConfig::private_origins`] is set.
    ///
    /// Bounded in number and time. Cancel-safe; a dial that was started continues.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn dial(&self, peer: PeerId, addresses: Vec<Multiaddr>) -> Result<(), DialError> {
        self.dial_as(peer, addresses, false).await
    }

    /// Like [`dial`](Self::dial), for an address from the operator, which may be private.
    pub(crate) async fn dial_trusted(&self, peer: PeerId, address: Multiaddr) -> Result<(), DialError> {
        self.dial_as(peer, vec![address], true).await
    }

    async fn dial_as(
        &self,
        peer: PeerId,
        mut addresses: Vec<Multiaddr>,
        trusted: bool,
    ) -> Result<(), DialError> {
        addresses.retain(|address| leads_to(address, peer));
        self.ask(|reply| Command::Dial { peer, addresses, trusted, reply: Some(reply) }).await?
    }

    /// Stays connected to a peer from now on: dials it, keeps its idle connections open, and reconnects.
    ///
    /// # Errors
    /// [`DialError::Busy`] if there are [`PEERS_MAX`] such peers already, [`DialError::Stopping`].
    pub async fn add_peering(&self, peer: PeerId, mut addresses: Vec<Multiaddr>) -> Result<(), DialError> {
        addresses.truncate(ADDRESSES_PER_DIAL_MAX);
        self.ask(|reply| Command::AddPeering { peer, addresses, reply }).await?
    }

    /// Stops staying connected to a peer. Its connections are closed when they are idle.
    pub async fn remove_peering(&self, peer: PeerId) {
        // A node that stops removes all peers.
        let _ = self.commands.send(Command::RemovePeering { peer }).await;
    }

    /// The connected peers; empty once the node stops.
    pub async fn peers(&self) -> Vec<PeerInfo> {
        self.ask(|reply| Command::Peers { reply }).await.unwrap_or_default()
    }

    /// The addresses of this node, announced ones first, each with `/p2p/ID`.
    pub async fn listen_addresses(&self) -> Vec<Multiaddr> {
        self.ask(|reply| Command::ListenAddresses { reply }).await.unwrap_or_default()
    }

    /// The peer events from now on. A receiver that lags behind misses the oldest ones.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<PeerEvent> {
        self.events.subscribe()
    }

    /// Searches every DHT that is enabled for providers of the content with this multihash. Each provider is
    /// dialled as soon as it is found, and yielded once: at most 100, for at most two minutes.
    #[must_use]
    pub fn find_providers(&self, hash: &Multihash<64>) -> ProviderStream {
        ProviderStream::new(self.commands.clone(), hash)
    }

    /// Closes all connections and stops. Returns when the swarm is dropped. Every later call fails.
    pub async fn stop(&self) {
        // An error says that it has stopped already.
        let _ = self.ask(Command::Stop).await;
    }

    /// Statistics; zeros once the node stops.
    pub async fn stats(&self) -> SwarmStats {
        self.ask(|reply| Command::Stats { reply }).await.unwrap_or_default()
    }

    /// Starts to connect with a peer, as [`dial`](Self::dial) does, without waiting for the outcome. The dial is
    /// dropped if too many commands wait.
    pub(crate) fn start_dial(&self, peer: PeerId, mut addresses: Vec<Multiaddr>) {
        addresses.retain(|address| leads_to(address, peer));
        let command = Command::Dial { peer, addresses, trusted: false, reply: None };
        if self.commands.try_send(command).is_err() {
            tracing::debug!(%peer, "dial dropped: the command queue is full");
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, DialError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| DialError::Stopping)?;
        answer.await.map_err(|_| DialError::Stopping)
    }
}

/// Whether an address names this peer, or no peer.
fn leads_to(address: &Multiaddr, peer: PeerId) -> bool {
    match address.iter().last() {
        Some(Protocol::P2p(named)) => named == peer,
        _ => true,
    }
}

/// Starts the swarm with `exchange` as the block exchange. Returns once it listens. The task ends after
/// [`SwarmHandle::stop`], or with the last handle.
///
/// # Errors
/// [`StartError`].
pub(crate) async fn start<E>(
    config: &NodeConfig,
    exchange: E,
) -> Result<(SwarmHandle, JoinHandle<()>), StartError>
where
    E: NetworkBehaviour + Send,
{
    let peers = by_peer(&config.peers)?;
    if peers.len() > PEERS_MAX {
        return Err(StartError::TooManyPeers(peers.len()));
    }
    let bootstrap = by_peer(&config.bootstrap.addresses())?;
    let local = config.identity.peer_id();
    let mut swarm = build(config, exchange)?;
    listen::listen(&mut swarm, &config.listen).await?;
    for address in &config.announce {
        swarm.add_external_address(address.clone());
    }
    let behaviour = swarm.behaviour_mut();
    for (peer, addresses) in &bootstrap {
        behaviour.tables().for_each(|table| table.add_addresses(*peer, addresses.iter()));
    }

    let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
    let (events, _) = broadcast::channel(EVENTS_MAX);
    let mut event_loop = EventLoop {
        swarm,
        commands: inbox,
        events: events.clone(),
        private_origins: config.private_origins,
        peers: HashMap::new(),
        dials: Dials::default(),
        searches: ProviderSearches::default(),
        dials_started: 0,
    };
    for (peer, addresses) in peers {
        if peer != local {
            // The limit was checked above.
            let _ = event_loop.add_peering(peer, addresses);
        }
    }
    let task = tokio::spawn(event_loop.run());
    Ok((SwarmHandle { local, commands, events }, task))
}

fn build<E: NetworkBehaviour>(config: &NodeConfig, exchange: E) -> Result<Swarm<Behaviour<E>>, StartError> {
    let bootstrap = match &config.bootstrap {
        Bootstrap::List(addresses) => addresses.as_slice(),
        // The public entry nodes have public addresses.
        Bootstrap::Public | Bootstrap::None => &[],
    };
    let configured = config.peers.iter().chain(bootstrap);
    let routes = NodeTransport::new(config.identity.keypair(), configured, config.private_origins)
        .map_err(|error| StartError::Security(error.to_string()))?;
    let settings = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(config.idle_time)
        .with_dial_concurrency_factor(ADDRESSES_AT_ONCE)
        .with_max_negotiating_inbound_streams(NEGOTIATING_MAX);
    let behaviour = Behaviour::new(config, exchange);
    Ok(Swarm::new(libp2p::Transport::boxed(routes), behaviour, config.identity.peer_id(), settings))
}

/// Groups `/…/p2p/ID` addresses by peer.
fn by_peer(addresses: &[Multiaddr]) -> Result<HashMap<PeerId, Vec<Multiaddr>>, StartError> {
    let mut peers: HashMap<PeerId, Vec<Multiaddr>> = HashMap::new();
    for address in addresses {
        let peer =
            peer_of(address).map_err(|reason| StartError::NotAPeer { address: address.clone(), reason })?;
        let known = peers.entry(peer).or_default();
        if known.len() < ADDRESSES_PER_DIAL_MAX {
            known.push(address.clone());
        }
    }
    Ok(peers)
}

/// The peer id at the end of an address, or the reason why the address is not usable.
pub(crate) fn peer_of(address: &Multiaddr) -> Result<PeerId, &'static str> {
    let Some(Protocol::P2p(peer)) = address.iter().last() else {
        return Err("it must end with /p2p/ID");
    };
    match address_scope::address_scope(address) {
        AddressScope::Public | AddressScope::Private | AddressScope::Name => Ok(peer),
        AddressScope::Undialable => Err("it names no host, or a relay, which is not supported"),
    }
}
