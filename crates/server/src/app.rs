//! A complete Pinfold server: constructs its parts in order, and stops them in the order in which nothing is lost.
//!
//! Start: the HTTP port first, because it fails early and costs nothing; then the stores, the IPFS node, the service and
//! its background tasks, the admin socket, and HTTP last. Stop: no new requests, running requests finish or stop waiting
//! and answer; then the admin socket, the background tasks and the node stop; the stores close last. Every task is
//! joined.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use pinfold_cluster::Embedded;
use pinfold_http::AppState;
use pinfold_model::SystemClock;
use pinfold_node::blocks::{OpenError, SegmentBlocks, scrub};
use pinfold_node::unixfs::Profile;
use pinfold_node::{Identity, Node};
use pinfold_service::{ApiKey, Background, ClusterSetup, Service, Wait};
use pinfold_store::Store;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::admin_ops::AdminOps;
use crate::admin_socket::{self, AdminSocket};
use crate::config::{Config, settings};
use crate::data_dir::DataDir;
use crate::files::write_private;

/// Maximum time for everything but HTTP to stop. All state is on disk at any time, so exceeding it loses nothing.
const STOP_TIME_MAX: Duration = Duration::from_secs(30);

/// A running server.
pub(crate) struct App {
    address: SocketAddr,
    admin_email: String,
    first_key: Option<ApiKey>,
    store: Store,
    blocks: Arc<SegmentBlocks>,
    node: Node,
    background: Background,
    scrub: Option<JoinHandle<()>>,
    admin_socket: Option<AdminSocket>,
    http: JoinHandle<()>,
    stopping: CancellationToken,
}

impl App {
    /// Starts a server on a data directory that this process has locked.
    ///
    /// # Errors
    /// A port is in use, a setting is invalid, or a file cannot be read. The message names it and says what to do.
    pub(crate) async fn start(config: &Config, dir: &DataDir) -> anyhow::Result<Self> {
        let http_settings = settings::http(&config.http)?;
        let listener = listen(config.http.listen).await?;
        let address = listener.local_addr()?;

        let store = open_store(dir).await?;
        let blocks = open_blocks(config, dir).await?;
        let node = start_node(config, dir, &blocks).await?;
        let service = start_service(config, &store, &node).await?;
        let first_key = create_first_admin(config, &service).await?;

        let stopping = CancellationToken::new();
        let background = service.run();
        let scrub = start_scrub(config, &blocks, stopping.clone());
        let admin_socket = start_admin_socket(config, dir, &blocks, &store, &service, stopping.clone());
        let state = AppState::new(service, http_settings, Arc::new(SystemClock), stopping.clone());
        let http = tokio::spawn(pinfold_http::serve(listener, pinfold_http::router(state.clone()), state));
        tracing::info!(%address, peer = %node.peer_id(), data_dir = %dir.path().display(), "started");
        let admin_email = config.admin.email.clone();
        Ok(Self {
            address,
            admin_email,
            first_key,
            store,
            blocks,
            node,
            background,
            scrub,
            admin_socket,
            http,
            stopping,
        })
    }

    /// URL of the HTTP API for clients on this machine.
    pub(crate) fn url(&self) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() {
                std::net::Ipv4Addr::LOCALHOST.into()
            } else {
                std::net::Ipv6Addr::LOCALHOST.into()
            });
        }
        format!("http://{address}")
    }

    /// Peer id of the IPFS node.
    pub(crate) fn peer_id(&self) -> String {
        self.node.peer_id().to_string()
    }

    /// Multiaddrs of the IPFS node, each with `/p2p/ID`.
    pub(crate) async fn addresses(&self) -> Vec<String> {
        self.node.listen_addresses().await.iter().map(ToString::to_string).collect()
    }

    /// The API key that this start created, if it was the first one.
    pub(crate) fn first_key(&self) -> Option<&ApiKey> {
        self.first_key.as_ref()
    }

    /// E-mail address of the account that the first start creates.
    pub(crate) fn admin_email(&self) -> &str {
        &self.admin_email
    }

    /// Stops all parts in order, within the grace time of HTTP and [`STOP_TIME_MAX`]. Dropping the future stops
    /// immediately; acknowledged requests are on disk in any case.
    pub(crate) async fn stop(self) {
        self.stopping.cancel();
        if let Err(error) = self.http.await {
            tracing::error!(%error, "HTTP server task failed");
        }
        let rest = async {
            if let Some(admin_socket) = self.admin_socket {
                admin_socket.stop().await;
            }
            self.background.stop().await;
            if let Some(scrub) = self.scrub
                && let Err(error) = scrub.await
            {
                tracing::error!(%error, "scrub task failed");
            }
            self.node.stop().await;
            self.blocks.close().await;
            self.store.close().await;
        };
        if timeout(STOP_TIME_MAX, rest).await.is_err() {
            tracing::warn!("shutdown timed out before all tasks finished; acknowledged requests are on disk");
        }
    }
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let kind = error.kind();
        if kind == ErrorKind::AddrInUse {
            anyhow!("{address} is in use by another program; stop it, or choose another port with --listen")
        } else if kind == ErrorKind::PermissionDenied {
            anyhow!("this user may not listen on {address}; choose a port above 1023 with --listen")
        } else {
            anyhow!("cannot listen on {address}: {error}")
        }
    })
}

