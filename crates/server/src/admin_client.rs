//! Client of the administrative operations: connects to the server that runs on a data directory, or opens the data
//! directory in this process if no server runs.
//!
//! Both ways use HTTP and the same router ([`crate::admin_socket::routes`]), so that a command does not depend on which
//! one is used. The protocol is internal: client and server must have the same version.

use std::path::{Path, PathBuf};
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

use crate::admin_ops::AdminOps;
use crate::admin_socket::routes::{ERROR_ID_HEADER, router};
use crate::app;
use crate::config::Config;
use crate::data_dir::{DataDir, DataDirLock, LockAttempt};

/// Maximum size of a response that is not streamed, in bytes.
const RESPONSE_BYTES_MAX: usize = 8 << 20;

const INVALID_RESPONSE: &str =
    "the response is invalid; check that the server runs the same version of Pinfold";
const CUT_OFF: &str = "the connection closed before the end of the response";

/// What a command needs when it opens the data directory itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// The database and the block store.
    Stores,
    /// Also the pin service, with an IPFS node that fetches missing blocks.
    Service,
}

/// Access to the administrative operations of a data directory.
pub(crate) enum AdminClient {
    /// Path of the socket of a running server.
    Server(PathBuf),
    Local(Box<Local>),
}

/// The data directory, opened and locked by this process.
pub(crate) struct Local {
    router: Router,
    ops: Arc<AdminOps>,
    running: Option<(Background, Node)>,
    _lock: DataDirLock,
}

/// A streamed response.
pub(crate) struct ResponseStream {
    body: axum::body::BodyDataStream,
    /// Id under which the server stores the error if the stream breaks.
    error_id: Option<String>,
}

/// Who uses a data directory.
pub(crate) enum Owner {
    /// A running server.
    Server(AdminClient),
    /// This process, which has just locked it.
    This(DataDirLock),
}

/// Connects to the server that runs on a data directory, or locks the data directory if none runs.
///
/// # Errors
/// The directory contains no Pinfold data, or a process that has locked it does not answer on its socket.
pub(crate) async fn find_owner(dir: &DataDir) -> anyhow::Result<Owner> {
    dir.expect_database()?;
    match dir.try_lock()? {
        LockAttempt::Acquired(lock) => Ok(Owner::This(lock)),
        LockAttempt::InUse(owner) => {
            let socket = dir.socket();
            UnixStream::connect(&socket).await.with_context(|| {
                format!(
                    "the data directory {} is in use by another pinfold{owner}, which does not answer on {}; stop it \
                     and try again, or see its log",
                    dir.path().display(),
                    socket.display()
                )
            })?;
            Ok(Owner::Server(AdminClient::Server(socket)))
        }
    }
}

impl AdminClient {
    /// Connects to the server that runs on a data directory, or opens the data directory in this process.
    ///
    /// # Errors
    /// As [`find_owner`] and [`local`](Self::local).
    pub(crate) async fn open(
        dir: &DataDir,
        config_file: Option<&Path>,
        needs: Needs,
    ) -> anyhow::Result<Self> {
        match find_owner(dir).await? {
            Owner::Server(client) => Ok(client),
            Owner::This(lock) => Self::local(dir, config_file, lock, needs).await,
        }
    }

    /// Opens a data directory that this process has locked.
    ///
    /// # Errors
    /// The configuration is invalid, or a store cannot be opened.
    pub(crate) async fn local(
        dir: &DataDir,
        config_file: Option<&Path>,
        lock: DataDirLock,
        needs: Needs,
    ) -> anyhow::Result<Self> {
        Ok(Self::Local(Box::new(Local::open(dir, config_file, lock, needs).await?)))
    }

    /// Sends a request and returns the response without reading its body.
    ///
    /// # Errors
    /// The connection failed, or the response is an error: its message.
    pub(crate) async fn send(&self, request: Request<Body>) -> anyhow::Result<Response<Body>> {
        let response = match self {
            Self::Server(socket) => over_socket(socket, request).await?,
            Self::Local(local) => match local.router.clone().oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = to_bytes(response.into_body(), RESPONSE_BYTES_MAX).await.context(CUT_OFF)?;
        let reason: Option<Value> = serde_json::from_slice(&body).ok();
        match reason.as_ref().and_then(|reason| reason["error"].as_str()) {
            Some(reason) => bail!("{reason}"),
            None => bail!("the server answered {status}; check that it runs the same version of Pinfold"),
        }
    }

    /// Sends a request and parses the JSON response.
    ///
    /// # Errors
    /// As [`send`](Self::send), or the response cannot be parsed.
    pub(crate) async fn call<T: DeserializeOwned>(&self, request: Request<Body>) -> anyhow::Result<T> {
        let response = self.send(request).await?;
        let body = to_bytes(response.into_body(), RESPONSE_BYTES_MAX).await.context(CUT_OFF)?;
        serde_json::from_slice(&body).context(INVALID_RESPONSE)
    }

    /// Sends a request whose response is streamed.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub(crate) async fn stream(&self, request: Request<Body>) -> anyhow::Result<ResponseStream> {
        let response = self.send(request).await?;
        let error_id = response.headers().get(ERROR_ID_HEADER).and_then(|id| id.to_str().ok());
        let error_id = error_id.map(str::to_owned);
        Ok(ResponseStream { body: response.into_body().into_data_stream(), error_id })
    }

