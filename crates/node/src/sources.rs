//! Sources of providers: the interface behind which every way of finding content lies.
//!
//! A fetch queries all its sources at the same time as it asks the connected peers. The DHT ([`dht`]) is one
//! source. Delegated routing and HTTP gateways can be added as others without a change to the fetch.

use cid::Cid;
use futures::stream::BoxStream;
use libp2p::{Multiaddr, PeerId};

pub mod dht;

pub use dht::DhtSource;

/// Something that may have the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provider {
    /// A peer that is said to have it.
    Peer {
        /// The peer's identity.
        peer: PeerId,
        /// Its addresses, without `/p2p`. An address may be valid only while the search runs, so the fetch dials
        /// at once. Empty if the swarm knows the addresses already.
        addresses: Vec<Multiaddr>,
    },
}

/// A way of finding providers.
pub trait Source: Send + Sync + 'static {
    /// A short name for logs and progress, such as `dht`.
    fn name(&self) -> &'static str;

    /// Searches for providers of `cid`. The stream ends when the search does, and yields a bounded number of
    /// results. Dropping it ends the search.
    fn find(&self, cid: &Cid) -> BoxStream<'static, Provider>;
}
