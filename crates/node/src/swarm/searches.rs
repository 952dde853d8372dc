//! ProviderSearches for providers: which queries of which DHT belong to which search, and when it is over.
//!
//! A search has a state in every DHT that is on. A state that finds nobody to ask (the node has just started)
//! waits for the first peer of its table. A search ends when it has asked somebody and nobody is left to
//! ask, when it has found enough, when nobody listens any more, or when its time is up.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use libp2p::PeerId;
use libp2p::kad::{QueryId, RecordKey};
use tokio::sync::{mpsc, oneshot};

use super::dht::DhtKind;

/// The most providers that one search yields.
pub(super) const PROVIDERS_MAX: usize = 100;

/// How long one search may take: a query of the public DHT takes seconds, and gives up after a minute.
const TIME_MAX: Duration = Duration::from_secs(120);

/// The most searches that ask at once: each asks about ten peers at a time in each DHT.
const RUNNING_MAX: usize = 48;

/// The most searches that wait for their turn.
const QUEUE_MAX: usize = 1024;

/// A search that was asked for. Dropping the other end of `wanted` ends it.
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

/// What a report of a query leads to.
pub(super) struct Progress {
    /// Providers that this search had not found before.
    pub(super) new_providers: Vec<PeerId>,
    /// Queries that are of no use any more.
    pub(super) stop: Vec<(DhtKind, QueryId)>,
}

impl ProviderSearches {
    /// Takes in a search. Beyond the bounds it ends at once, with nothing found.
    pub(super) fn submit(&mut self, search: ProviderSearch) {
        if self.queue.len() < QUEUE_MAX {
            self.queue.push_back(search);
        }
    }

    /// The next search that may start; its queries are noted with [`query_started`](Self::query_started).
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
                // Resolves when the listener is dropped, too.
                let _ = tokio::time::timeout(TIME_MAX, cancelled).await;
                id
            };
            self.ends.push(Box::pin(end));
            return Some((id, key));
        }
        None
    }

    /// Notes the query that a state runs.
    pub(super) fn query_started(&mut self, id: SearchId, kind: DhtKind, query: QueryId) {
        if let Some(search) = self.running.get_mut(&id) {
            search.set(kind, QueryState::Running(query));
            self.queries.insert((kind, query), id);
        }
    }

    /// The searches that wait for this table to have somebody to ask.
    pub(super) fn without_peers(&self, kind: DhtKind) -> Vec<(SearchId, RecordKey)> {
        let idle =
            self.running.iter().filter(|(_, search)| search.queries.contains(&(kind, QueryState::NoPeers)));
        idle.map(|(id, search)| (*id, search.key.clone())).collect()
    }

    /// Takes in what a query found. `requests` is how many peers it asked; `last` tells that it is done.
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
        // A DHT that nobody is in (there is no other node in the LAN) holds no search up, nor its place.
        let is_asking = search.queries.iter().any(|(_, state)| matches!(state, QueryState::Running(_)));
        let done = !is_asking && search.queries.iter().any(|(_, state)| *state == QueryState::Done);
        for peer in &progress.new_providers {
            // The channel has room for all that a search may find; it is closed if nobody listens.
            let _ = search.found.try_send(*peer);
        }
        if done || search.seen.len() >= PROVIDERS_MAX {
            progress.stop = self.end(id);
        }
        progress
    }

    /// Resolves when a search is not wanted any more or its time is up; pends if there is none.
    pub(super) async fn next_end(&mut self) -> SearchId {
        match self.ends.next().await {
            Some(id) => id,
            None => std::future::pending().await,
        }
    }

    /// Ends a search; returns its queries that still run.
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

    /// Ids of queries come only from a table.
    fn query() -> QueryId {
        Dht::new(PeerId::random(), DhtKind::Lan, Mode::Client).find_providers(RecordKey::new(&b"key"))
    }

    #[tokio::test]
    async fn each_provider_is_told_once_and_the_end_too() {
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
    async fn a_search_that_found_nobody_to_ask_goes_on_later() {
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
    async fn a_dht_that_nobody_is_in_does_not_hold_a_search_up() {
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
    async fn a_flood_of_providers_is_cut_off() {
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
        let mut told = 0;
        while listener.found.recv().await.is_some() {
            told += 1;
        }
        assert_eq!(told, PROVIDERS_MAX);
    }

    #[tokio::test]
    async fn searches_beyond_the_bounds_wait_and_then_end_at_once() {
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
