//! Searches for providers of a DAG during a fetch: queries the sources, and dials the providers that they find.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cid::Cid;
use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

use crate::sources::{Provider, Source};
use crate::swarm::SwarmHandle;

/// The pause before the next search if no block arrived. It doubles each time.
const PAUSE: Duration = Duration::from_secs(15);
const PAUSE_MAX: Duration = Duration::from_secs(120);

/// The most providers that are counted.
const FOUND_MAX: usize = 256;

/// Connects to peers.
pub trait Dial: Send + Sync + 'static {
    /// Starts to connect to `peer` at these addresses (without `/p2p`), in addition to those that are known already. Does
    /// nothing if the peer is connected. Returns at once. Implementations bound the number of dials, and may drop one.
    fn dial(&self, peer: PeerId, addresses: Vec<Multiaddr>);
}

impl Dial for SwarmHandle {
    fn dial(&self, peer: PeerId, addresses: Vec<Multiaddr>) {
        self.start_dial(peer, addresses);
    }
}

/// The searches of one fetch. Dropping it ends them.
pub(super) struct Search {
    dial: Arc<dyn Dial>,
    sources: Vec<Arc<dyn Source>>,
    origins: Vec<(PeerId, Multiaddr)>,
    running: SelectAll<BoxStream<'static, Provider>>,
    again_at: Instant,
    pause: Duration,
    searches: u64,
    found: HashSet<PeerId>,
}

impl Search {
    pub(super) fn new(dial: Arc<dyn Dial>, sources: Vec<Arc<dyn Source>>, origins: &[Multiaddr]) -> Self {
        Self {
            dial,
            sources,
            origins: origins.iter().filter_map(peer_at).collect(),
            running: SelectAll::new(),
            again_at: Instant::now(),
            pause: PAUSE,
            searches: 0,
            found: HashSet::new(),
        }
    }

    /// Starts a search for `cid`: dials the origins, and queries all sources unless earlier queries still run.
    pub(super) fn start(&mut self, cid: &Cid) {
        for (peer, address) in &self.origins {
            self.dial.dial(*peer, vec![address.clone()]);
        }
        if self.running.is_empty() {
            for source in &self.sources {
                tracing::debug!(%cid, source = source.name(), "searching for providers");
                self.running.push(source.find(cid));
            }
        }
        self.searches += 1;
        self.again_at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// The number of searches started.
    pub(super) fn searches(&self) -> u64 {
        self.searches
    }

    /// The number of providers found; at most 256 are counted.
    pub(super) fn found(&self) -> u64 {
        self.found.len() as u64
    }

    /// Blocks arrived: postpones the next search.
    pub(super) fn postpone(&mut self) {
        self.pause = PAUSE;
        self.again_at = Instant::now() + self.pause;
    }

    /// Dials the providers that the searches find. Returns when the next search is due. Cancel-safe.
    pub(super) async fn run(&mut self) {
        loop {
            tokio::select! {
                Some(found) = self.running.next(), if !self.running.is_empty() => match found {
                    Provider::Peer { peer, addresses } => {
                        if self.found.len() < FOUND_MAX {
                            self.found.insert(peer);
                        }
                        self.dial.dial(peer, addresses);
                    }
                },
                () = tokio::time::sleep_until(self.again_at) => return,
            }
        }
    }
}

/// The peer and its address without `/p2p`; `None` if the address has no peer id.
fn peer_at(origin: &Multiaddr) -> Option<(PeerId, Multiaddr)> {
    let mut address = origin.clone();
    match address.pop() {
        Some(Protocol::P2p(peer)) => Some((peer, address)),
        _ => {
            tracing::debug!(%origin, "ignoring an origin without /p2p");
            None
        }
    }
}
