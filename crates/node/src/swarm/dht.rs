//! A Kademlia DHT whose routing table and queries are restricted to addresses of one scope.
//!
//! The public DHT accepts public addresses and DNS names; the LAN DHT accepts private and loopback ones. Addresses that
//! peers claim are filtered twice: before they enter the routing table, and before they are dialled, because addresses in
//! query results bypass the table.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig, RecordStore};
use libp2p::kad::{
    self, BucketInserts, InboundRequest, Mode, ProviderRecord, QueryId, RecordKey, StoreInserts,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol};

use super::address_scope::{AddressScope, address_scope};

/// Addresses of one peer in the routing table.
const ADDRESSES_MAX: usize = 16;

/// Provider records that a server stores for others, of about 300 bytes each. Beyond that, the oldest are removed. (The
/// record store itself would refuse more, and removes expired records only when they are requested.)
const RECORDS_MAX: usize = 16 * 1024;

/// The two DHTs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum DhtKind {
    /// The public DHT of the internet.
    Public,
    /// The DHT of private and loopback networks.
    Lan,
}

impl DhtKind {
    /// The protocol of its members.
    pub(crate) fn protocol(self) -> StreamProtocol {
        match self {
            Self::Public => StreamProtocol::new("/ipfs/kad/1.0.0"),
            Self::Lan => StreamProtocol::new("/ipfs/lan/kad/1.0.0"),
        }
    }

    /// Whether an address may be stored in the routing table, and dialled as the result of a query.
    pub(crate) fn accepts(self, address: &Multiaddr) -> bool {
        match (self, address_scope(address)) {
            (Self::Public, AddressScope::Public | AddressScope::Name)
            | (Self::Lan, AddressScope::Private) => true,
            (Self::Public, AddressScope::Private | AddressScope::Undialable)
            | (Self::Lan, AddressScope::Public | AddressScope::Name | AddressScope::Undialable) => false,
        }
    }
}

type Kad = kad::Behaviour<MemoryStore>;

/// The behaviour of one DHT.
pub(crate) struct Dht {
    kind: DhtKind,
    kad: Kad,
    /// Stored provider records, the oldest first. A record that was announced again is in the queue twice.
    provider_records: VecDeque<ProviderRecord>,
}

impl Dht {
    pub(crate) fn new(local: PeerId, kind: DhtKind, mode: Mode) -> Self {
        let mut config = kad::Config::new(kind.protocol());
        config
            .set_kbucket_inserts(BucketInserts::Manual)
            .set_record_filtering(StoreInserts::FilterBoth)
            .set_publication_interval(None)
            .set_replication_interval(None)
            .set_provider_publication_interval(None)
            .disjoint_query_paths(true);
        let limits =
            MemoryStoreConfig { max_provided_keys: RECORDS_MAX, max_records: 0, ..Default::default() };
        let store = MemoryStore::with_config(local, limits);
        let mut kad = Kad::with_config(local, store, config);
        kad.set_mode(Some(mode));
        Self { kind, kad, provider_records: VecDeque::new() }
    }

    pub(crate) fn kind(&self) -> DhtKind {
        self.kind
    }

    /// Adds addresses that a peer claims for itself, if they are of this DHT's scope.
    pub(crate) fn add_addresses<'a>(&mut self, peer: PeerId, addresses: impl Iterator<Item = &'a Multiaddr>) {
        let kind = self.kind;
        for address in addresses.filter(|address| kind.accepts(address)).take(ADDRESSES_MAX) {
            if self.known_addresses(&peer) >= ADDRESSES_MAX {
                // The peer moved, or floods: the latest addresses count.
                self.kad.remove_peer(&peer);
            }
            self.kad.add_address(&peer, address.clone());
        }
    }

    fn known_addresses(&mut self, peer: &PeerId) -> usize {
        let bucket = self.kad.kbucket(*peer);
        bucket.map_or(0, |bucket| {
            let mut entries = bucket.iter();
            entries.find(|entry| entry.node.key.preimage() == peer).map_or(0, |entry| entry.node.value.len())
        })
    }

    /// Whether the routing table is empty.
    pub(crate) fn is_empty(&mut self) -> bool {
        self.kad.kbuckets().all(|bucket| bucket.num_entries() == 0)
    }

    /// Starts a query for providers.
    pub(crate) fn find_providers(&mut self, key: RecordKey) -> QueryId {
        self.kad.get_providers(key)
    }

    /// Ends a query. Its pending results are dropped.
    pub(crate) fn stop(&mut self, query: &QueryId) {
        if let Some(mut query) = self.kad.query_mut(query) {
            query.finish();
        }
    }

    /// Stores provider records that others announce. Value records (IPNS, public keys) are not stored: their signatures
    /// would have to be verified.
    pub(crate) fn handle_request(&mut self, request: InboundRequest) {
        if let InboundRequest::AddProvider { record: Some(record) } = request {
            let store = self.kad.store_mut();
            if self.provider_records.len() >= RECORDS_MAX
                && let Some(oldest) = self.provider_records.pop_front()
                && store.providers(&oldest.key).contains(&oldest)
            {
                store.remove_provider(&oldest.key, &oldest.provider);
            }
            // Cannot fail: there are no more keys than records.
            if store.add_provider(record.clone()).is_ok() {
                self.provider_records.push_back(record);
            }
        }
    }
}

impl NetworkBehaviour for Dht {
    type ConnectionHandler = <Kad as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = kad::Event;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.kad.handle_pending_inbound_connection(id, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.kad.handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let mut known = self.kad.handle_pending_outbound_connection(id, peer, addresses, role)?;
        known.retain(|address| self.kind.accepts(address));
        known.truncate(2 * ADDRESSES_MAX);
        Ok(known)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.kad.handle_established_outbound_connection(id, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.kad.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        self.kad.on_connection_handler_event(peer, id, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.kad.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_provider_records_are_evicted() {
        let mut table = Dht::new(PeerId::random(), DhtKind::Lan, Mode::Server);
        let provider = PeerId::random();
        let key = |at: usize| RecordKey::new(&at.to_be_bytes());
        for at in 0..RECORDS_MAX + 10 {
            let record = ProviderRecord::new(key(at), provider, Vec::new());
            table.handle_request(InboundRequest::AddProvider { record: Some(record) });
        }
        let store = table.kad.store_mut();
        assert_eq!(store.providers(&key(9)), []);
        assert_eq!(store.providers(&key(10)).len(), 1);
        assert_eq!(store.providers(&key(RECORDS_MAX + 9)).len(), 1);
    }
}
