//! The DHT as a source of providers.

use cid::Cid;
use futures::stream::{BoxStream, StreamExt};

use super::{Provider, Source};
use crate::swarm::SwarmHandle;

/// Looks providers up in every DHT that is enabled.
///
/// The swarm dials each provider as soon as a query finds it, because a query's addresses are known only
/// while it runs. The providers are therefore yielded without addresses.
///
/// A search that starts before the node knows a member of the DHT waits for one. It ends after two minutes at
/// the latest, with at most 100 providers.
#[derive(Debug, Clone)]
pub struct DhtSource {
    swarm: SwarmHandle,
}

impl DhtSource {
    /// A source that searches in the DHTs of this swarm.
    #[must_use]
    pub fn new(swarm: SwarmHandle) -> Self {
        Self { swarm }
    }
}

impl Source for DhtSource {
    fn name(&self) -> &'static str {
        "dht"
    }

    fn find(&self, cid: &Cid) -> BoxStream<'static, Provider> {
        let peers = self.swarm.find_providers(cid.hash());
        peers.map(|peer| Provider::Peer { peer, addresses: Vec::new() }).boxed()
    }
}
