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
use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::middleware::drain::lend;
use crate::middleware::peer;
use crate::middleware::rate_limit::network_of;
use crate::{AppState, Connections};

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
    let settings = app.settings();
    let per_address = PerAddress::new(&settings.connections, settings.proxies.clone());
    let acceptor = Acceptor { router, bounds: settings.connections.clone(), per_address };
    acceptor.run(listener, app.stopping()).await;
}

struct Acceptor {
    router: Router,
    bounds: Connections,
    per_address: PerAddress,
}

impl Acceptor {
    async fn run(self, listener: TcpListener, stopping: &CancellationToken) {
        let cut = CancellationToken::new();
        let connections = TaskTracker::new();
        let places = Arc::new(Semaphore::new(self.bounds.max));
        loop {
            let accepted = tokio::select! {
                () = stopping.cancelled() => break,
                accepted = accept(&listener, &places) => accepted,
            };
            let Some((stream, address, place)) = accepted else { continue };
            let Some(share) = self.per_address.take(address.ip()) else {
                tracing::debug!(%address, "too many connections from one address");
                continue;
            };
            let answers = Answers { router: self.router.clone(), address };
            let connection = run(stream, answers, self.bounds.clone(), stopping.clone());
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
        if timeout(self.bounds.grace_time, connections.wait()).await.is_err() {
            tracing::warn!(
                left = connections.len(),
                "requests did not end within the grace time; cutting them"
            );
            cut.cancel();
            connections.wait().await;
        }
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
async fn run(stream: TcpStream, answers: Answers, bounds: Connections, stopping: CancellationToken) {
    let address = answers.address;
    // Answers are small and often the last of a packet; without it the last one waits for an ACK.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(bounds.write_time));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_time)
        .max_header_size(bounds.header_bytes_max)
        .serve_connection(TokioIo::new(Box::pin(stream)), answers);

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
        Ok(()) => linger(connection.into_parts().io.into_inner(), &stopping).await,
        // What is no HTTP was told so, and the client may be sending still.
        Err(error) if error.is_parse() => linger(connection.into_parts().io.into_inner(), &stopping).await,
        Err(error) => tracing::debug!(%address, %error, "a connection broke off"),
    }
}

/// Tells the client that nothing follows, and reads what it still sends for a moment.
async fn linger(mut stream: Stream, stopping: &CancellationToken) {
    use tokio::io::{AsyncWriteExt, copy, sink};
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut nowhere = sink();
    tokio::select! {
        _ = timeout(LINGER_TIME, copy(&mut stream, &mut nowhere)) => {}
        () = stopping.cancelled() => {}
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
        let (request, rest) = lend(request);
        let answer = self.router.clone().oneshot(request);
        Box::pin(async move { Ok(rest.settle(answer.await?).await) })
    }
}

/// Bounds the connections of each network.
struct PerAddress {
    max: usize,
    proxies: Vec<IpNet>,
    counts: Counts,
}

/// The connections of each network at this moment.
type Counts = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// One connection's share; given back when dropped.
struct Share {
    counts: Counts,
    network: IpAddr,
}

impl PerAddress {
    fn new(bounds: &Connections, proxies: Vec<IpNet>) -> Self {
        Self { max: bounds.per_address_max, proxies, counts: Counts::default() }
    }

    /// A share, unless the network has all that it may have. Configured proxies may have any number.
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

#[cfg(test)]
mod tests {
    use axum::routing::{any, get};
    use bytes::Bytes;
    use futures::stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::{Notify, mpsc};
    use tokio::task::JoinHandle;

    use super::*;

    /// A server on a port of its own.
    struct Server {
        address: SocketAddr,
        stopping: CancellationToken,
        ended: JoinHandle<()>,
    }

    impl Server {
        async fn start(router: Router, bounds: Connections) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = listener.local_addr().expect("an address");
            let stopping = CancellationToken::new();
            let per_address = PerAddress::new(&bounds, Vec::new());
            let acceptor = Acceptor { router, bounds, per_address };
            let token = stopping.clone();
            let ended = tokio::spawn(async move { acceptor.run(listener, &token).await });
            Self { address, stopping, ended }
        }

        async fn connect(&self, request: &[u8]) -> TcpStream {
            let mut stream = TcpStream::connect(self.address).await.expect("it listens");
            stream.write_all(request).await.expect("it reads");
            stream
        }
    }

    /// All that comes until the server closes.
    async fn rest(mut stream: TcpStream) -> String {
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await.expect("it ends in order");
        String::from_utf8_lossy(&text).into_owned()
    }

    const HELLO: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    #[tokio::test]
    async fn silent_and_idle_connections_end() {
        let bounds = Connections { header_time: Duration::from_millis(50), ..Connections::default() };
        let server = Server::start(Router::new().route("/", get("hello")), bounds).await;
        assert!(!rest(server.connect(b"GET / HT").await).await.contains("200"), "the head never ended");
        assert!(
            rest(server.connect(HELLO).await).await.ends_with("hello"),
            "answered, then closed for idling"
        );
    }

    #[tokio::test]
    async fn a_flood_of_headers_is_refused() {
        let server = Server::start(Router::new().route("/", get("hello")), Connections::default()).await;
        let long = format!("GET / HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "a".repeat(64 * 1024));
        let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "x-many: 1\r\n".repeat(1_000));
        for flood in [long, many] {
            assert!(rest(server.connect(flood.as_bytes()).await).await.starts_with("HTTP/1.1 431"));
        }
        assert!(
            rest(server.connect(b"GET / HTTP/1.0\r\n\r\n").await).await.ends_with("hello"),
            "others go on"
        );
    }

    #[tokio::test]
    async fn a_connection_goes_on_after_a_refusal_whose_body_came_late() {
        let refuse = any(|| async { (axum::http::StatusCode::FORBIDDEN, "no") });
        let router = Router::new().route("/", refuse).route("/hello", get("hello"));
        let server = Server::start(router, Connections::default()).await;
        let mut stream = server.connect(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n").await;
        // The answer is made before the body is here.
        tokio::task::yield_now().await;
        stream.write_all(b"{}").await.expect("the server goes on reading");
        stream
            .write_all(b"GET /hello HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await
            .expect("and on");
        let answers = rest(stream).await;
        assert!(answers.starts_with("HTTP/1.1 403") && answers.ends_with("hello"), "{answers}");
    }

    #[tokio::test]
    async fn a_connection_that_can_not_go_on_says_so() {
        let refuse = any(|| async { (axum::http::StatusCode::FORBIDDEN, "no") });
        let server = Server::start(Router::new().route("/", refuse), Connections::default()).await;
        for head in ["content-length: 900000\r\n", "content-length: 5\r\nexpect: 100-continue\r\n"] {
            let request = format!("POST / HTTP/1.1\r\nhost: x\r\n{head}\r\n");
            let answer = rest(server.connect(request.as_bytes()).await).await;
            assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("connection: close"), "{answer}");
        }
    }

    #[tokio::test]
    async fn an_early_refusal_reaches_a_client_that_is_still_sending() {
        let refuse = any(|| async { (axum::http::StatusCode::FORBIDDEN, "no") });
        let server = Server::start(Router::new().route("/", refuse), Connections::default()).await;
        let body = vec![b'x'; 16 * 1024 * 1024];
        let head = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
        let mut stream = server.connect(head.as_bytes()).await;
        stream.write_all(&body).await.expect("the server goes on reading");
        assert!(rest(stream).await.starts_with("HTTP/1.1 403"));
    }

    #[tokio::test]
    async fn at_a_stop_what_runs_is_answered_and_nothing_new_begins() {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let handler = {
            let (begun, go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
            move || async move {
                begun.notify_one();
                go_on.notified().await;
                "done"
            }
        };
        let server = Server::start(Router::new().route("/", get(handler)), Connections::default()).await;
        let idle = TcpStream::connect(server.address).await.expect("it listens");
        let stream = server.connect(HELLO).await;
        begun.notified().await;
        server.stopping.cancel();
        drop(idle);
        go_on.notify_one();
        assert!(rest(stream).await.ends_with("done"));
        server.ended.await.expect("it ends");
        assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
    }

    #[tokio::test]
    async fn what_does_not_end_in_time_is_cut() {
        let (begun, mut begins) = mpsc::channel(1);
        let handler = move || async move {
            begun.send(()).await.expect("the test listens");
            std::future::pending::<&str>().await
        };
        let bounds = Connections { grace_time: Duration::from_millis(10), ..Connections::default() };
        let server = Server::start(Router::new().route("/", get(handler)), bounds).await;
        let _stream = server.connect(HELLO).await;
        begins.recv().await.expect("the handler begins");
        server.stopping.cancel();
        server.ended.await.expect("it ends all the same");
    }

    #[tokio::test]
    async fn one_address_has_its_share_and_gets_it_back() {
        let bounds = Connections { per_address_max: 1, ..Connections::default() };
        let server = Server::start(Router::new().route("/", get("hello")), bounds).await;
        let mut first = server.connect(HELLO).await;
        assert!(first.read(&mut [0; 512]).await.expect("an answer") > 0);
        let mut second = TcpStream::connect(server.address).await.expect("it listens");
        assert_eq!(second.read(&mut [0; 1]).await.unwrap_or(0), 0, "closed without an answer");

        drop(first);
        let served_again = async {
            // The server notices the end when it notices it; until then it refuses.
            loop {
                let mut next = TcpStream::connect(server.address).await.expect("it listens");
                let _ = next.write_all(HELLO).await;
                if next.read(&mut [0; 512]).await.unwrap_or(0) > 0 {
                    break;
                }
            }
        };
        timeout(Duration::from_secs(60), served_again).await.expect("the share comes back");
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_dropped() {
        let (alive, mut is_alive) = mpsc::channel::<()>(1);
        let handler = move || {
            let alive = alive.clone();
            async move {
                let chunk = Bytes::from(vec![0; 1024 * 1024]);
                let endless = stream::repeat_with(move || {
                    let _held = &alive;
                    Ok::<_, io::Error>(chunk.clone())
                });
                Body::from_stream(endless)
            }
        };
        let bounds = Connections { write_time: Duration::from_millis(50), ..Connections::default() };
        let router = Router::new().route("/", get(handler));
        let server = Server::start(router, bounds).await;
        let mut stream = server.connect(HELLO).await;
        assert_eq!(stream.read(&mut [0; 1]).await.expect("the answer begins"), 1);
        server.stopping.cancel();
        server.ended.await.expect("the connection ends although nobody reads on");
        assert!(is_alive.recv().await.is_none(), "nothing of the answer is left");
    }
}
