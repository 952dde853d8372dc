//! A whole Pinfold: its parts started in order, and stopped in the order in which nothing is lost.
//!
//! Start: the HTTP port first (taking it costs nothing and fails early), then what is on disk, the node, the
//! service; requests are answered last. Stop: no new request, running ones end or are told; no new work;
//! no peer; then the stores close.

use std::io::{ErrorKind, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use pinfold_cluster::Embedded;
use pinfold_http::AppState;
use pinfold_model::SystemClock;
use pinfold_node::blocks::SegmentBlocks;
use pinfold_node::blocks::scrub;
use pinfold_node::unixfs::Profile;
use pinfold_node::{Identity, Node};
use pinfold_service::{ApiKey, Background, ClusterSetup, Service, Wait};
use pinfold_store::Store;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::admin_ops::{AdminOps, open_blocks};
use crate::admin_socket::{self, AdminSocket};
use crate::config::{Config, settings};
use crate::data_dir::DataDir;

/// How long the parts behind HTTP may take to stop. They keep their state on disk all the time, so cutting
/// them short loses nothing but speed at the next start.
const STOP_TIME_MAX: Duration = Duration::from_secs(30);

/// A running Pinfold.
pub(crate) struct App {
    address: SocketAddr,
    node: Node,
    blocks: Arc<SegmentBlocks>,
    store: Store,
    background: Background,
    http: JoinHandle<()>,
    control: Option<AdminSocket>,
    scrub: Option<JoinHandle<()>>,
    stopping: CancellationToken,
    first_key: Option<ApiKey>,
    admin_email: String,
}

impl App {
    /// Starts everything on a data folder that is locked.
    ///
    /// # Errors
    /// A port is taken, a setting makes no sense, a file cannot be read: the message says which and what to
    /// do.
    pub(crate) async fn start(config: &Config, dir: &DataDir) -> anyhow::Result<Self> {
        let http_settings = settings::http(&config.http)?;
        let listener = listen(config.http.listen).await?;
        let address = listener.local_addr()?;

        let store = open_store(dir).await?;
        let blocks = open_blocks(config, dir).await?;
        let node = start_node(config, dir, &blocks).await?;
        let service = start_service(config, &store, &node).await?;
        let first_key = first_start(config, &service).await?;
        let admin_email = config.admin.email.clone();
        let background = service.run();

        let stopping = CancellationToken::new();
        let scrub = start_scrub(config, &blocks, stopping.clone());
        let control = start_control(config, dir, &blocks, &store, &service, stopping.clone());
        let state = AppState::new(service, http_settings, Arc::new(SystemClock), stopping.clone());
        let http = tokio::spawn(pinfold_http::serve(listener, pinfold_http::router(state.clone()), state));
        tracing::info!(%address, peer = %node.peer_id(), data = %dir.path().display(), "started");
        Ok(Self {
            address,
            node,
            blocks,
            store,
            background,
            http,
            control,
            scrub,
            stopping,
            first_key,
            admin_email,
        })
    }

    /// Where HTTP is answered, as a client of this machine reaches it.
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

    /// The peer id of the IPFS node inside.
    pub(crate) fn peer_id(&self) -> String {
        self.node.peer_id().to_string()
    }

    /// Where that node is reached, each with `/p2p/ID`.
    pub(crate) async fn addresses(&self) -> Vec<String> {
        self.node.listen_addresses().await.iter().map(ToString::to_string).collect()
    }

    /// The key that the very first start made.
    pub(crate) fn first_key(&self) -> Option<&ApiKey> {
        self.first_key.as_ref()
    }

    /// The address of the account that a very first start makes.
    pub(crate) fn admin_email(&self) -> &str {
        &self.admin_email
    }

    /// Stops in order, within the grace time of HTTP and [`STOP_TIME_MAX`]. Dropping the future stops at
    /// once; what was acknowledged is on disk all the same.
    pub(crate) async fn stop(self) {
        self.stopping.cancel();
        if let Err(error) = self.http.await {
            tracing::error!(%error, "the HTTP side broke");
        }
        let rest = async {
            if let Some(control) = self.control {
                control.stop().await;
            }
            self.background.stop().await;
            self.node.stop().await;
            if let Some(scrub) = self.scrub
                && let Err(error) = scrub.await
            {
                tracing::error!(%error, "scrub task failed");
            }
            self.blocks.close().await;
            self.store.close().await;
        };
        if timeout(STOP_TIME_MAX, rest).await.is_err() {
            tracing::warn!("not everything stopped in time; nothing that was acknowledged is lost");
        }
    }
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        if error.kind() == ErrorKind::AddrInUse {
            anyhow!("another program listens on {address}; stop it, or choose another port with --listen")
        } else if error.kind() == ErrorKind::PermissionDenied {
            anyhow!("this user may not listen on {address}; choose a port above 1023 with --listen")
        } else {
            anyhow!("cannot listen on {address}: {error}")
        }
    })
}

