//! The transports: TCP, QUIC and WebSocket, secured and multiplexed, with DNS.
//!
//! An address without a DNS name is dialled directly. A name in the configuration may resolve to any address. Any other
//! name must resolve to a public address; otherwise anyone who can publish a DNS name could make this node connect to
//! internal services.

use std::collections::HashSet;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::Either;
use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::global_only;
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, OrTransport, TransportError, TransportEvent};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId, Transport, dns, quic, tcp, websocket};

use super::address_scope;
use super::muxer::Yamux;
use super::read_ahead::ReadAhead;
use super::security::{Security, SecurityError};

/// Time limit of a handshake, from the socket to the multiplexer: ten round trips on a slow line, and short enough that
/// half-open connections are soon dropped.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// QUIC receive windows in bytes, of a stream and of a connection: 80 MB/s at a round trip of 100 ms, and a limit on the
/// memory that a peer can use.
const QUIC_STREAM_WINDOW: u32 = 4 * 1024 * 1024;
const QUIC_CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;

pub(crate) type Connection = (PeerId, StreamMuxerBox);

/// All transports of a node.
pub(crate) struct NodeTransport {
    /// Listens, and dials addresses without a DNS name.
    direct: Boxed<Connection>,
    /// Dials DNS names in the configuration. `None` if the system has no resolver.
    trusted: Option<Boxed<Connection>>,
    /// Dials other DNS names, if they resolve to a public address.
    public: Option<Boxed<Connection>>,
    trusted_names: HashSet<String>,
}

impl NodeTransport {
    /// Sets up the transports. The DNS names in the addresses of `configured` are trusted; with `trust_all_names`, all
    /// names are.
    pub(crate) fn new<'a>(
        identity: &Keypair,
        configured: impl Iterator<Item = &'a Multiaddr>,
        trust_all_names: bool,
    ) -> Result<Self, SecurityError> {
        let trusted = resolving(sockets(identity)?);
        let public = if trust_all_names {
            resolving(sockets(identity)?)
        } else {
            resolving(global_only::Transport::new(sockets(identity)?))
        };
        let trusted_names = configured.filter_map(address_scope::name).collect();
        Ok(Self { direct: sockets(identity)?, trusted, public, trusted_names })
    }

    fn route(&mut self, address: &Multiaddr) -> Option<&mut Boxed<Connection>> {
        match address_scope::name(address) {
            None => Some(&mut self.direct),
            Some(name) if self.trusted_names.contains(&name) => self.trusted.as_mut(),
            Some(_) => self.public.as_mut(),
        }
    }
}

impl Transport for NodeTransport {
    type Output = Connection;
    type Error = io::Error;
    type ListenerUpgrade = <Boxed<Connection> as Transport>::ListenerUpgrade;
    type Dial = <Boxed<Connection> as Transport>::Dial;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.direct.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.direct.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        match self.route(&address) {
            Some(route) => route.dial(address, options),
            None => Err(TransportError::MultiaddrNotSupported(address)),
        }
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        // Only the direct transports listen; the others have no events, but must be polled.
        let Self { direct, trusted, public, .. } = &mut *self;
        for dialing in [trusted, public].into_iter().flatten() {
            let _ = Pin::new(dialing).poll(cx);
        }
        Pin::new(direct).poll(cx)
    }
}

fn resolving<T>(inner: T) -> Option<Boxed<Connection>>
where
    T: Transport<Output = Connection> + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    match dns::tokio::Transport::system(inner) {
        Ok(transport) => Some(transport.boxed()),
        Err(error) => {
            tracing::warn!(%error, "failed to read the DNS configuration; addresses with a DNS name cannot be dialled");
            None
        }
    }
}

/// TCP, WebSocket and QUIC for addresses with an IP address.
fn sockets(identity: &Keypair) -> Result<Boxed<Connection>, SecurityError> {
    let tcp = || tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    let security = Security::new(identity)?;
    let plain = upgraded(tcp().map(|socket, _| ReadAhead::new(socket)), security.clone());
    let web = upgraded(websocket::Config::new(tcp()), security);
    let quic = quic::tokio::Transport::new(quic_config(identity))
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let all = OrTransport::new(plain, OrTransport::new(quic, web));
    let one = |either| match either {
        Either::Left(connection) | Either::Right(Either::Left(connection)) => connection,
        Either::Right(Either::Right(connection)) => connection,
    };
    Ok(all.map(move |connection, _| one(connection)).boxed())
}

/// Secures and multiplexes a byte stream.
fn upgraded<T>(transport: T, security: Security) -> Boxed<Connection>
where
    T: Transport + Send + Unpin + 'static,
    T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    transport.upgrade(Version::V1Lazy).authenticate(security).multiplex(Yamux).timeout(HANDSHAKE_TIME).boxed()
}

fn quic_config(identity: &Keypair) -> quic::Config {
    let mut config = quic::Config::new(identity);
    config.handshake_timeout = HANDSHAKE_TIME;
    config.max_stream_data = QUIC_STREAM_WINDOW;
    config.max_connection_data = QUIC_CONNECTION_WINDOW;
    config
}
