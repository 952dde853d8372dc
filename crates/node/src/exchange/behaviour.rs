//! The network behaviour of bitswap: it negotiates streams and passes them to the engine.
//!
//! Messages are read and written by tasks of the engine, so that a slow peer never blocks the swarm.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, UpgradeInfo};
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, NotifyHandler, Stream, StreamUpgradeError, SubstreamProtocol, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{InboundUpgrade, Multiaddr, OutboundUpgrade, PeerId, StreamProtocol};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::wire::ProtocolVersion;

/// Time limit for the negotiation of a stream.
const NEGOTIATION_TIME: Duration = Duration::from_secs(10);

/// Outbound streams of one connection that may be waiting to be opened.
const OPENING_MAX: usize = 16;

/// How long a peer that misbehaved is banned.
const BAN_TIME: Duration = Duration::from_secs(300);

/// Banned peers that are remembered; beyond that, the oldest bans end.
const BANNED_MAX: usize = 1024;

/// Receives connections and streams. Called from the swarm's task: must not block.
pub(super) trait StreamHandler: Send + Sync + 'static {
    /// The first connection to a peer was established.
    fn connected(&self, peer: PeerId);
    /// The last connection to a peer was closed.
    fn disconnected(&self, peer: PeerId);
    /// A peer opened a stream.
    fn inbound(&self, peer: PeerId, stream: Stream);
    /// The swarm was dropped.
    fn stopped(&self);
}

/// Why a stream could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    /// The peer does not support bitswap.
    Unsupported,
    /// The peer is not connected or too slow, or too many streams are being opened.
    Failed,
}

type OpenReply = oneshot::Sender<Result<(Stream, ProtocolVersion), OpenError>>;

/// A command of the engine to the swarm.
#[derive(Debug)]
pub(super) enum Command {
    /// Opens a stream to a connected peer. The reply is dropped if there is no connection.
    Open(PeerId, OpenReply),
    /// Closes all connections to a peer that misbehaved, and bans it temporarily.
    Ban(PeerId),
}

/// The network behaviour, to be added to the swarm.
pub struct Behaviour {
    streams: Arc<dyn StreamHandler>,
    commands: mpsc::Receiver<Command>,
    versions: Arc<[ProtocolVersion]>,
    banned: HashMap<PeerId, Instant>,
}

impl std::fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Behaviour").field("versions", &self.versions).finish_non_exhaustive()
    }
}

impl Behaviour {
    pub(super) fn new(
        streams: Arc<dyn StreamHandler>,
        commands: mpsc::Receiver<Command>,
        versions: Arc<[ProtocolVersion]>,
    ) -> Self {
        Self { streams, commands, versions, banned: HashMap::new() }
    }

    fn handler(&self, peer: PeerId) -> Result<Handler, ConnectionDenied> {
        if self.banned.get(&peer).is_some_and(|until| Instant::now() < *until) {
            return Err(ConnectionDenied::new(Banned));
        }
        Ok(Handler {
            peer,
            streams: self.streams.clone(),
            versions: self.versions.clone(),
            opening: VecDeque::new(),
            waker: None,
        })
    }

    fn ban(&mut self, peer: PeerId) {
        let now = Instant::now();
        self.banned.retain(|_, until| now < *until);
        if self.banned.len() >= BANNED_MAX
            && let Some(oldest) = self.banned.iter().min_by_key(|(_, until)| **until).map(|(peer, _)| *peer)
        {
            self.banned.remove(&oldest);
        }
        self.banned.insert(peer, now + BAN_TIME);
    }
}

/// The reason for denying a connection.
#[derive(Debug, thiserror::Error)]
#[error("the peer is banned temporarily because it misbehaved")]
struct Banned;

impl Drop for Behaviour {
    fn drop(&mut self) {
        self.streams.stopped();
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler(peer)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler(peer)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only connections matter here")]
    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(up) if up.other_established == 0 => {
                self.streams.connected(up.peer_id);
            }
            FromSwarm::ConnectionClosed(down) if down.remaining_established == 0 => {
                self.streams.disconnected(down.peer_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.commands.poll_recv(cx) {
            Poll::Ready(Some(Command::Open(peer_id, reply))) => Poll::Ready(ToSwarm::NotifyHandler {
                peer_id,
                handler: NotifyHandler::Any,
                event: Open(reply),
            }),
            Poll::Ready(Some(Command::Ban(peer_id))) => {
                self.ban(peer_id);
                Poll::Ready(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::All })
            }
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

/// A request to a connection handler to open a stream.
#[derive(Debug)]
pub struct Open(OpenReply);

/// The connection handler of bitswap.
pub struct Handler {
    peer: PeerId,
    streams: Arc<dyn StreamHandler>,
    versions: Arc<[ProtocolVersion]>,
    opening: VecDeque<OpenReply>,
    waker: Option<Waker>,
}

impl Handler {
    fn protocol(&self) -> Protocol {
        Protocol(self.versions.clone())
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = Infallible;
    type InboundProtocol = Protocol;
    type OutboundProtocol = Protocol;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = OpenReply;

    fn listen_protocol(&self) -> SubstreamProtocol<Protocol> {
        SubstreamProtocol::new(self.protocol(), ()).with_timeout(NEGOTIATION_TIME)
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Protocol, OpenReply, Self::ToBehaviour>> {
        if let Some(reply) = self.opening.pop_front() {
            let protocol = SubstreamProtocol::new(self.protocol(), reply).with_timeout(NEGOTIATION_TIME);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, Open(reply): Open) {
        if self.opening.len() >= OPENING_MAX {
            // An error says that the requester no longer waits.
            let _gone = reply.send(Err(OpenError::Failed));
            return;
        }
        self.opening.push_back(reply);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only streams matter here")]
    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Protocol, Protocol, (), OpenReply>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(opened) => {
                self.streams.inbound(self.peer, opened.protocol.0);
            }
            ConnectionEvent::FullyNegotiatedOutbound(opened) => {
                let _gone = opened.info.send(Ok(opened.protocol));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let error = match error {
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
                    StreamUpgradeError::Timeout | StreamUpgradeError::Io(_) => OpenError::Failed,
                    StreamUpgradeError::Apply(never) => match never {},
                };
                let _gone = info.send(Err(error));
            }
            _ => {}
        }
    }
}

/// Negotiates one of the protocol versions.
#[derive(Debug, Clone)]
pub struct Protocol(Arc<[ProtocolVersion]>);

impl Protocol {
    fn negotiated(&self, name: &StreamProtocol) -> ProtocolVersion {
        self.0.iter().copied().find(|version| version.protocol() == *name).unwrap_or(ProtocolVersion::V1_2)
    }
}

impl UpgradeInfo for Protocol {
    type Info = StreamProtocol;
    type InfoIter = Vec<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.iter().map(|version| version.protocol()).collect()
    }
}

impl InboundUpgrade<Stream> for Protocol {
    type Output = (Stream, ProtocolVersion);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, name: StreamProtocol) -> Self::Future {
        ready(Ok((stream, self.negotiated(&name))))
    }
}

impl OutboundUpgrade<Stream> for Protocol {
    type Output = (Stream, ProtocolVersion);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, name: StreamProtocol) -> Self::Future {
        ready(Ok((stream, self.negotiated(&name))))
    }
}
