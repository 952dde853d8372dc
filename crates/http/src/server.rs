//! Accepts connections and runs them: bounded in number, in time and in memory, ended gracefully.
//!
//! One accept loop serves every kind of listener ([`serve_listener`]); [`tcp`] is the one of the network.

mod connection;
mod tcp;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{AppState, Connections};
use connection::Connection;
use tcp::TcpConnections;

/// Pause after a failed accept. The usual cause is a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bounds of the connections of one listener.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// Connections at one time; more wait in the listen queue.
    pub max: usize,
    /// How long the head of a request may take, counted from the last answer: idle connections end too.
    pub header_time: Duration,
    /// How long an answer may wait for a client that does not read; for ever if `None`.
    pub write_time: Option<Duration>,
    /// The largest head of a request, in bytes.
    pub header_bytes_max: usize,
    /// How long running requests may go on at a shutdown before their connections are closed.
    pub grace_time: Duration,
}

impl From<&Connections> for ConnectionLimits {
    fn from(settings: &Connections) -> Self {
        Self {
            max: settings.max,
            header_time: settings.header_time,
            write_time: Some(settings.write_time),
            header_bytes_max: settings.header_bytes_max,
            grace_time: settings.grace_time,
        }
    }
}

/// A source of connections that decides which ones are served.
pub trait Listener: Send + 'static {
    /// A connection's bytes.
    type Stream: AsyncRead + AsyncWrite + Send + 'static;
    /// Dropped when the connection has ended.
    type Guard: Send + 'static;

    /// Waits for a connection; `None` if it is refused. Cancel-safe.
    fn accept(&self) -> impl Future<Output = io::Result<Option<Accepted<Self::Stream, Self::Guard>>>> + Send;
}

/// An accepted connection.
#[derive(Debug)]
pub struct Accepted<S, G> {
    /// Its bytes.
    pub stream: S,
    /// The peer's address, where there is one; requests carry it as `ConnectInfo`.
    pub address: Option<SocketAddr>,
    /// Dropped when the connection has ended.
    pub guard: G,
}

/// Serves the connections of a TCP listener until the app's token is cancelled. Then it accepts no more, lets running
/// requests finish within the grace time, and closes what is left.
///
/// Must run to its end: running connections would go on without it.
pub async fn serve(listener: TcpListener, router: Router, app: AppState) {
    let settings = app.settings();
    let limits = ConnectionLimits::from(&settings.connections);
    let listener = TcpConnections::new(listener, &settings.connections, settings.proxies.clone());
    serve_listener(listener, router, limits, app.stopping().clone()).await;
}

/// As [`serve`], for any listener, until `stopping` is cancelled.
pub async fn serve_listener<L: Listener>(
    listener: L,
    router: Router,
    limits: ConnectionLimits,
    stopping: CancellationToken,
) {
    let close = CancellationToken::new();
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(limits.max));
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((Accepted { stream, address, guard }, place)) = accepted else { continue };
        let connection = Connection { router: router.clone(), address, limits: limits.clone() };
        let (close, stopping) = (close.clone(), stopping.clone());
        connections.spawn(async move {
            tokio::select! {
                () = connection.run(stream, stopping) => {}
                () = close.cancelled() => {}
            }
            drop((place, guard));
        });
    }
    drop(listener);
    connections.close();
    if timeout(limits.grace_time, connections.wait()).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "requests did not finish within the grace time, closing their connections"
        );
        close.cancel();
        connections.wait().await;
    }
}

/// Waits for a place, then for a connection. Cancel-safe.
async fn accept<L: Listener>(
    listener: &L,
    places: &Arc<Semaphore>,
) -> Option<(Accepted<L::Stream, L::Guard>, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok(accepted) => Some((accepted?, place)),
        Err(error) if is_of_one_connection(&error) => None,
        Err(error) => {
            tracing::warn!(%error, "failed to accept a connection");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    let kind = error.kind();
    kind == io::ErrorKind::ConnectionAborted || kind == io::ErrorKind::ConnectionReset
}

#[cfg(test)]
mod tests;
