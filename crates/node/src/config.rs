//! The configuration of a node.

use std::time::Duration;

use libp2p::Multiaddr;

use crate::exchange::BitswapConfig;
use crate::identity::Identity;

/// The settings of a node. Start from [`NodeConfig::new`] or [`NodeConfig::loopback`].
#[derive(Debug, Clone)]
pub struct NodeConfig {
    pub identity: Identity,
    /// Listen addresses: `/ip4/…/tcp/PORT`, `/ip4/…/tcp/PORT/ws`, `/ip4/…/udp/PORT/quic-v1`, the same with
    /// `/ip6`. Port 0 takes a free one.
    pub listen: Vec<Multiaddr>,
    /// Addresses at which others reach this node. They are announced to every peer unchanged.
    pub announce: Vec<Multiaddr>,
    /// Peers to which the node stays connected, each `/…/p2p/ID`, at most [`PEERS_MAX`]. Several addresses of one peer are
    /// allowed. The node reconnects whenever a connection is lost.
    pub peers: Vec<Multiaddr>,
    /// The bootstrap nodes of the public DHT.
    pub bootstrap: Bootstrap,
    /// The node's role in the DHT of private and loopback networks.
    pub lan: Lan,
    /// Whether an address in a request (an origin of a pin) may be private or loopback. Disabled by default to prevent
    /// connections to internal services (SSRF).
    pub private_origins: bool,
    /// The maximum number of connections in both directions. Three quarters may be inbound. An idle connection costs some
    /// 50 to 100 KiB.
    pub connections_max: u32,
    /// How long a connection without streams stays open.
    pub idle_time: Duration,
    /// The limits of the block exchange.
    pub bitswap: BitswapConfig,
}

/// The maximum number of peers to stay connected to: each costs a dial a minute while it is unreachable.
pub const PEERS_MAX: usize = 256;

/// The bootstrap nodes of the public DHT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bootstrap {
    /// The bootstrap nodes of the IPFS community.
    Public,
    /// These addresses, each `/…/p2p/ID`.
    List(Vec<Multiaddr>),
    /// None: the public DHT is disabled, and only configured or requested addresses are dialled.
    None,
}

/// The role of a node in the DHT of private and loopback networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lan {
    /// The DHT is disabled.
    Off,
    /// The node only queries others.
    Client,
    /// The node also stores provider records of others and answers queries.
    Server,
}

/// The public bootstrap nodes, as every IPFS implementation ships them.
const PUBLIC_BOOTSTRAP: [&str; 5] = [
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmQCU2EcMqAqQPR2i9bChDtGNJchTbq5TbXJJ16u19uLTa",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmbLHAnMoJPWSCR5Zhtx6BHJX9KiKNN6tpvbUcqanj75Nb",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmcZf59bWwK5XFi76CZX8cbJ4BhTzzA3gU1ZjYZcYW3dwt",
    "/ip4/104.131.131.82/tcp/4001/p2p/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ",
];

impl Bootstrap {
    /// The addresses of the bootstrap nodes.
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

    /// A node with a new identity that uses only the loopback interface: TCP on a free port of 127.0.0.1, no bootstrap
    /// nodes, private origins allowed.
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
