//! The network behaviours of the node.

use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::kad::Mode;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{PeerId, identify, ping};

use super::dht::{Dht, DhtKind};
use super::peering;
use crate::config::{Bootstrap, Lan, NodeConfig};

/// Inbound connections in the handshake: each has a socket and costs a signature.
const HANDSHAKES_INBOUND_MAX: u32 = 64;

/// Outbound connections being established, including those of the DHT.
const HANDSHAKES_OUTBOUND_MAX: u32 = 256;

/// Connections with one peer: one for each transport and direction, and some that overlap.
const CONNECTIONS_PER_PEER_MAX: u32 = 8;

/// The agent version that is sent to other peers.
pub const AGENT: &str = concat!("pinfold/", env!("CARGO_PKG_VERSION"));

/// The parts of the swarm. `E` is the block exchange.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
pub(crate) struct Behaviour<E: NetworkBehaviour> {
    /// First, so that a refused connection does not reach the others.
    pub(super) limits: connection_limits::Behaviour,
    pub(super) peering: peering::Behaviour,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
    pub(super) public: Toggle<Dht>,
    pub(super) lan: Toggle<Dht>,
    pub(super) exchange: E,
}

impl<E: NetworkBehaviour> Behaviour<E> {
    pub(super) fn new(config: &NodeConfig, exchange: E) -> Self {
        let local = config.identity.peer_id();
        // Addresses of peers are stored only in the DHT tables.
        let about_us = identify::Config::new("ipfs/0.1.0".into(), config.identity.keypair().public())
            .with_agent_version(AGENT.into())
            .with_cache_size(0);
        Self {
            limits: connection_limits::Behaviour::new(limits(config.connections_max)),
            peering: peering::Behaviour::new(local),
            identify: identify::Behaviour::new(about_us),
            ping: ping::Behaviour::default(),
            public: Toggle::from(public_table(local, &config.bootstrap)),
            lan: Toggle::from(lan_table(local, config.lan)),
            exchange,
        }
    }

    /// The enabled DHTs.
    pub(super) fn tables(&mut self) -> impl Iterator<Item = &mut Dht> {
        [self.public.as_mut(), self.lan.as_mut()].into_iter().flatten()
    }

    /// One DHT, if it is enabled.
    pub(super) fn table(&mut self, kind: DhtKind) -> Option<&mut Dht> {
        match kind {
            DhtKind::Public => self.public.as_mut(),
            DhtKind::Lan => self.lan.as_mut(),
        }
    }
}

fn public_table(local: PeerId, bootstrap: &Bootstrap) -> Option<Dht> {
    match bootstrap {
        Bootstrap::Public | Bootstrap::List(_) => Some(Dht::new(local, DhtKind::Public, Mode::Client)),
        Bootstrap::None => None,
    }
}

fn lan_table(local: PeerId, lan: Lan) -> Option<Dht> {
    match lan {
        Lan::Off => None,
        Lan::Client => Some(Dht::new(local, DhtKind::Lan, Mode::Client)),
        Lan::Server => Some(Dht::new(local, DhtKind::Lan, Mode::Server)),
    }
}

/// A quarter of all connections is reserved for outbound ones.
fn limits(connections_max: u32) -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(HANDSHAKES_INBOUND_MAX))
        .with_max_pending_outgoing(Some(HANDSHAKES_OUTBOUND_MAX))
        .with_max_established_incoming(Some(connections_max - connections_max / 4))
        .with_max_established(Some(connections_max))
        .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER_MAX))
}

/// Limits that refuse every connection.
pub(super) fn no_connections() -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(0))
        .with_max_pending_outgoing(Some(0))
        .with_max_established(Some(0))
}