/// Opens the database of a data folder.
pub(crate) async fn open_store(dir: &DataDir) -> anyhow::Result<Store> {
    Store::open(&dir.database()).await.context("cannot open the database")
}

/// Starts the node of a data folder that is locked.
pub(crate) async fn start_node(
    config: &Config,
    dir: &DataDir,
    blocks: &Arc<SegmentBlocks>,
) -> anyhow::Result<Node> {
    let identity = Identity::load_or_create(&dir.identity())?;
    Node::start(settings::node(&config.node, identity)?, blocks.clone())
        .await
        .context("cannot start the IPFS node (--swarm-listen gives it other addresses)")
}

/// Puts the service of a data folder that is locked together.
pub(crate) async fn start_service(config: &Config, store: &Store, node: &Node) -> anyhow::Result<Service> {
    let driver = Arc::new(Embedded::new(node.clone(), Profile::default()));
    let clusters = settings::clusters(config)?
        .into_iter()
        .map(|info| ClusterSetup { info, driver: driver.clone() })
        .collect();
    let settings = settings::service(config)?;
    let service = Service::new(store.clone(), clusters, Arc::new(SystemClock), settings).await?;
    // The data folder's lock says that nobody else works on this store.
    service.workers.take_over().await?;
    Ok(service)
}

/// Makes the first account when there is none, and gives its key, unless that went into a file.
async fn first_start(config: &Config, service: &Service) -> anyhow::Result<Option<ApiKey>> {
    // What the settings name may be gone by the second start.
    if service.accounts.any().await? {
        return Ok(None);
    }
    let first = settings::first_admin(&config.admin)?;
    let Some(key) = service.accounts.ensure_admin(first).await? else { return Ok(None) };
    if config.admin.key_file.is_empty() {
        return Ok(Some(key));
    }
    let path = Path::new(&config.admin.key_file);
    write_private(path, key.reveal()).with_context(|| {
        format!("cannot write the first key into {}; make one with `pinfold token create`", path.display())
    })?;
    tracing::info!(path = %path.display(), "the first key is in this file");
    Ok(None)
}

/// Writes a new file that its owner alone can read.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

/// Starts the scrub, unless it is disabled. It runs until the token is cancelled.
fn start_scrub(
    config: &Config,
    blocks: &Arc<SegmentBlocks>,
    stopping: CancellationToken,
) -> Option<JoinHandle<()>> {
    let round = Duration::from_secs(config.blocks.scrub_days.saturating_mul(24 * 60 * 60));
    (!round.is_zero()).then(|| tokio::spawn(scrub(Arc::clone(blocks), round, stopping)))
}

/// Answers the operator's commands.
fn start_control(
    config: &Config,
    dir: &DataDir,
    blocks: &Arc<SegmentBlocks>,
    store: &Store,
    service: &Service,
    stopping: CancellationToken,
) -> Option<AdminSocket> {
    let operator = AdminOps {
        dir: dir.clone(),
        blocks: blocks.clone(),
        store: store.clone(),
        service: Some(service.clone()),
        wait: Wait::For(Duration::from_secs(config.pins.upload_wait_seconds)),
        stopping: stopping.clone(),
        backing_up: Mutex::default(),
    };
    AdminSocket::start(dir.socket(), admin_socket::routes::router(Arc::new(operator)), stopping)
}