/// Opens the database of a data directory.
pub(crate) async fn open_store(dir: &DataDir) -> anyhow::Result<Store> {
    Store::open(&dir.database()).await.context("cannot open the database")
}

/// Opens the block store of a data directory that this process has locked.
pub(crate) async fn open_blocks(config: &Config, dir: &DataDir) -> anyhow::Result<Arc<SegmentBlocks>> {
    let (path, segments) = settings::blocks(config, dir);
    // Opening reads the end of the last segment, which blocks.
    let opened = tokio::task::spawn_blocking(move || SegmentBlocks::open(&path, &segments)).await?;
    opened.map(Arc::new).map_err(|error| anyhow!("cannot open the block store: {error}{}", advice(&error)))
}

/// What the operator can do about a block store that cannot be opened.
fn advice(error: &OpenError) -> &'static str {
    match error {
        OpenError::NoIndex { .. } | OpenError::StaleIndex { .. } => "; run `pinfold blocks rebuild-index`",
        OpenError::Index { .. } => "; if the index is damaged, run `pinfold blocks rebuild-index`",
        OpenError::SegmentLost { .. } => "; run `pinfold blocks repair` to accept the loss",
        OpenError::Io { .. } | OpenError::Version { .. } => "",
    }
}

/// Starts the IPFS node of a data directory that this process has locked.
pub(crate) async fn start_node(
    config: &Config,
    dir: &DataDir,
    blocks: &Arc<SegmentBlocks>,
) -> anyhow::Result<Node> {
    let identity = Identity::load_or_create(&dir.identity())?;
    Node::start(settings::node(&config.node, identity)?, blocks.clone())
        .await
        .context("cannot start the IPFS node; set other addresses with --swarm-listen")
}

/// Constructs the service of a data directory that this process has locked.
pub(crate) async fn start_service(config: &Config, store: &Store, node: &Node) -> anyhow::Result<Service> {
    let driver = Arc::new(Embedded::new(node.clone(), Profile::default()));
    let clusters = settings::clusters(config)?
        .into_iter()
        .map(|info| ClusterSetup { info, driver: driver.clone() })
        .collect();
    let settings = settings::service(config)?;
    let service = Service::new(store.clone(), clusters, Arc::new(SystemClock), settings).await?;
    // The lock of the data directory guarantees that no other process holds leases in this store.
    service.workers.take_over().await?;
    Ok(service)
}

/// Creates the administrator account if there is no account. Returns its API key, unless the key was written to
/// `admin.key_file`.
async fn create_first_admin(config: &Config, service: &Service) -> anyhow::Result<Option<ApiKey>> {
    // `admin.password_file` may be gone after the first start, so it is read only then.
    if service.accounts.any().await? {
        return Ok(None);
    }
    let first = settings::first_admin(&config.admin)?;
    let Some(key) = service.accounts.ensure_admin(first).await? else { return Ok(None) };
    if config.admin.key_file.is_empty() {
        return Ok(Some(key));
    }
    let path = Path::new(&config.admin.key_file);
    write_private(path, format!("{}\n", key.reveal()).as_bytes()).context(
        "cannot write the first API key to admin.key_file; create another key with `pinfold token create`",
    )?;
    tracing::info!(path = %path.display(), "wrote the first API key");
    Ok(None)
}

/// Verifies all blocks once in `blocks.scrub_days`, until the token is cancelled.
fn start_scrub(
    config: &Config,
    blocks: &Arc<SegmentBlocks>,
    stopping: CancellationToken,
) -> Option<JoinHandle<()>> {
    let round = Duration::from_secs(config.blocks.scrub_days.saturating_mul(24 * 60 * 60));
    (!round.is_zero()).then(|| tokio::spawn(scrub(Arc::clone(blocks), round, stopping)))
}

fn start_admin_socket(
    config: &Config,
    dir: &DataDir,
    blocks: &Arc<SegmentBlocks>,
    store: &Store,
    service: &Service,
    stopping: CancellationToken,
) -> Option<AdminSocket> {
    let ops = AdminOps {
        dir: dir.clone(),
        blocks: blocks.clone(),
        store: store.clone(),
        service: Some(service.clone()),
        wait: Wait::For(Duration::from_secs(config.pins.upload_wait_seconds)),
        stopping: stopping.clone(),
        backup_lock: Mutex::default(),
    };
    AdminSocket::start(dir.socket(), admin_socket::routes::router(Arc::new(ops)), stopping)
}
