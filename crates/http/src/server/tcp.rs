//! Connections of the network: bounded for each address, so that one client can't take all of them.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};

use super::{Accepted, Listener};
use crate::Connections;
use crate::middleware::peer;
use crate::middleware::rate_limit::network_of;

/// A TCP listener with a bound for each address.
pub(super) struct TcpConnections {
    listener: TcpListener,
    per_address: PerAddress,
}

impl TcpConnections {
    pub(super) fn new(listener: TcpListener, bounds: &Connections, proxies: Vec<IpNet>) -> Self {
        Self { listener, per_address: PerAddress::new(bounds, proxies) }
    }
}

impl Listener for TcpConnections {
    type Stream = TcpStream;
    type Guard = Share;

    async fn accept(&self) -> io::Result<Option<Accepted<TcpStream, Share>>> {
        let (stream, address) = self.listener.accept().await?;
        let Some(guard) = self.per_address.take(address.ip()) else {
            tracing::debug!(%address, "connection refused: too many from one address");
            return Ok(None);
        };
        // Answers are small and often the last of a packet; without this the last one waits for an ACK.
        let _ = stream.set_nodelay(true);
        Ok(Some(Accepted { stream, address: Some(address), guard }))
    }
}

/// Bounds the connections of each network.
struct PerAddress {
    max: usize,
    proxies: Vec<IpNet>,
    counts: Counts,
}

/// The number of open connections of each network.
type Counts = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// One connection of a network, counted until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    counts: Counts,
    network: IpAddr,
}

impl PerAddress {
    fn new(bounds: &Connections, proxies: Vec<IpNet>) -> Self {
        Self { max: bounds.per_address_max, proxies, counts: Counts::default() }
    }

    /// Counts a connection, unless its network has as many as it may have. Configured proxies are unbounded.
    fn take(&self, address: IpAddr) -> Option<Share> {
        let network = network_of(address);
        let is_bounded = !peer::is_proxy(address.to_canonical(), &self.proxies);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(network).or_default();
        if is_bounded && *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Share { counts: Arc::clone(&self.counts), network })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}
