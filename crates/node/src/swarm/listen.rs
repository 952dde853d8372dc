//! Opens the listen addresses.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, TransportError};
use socket2::{Domain, Socket, Type};

use super::StartError;
use super::address_scope;

/// Time limit for the addresses of a wildcard listener: the machine may have no active interface.
const INTERFACES_TIME: Duration = Duration::from_secs(2);

/// Listens on every address. Returns once the swarm has resolved the addresses.
pub(super) async fn listen<B: NetworkBehaviour>(
    swarm: &mut Swarm<B>,
    addresses: &[Multiaddr],
) -> Result<(), StartError> {
    let mut opening = Vec::new();
    for address in addresses {
        match probe(address) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(StartError::AddressInUse { address: address.clone() });
            }
            Err(error) if is_absent_ipv6(address, &error) => {
                tracing::warn!(%address, "IPv6 is not available; not listening on this address");
                continue;
            }
            Err(error) => return Err(failed(address, &error)),
        }
        let listener = swarm.listen_on(address.clone()).map_err(|error| match error {
            TransportError::MultiaddrNotSupported(_) => StartError::Unsupported { address: address.clone() },
            TransportError::Other(error) => failed(address, &error),
        })?;
        opening.push(listener);
    }
    let opened = tokio::time::timeout(INTERFACES_TIME, until_open(swarm, opening)).await;
    if opened.is_err() {
        tracing::warn!("no active network interface for some listen addresses; continuing without them");
    }
    opened.unwrap_or(Ok(()))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is open; nothing else happens before the start")]
async fn until_open<B: NetworkBehaviour>(
    swarm: &mut Swarm<B>,
    mut opening: Vec<ListenerId>,
) -> Result<(), StartError> {
    while !opening.is_empty() {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { listener_id, address } => {
                tracing::info!(%address, "listening");
                opening.retain(|listener| *listener != listener_id);
            }
            SwarmEvent::ListenerClosed { addresses, reason: Err(error), .. } => {
                let address = addresses.first().cloned().unwrap_or_else(Multiaddr::empty);
                return Err(failed(&address, &error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn failed(address: &Multiaddr, error: &io::Error) -> StartError {
    StartError::Listen { address: address.clone(), reason: error.to_string() }
}

/// Binds and closes a socket to find out whether the address is free. The swarm's TCP sockets allow port reuse (for hole
/// punching). Without this check two nodes could listen on one port, and each would get half of the connections.
fn probe(address: &Multiaddr) -> io::Result<()> {
    let Some(ip) = address_scope::ip(address) else { return Ok(()) };
    let part = address.iter().nth(1);
    let (kind, port) = if let Some(Protocol::Tcp(port)) = part {
        (Type::STREAM, port)
    } else if let Some(Protocol::Udp(port)) = part {
        (Type::DGRAM, port)
    } else {
        return Ok(());
    };
    if port == 0 {
        return Ok(());
    }
    let at = SocketAddr::new(ip, port);
    let socket = Socket::new(Domain::for_address(at), kind, None)?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        // A port with connections in TIME_WAIT is free.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&at.into())?;
    if kind == Type::STREAM { socket.listen(1) } else { Ok(()) }
}

/// Whether the error means that the machine has no IPv6, which must not make the default addresses fail.
fn is_absent_ipv6(address: &Multiaddr, error: &io::Error) -> bool {
    let wildcard = matches!(address.iter().next(), Some(Protocol::Ip6(ip)) if ip.is_unspecified());
    wildcard && error.kind() != io::ErrorKind::PermissionDenied
}
