//! One connection, from its first request to its end.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
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
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::ConnectionLimits;
use crate::middleware::drain::lend;

/// How long bytes that a client still sends are read and dropped after the last answer of its connection. An immediate
/// close would reset the connection, and the client could lose the answer that says why.
const LINGER_TIME: Duration = Duration::from_secs(5);

/// What a connection is served with.
pub(super) struct Connection {
    pub(super) router: Router,
    pub(super) address: Option<SocketAddr>,
    pub(super) limits: ConnectionLimits,
}

impl Connection {
    /// Serves requests until the client closes the connection, a limit is passed, or the server stops.
    pub(super) async fn run(self, stream: impl AsyncRead + AsyncWrite + Send, stopping: CancellationToken) {
        let Self { router, address, limits } = self;
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(limits.write_time);
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_time)
            .max_header_size(limits.header_bytes_max)
            .serve_connection(TokioIo::new(Box::pin(stream)), Responder { router, address });

        let outcome = {
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
        match outcome {
            Ok(()) => linger(connection.into_parts().io.into_inner(), &stopping).await,
            // The client got an answer that says that this is no HTTP, and may still be sending.
            Err(error) if error.is_parse() => {
                linger(connection.into_parts().io.into_inner(), &stopping).await;
            }
            Err(error) => tracing::debug!(?address, %error, "connection ended with an error"),
        }
    }
}

/// Closes the sending side, and reads what the client still sends for a moment.
async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin, stopping: &CancellationToken) {
    use tokio::io::{AsyncWriteExt, copy, sink};
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut sink = sink();
    tokio::select! {
        _ = timeout(LINGER_TIME, copy(&mut stream, &mut sink)) => {}
        () = stopping.cancelled() => {}
    }
}

/// Answers the requests of one connection, with the peer's address in each.
struct Responder {
    router: Router,
    address: Option<SocketAddr>,
}

impl Service<Request<Incoming>> for Responder {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if let Some(address) = self.address {
            request.extensions_mut().insert(ConnectInfo(address));
        }
        let (request, unread) = lend(request);
        let response = self.router.clone().oneshot(request);
        Box::pin(async move { Ok(unread.drain(response.await?).await) })
    }
}
