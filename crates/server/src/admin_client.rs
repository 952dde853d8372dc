//! A command's end: it finds out whether a server runs on the data folder, and reaches whoever does the work.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response};
use futures::StreamExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use pinfold_node::Node;
use pinfold_service::{Background, Wait};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::admin_ops::{AdminOps, open_blocks};
use crate::admin_socket::routes::{FAULT_HEADER, router};
use crate::app;
use crate::cli::DataDirArgs;
use crate::config::Config;
use crate::data_dir::{DataDir, DataDirLock, Locked};

/// The largest answer that is no stream, in bytes.
const RESPONSE_BYTES_MAX: usize = 8 << 20;

/// Why an answer is of no use.
const MISUNDERSTOOD: &str = "the answer makes no sense; is the server of another version?";

/// What a command needs when it has to do the work itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// The stores alone.
    Stores,
    /// Pins as well, and with them a node that fetches what is missing.
    Pins,
}

/// The way to whoever does the work.
pub(crate) enum AdminClient {
    /// A server that runs.
    Server(PathBuf),
    /// This process.
    Local(Box<Local>),
}

/// A store that this process has opened, and owns as long as this lives.
pub(crate) struct Local {
    router: Router,
    operator: Arc<AdminOps>,
    running: Option<(Background, Node)>,
    _lock: DataDirLock,
}

/// An answer that goes on.
pub(crate) struct Pieces {
    body: axum::body::BodyDataStream,
    fault: Option<String>,
}

/// What is found on a data folder.
pub(crate) enum Found {
    /// A server that runs on it.
    Server(AdminClient),
    /// Nobody: it is ours now.
    Nobody(DataDir, DataDirLock),
}

/// Finds out who works on a data folder.
///
/// # Errors
/// There is no Pinfold in it, or it is in use by a process that does not answer.
pub(crate) async fn find(place: &DataDirArgs) -> anyhow::Result<Found> {
    let dir = DataDir::choose(place.data_dir.clone())?;
    dir.expect_pinfold()?;
    match dir.try_lock()? {
        Locked::Owned(lock) => Ok(Found::Nobody(dir, lock)),
        Locked::InUse(owner) => {
            let socket = dir.socket();
            UnixStream::connect(&socket).await.with_context(|| {
                format!(
                    "the data folder {} is in use by another pinfold{owner}, which does not answer at {}; \
                     stop it and try again, or look into its log",
                    dir.path().display(),
                    socket.display()
                )
            })?;
            Ok(Found::Server(AdminClient::Server(socket)))
        }
    }
}

impl AdminClient {
    /// Finds the way to whoever works on a data folder, or makes this process the one.
    ///
    /// # Errors
    /// As [`find`], and whatever keeps the stores from being opened.
    pub(crate) async fn open(place: &DataDirArgs, needs: Needs) -> anyhow::Result<Self> {
        match find(place).await? {
            Found::Server(link) => Ok(link),
            Found::Nobody(dir, lock) => Self::own(place, dir, lock, needs).await,
        }
    }

    /// Makes this process the one that does the work.
    ///
    /// # Errors
    /// Whatever keeps the stores from being opened.
    pub(crate) async fn own(
        place: &DataDirArgs,
        dir: DataDir,
        lock: DataDirLock,
        needs: Needs,
    ) -> anyhow::Result<Self> {
        Ok(Self::Local(Box::new(Local::open(place, dir, lock, needs).await?)))
    }

    /// Sends a request and gives the answer's head; what is not a good answer is an error.
    ///
    /// # Errors
    /// The reason that was given, or that the connection broke.
    pub(crate) async fn send(&self, request: Request<Body>) -> anyhow::Result<Response<Body>> {
        let response = match self {
            Self::Server(socket) => over_socket(socket, request).await?,
            Self::Local(own) => match own.router.clone().oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body =
            to_bytes(response.into_body(), RESPONSE_BYTES_MAX).await.context("the answer was cut off")?;
        let reason: Option<Value> = serde_json::from_slice(&body).ok();
        match reason.as_ref().and_then(|reason| reason["error"].as_str()) {
            Some(reason) => bail!("{reason}"),
            None => bail!("the server answered {status}; is it of another version?"),
        }
    }

    /// Sends a request that is answered in one piece.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub(crate) async fn ask<T: DeserializeOwned>(&self, request: Request<Body>) -> anyhow::Result<T> {
        let response = self.send(request).await?;
        let body =
            to_bytes(response.into_body(), RESPONSE_BYTES_MAX).await.context("the answer was cut off")?;
        serde_json::from_slice(&body).context(MISUNDERSTOOD)
    }

