//! The part of bitswap that lives in the swarm: it negotiates streams and hands them over, nothing else.
//!
//! Messages are read and written by tasks of the exchange, so that a slow peer never holds the swarm up.

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

use super::wire::Dialect;

/// How long a stream may take to be negotiated.
const NEGOTIATION_TIME: Duration = Duration::from_secs(10);

/// The most streams that one connection may be asked to open and has not opened yet.
const OPENING_MAX: usize = 16;

/// How long a peer that misbehaved is refused.
const REFUSAL_TIME: Duration = Duration::from_secs(300);

/// The most peers that are remembered as refused; beyond, the oldest are forgiven.
const REFUSED_MAX: usize = 1024;

/// Who takes the streams. Called from the swarm's tasks: must not block.
pub(super) trait Exchange: Send + Sync + 'static {
    /// The first connection to a peer is up.
    fn connected(&self, peer: PeerId);
    /// The last connection to a peer is gone.
    fn disconnected(&self, peer: PeerId);
    /// A peer opened a stream.
    fn inbound(&self, peer: PeerId, stream: Stream);
    /// The swarm is gone.
    fn stopped(&self);
}

/// Why a stream could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    /// The peer does not speak bitswap.
    Unsupported,
    /// It is not connected, too slow, or too much is being opened.
    Failed,
}

type OpenReply = oneshot::Sender<Result<(Stream, Dialect), OpenError>>;

/// What the exchange asks of the swarm.
#[derive(Debug)]
pub(super) enum Command {
    /// Open a stream to a connected peer. The reply is dropped if there is no connection.
    Open(PeerId, OpenReply),
    /// Close all connections to a peer that misbehaved, and refuse it for a while.
    Refuse(PeerId),
}

/// The swarm's side of bitswap: add it to the node's behaviours.
pub struct Behaviour {
    exchange: Arc<dyn Exchange>,
    commands: mpsc::Receiver<Command>,
    dialects: Arc<[Dialect]>,
    refused: HashMap<PeerId, Instant>,
}

impl std::fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Behaviour").field("dialects", &self.dialects).finish_non_exhaustive()
    }
}

impl Behaviour {
    pub(super) fn new(
        exchange: Arc<dyn Exchange>,
        commands: mpsc::Receiver<Command>,
        dialects: Arc<[Dialect]>,
    ) -> Self {
        Self { exchange, commands, dialects, refused: HashMap::new() }
    }

    fn handler(&self, peer: PeerId) -> Result<Handler, ConnectionDenied> {
        if self.refused.get(&peer).is_some_and(|until| Instant::now() < *until) {
            return Err(ConnectionDenied::new(Refused));
        }
        Ok(Handler {
            peer,
            exchange: self.exchange.clone(),
            dialects: self.dialects.clone(),
            opening: VecDeque::new(),
            waker: None,
        })
    }

    fn refuse(&mut self, peer: PeerId) {
        let now = Instant::now();
        self.refused.retain(|_, until| now < *until);
        if self.refused.len() >= REFUSED_MAX
            && let Some(oldest) = self.refused.iter().min_by_key(|(_, until)| **until).map(|(peer, _)| *peer)
        {
            self.refused.remove(&oldest);
        }
        self.refused.insert(peer, now + REFUSAL_TIME);
    }
}

/// Why a connection is denied.
#[derive(Debug, thiserror::Error)]
#[error("the peer misbehaved and is refused for a while")]
struct Refused;

impl Drop for Behaviour {
    fn drop(&mut self) {
        self.exchange.stopped();
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
                self.exchange.connected(up.peer_id);
            }
            FromSwarm::ConnectionClosed(down) if down.remaining_established == 0 => {
                self.exchange.disconnected(down.peer_id);
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
            Poll::Ready(Some(Command::Refuse(peer_id))) => {
                self.refuse(peer_id);
                Poll::Ready(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::All })
            }
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

/// Asks a handler for a stream.
#[derive(Debug)]
pub struct Open(OpenReply);

/// One connection's side of bitswap.
pub struct Handler {
    peer: PeerId,
    exchange: Arc<dyn Exchange>,
    dialects: Arc<[Dialect]>,
    opening: VecDeque<OpenReply>,
    waker: Option<Waker>,
}

impl Handler {
    fn protocol(&self) -> Protocol {
        Protocol(self.dialects.clone())
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
            // Whoever asked may be gone; it makes no difference then.
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
                self.exchange.inbound(self.peer, opened.protocol.0);
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

/// Negotiates one of the dialects.
#[derive(Debug, Clone)]
pub struct Protocol(Arc<[Dialect]>);

impl Protocol {
    fn agreed(&self, name: &StreamProtocol) -> Dialect {
        self.0.iter().copied().find(|dialect| dialect.protocol() == *name).unwrap_or(Dialect::V1_2)
    }
}

impl UpgradeInfo for Protocol {
    type Info = StreamProtocol;
    type InfoIter = Vec<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.iter().map(|dialect| dialect.protocol()).collect()
    }
}

impl InboundUpgrade<Stream> for Protocol {
    type Output = (Stream, Dialect);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, name: StreamProtocol) -> Self::Future {
        ready(Ok((stream, self.agreed(&name))))
    }
}

impl OutboundUpgrade<Stream> for Protocol {
    type Output = (Stream, Dialect);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, name: StreamProtocol) -> Self::Future {
        ready(Ok((stream, self.agreed(&name))))
    }
}
