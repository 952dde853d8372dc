//! Bitswap, the block exchange: client and server, versions 1.2.0, 1.1.0 and 1.0.0.
//!
//! [`Bitswap::new`] returns two halves: a [`Behaviour`] for the swarm, which only negotiates streams, and a [`Bitswap`]
//! handle. Each connected peer has two tasks, a reader and a writer. The tasks share two state machines: `client` requests
//! blocks, `server` answers requests. The tasks end when the
//! behaviour is dropped with its swarm; [`Bitswap::stopped`] joins them. Follows <https://specs.ipfs.tech/bitswap-protocol/>.
//!
//! Every block is hashed before it is delivered. The cost of everything that a peer sends is bounded: bytes of messages
//! being received, items of a message, wants, open streams, and unrequested blocks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cid::Cid;
use tokio::sync::mpsc;

mod behaviour;
mod client;
mod engine;
mod reader;
mod server;
mod session;
mod stats;
#[cfg(test)]
pub(crate) mod testnet;
#[cfg(test)]
mod tests;
mod wire;
mod writer;

pub use behaviour::Behaviour;
pub use session::{Closed, Delivery, Session};
pub use stats::Stats;

use crate::Blocks;
use engine::Engine;
use wire::ProtocolVersion;

/// Commands to the swarm that may be queued.
const COMMANDS_MAX: usize = 256;

/// The limits of the exchange.
#[derive(Debug, Clone)]
pub struct BitswapConfig {
    /// Wants stored for one peer; more are refused. Other implementations store 1,024 too.
    pub peer_wants_max: usize,
    /// Wants stored for all peers together.
    pub wants_max: usize,
    /// Inbound streams that one peer may have open. Kubo opens one for each message.
    pub peer_streams_max: usize,
    /// Bytes of messages that are being received, from all peers together. At least 8 MiB.
    pub receiving_bytes_max: usize,
    /// Bytes of messages that are being sent, to all peers together. At least 2 MiB.
    pub sending_bytes_max: usize,
    /// An outbound stream is closed after idling this long. Some peers abort streams that idle for 10 s.
    pub idle_close: Duration,
    /// Time limit for writing one message to a peer.
    pub write_time: Duration,
    /// The protocol versions to negotiate, the preferred one first.
    versions: Arc<[ProtocolVersion]>,
}

impl Default for BitswapConfig {
    fn default() -> Self {
        Self {
            peer_wants_max: 1024,
            wants_max: 64 * 1024,
            peer_streams_max: 512,
            receiving_bytes_max: 128 * 1024 * 1024,
            sending_bytes_max: 64 * 1024 * 1024,
            idle_close: Duration::from_secs(3),
            write_time: Duration::from_secs(30),
            versions: Arc::new(ProtocolVersion::ALL),
        }
    }
}

/// A handle to the exchange. Cheap to clone.
#[derive(Clone)]
pub struct Bitswap {
    engine: Arc<Engine>,
}

impl std::fmt::Debug for Bitswap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bitswap").field("stats", &self.stats()).finish()
    }
}

impl Bitswap {
    /// Starts an exchange that serves from `blocks`; it lives as long as the swarm with the behaviour.
    /// Must be called on a Tokio runtime.
    #[must_use]
    pub fn new(blocks: Arc<dyn Blocks>, config: BitswapConfig) -> (Behaviour, Self) {
        let (commands, requests) = mpsc::channel(COMMANDS_MAX);
        let versions = config.versions.clone();
        let engine = Engine::start(blocks, config, commands);
        (Behaviour::new(Arc::new(engine.clone()), requests, versions), Self { engine })
    }

    /// Opens a session: a group of wants that the same peers are likely to have, such as one DAG.
    pub fn session(&self) -> Session {
        Session::new(self.engine.clone())
    }

    /// Reports that these blocks are stored now, so that they are sent to peers that want them. Does not block.
    pub fn notify_stored(&self, cids: &[Cid]) {
        self.engine.server.notify_stored(cids);
    }

    /// Waits until the swarm's [`Behaviour`] is dropped and all tasks of the exchange have ended.
    pub async fn stopped(&self) {
        self.engine.tasks.wait().await;
    }

    /// The counters of the exchange.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }
}

/// Locks a mutex, and ignores poisoning: the protected state stays consistent enough to continue after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
