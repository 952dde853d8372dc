//! Who may have a DAG: the seam for every way of finding it.
//!
//! A fetch asks all its sources at once while it already talks to the peers it knows. The DHT
//! ([`crate::net`]) is one source; delegated routing and HTTP gateways are others that can be added
//! without the fetch knowing.

use cid::Cid;
use futures::stream::BoxStream;
use libp2p::{Multiaddr, PeerId};

/// Something that may have the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A peer that is said to have it, with the addresses known for it (without `/p2p`). An address may
    /// live only as long as the search, so the fetch dials at once.
    Peer {
        /// Its identity.
        peer: PeerId,
        /// Where it may be reached; may be empty when the swarm already knows.
        addresses: Vec<Multiaddr>,
    },
}

/// A way of finding content.
pub trait Source: Send + Sync + 'static {
    /// A short name for logs and progress, such as `dht`.
    fn name(&self) -> &'static str;

    /// Searches for providers of `cid`. The stream ends when the search does; dropping it ends the
    /// search. It yields a bounded number of results.
    fn find(&self, cid: &Cid) -> BoxStream<'static, Found>;
}
