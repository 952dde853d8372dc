//! The task that owns the swarm: executes commands and handles swarm events.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt;
use libp2p::kad::{self, GetProvidersOk, QueryId, QueryResult, RecordKey};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{self, ConnectionId, NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, identify, ping};
use tokio::sync::{broadcast, mpsc};

use super::address_scope::{AddressScope, address_scope};
use super::behaviour::{self, Behaviour, BehaviourEvent};
use super::dht::DhtKind;
use super::dials::{Admission, DialError, DialRequest, Dials};
use super::searches::{ProviderSearches, SearchId};
use super::{Command, PeerEvent, PeerInfo, SwarmStats};
use crate::config::PEERS_MAX;

/// The maximum length of a peer's agent version that is stored, in characters.
const AGENT_LEN_MAX: usize = 64;

/// The maximum number of addresses of one dial.
pub(super) const ADDRESSES_PER_DIAL_MAX: usize = 32;

/// Time limit for closing connections when the node stops.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// The swarm and the state of its connections.
pub(super) struct EventLoop<E: NetworkBehaviour> {
    pub(super) swarm: Swarm<Behaviour<E>>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) events: broadcast::Sender<PeerEvent>,
    /// Whether addresses in requests may be private.
    pub(super) private_origins: bool,
    pub(super) peers: HashMap<PeerId, Peer>,
    pub(super) dials: Dials,
    pub(super) searches: ProviderSearches,
    /// Dials since the start, by any part of the swarm.
    pub(super) dials_started: u64,
}

/// A peer with at least one connection.
#[derive(Default)]
pub(super) struct Peer {
    connections: Vec<(ConnectionId, Multiaddr)>,
    agent: Option<String>,
}

