//! Real connections on a port of the loopback interface.

use axum::body::Body;
use axum::routing::{any, get};
use bytes::Bytes;
use futures::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::tcp::TcpConnections;
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
        let limits = ConnectionLimits::from(&bounds);
        let listener = TcpConnections::new(listener, &bounds, Vec::new());
        let ended = tokio::spawn(serve_listener(listener, router, limits, stopping.clone()));
        Self { address, stopping, ended }
    }

    async fn connect(&self, request: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.expect("it listens");
        stream.write_all(request).await.expect("it reads");
        stream
    }
}

/// All bytes until the server closes.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.expect("it ends in order");
    String::from_utf8_lossy(&text).into_owned()
}

const HELLO: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn silent_and_idle_connections_are_closed() {
    let bounds = Connections { header_time: Duration::from_millis(50), ..Connections::default() };
    let server = Server::start(Router::new().route("/", get("hello")), bounds).await;
    assert!(!rest(server.connect(b"GET / HT").await).await.contains("200"), "the head never ended");
    assert!(rest(server.connect(HELLO).await).await.ends_with("hello"), "answered, then closed for idling");
}

#[tokio::test]
async fn oversized_headers_are_refused() {
    let server = Server::start(Router::new().route("/", get("hello")), Connections::default()).await;
    let long = format!("GET / HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "a".repeat(64 * 1024));
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "x-many: 1\r\n".repeat(1_000));
    for flood in [long, many] {
        assert!(rest(server.connect(flood.as_bytes()).await).await.starts_with("HTTP/1.1 431"));
    }
    assert!(
        rest(server.connect(b"GET / HTTP/1.0\r\n\r\n").await).await.ends_with("hello"),
        "other clients are served"
    );
}

#[tokio::test]
async fn connection_survives_refusal_with_late_body() {
    let refuse = any(|| async { (axum::http::StatusCode::FORBIDDEN, "no") });
    let router = Router::new().route("/", refuse).route("/hello", get("hello"));
    let server = Server::start(router, Connections::default()).await;
    let mut stream = server.connect(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n").await;
    // The answer is made before the body is here.
    tokio::task::yield_now().await;
    stream.write_all(b"{}").await.expect("the server goes on reading");
    stream.write_all(b"GET /hello HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("and on");
    let answers = rest(stream).await;
    assert!(answers.starts_with("HTTP/1.1 403") && answers.ends_with("hello"), "{answers}");
}

#[tokio::test]
async fn connection_with_unread_body_is_announced_closed() {
    let refuse = any(|| async { (axum::http::StatusCode::FORBIDDEN, "no") });
    let server = Server::start(Router::new().route("/", refuse), Connections::default()).await;
    for head in ["content-length: 900000\r\n", "content-length: 5\r\nexpect: 100-continue\r\n"] {
        let request = format!("POST / HTTP/1.1\r\nhost: x\r\n{head}\r\n");
        let answer = rest(server.connect(request.as_bytes()).await).await;
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn early_refusal_reaches_client_that_is_still_sending() {
    let refuse = any(|| async { (axum::http::StatusCode::FORBIDDEN, "no") });
    let server = Server::start(Router::new().route("/", refuse), Connections::default()).await;
    let body = vec![b'x'; 16 * 1024 * 1024];
    let head = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut stream = server.connect(head.as_bytes()).await;
    stream.write_all(&body).await.expect("the server goes on reading");
    assert!(rest(stream).await.starts_with("HTTP/1.1 403"));
}

#[tokio::test]
async fn shutdown_answers_running_requests_and_accepts_no_more() {
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
    assert!(TcpStream::connect(server.address).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn requests_past_the_grace_time_are_closed() {
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
    server.ended.await.expect("it ends");
}

#[tokio::test]
async fn connections_per_address_are_bounded_and_released() {
    let bounds = Connections { per_address_max: 1, ..Connections::default() };
    let server = Server::start(Router::new().route("/", get("hello")), bounds).await;
    let mut first = server.connect(HELLO).await;
    assert!(first.read(&mut [0; 512]).await.expect("an answer") > 0);
    let mut second = TcpStream::connect(server.address).await.expect("it listens");
    assert_eq!(second.read(&mut [0; 1]).await.unwrap_or(0), 0, "closed without an answer");

    drop(first);
    let served_again = async {
        // The server refuses until it has noticed that the first connection is closed.
        loop {
            let mut next = TcpStream::connect(server.address).await.expect("it listens");
            let _ = next.write_all(HELLO).await;
            if next.read(&mut [0; 512]).await.unwrap_or(0) > 0 {
                break;
            }
        }
    };
    timeout(Duration::from_secs(60), served_again).await.expect("the place is released");
}

#[tokio::test]
async fn client_that_does_not_read_is_disconnected() {
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
    server.ended.await.expect("the connection ends although the client does not read");
    assert!(is_alive.recv().await.is_none(), "nothing of the answer is left");
}
