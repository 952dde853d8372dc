//! A whole Pinfold: its parts started in order, and stopped in the order in which nothing is lost.
//!
//! Start: the HTTP port first (taking it costs nothing and fails early), then what is on disk, the node, the
//! service; requests are answered last. Stop: no new request, running ones end or are told; no new work;
//! no peer; then the stores close.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use pinfold_cluster::Embedded;
use pinfold_http::AppState;
use pinfold_model::SystemClock;
use pinfold_node::blocks::{SegmentBlocks, SegmentConfig};
use pinfold_node::unixfs::Profile;
use pinfold_node::{Identity, Node};
use pinfold_service::{ApiKey, Background, ClusterSetup, Service};
use pinfold_store::Store;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::data_dir::DataDir;

pub(crate) mod settings;

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
    stopping: CancellationToken,
    first_key: Option<ApiKey>,
}

impl App {
    /// Starts everything on a data folder that is locked.
    ///
    /// # Errors
    /// A port is taken, a setting makes no sense, a file cannot be read: the message says which and what to
    /// do.
    pub(crate) async fn start(config: &Config, dir: &DataDir) -> anyhow::Result<Self> {
        let http_settings = settings::http(&config.http)?;
        let service_settings = settings::service(config)?;
        let clusters = settings::clusters(config)?;
        let listener = listen(config.http.listen).await?;
        let address = listener.local_addr()?;

        let store = Store::open(&dir.database()).await.context("cannot open the database")?;
        let blocks = open_blocks(config, dir).await?;
        let identity = Identity::load_or_create(&dir.identity())?;
        let node = Node::start(settings::node(&config.node, identity)?, blocks.clone())
            .await
            .context("cannot start the IPFS node (--swarm-listen gives it other addresses)")?;

        let driver = Arc::new(Embedded::new(node.clone(), Profile::default()));
        let clusters =
            clusters.into_iter().map(|info| ClusterSetup { info, driver: driver.clone() }).collect();
        let clock = Arc::new(SystemClock);
        let service = Service::new(store.clone(), clusters, clock.clone(), service_settings).await?;
        let first_key = service.accounts.ensure_admin().await?;
        // The data folder's lock says that nobody else works on this store.
        service.reconciler.take_over().await?;
        let background = service.run();

        let stopping = CancellationToken::new();
        let state = AppState::new(service, http_settings, clock, stopping.clone());
        let http = tokio::spawn(pinfold_http::serve(listener, pinfold_http::router(state.clone()), state));
        tracing::info!(%address, peer = %node.peer_id(), data = %dir.path().display(), "started");
        Ok(Self { address, node, blocks, store, background, http, stopping, first_key })
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

    /// Stops in order, within the grace time of HTTP and [`STOP_TIME_MAX`]. Dropping the future stops at
    /// once; what was acknowledged is on disk all the same.
    pub(crate) async fn stop(self) {
        self.stopping.cancel();
        if let Err(error) = self.http.await {
            tracing::error!(%error, "the HTTP side broke");
        }
        let rest = async {
            self.background.stop().await;
            self.node.stop().await;
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

async fn open_blocks(config: &Config, dir: &DataDir) -> anyhow::Result<Arc<SegmentBlocks>> {
    let folder = if config.blocks.dir.is_empty() { dir.blocks() } else { PathBuf::from(&config.blocks.dir) };
    let segments = SegmentConfig {
        segment_bytes: config.blocks.segment_bytes,
        reserve_bytes: config.blocks.reserve_bytes,
    };
    // Opening reads the tail of what was written last, so not on a thread that others wait for.
    let opened = tokio::task::spawn_blocking(move || SegmentBlocks::open(&folder, &segments)).await?;
    Ok(Arc::new(opened.context("cannot open the blocks")?))
}
