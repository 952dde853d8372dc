//! Provider searches: which query of which DHT belongs to which search, and when a search ends.
//!
//! A search runs one query in every enabled DHT. A query that finds no peer to ask (the node has just started) waits for
//! the first peer in the routing table. A search ends when its queries are complete and at least one asked a peer, when it
//! has found enough providers, when its caller drops the stream, or when its time is up.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use libp2p::PeerId;
use libp2p::kad::{QueryId, RecordKey};
use tokio::sync::{mpsc, oneshot};

use super::dht::DhtKind;

/// The maximum number of providers of one search.
pub(super) const PROVIDERS_MAX: usize = 100;

/// Time limit of a search: a query of the public DHT takes seconds, and times out after a minute.
const TIME_MAX: Duration = Duration::from_secs(120);

/// Concurrent searches: each asks about ten peers at a time in each DHT.
const RUNNING_MAX: usize = 48;

/// Queued searches.
const QUEUE_MAX: usize = 1024;

/// A requested search. Dropping the sender of `cancelled` ends it.
pub(super) struct ProviderSearch {
    pub(super) key: RecordKey,
    pub(super) found: mpsc::Sender<PeerId>,
    pub(super) cancelled: oneshot::Receiver<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SearchId(u64);

struct Running {
    key: RecordKey,
    found: mpsc::Sender<PeerId>,
    seen: HashSet<PeerId>,
    queries: Vec<(DhtKind, QueryState)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QueryState {
    Running(QueryId),
    NoPeers,
    Done,
}

/// All searches of a node.
#[derive(Default)]
pub(super) struct ProviderSearches {
    last_id: u64,
    running: HashMap<SearchId, Running>,
    queries: HashMap<(DhtKind, QueryId), SearchId>,
    queue: VecDeque<ProviderSearch>,
    ends: FuturesUnordered<BoxFuture<'static, SearchId>>,
}

/// The consequences of a query's result.
pub(super) struct Progress {
    /// Providers that the search had not found before.
    pub(super) new_providers: Vec<PeerId>,
    /// Queries to stop.
    pub(super) stop: Vec<(DhtKind, QueryId)>,
}

impl ProviderSearches {
    /// Queues a search. If the queue is full, the search ends at once without a result.
    pub(super) fn submit(&mut self, search: ProviderSearch) {
        if self.queue.len() < QUEUE_MAX {
            self.queue.push_back(search);
        }
    }

    /// The next search to start. The caller reports its queries with [`query_started`](Self::query_started).
    pub(super) fn next(&mut self, kinds: &[DhtKind]) -> Option<(SearchId, RecordKey)> {
        while self.running.len() < RUNNING_MAX {
            let search = self.queue.pop_front()?;
            if search.found.is_closed() || kinds.is_empty() {
                continue;
            }
            self.last_id += 1;
            let id = SearchId(self.last_id);
            let queries = kinds.iter().map(|kind| (*kind, QueryState::NoPeers)).collect();
            let ProviderSearch { key, found, cancelled } = search;
            self.running.insert(id, Running { key: key.clone(), found, seen: HashSet::new(), queries });
            let end = async move {
                // Also resolves when the caller drops the stream.
                let _ = tokio::time::timeout(TIME_MAX, cancelled).await;
                id
            };
            self.ends.push(Box::pin(end));
            return Some((id, key));
        }
        None
    }

    /// Records the query of a search in one DHT.
    pub(super) fn query_started(&mut self, id: SearchId, kind: DhtKind, query: QueryId) {
        if let Some(search) = self.running.get_mut(&id) {
            search.set(kind, QueryState::Running(query));
            self.queries.insert((kind, query), id);
        }
    }

    /// The searches that wait for this DHT to know a peer.
    pub(super) fn without_peers(&self, kind: DhtKind) -> Vec<(SearchId, RecordKey)> {
        let idle =
            self.running.iter().filter(|(_, search)| search.queries.contains(&(kind, QueryState::NoPeers)));
        idle.map(|(id, search)| (*id, search.key.clone())).collect()
    }

    /// Processes the result of a query. `requests` is the number of peers that it asked; `last` says that it is complete.
    pub(super) fn progress(
        &mut self,
        query: (DhtKind, QueryId),
        providers: impl IntoIterator<Item = PeerId>,
        requests: u32,
        last: bool,
    ) -> Progress {
        let mut progress = Progress { new_providers: Vec::new(), stop: Vec::new() };
        let Some(id) = self.queries.get(&query).copied() else { return progress };
        let Some(search) = self.running.get_mut(&id) else { return progress };
        for peer in providers {
            if search.seen.len() < PROVIDERS_MAX && search.seen.insert(peer) {
                progress.new_providers.push(peer);
            }
        }
        if last {
            self.queries.remove(&query);
            search.set(query.0, if requests == 0 { QueryState::NoPeers } else { QueryState::Done });
        }
        // A DHT without members (no other node in the LAN) must not delay the end of a search.
        let is_asking = search.queries.iter().any(|(_, state)| matches!(state, QueryState::Running(_)));
        let done = !is_asking && search.queries.iter().any(|(_, state)| *state == QueryState::Done);
        for peer in &progress.new_providers {
            // The channel has room for all providers of a search; it is closed if the stream was dropped.
            let _ = search.found.try_send(*peer);
        }
        if done || search.seen.len() >= PROVIDERS_MAX {
            progress.stop = self.end(id);
        }
        progress
    }

    /// Resolves when a search is cancelled or its time is up. Pends if there is no search.
    pub(super) async fn next_end(&mut self) -> SearchId {
        match self.ends.next().await {
            Some(id) => id,
            None => std::future::pending().await,
        }
    }

