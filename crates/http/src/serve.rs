//! Runs connections: bounded in number, in time and in memory, ended gracefully.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, Response};
use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::limits::network_of;
use crate::{AppState, Connections, peer};

/// How long to pause after an accept that failed: the usual cause is a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long what a client still sends is read and thrown away after its connection's last answer. Closing at
/// once would reset the connection, and the client could lose the answer that says why.
const LINGER_TIME: Duration = Duration::from_secs(5);

type Stream = Pin<Box<TimeoutStream<TcpStream>>>;

/// Answers what comes to `listener` until the app's token is cancelled. Then it accepts no more, lets running
/// requests end within the grace time, and cuts what is left.
///
/// Not to be dropped before its end: running connections would go on without it.
pub async fn serve(listener: TcpListener, router: Router, app: AppState) {
    let bounds = app.settings().connections.clone();
    let stopping = app.stopping().clone();
    let cut = CancellationToken::new();
    let connections = TaskTracker::new();
    let all = Arc::new(Semaphore::new(bounds.max));
    let per_address = PerAddress::default();

    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = accept(&listener, &all) => accepted,
        };
        let Some((stream, address, place)) = accepted else { continue };
        let Some(share) = per_address.take(address.ip(), &app) else {
            tracing::debug!(%address, "too many connections from one address");
            continue;
        };
        let connection = run(stream, address, router.clone(), bounds.clone(), stopping.clone());
        let cut = cut.clone();
        connections.spawn(async move {
            tokio::select! {
                () = connection => {}
                () = cut.cancelled() => {}
            }
            drop((place, share));
        });
    }
    drop(listener);
    connections.close();
    if timeout(bounds.grace_time, connections.wait()).await.is_err() {
        tracing::warn!(left = connections.len(), "requests did not end within the grace time; cutting them");
        cut.cancel();
        connections.wait().await;
    }
}

/// Waits for a place, then for a connection. Cancel-safe.
async fn accept(
    listener: &TcpListener,
    all: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(all).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, address)) => Some((stream, address, place)),
        Err(error) if is_of_one_connection(&error) => None,
        Err(error) => {
            tracing::warn!(%error, "accepting a connection failed");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    let kind = error.kind();
    kind == io::ErrorKind::ConnectionAborted || kind == io::ErrorKind::ConnectionReset
}

/// Runs one connection to its end.
async fn run(
    stream: TcpStream,
    address: SocketAddr,
    router: Router,
    bounds: Connections,
    stopping: CancellationToken,
) {
    // Answers are small and often the last of a packet; without it the last one waits for an ACK.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(bounds.write_time));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_time)
        .max_header_size(bounds.header_bytes_max)
        .serve_connection(TokioIo::new(Box::pin(stream)), Answers { router, address });

    let ended = {
        let mut stopped = pin!(stopping.cancelled());
        let mut is_stopping = false;
        std::future::poll_fn(|cx| {
            if !is_stopping && stopped.as_mut().poll(cx).is_ready() {
                is_stopping = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            connection.poll_without_shutdown(cx)
        })
        .await
    };
    match ended {
        Ok(()) => linger(connection.into_parts().io.into_inner()).await,
        Err(error) => tracing::debug!(%address, %error, "a connection broke off"),
    }
}

/// Tells the client that nothing follows, and reads what it still sends for a moment.
async fn linger(mut stream: Stream) {
    use tokio::io::{AsyncWriteExt, copy, sink};
    if stream.shutdown().await.is_ok() {
        let _ = timeout(LINGER_TIME, copy(&mut stream, &mut sink())).await;
    }
}

/// The router, for one connection: its requests know the peer's address.
struct Answers {
    router: Router,
    address: SocketAddr,
}

impl Service<Request<Incoming>> for Answers {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(ConnectInfo(self.address));
        Box::pin(self.router.clone().oneshot(request.map(Body::new)))
    }
}

/// Connections of each network at this moment.
#[derive(Clone, Default)]
struct PerAddress(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection's share; given back when dropped.
struct Share {
    all: PerAddress,
    network: IpAddr,
}

impl PerAddress {
    /// A share, unless the network has all that it may have. Configured proxies may have any number.
    fn take(&self, address: IpAddr, app: &AppState) -> Option<Share> {
        let network = network_of(address);
        let is_bounded = !peer::is_proxy(address.to_canonical(), &app.settings().proxies);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(network).or_default();
        if is_bounded && *count >= app.settings().connections.per_address_max {
            return None;
        }
        *count += 1;
        Some(Share { all: self.clone(), network })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}