    /// Sends a request that is answered by a stream.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub(crate) async fn stream(&self, request: Request<Body>) -> anyhow::Result<Pieces> {
        let response = self.send(request).await?;
        let fault = response.headers().get(FAULT_HEADER).and_then(|number| number.to_str().ok());
        let fault = fault.map(str::to_owned);
        Ok(Pieces { body: response.into_body().into_data_stream(), fault })
    }

    /// The next piece of a stream; `None` at its end.
    ///
    /// # Errors
    /// Why it broke.
    pub(crate) async fn next(&self, pieces: &mut Pieces) -> anyhow::Result<Option<bytes::Bytes>> {
        match pieces.body.next().await {
            None => Ok(None),
            Some(Ok(piece)) => Ok(Some(piece)),
            Some(Err(error)) => {
                let reason = match &pieces.fault {
                    Some(number) => self.ask::<Value>(get(&format!("/faults/{number}"))?).await.ok(),
                    None => None,
                };
                match reason.as_ref().and_then(|reason| reason["error"].as_str()) {
                    Some(reason) => bail!("{reason}"),
                    None => Err(error).context("the answer was cut off"),
                }
            }
        }
    }

    /// Closes what was opened.
    pub(crate) async fn close(self) {
        if let Self::Local(own) = self {
            own.close().await;
        }
    }
}

/// A stream of JSON objects, one a line.
pub(crate) struct Lines {
    pieces: Pieces,
    buffer: Vec<u8>,
}

impl Lines {
    /// The lines of a stream.
    pub(crate) fn new(pieces: Pieces) -> Self {
        Self { pieces, buffer: Vec::new() }
    }

    /// The next object; `None` at the end.
    ///
    /// # Errors
    /// As [`AdminClient::next`]; what comes is no such object.
    pub(crate) async fn next<T: DeserializeOwned>(
        &mut self,
        link: &AdminClient,
    ) -> anyhow::Result<Option<T>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line).context(MISUNDERSTOOD)?));
            }
            match link.next(&mut self.pieces).await? {
                Some(piece) if self.buffer.len() + piece.len() <= RESPONSE_BYTES_MAX => {
                    self.buffer.extend_from_slice(&piece);
                }
                Some(_) => bail!(MISUNDERSTOOD),
                None if self.buffer.is_empty() => return Ok(None),
                None => bail!("the answer was cut off"),
            }
        }
    }
}

/// A request with a JSON body.
pub(crate) fn post(path: &str, body: &impl serde::Serialize) -> anyhow::Result<Request<Body>> {
    let request = Request::post(path).header("content-type", "application/json");
    Ok(request.body(Body::from(serde_json::to_vec(body)?))?)
}

/// A request without a body.
pub(crate) fn get(path: &str) -> anyhow::Result<Request<Body>> {
    Ok(Request::get(path).body(Body::empty())?)
}

async fn over_socket(socket: &PathBuf, mut request: Request<Body>) -> anyhow::Result<Response<Body>> {
    let place = || format!("the server at {} does not answer", socket.display());
    let stream = UnixStream::connect(socket).await.with_context(place)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.with_context(place)?;
    // It ends with the answer's body, or breaks, which the body says then.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection with the server broke");
        }
    });
    request.headers_mut().insert("host", axum::http::HeaderValue::from_static("pinfold"));
    let response = sender.send_request(request).await.context("the server broke off")?;
    Ok(response.map(Body::new))
}

impl Local {
    async fn open(
        place: &DataDirArgs,
        dir: DataDir,
        lock: DataDirLock,
        needs: Needs,
    ) -> anyhow::Result<Self> {
        let config = Config::load(dir.config_file(place.config.as_deref()).as_deref())?;
        let store = app::open_store(&dir).await?;
        let blocks = open_blocks(&config, &dir).await?;
        let mut service = None;
        let mut running = None;
        if needs == Needs::Pins {
            let mut config = config.clone();
            // It only fetches; whoever wants to be reached runs a server.
            config.node.listen.clear();
            let node = app::start_node(&config, &dir, &blocks).await?;
            let started = app::start_service(&config, &store, &node).await?;
            running = Some((started.run(), node));
            service = Some(started);
        }
        let wait = Wait::For(std::time::Duration::from_secs(config.pins.upload_wait_seconds));
        let stopping = CancellationToken::new();
        let backing_up = Mutex::default();
        let operator = Arc::new(AdminOps { dir, blocks, store, service, wait, stopping, backing_up });
        Ok(Self { router: router(Arc::clone(&operator)), operator, running, _lock: lock })
    }

    async fn close(self) {
        self.operator.stopping.cancel();
        if let Some((background, node)) = self.running {
            background.stop().await;
            node.stop().await;
        }
        self.operator.blocks.close().await;
        self.operator.store.close().await;
    }
}