impl<E: NetworkBehaviour> EventLoop<E> {
    /// Runs until a stop command arrives, or until the last handle is dropped.
    pub(super) async fn run(mut self) {
        let stopped = loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                command = self.commands.recv() => match command {
                    Some(Command::Stop(stopped)) => break Some(stopped),
                    Some(command) => self.on_command(command),
                    None => break None,
                },
                search = self.searches.next_end() => self.end_search(search),
            }
        };
        self.close().await;
        drop(self);
        if let Some(stopped) = stopped {
            // An error says that the caller no longer waits.
            let _ = stopped.send(());
        }
    }

    /// Refuses new connections and closes all, so that peers need not wait for a time-out.
    async fn close(&mut self) {
        let behaviour = self.swarm.behaviour_mut();
        behaviour.peering.remove_all();
        *behaviour.limits.limits_mut() = behaviour::no_connections();
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // An error says that it was not connected.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closed = async {
            while self.swarm.network_info().connection_counters().num_established() > 0 {
                self.swarm.select_next_some().await;
            }
        };
        if tokio::time::timeout(CLOSE_TIME, closed).await.is_err() {
            tracing::debug!("some connections were not closed in time");
        }
    }

    fn on_command(&mut self, command: Command) {
        // A reply fails if its caller no longer waits.
        match command {
            Command::Dial { peer, addresses, trusted, reply } => {
                let addresses = self.dialable(addresses, trusted);
                self.dial(DialRequest { peer, addresses, reply });
            }
            Command::AddPeering { peer, addresses, reply } => {
                let _ = reply.send(self.add_peering(peer, addresses));
            }
            Command::RemovePeering { peer } => self.remove_peering(&peer),
            Command::Peers { reply } => {
                let _ = reply.send(self.peers.iter().map(|(id, peer)| peer.info(*id)).collect());
            }
            Command::ListenAddresses { reply } => {
                let _ = reply.send(self.listen_addresses());
            }
            Command::Stats { reply } => {
                let connections = self.swarm.network_info().connection_counters().num_established();
                let _ = reply.send(SwarmStats { connections, dials: self.dials_started });
            }
            Command::Search(search) => {
                self.searches.submit(search);
                self.start_searches();
            }
            Command::Stop(_) => {}
        }
    }

    fn listen_addresses(&self) -> Vec<Multiaddr> {
        let local = *self.swarm.local_peer_id();
        let all = self.swarm.external_addresses().chain(self.swarm.listeners());
        all.filter_map(|address| address.clone().with_p2p(local).ok()).collect()
    }

    // Dialling.

    /// Those of a caller's addresses that may be dialled.
    fn dialable(&self, mut addresses: Vec<Multiaddr>, trusted: bool) -> Vec<Multiaddr> {
        addresses.retain(|address| match address_scope(address) {
            AddressScope::Public | AddressScope::Name => true,
            AddressScope::Private => trusted || self.private_origins,
            AddressScope::Undialable => false,
        });
        addresses.truncate(ADDRESSES_PER_DIAL_MAX);
        addresses
    }

    fn dial(&mut self, request: DialRequest) {
        if self.swarm.is_connected(&request.peer) {
            request.answer(Ok(()));
        } else if let Admission::Start(request) = self.dials.submit(request) {
            self.start_dial(request);
        }
    }

    fn start_dial(&mut self, request: DialRequest) {
        let options = DialOpts::peer_id(request.peer)
            .condition(PeerCondition::Disconnected)
            .addresses(request.addresses.clone())
            .extend_addresses_through_behaviour()
            .allocate_new_port()
            .build();
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.dials_started += 1;
                self.dials.started(connection, request);
            }
            Err(_) if self.swarm.is_connected(&request.peer) => request.answer(Ok(())),
            Err(error) => request.answer(Err(dial_error(&error))),
        }
    }

    fn continue_dials(&mut self) {
        while let Some(request) = self.dials.next() {
            if self.swarm.is_connected(&request.peer) {
                request.answer(Ok(()));
            } else {
                self.start_dial(request);
            }
        }
    }

    pub(super) fn add_peering(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) -> Result<(), DialError> {
        let behaviour = self.swarm.behaviour_mut();
        if behaviour.peering.len() >= PEERS_MAX && !behaviour.peering.contains(&peer) {
            return Err(DialError::Busy);
        }
        behaviour.limits.bypass_peer_id(&peer);
        behaviour.peering.add(peer, addresses);
        Ok(())
    }

    fn remove_peering(&mut self, peer: &PeerId) {
        let behaviour = self.swarm.behaviour_mut();
        behaviour.limits.remove_peer_id(peer);
        behaviour.peering.remove(peer);
    }

    // Searching.

    fn start_searches(&mut self) {
        let kinds: Vec<DhtKind> = self.swarm.behaviour_mut().tables().map(|table| table.kind()).collect();
        while let Some((id, key)) = self.searches.next(&kinds) {
            for kind in &kinds {
                self.start_query(id, *kind, key.clone());
            }
        }
    }

    fn start_query(&mut self, id: SearchId, kind: DhtKind, key: RecordKey) {
        if let Some(table) = self.swarm.behaviour_mut().table(kind) {
            let query = table.find_providers(key);
            self.searches.query_started(id, kind, query);
        }
    }

    /// Starts the queries that wait for the DHT to know a peer.
    fn resume_searches(&mut self, kind: DhtKind) {
        let table = self.swarm.behaviour_mut().table(kind);
        if table.is_some_and(|table| !table.is_empty()) {
            for (id, key) in self.searches.without_peers(kind) {
                self.start_query(id, kind, key);
            }
        }
    }

    fn end_search(&mut self, id: SearchId) {
        let open = self.searches.end(id);
        self.stop_queries(&open);
        self.start_searches();
    }

    fn stop_queries(&mut self, queries: &[(DhtKind, QueryId)]) {
        for (kind, query) in queries {
            if let Some(table) = self.swarm.behaviour_mut().table(*kind) {
                table.stop(query);
            }
        }
    }

    fn on_providers(&mut self, query: (DhtKind, QueryId), found: Vec<PeerId>, requests: u32, last: bool) {
        let local = *self.swarm.local_peer_id();
        let found = found.into_iter().filter(|peer| *peer != local);
        let progress = self.searches.progress(query, found, requests, last);
        // The addresses are known only while the query runs: dial before it is stopped.
        for peer in progress.new_providers {
            self.dial(DialRequest { peer, addresses: Vec::new(), reply: None });
        }
        self.stop_queries(&progress.stop);
        if last {
            self.resume_searches(query.0);
            self.start_searches();
        }
    }

    // Events.

    #[expect(clippy::wildcard_enum_match_arm, reason = "the enum is open, and few of its events matter here")]
    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent<E>>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_connected(peer_id, connection_id, endpoint.get_remote_address().clone());
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, cause, .. } => {
                tracing::debug!(peer = %peer_id, ?cause, "connection closed");
                self.on_closed(&peer_id, connection_id, num_established);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.dials.failed(connection_id, &dial_error(&error));
                self.continue_dials();
            }
            SwarmEvent::Dialing { .. } => self.dials_started += 1,
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(from = %send_back_addr, %error, "inbound connection failed");
            }
            SwarmEvent::NewListenAddr { address, .. } => tracing::info!(%address, "listening"),
            SwarmEvent::ListenerClosed { addresses, reason: Err(error), .. } => {
                tracing::error!(?addresses, %error, "listener closed");
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "listener failed"),
            _ => {}
        }
    }

    fn on_connected(&mut self, peer: PeerId, connection: ConnectionId, address: Multiaddr) {
        tracing::debug!(%peer, %address, "connected");
        let connections = &mut self.peers.entry(peer).or_default().connections;
        connections.push((connection, address));
        if connections.len() == 1 {
            // An error says that there is no receiver.
            let _ = self.events.send(PeerEvent::Connected(peer));
        }
        self.dials.connected(&peer, connection);
        self.continue_dials();
    }

    fn on_closed(&mut self, peer: &PeerId, connection: ConnectionId, left: u32) {
        if left == 0 {
            self.peers.remove(peer);
            let _ = self.events.send(PeerEvent::Disconnected(*peer));
        } else if let Some(known) = self.peers.get_mut(peer) {
            known.connections.retain(|(id, _)| *id != connection);
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent<E>) {
        match event {
            BehaviourEvent::Identify(
                identify::Event::Received { connection_id, peer_id, info }
                | identify::Event::Pushed { connection_id, peer_id, info },
            ) => self.on_identified(peer_id, connection_id, &info),
            BehaviourEvent::Ping(ping::Event { peer, connection, result: Err(ping::Failure::Timeout) }) => {
                tracing::debug!(%peer, "closing a connection after a ping time-out");
                self.swarm.close_connection(connection);
            }
            BehaviourEvent::Public(event) => self.on_dht_event(DhtKind::Public, event),
            BehaviourEvent::Lan(event) => self.on_dht_event(DhtKind::Lan, event),
            BehaviourEvent::Identify(_) | BehaviourEvent::Ping(_) | BehaviourEvent::Exchange(_) => {}
            BehaviourEvent::Limits(never) | BehaviourEvent::Peering(never) => match never {},
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "few DHT events matter here")]
    fn on_dht_event(&mut self, kind: DhtKind, event: kad::Event) {
        match event {
            kad::Event::OutboundQueryProgressed {
                id,
                result: QueryResult::GetProviders(result),
                stats,
                step,
            } => {
                let found = match result {
                    Ok(GetProvidersOk::FoundProviders { providers, .. }) => providers.into_iter().collect(),
                    Ok(GetProvidersOk::FinishedWithNoAdditionalRecord { .. }) | Err(_) => Vec::new(),
                };
                self.on_providers((kind, id), found, stats.num_requests(), step.last);
            }
            kad::Event::InboundRequest { request } => {
                if let Some(table) = self.swarm.behaviour_mut().table(kind) {
                    table.handle_request(request);
                }
            }
            kad::Event::RoutingUpdated { is_new_peer: true, .. } => self.resume_searches(kind),
            _ => {}
        }
    }

    /// Stores what a peer claims about itself, bounded and filtered: none of it is verified.
    fn on_identified(&mut self, peer: PeerId, connection: ConnectionId, info: &identify::Info) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        known.agent = Some(printable(&info.agent_version));
        let over_lan = known
            .connections
            .iter()
            .any(|(id, address)| *id == connection && address_scope(address) == AddressScope::Private);
        for table in self.swarm.behaviour_mut().tables() {
            // Only a neighbour may claim private addresses: others could direct the node to internal servers.
            let may_claim = table.kind() == DhtKind::Public || over_lan;
            if may_claim && info.protocols.contains(&table.kind().protocol()) {
                table.add_addresses(peer, info.listen_addrs.iter());
            }
        }
        let _ = self.events.send(PeerEvent::Identified(peer));
    }
}