    /// Ends a search. Returns its queries that are still running.
    pub(super) fn end(&mut self, id: SearchId) -> Vec<(DhtKind, QueryId)> {
        let Some(search) = self.running.remove(&id) else { return Vec::new() };
        let mut open = Vec::new();
        for (kind, state) in search.queries {
            if let QueryState::Running(query) = state {
                self.queries.remove(&(kind, query));
                open.push((kind, query));
            }
        }
        open
    }
}

impl Running {
    fn set(&mut self, kind: DhtKind, state: QueryState) {
        if let Some((_, current)) = self.queries.iter_mut().find(|(query_kind, _)| *query_kind == kind) {
            *current = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use libp2p::kad::Mode;

    use super::*;
    use crate::swarm::dht::Dht;

    const LAN: [DhtKind; 1] = [DhtKind::Lan];

    struct Listener {
        found: mpsc::Receiver<PeerId>,
        _cancel: oneshot::Sender<()>,
    }

    fn search() -> (ProviderSearch, Listener) {
        let (sender, found) = mpsc::channel(PROVIDERS_MAX);
        let (cancel, cancelled) = oneshot::channel();
        let search = ProviderSearch { key: RecordKey::new(&b"key"), found: sender, cancelled };
        (search, Listener { found, _cancel: cancel })
    }

    /// Query ids can only be created by a DHT.
    fn query() -> QueryId {
        Dht::new(PeerId::random(), DhtKind::Lan, Mode::Client).find_providers(RecordKey::new(&b"key"))
    }

    #[tokio::test]
    async fn each_provider_is_reported_once() {
        let (mut searches, query) = (ProviderSearches::default(), query());
        let (request, mut listener) = search();
        searches.submit(request);
        let (id, _) = searches.next(&LAN).unwrap();
        searches.query_started(id, DhtKind::Lan, query);
        let peer = PeerId::random();
        assert_eq!(searches.progress((DhtKind::Lan, query), [peer], 1, false).new_providers, [peer]);
        assert_eq!(searches.progress((DhtKind::Lan, query), [peer], 2, true).new_providers, []);
        assert_eq!(listener.found.recv().await, Some(peer));
        assert_eq!(listener.found.recv().await, None);
    }

    #[tokio::test]
    async fn search_without_peers_continues_later() {
        let (mut searches, query) = (ProviderSearches::default(), query());
        let (request, mut listener) = search();
        searches.submit(request);
        let (id, key) = searches.next(&LAN).unwrap();
        searches.query_started(id, DhtKind::Lan, query);
        searches.progress((DhtKind::Lan, query), [], 0, true);
        assert_eq!(searches.without_peers(DhtKind::Lan), [(id, key)]);
        assert!(listener.found.try_recv().is_err_and(|error| error == mpsc::error::TryRecvError::Empty));
    }

    #[tokio::test]
    async fn empty_dht_does_not_delay_a_search() {
        let (mut searches, query) = (ProviderSearches::default(), query());
        let (request, mut listener) = search();
        searches.submit(request);
        let (id, _) = searches.next(&[DhtKind::Public, DhtKind::Lan]).unwrap();
        searches.query_started(id, DhtKind::Public, query);
        searches.query_started(id, DhtKind::Lan, query);
        searches.progress((DhtKind::Lan, query), [], 0, true);
        searches.progress((DhtKind::Public, query), [], 7, true);
        assert!(searches.running.is_empty());
        assert_eq!(listener.found.recv().await, None);
    }

    #[tokio::test]
    async fn dropping_the_stream_ends_the_search() {
        let (mut searches, query) = (ProviderSearches::default(), query());
        let (request, listener) = search();
        searches.submit(request);
        let (id, _) = searches.next(&LAN).unwrap();
        searches.query_started(id, DhtKind::Lan, query);
        drop(listener);
        assert_eq!(searches.next_end().await, id);
        assert_eq!(searches.end(id), [(DhtKind::Lan, query)]);
    }

    #[tokio::test]
    async fn number_of_providers_is_limited() {
        let (mut searches, query) = (ProviderSearches::default(), query());
        let (request, mut listener) = search();
        searches.submit(request);
        let (id, _) = searches.next(&LAN).unwrap();
        searches.query_started(id, DhtKind::Lan, query);
        let flood = std::iter::repeat_with(PeerId::random).take(10 * PROVIDERS_MAX);
        let progress = searches.progress((DhtKind::Lan, query), flood, 1, false);
        assert_eq!(
            (progress.new_providers.len(), progress.stop),
            (PROVIDERS_MAX, vec![(DhtKind::Lan, query)])
        );
        let mut count = 0;
        while listener.found.recv().await.is_some() {
            count += 1;
        }
        assert_eq!(count, PROVIDERS_MAX);
    }

    #[tokio::test]
    async fn searches_beyond_the_limit_are_queued_and_then_refused() {
        let mut searches = ProviderSearches::default();
        let mut listeners = Vec::new();
        for _ in 0..=QUEUE_MAX {
            let (request, listener) = search();
            searches.submit(request);
            listeners.push(listener);
        }
        let mut refused = listeners.pop().unwrap();
        assert_eq!(refused.found.recv().await, None);
        let mut first = None;
        for _ in 0..RUNNING_MAX {
            let (id, _) = searches.next(&LAN).unwrap();
            first.get_or_insert(id);
        }
        assert!(searches.next(&LAN).is_none());
        searches.end(first.unwrap());
        assert!(searches.next(&LAN).is_some());
    }
}
