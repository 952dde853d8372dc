//! The node's place in the network: a libp2p swarm, its transports, its peers, and the DHT.
//!
//! One task owns the swarm (`event_loop`); everybody else holds a [`SwarmHandle`], which sends it commands over a
//! bounded channel and gets answers back. Its parts:
//!
//! - `transport`: TCP, QUIC and WebSocket, with `security` (TLS before Noise), `streams` (Yamux) and names;
//! - `reach`: what an address can reach, and so who may make this node dial it;
//! - `keep`: peers that are to stay connected;
//! - `dials`: who waits for which peer;
//! - `table` and `searches`: the two DHTs, and the searches for providers in them ([`Dht`]).
//!
//! Peers are not trusted: what they say about themselves and others is bounded and sorted before it is
//! kept. Nothing outside is dialled unless it is configured, asked for, or named by a DHT that is on.

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

/// How many commands may wait for the event_loop before senders do.
const COMMANDS_MAX: usize = 256;

/// How many peer events a listener may lag behind before it misses some.
const EVENTS_MAX: usize = 1024;

/// The most addresses of one dial that are tried at once.
const ADDRESSES_AT_ONCE: NonZeroU8 = NonZeroU8::new(8).unwrap();

/// The most streams of a connection whose protocol is being agreed on. Kubo opens a stream for every
/// message, and streams beyond this are reset.
const NEGOTIATING_MAX: usize = 512;

/// Why a node could not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// Another program listens there.
    #[error(
        "{address} is in use: another program, or a second node, listens there. Stop it, or choose another port (0 takes a free one)"
    )]
    AddressInUse {
        /// The listen address.
        address: Multiaddr,
    },
    /// The system refuses to listen there.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The listen address.
        address: Multiaddr,
        /// What the system said.
        reason: String,
    },
    /// No transport can listen there.
    #[error(
        "cannot listen on {address}: expected /ip4/IP/tcp/PORT, /ip4/IP/tcp/PORT/ws or /ip4/IP/udp/PORT/quic-v1 (or /ip6)"
    )]
    Unsupported {
        /// The listen address.
        address: Multiaddr,
    },
    /// The address of a peer or bootstrap node does not say which peer it is, or how to reach it.
    #[error("{address} is not the address of a peer: {reason}")]
    NotAPeer {
        /// The address.
        address: Multiaddr,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More peers are to be kept than allowed.
    #[error("{0} peers are to be kept connected; at most {PEERS_MAX} can be")]
    TooManyPeers(usize),
    /// The handshakes could not be set up for this key.
    #[error("cannot set up secure connections: {0}")]
    Security(String),
}

/// A connected peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// Its identity.
    pub peer: PeerId,
    /// The other end of each connection, with `/p2p/ID`.
    pub addresses: Vec<Multiaddr>,
    /// What it calls its software, printable and at most 64 characters; `None` before it said so.
    pub agent: Option<String>,
}

/// What happened to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerEvent {
    /// The first connection with it is up.
    Connected(PeerId),
    /// It said who it is: [`PeerInfo::agent`] is known.
    Identified(PeerId),
    /// The last connection with it is gone.
    Disconnected(PeerId),
}

/// Figures of the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SwarmStats {
    /// Connections now, in both directions.
    pub connections: u32,
    /// Dials begun since the start, the DHT's and those of kept peers included.
    pub dials: u64,
}

/// Where the answer to a command goes.
type Reply<T> = oneshot::Sender<T>;

enum Command {
    /// `reply` is `None` if nobody waits for the outcome.
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

/// A handle on the network. Cheap to clone; once the last one is gone the swarm stops.
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

    /// Connects with a peer, and returns once that is done; at once if it is connected. `addresses` (with
    /// or without `/p2p/ID`, the first 32 count) come in addition to what the DHT knows. Private and
    /// loopback ones are left out unless [`NodeConfig::private_origins`] is set.
    ///
    /// Bounded in number and time. Cancel-safe; a dial that was begun goes on.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn dial(&self, peer: PeerId, addresses: Vec<Multiaddr>) -> Result<(), DialError> {
        self.dial_as(peer, addresses, false).await
    }

    /// [`dial`](Self::dial) for an address that the operator gave: it may be private.
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

    /// Stays connected with a peer from now on: dials it, keeps its idle connections, dials again.
    ///
    /// # Errors
    /// [`DialError::Busy`] if [`PEERS_MAX`] peers are kept already, [`DialError::Stopping`].
    pub async fn add_peering(&self, peer: PeerId, mut addresses: Vec<Multiaddr>) -> Result<(), DialError> {
        addresses.truncate(ADDRESSES_PER_DIAL_MAX);
        self.ask(|reply| Command::AddPeering { peer, addresses, reply }).await?
    }

    /// Lets a kept peer go; its connections end when they idle.
    pub async fn remove_peering(&self, peer: PeerId) {
        // A node that stops releases all.
        let _ = self.commands.send(Command::RemovePeering { peer }).await;
    }

    /// The connected peers; none once the node stops.
    pub async fn peers(&self) -> Vec<PeerInfo> {
        self.ask(|reply| Command::Peers { reply }).await.unwrap_or_default()
    }

    /// Where this node is reached, announced addresses first, each with `/p2p/ID`.
    pub async fn listen_addresses(&self) -> Vec<Multiaddr> {
        self.ask(|reply| Command::ListenAddresses { reply }).await.unwrap_or_default()
    }

    /// Peers that come and go from now on. A listener that lags behind misses the oldest events.
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

    /// Closes all connections and stops; returns when the swarm is gone. Every later call fails.
    pub async fn stop(&self) {
        // Err says that it has stopped already.
        let _ = self.ask(Command::Stop).await;
    }

    /// Figures; zeros once the node stops.
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

/// Whether an address leads to this peer, or does not say to whom.
fn leads_to(address: &Multiaddr, peer: PeerId) -> bool {
    match address.iter().last() {
        Some(Protocol::P2p(named)) => named == peer,
        _ => true,
    }
}

/// Starts the swarm with `exchange` as the protocol that moves blocks; returns once it listens. The task
/// ends with the last [`SwarmHandle`], or when told to.
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
            // Cannot be too many: they were counted.
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

/// Sorts `/…/p2p/ID` addresses by the peer that they lead to.
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

/// The peer that an address leads to, or what is wrong with the address.
pub(crate) fn peer_of(address: &Multiaddr) -> Result<PeerId, &'static str> {
    let Some(Protocol::P2p(peer)) = address.iter().last() else {
        return Err("it must end with /p2p/ID");
    };
    match address_scope::address_scope(address) {
        AddressScope::Public | AddressScope::Private | AddressScope::Name => Ok(peer),
        AddressScope::Undialable => Err("it leads to no host, or through a relay, which is not supported"),
    }
}