impl Peer {
    fn info(&self, id: PeerId) -> PeerInfo {
        let with_id = |address: &Multiaddr| address.clone().with_p2p(id).ok();
        PeerInfo {
            peer: id,
            addresses: self.connections.iter().filter_map(|(_, address)| with_id(address)).collect(),
            agent: self.agent.clone(),
        }
    }
}

fn printable(agent: &str) -> String {
    agent.chars().filter(|c| !c.is_control()).take(AGENT_LEN_MAX).collect()
}

/// The reason why a dial failed, with the first few addresses.
fn dial_error(error: &swarm::DialError) -> DialError {
    const SHOWN_MAX: usize = 3;
    match error {
        swarm::DialError::NoAddresses => DialError::NoAddress,
        swarm::DialError::Transport(errors) => {
            let shown = errors.iter().take(SHOWN_MAX).map(|(address, error)| format!("{address}: {error}"));
            DialError::Failed(shown.collect::<Vec<_>>().join("; "))
        }
        swarm::DialError::LocalPeerId { .. }
        | swarm::DialError::DialPeerConditionFalse(_)
        | swarm::DialError::Aborted
        | swarm::DialError::WrongPeerId { .. }
        | swarm::DialError::Denied { .. } => DialError::Failed(error.to_string()),
    }
}
