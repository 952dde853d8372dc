//! Peering: stays connected to chosen peers. Dials them, keeps idle connections open, and reconnects without limit.
//!
//! Attempts back off from half a second to a minute, with jitter, so that two nodes that peer with each other do not
//! collide repeatedly, and many nodes that lost the same peer do not reconnect at the same time.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use tokio::time::{Instant, Sleep};

mod handler;

use handler::Handler;

/// The first pause after a failed dial or a lost connection.
const PAUSE_MIN: Duration = Duration::from_millis(500);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// After a connection of at least this duration, the pauses start again from the shortest.
const STEADY_TIME: Duration = Duration::from_secs(30);

/// Concurrent dials of peered nodes.
const DIALS_MAX: usize = 16;

/// The network behaviour.
pub(crate) struct Behaviour {
    local: PeerId,
    peered: HashMap<PeerId, PeeredPeer>,
    /// Changes to send to connection handlers when a peer is added or removed.
    keep_alive_changes: Vec<(PeerId, ConnectionId, bool)>,
    connections: HashMap<PeerId, Vec<ConnectionId>>,
    alarm: Pin<Box<Sleep>>,
    waker: Option<Waker>,
}

struct PeeredPeer {
    addresses: Vec<Multiaddr>,
    failures: u32,
    state: State,
}

enum State {
    Connected { since: Instant },
    Dialing(ConnectionId),
    Waiting { due: Instant },
}

impl Behaviour {
    pub(crate) fn new(local: PeerId) -> Self {
        Self {
            local,
            peered: HashMap::new(),
            keep_alive_changes: Vec::new(),
            connections: HashMap::new(),
            alarm: Box::pin(tokio::time::sleep(PAUSE_MAX)),
            waker: None,
        }
    }

    /// Adds a peer, or replaces its addresses. The caller bounds the number of peers and addresses.
    pub(crate) fn add(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let connections = self.connections.get(&peer).map_or(&[][..], Vec::as_slice);
        let now = Instant::now();
        let state = if connections.is_empty() {
            State::Waiting { due: now }
        } else {
            State::Connected { since: now }
        };
        match self.peered.get_mut(&peer) {
            Some(peered) => peered.addresses = addresses,
            None => {
                self.keep_alive_changes
                    .extend(connections.iter().map(|connection| (peer, *connection, true)));
                self.peered.insert(peer, PeeredPeer { addresses, failures: 0, state });
            }
        }
        self.wake();
    }

    /// Removes a peer. Its connections stay open while they are used.
    pub(crate) fn remove(&mut self, peer: &PeerId) {
        if self.peered.remove(peer).is_some() {
            let connections = self.connections.get(peer).map_or(&[][..], Vec::as_slice);
            self.keep_alive_changes.extend(connections.iter().map(|connection| (*peer, *connection, false)));
            self.wake();
        }
    }

    /// Removes all peers.
    pub(crate) fn remove_all(&mut self) {
        let peers: Vec<PeerId> = self.peered.keys().copied().collect();
        peers.iter().for_each(|peer| self.remove(peer));
    }

    /// Whether this is one of the peers.
    pub(crate) fn contains(&self, peer: &PeerId) -> bool {
        self.peered.contains_key(peer)
    }

