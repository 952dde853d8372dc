//! What a node is told at its start.

use std::time::Duration;

use libp2p::Multiaddr;

use crate::exchange::BitswapConfig;
use crate::identity::Identity;

/// The settings of a node. Start from [`NodeConfig::new`] or [`NodeConfig::loopback`].
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The node's key.
    pub identity: Identity,
    /// Where to listen: `/ip4/…/tcp/PORT`, `/ip4/…/tcp/PORT/ws`, `/ip4/…/udp/PORT/quic-v1`, the same with
    /// `/ip6`. Port 0 takes a free one.
    pub listen: Vec<Multiaddr>,
    /// Addresses under which others reach this node, told to every peer as they are.
    pub announce: Vec<Multiaddr>,
    /// Peers to stay connected with, each `/…/p2p/ID`, at most [`PEERS_MAX`]; several addresses of one
    /// peer are fine. They are dialled again, for ever, whenever the connection is lost.
    pub peers: Vec<Multiaddr>,
    /// Through whom the public DHT is entered.
    pub bootstrap: Bootstrap,
    /// The part that this node takes in the DHT of private and loopback nets.
    pub lan: Lan,
    /// Whether an address that a request names (an origin of a pin) may be private or loopback. Off, so
    /// that nobody can use this node to knock at doors inside its own network.
    pub private_origins: bool,
    /// The most connections at once, in both directions; three quarters may be inbound. Each costs some
    /// 50 to 100 KiB when idle.
    pub connections_max: u32,
    /// How long a connection without any stream stays open.
    pub idle_time: Duration,
    /// The bounds of the block exchange.
    pub bitswap: BitswapConfig,
}

/// The most peers that are kept connected: each costs a dial a minute while it is away.
pub const PEERS_MAX: usize = 256;

/// Through whom the public DHT is entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bootstrap {
    /// The nodes that the IPFS community runs.
    Public,
    /// These, each `/…/p2p/ID`.
    List(Vec<Multiaddr>),
    /// Nobody: the public DHT is off, and nothing is dialled but what is configured or asked for.
    None,
}

/// The part that a node takes in the DHT of private and loopback nets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lan {
    /// None.
    Off,
    /// It asks others.
    Client,
    /// It also keeps provider records for others and answers them.
    Server,
}

/// The public entry nodes, as every IPFS implementation ships them.
const PUBLIC_BOOTSTRAP: [&str; 5] = [
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmQCU2EcMqAqQPR2i9bChDtGNJchTbq5TbXJJ16u19uLTa",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmbLHAnMoJPWSCR5Zhtx6BHJX9KiKNN6tpvbUcqanj75Nb",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmcZf59bWwK5XFi76CZX8cbJ4BhTzzA3gU1ZjYZcYW3dwt",
    "/ip4/104.131.131.82/tcp/4001/p2p/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ",
];

impl Bootstrap {
    /// The addresses that this stands for.
    #[must_use]
    pub fn addresses(&self) -> Vec<Multiaddr> {
        match self {
            Self::Public => PUBLIC_BOOTSTRAP.iter().filter_map(|address| address.parse().ok()).collect(),
            Self::List(addresses) => addresses.clone(),
            Self::None => Vec::new(),
        }
    }
}

impl NodeConfig {
    /// A node on the internet: TCP and QUIC on port 4001 of every interface, the public DHT.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        let listen = [
            "/ip4/0.0.0.0/tcp/4001",
            "/ip4/0.0.0.0/udp/4001/quic-v1",
            "/ip6/::/tcp/4001",
            "/ip6/::/udp/4001/quic-v1",
        ];
        Self {
            identity,
            listen: listen.iter().filter_map(|address| address.parse().ok()).collect(),
            announce: Vec::new(),
            peers: Vec::new(),
            bootstrap: Bootstrap::Public,
            lan: Lan::Client,
            private_origins: false,
            connections_max: 600,
            idle_time: Duration::from_secs(120),
            bitswap: BitswapConfig::default(),
        }
    }

    /// A node with a new identity that keeps to this machine: TCP on a free port of 127.0.0.1, no
    /// bootstrap, and private origins allowed.
    #[must_use]
    pub fn loopback() -> Self {
        Self {
            listen: "/ip4/127.0.0.1/tcp/0".parse().into_iter().collect(),
            bootstrap: Bootstrap::None,
            private_origins: true,
            ..Self::new(Identity::generate())
        }
    }
}

#[cfg(test)]
mod tests {
    use libp2p::multiaddr::Protocol;

    use super::*;

    #[test]
    fn every_built_in_address_parses() {
        assert_eq!(NodeConfig::new(Identity::generate()).listen.len(), 4);
        assert_eq!(NodeConfig::loopback().listen.len(), 1);
        let bootstrap = Bootstrap::Public.addresses();
        assert_eq!(bootstrap.len(), PUBLIC_BOOTSTRAP.len());
        assert!(bootstrap.iter().all(|address| matches!(address.iter().last(), Some(Protocol::P2p(_)))));
    }
}