    /// The next chunk of a stream; `None` at its end.
    ///
    /// # Errors
    /// The stream broke: the error that the server recorded, or that of the connection.
    pub(crate) async fn next(&self, stream: &mut ResponseStream) -> anyhow::Result<Option<bytes::Bytes>> {
        match stream.body.next().await {
            None => Ok(None),
            Some(Ok(chunk)) => Ok(Some(chunk)),
            Some(Err(error)) => {
                let reason = match &stream.error_id {
                    Some(id) => self.call::<Value>(get(&format!("/errors/{id}"))?).await.ok(),
                    None => None,
                };
                match reason.as_ref().and_then(|reason| reason["error"].as_str()) {
                    Some(reason) => bail!("{reason}"),
                    None => Err(error).context(CUT_OFF),
                }
            }
        }
    }

    /// Closes the data directory if this process has opened it.
    pub(crate) async fn close(self) {
        if let Self::Local(local) = self {
            local.close().await;
        }
    }
}

/// A stream of JSON objects, one per line.
pub(crate) struct JsonLines {
    stream: ResponseStream,
    buffer: Vec<u8>,
}

impl JsonLines {
    pub(crate) fn new(stream: ResponseStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// The next object; `None` at the end.
    ///
    /// # Errors
    /// As [`AdminClient::next`], or a line is too long or is not a `T`.
    pub(crate) async fn next<T: DeserializeOwned>(
        &mut self,
        client: &AdminClient,
    ) -> anyhow::Result<Option<T>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line).context(INVALID_RESPONSE)?));
            }
            match client.next(&mut self.stream).await? {
                Some(chunk) if self.buffer.len() + chunk.len() <= RESPONSE_BYTES_MAX => {
                    self.buffer.extend_from_slice(&chunk);
                }
                Some(_) => bail!(INVALID_RESPONSE),
                None if self.buffer.is_empty() => return Ok(None),
                None => bail!(CUT_OFF),
            }
        }
    }
}

/// A POST request with a JSON body.
pub(crate) fn post(path: &str, body: &impl serde::Serialize) -> anyhow::Result<Request<Body>> {
    let request = Request::post(path).header("content-type", "application/json");
    Ok(request.body(Body::from(serde_json::to_vec(body)?))?)
}

/// A GET request.
pub(crate) fn get(path: &str) -> anyhow::Result<Request<Body>> {
    Ok(Request::get(path).body(Body::empty())?)
}

async fn over_socket(socket: &Path, mut request: Request<Body>) -> anyhow::Result<Response<Body>> {
    let context = || format!("the server does not answer on {}", socket.display());
    let stream = UnixStream::connect(socket).await.with_context(context)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.with_context(context)?;
    // Ends with the body of the response. If the connection breaks, reading the body fails.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to the admin socket failed");
        }
    });
    request.headers_mut().insert("host", axum::http::HeaderValue::from_static("pinfold"));
    let response = sender.send_request(request).await.context("the server closed the connection")?;
    Ok(response.map(Body::new))
}

impl Local {
    async fn open(
        dir: &DataDir,
        config_file: Option<&Path>,
        lock: DataDirLock,
        needs: Needs,
    ) -> anyhow::Result<Self> {
        let config = Config::load(dir.config_file(config_file).as_deref())?;
        let store = app::open_store(dir).await?;
        let blocks = app::open_blocks(&config, dir).await?;
        let mut service = None;
        let mut running = None;
        if needs == Needs::Service {
            let mut config = config.clone();
            // The node only fetches, so it does not listen.
            config.node.listen.clear();
            let node = app::start_node(&config, dir, &blocks).await?;
            let started = app::start_service(&config, &store, &node).await?;
            running = Some((started.run(), node));
            service = Some(started);
        }
        let wait = Wait::For(std::time::Duration::from_secs(config.pins.upload_wait_seconds));
        let ops = Arc::new(AdminOps {
            dir: dir.clone(),
            blocks,
            store,
            service,
            wait,
            stopping: CancellationToken::new(),
            backup_lock: Mutex::default(),
        });
        Ok(Self { router: router(Arc::clone(&ops)), ops, running, _lock: lock })
    }

    async fn close(self) {
        self.ops.stopping.cancel();
        if let Some((background, node)) = self.running {
            background.stop().await;
            node.stop().await;
        }
        self.ops.blocks.close().await;
        self.ops.store.close().await;
    }
}