    /// The number of peers.
    pub(crate) fn len(&self) -> usize {
        self.peered.len()
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn connected(&mut self, event: ConnectionEstablished<'_>) {
        self.connections.entry(event.peer_id).or_default().push(event.connection_id);
        if let Some(peered) = self.peered.get_mut(&event.peer_id)
            && !matches!(peered.state, State::Connected { .. })
        {
            peered.state = State::Connected { since: Instant::now() };
        }
    }

    fn closed(&mut self, event: ConnectionClosed<'_>) {
        if let Some(connections) = self.connections.get_mut(&event.peer_id) {
            connections.retain(|connection| *connection != event.connection_id);
        }
        if event.remaining_established > 0 {
            return;
        }
        self.connections.remove(&event.peer_id);
        if let Some(peered) = self.peered.get_mut(&event.peer_id) {
            if matches!(peered.state, State::Connected { since } if since.elapsed() >= STEADY_TIME) {
                peered.failures = 0;
            }
            peered.wait(&self.local, &event.peer_id);
            self.wake();
        }
    }

    fn failed(&mut self, event: DialFailure<'_>) {
        let Some(peer) = event.peer_id else { return };
        let Some(peered) = self.peered.get_mut(&peer) else { return };
        if !matches!(peered.state, State::Dialing(id) if id == event.connection_id) {
            return;
        }
        if self.connections.contains_key(&peer) {
            peered.state = State::Connected { since: Instant::now() };
        } else {
            tracing::debug!(%peer, failures = peered.failures + 1, error = %event.error, "failed to dial a peered node");
            peered.wait(&self.local, &peer);
        }
        self.wake();
    }

    /// The next dial that is due; otherwise sets the alarm for it.
    fn next_dial(&mut self, cx: &mut Context<'_>) -> Option<DialOpts> {
        loop {
            let now = Instant::now();
            let dialing = |peered: &&PeeredPeer| matches!(peered.state, State::Dialing(_));
            if self.peered.values().filter(dialing).count() >= DIALS_MAX {
                return None;
            }
            let due = |peered: &PeeredPeer| match peered.state {
                State::Waiting { due } => Some(due),
                State::Connected { .. } | State::Dialing(_) => None,
            };
            let waiting =
                self.peered.iter_mut().filter_map(|(peer, peered)| Some((due(peered)?, peer, peered)));
            let (due, peer, peered) = waiting.min_by_key(|(due, ..)| *due)?;
            if due <= now {
                let dial = DialOpts::peer_id(*peer)
                    .condition(PeerCondition::DisconnectedAndNotDialing)
                    .addresses(peered.addresses.clone())
                    .extend_addresses_through_behaviour()
                    .allocate_new_port()
                    .build();
                peered.state = State::Dialing(dial.connection_id());
                return Some(dial);
            }
            self.alarm.as_mut().reset(due);
            if self.alarm.as_mut().poll(cx).is_pending() {
                return None;
            }
        }
    }
}

impl PeeredPeer {
    fn wait(&mut self, local: &PeerId, peer: &PeerId) {
        let pause = pause(self.failures, local, peer);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting { due: Instant::now() + pause };
    }
}

/// The pause before the next dial. It doubles with each failure; up to half of it is jitter that depends on the peers
/// and the attempt.
fn pause(failures: u32, local: &PeerId, peer: &PeerId) -> Duration {
    let full = PAUSE_MIN.saturating_mul(1 << failures.min(16)).min(PAUSE_MAX);
    let mut hasher = DefaultHasher::new();
    (local, peer, failures).hash(&mut hasher);
    let spread = f64::from((hasher.finish() & 0xffff) as u16) / f64::from(u16::MAX);
    full.mul_f64(0.5 + spread / 2.0)
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = std::convert::Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(self.contains(&peer)))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(self.contains(&peer)))
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "three of many events matter here")]
    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) => self.connected(event),
            FromSwarm::ConnectionClosed(event) => self.closed(event),
            FromSwarm::DialFailure(event) => self.failed(event),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some((peer_id, connection, peered)) = self.keep_alive_changes.pop() {
            let handler = NotifyHandler::One(connection);
            return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event: peered });
        }
        if let Some(opts) = self.next_dial(cx) {
            return Poll::Ready(ToSwarm::Dial { opts });
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_back_off_with_jitter() {
        let (local, peer) = (PeerId::random(), PeerId::random());
        assert!(pause(0, &local, &peer) <= PAUSE_MIN);
        for failures in 0..100 {
            let pause = pause(failures, &local, &peer);
            assert!(pause >= PAUSE_MIN / 2 && pause <= PAUSE_MAX, "{failures}: {pause:?}");
        }
        assert!(pause(u32::MAX, &local, &peer) >= PAUSE_MAX / 2);
        let pauses: std::collections::HashSet<_> =
            (0..50).map(|_| pause(9, &local, &PeerId::random())).collect();
        assert!(pauses.len() > 10, "no jitter");
    }
}
