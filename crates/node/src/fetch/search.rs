//! Finding who has a DAG, while it is being fetched: sources are asked, and who is found is dialled.

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

/// When to search again, if nothing came; then after twice as long each time.
const PAUSE: Duration = Duration::from_secs(15);
const PAUSE_MAX: Duration = Duration::from_secs(120);

/// Peers that are counted of those that the searches find.
const FOUND_MAX: usize = 256;

/// Connects to peers.
pub trait Dial: Send + Sync + 'static {
    /// Begins to connect to `peer` at these addresses (without `/p2p`), beside those that are known
    /// already; does nothing if it is connected. Returns at once and keeps its own bounds: a dial
    /// that finds no room may be forgotten.
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

    /// Begins to look for `cid`: dials the origins, and asks all sources unless they still search.
    pub(super) fn begin(&mut self, cid: &Cid) {
        for (peer, address) in &self.origins {
            self.dial.dial(*peer, vec![address.clone()]);
        }
        if self.running.is_empty() {
            for source in &self.sources {
                tracing::debug!(%cid, source = source.name(), "searching");
                self.running.push(source.find(cid));
            }
        }
        self.searches += 1;
        self.again_at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// How many searches have begun.
    pub(super) fn searches(&self) -> u64 {
        self.searches
    }

    /// How many peers the searches have found; no more than 256 are counted.
    pub(super) fn found(&self) -> u64 {
        self.found.len() as u64
    }

    /// Blocks came: a further search is not needed soon.
    pub(super) fn put_off(&mut self) {
        self.pause = PAUSE;
        self.again_at = Instant::now() + self.pause;
    }

    /// Dials whom the searches find; returns when it is time to search again. Cancel-safe.
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

/// The peer and its address without `/p2p`; `None` for an address that names no peer.
fn peer_at(origin: &Multiaddr) -> Option<(PeerId, Multiaddr)> {
    let mut address = origin.clone();
    match address.pop() {
        Some(Protocol::P2p(peer)) => Some((peer, address)),
        _ => {
            tracing::debug!(%origin, "an origin without /p2p is passed over");
            None
        }
    }
}
