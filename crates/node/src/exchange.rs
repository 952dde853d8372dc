//! Bitswap, the block exchange: client and server, versions 1.2.0, 1.1.0 and 1.0.0.
//!
//! [`Bitswap::new`] gives two halves: a [`Behaviour`] for the swarm, which does no more than negotiate
//! streams, and a [`Bitswap`] handle. Each connected peer has two tasks, a reader and a writer; what they
//! share are two state machines, one that asks (`client`) and one that answers (`server`).
//! Follows <https://specs.ipfs.tech/bitswap-protocol/>.
//!
//! Every block is hashed before anyone sees it. Whatever a peer sends, its cost has a bound: bytes in
//! the making, items of a message, wants kept, streams open, blocks nobody asked for.

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
use wire::Dialect;

/// Requests to the swarm that may wait.
const COMMANDS_MAX: usize = 256;

/// The bounds of the exchange.
#[derive(Debug, Clone)]
pub struct BitswapConfig {
    /// Wants kept for one peer; more are refused. Others keep 1,024 too.
    pub peer_wants_max: usize,
    /// Wants kept for all peers together.
    pub wants_max: usize,
    /// Streams that one peer may have open towards us. Kubo opens one for each message.
    pub peer_streams_max: usize,
    /// Bytes of messages that are being received, from all peers together. At least 8 MiB.
    pub receiving_bytes_max: usize,
    /// Bytes of messages that are being sent, to all peers together. At least 2 MiB.
    pub sending_bytes_max: usize,
    /// An outbound stream is closed after idling for this long; some peers abort those that idle 10 s.
    pub idle_close: Duration,
    /// How long a peer may take to accept one message.
    pub write_time: Duration,
    /// What is negotiated, the preferred one first.
    dialects: Arc<[Dialect]>,
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
            dialects: Arc::new(Dialect::ALL),
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
        let dialects = config.dialects.clone();
        let engine = Engine::start(blocks, config, commands);
        (Behaviour::new(Arc::new(engine.clone()), requests, dialects), Self { engine })
    }

    /// Opens a session: a group of wants that are likely found at the same peers, such as one DAG.
    pub fn session(&self) -> Session {
        Session::new(self.engine.clone())
    }

    /// Says that these blocks are stored now, so that peers that wait for them get them. Quick.
    pub fn arrived(&self, cids: &[Cid]) {
        self.engine.server.arrived(cids);
    }

    /// What the exchange has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }
}

/// Locks; whoever panicked while holding the lock left nothing half done that matters more than going on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
