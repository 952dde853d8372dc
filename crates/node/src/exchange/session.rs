//! One consumer of blocks: what it wants, and what has come for it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use cid::Cid;
use libp2p::PeerId;
use tokio::sync::Notify;

use super::client::SessionKey;
use super::engine::Engine;
use super::lock;
use crate::Block;

/// Bytes that may wait in an inbox before the peers that fill it are read no further.
const INBOX_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What came for a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// A block that it wants, verified.
    Block {
        /// The block, under the CID that was wanted.
        block: Block,
        /// Who sent it.
        peer: PeerId,
    },
    /// The bytes of a wanted CID are known, and too many.
    TooLarge {
        /// The CID.
        cid: Cid,
        /// How many bytes it has.
        bytes: usize,
    },
}

/// The exchange has ended: its swarm is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the exchange has ended")]
pub struct Closed;

/// Where deliveries wait. Never holds more than what its session wants.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    drained: Notify,
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    deliveries: VecDeque<Delivery>,
    bytes: usize,
}

impl Inbox {
    /// Adds a delivery; whether the inbox is full now.
    pub(super) fn push(&self, delivery: Delivery) -> bool {
        let full = {
            let mut waiting = lock(&self.waiting);
            if let Delivery::Block { block, .. } = &delivery {
                waiting.bytes += block.data().len();
            }
            waiting.deliveries.push_back(delivery);
            waiting.bytes > INBOX_BYTES_MAX
        };
        self.arrived.notify_one();
        full
    }

    /// Nothing more will come.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.arrived.notify_one();
        self.drained.notify_waiters();
    }

    /// Returns once the inbox is no longer full, or closed.
    pub(super) async fn has_room(&self) {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            if lock(&self.waiting).bytes <= INBOX_BYTES_MAX || self.closed.load(Ordering::Acquire) {
                return;
            }
            drained.await;
        }
    }

    pub(super) fn take(&self) -> VecDeque<Delivery> {
        let taken = {
            let mut waiting = lock(&self.waiting);
            waiting.bytes = 0;
            std::mem::take(&mut waiting.deliveries)
        };
        if !taken.is_empty() {
            self.drained.notify_waiters();
        }
        taken
    }
}

/// One consumer's wants, asked of many peers at once. Dropping it takes them back everywhere.
///
/// Whoever wants must also take: what has come waits in memory, and a session that takes nothing
/// in the end holds up the peers that send to it.
#[must_use = "dropping a session cancels its wants"]
pub struct Session {
    engine: Arc<Engine>,
    key: SessionKey,
    inbox: Arc<Inbox>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        let inbox = Arc::new(Inbox::default());
        let key = engine.open_session(inbox.clone());
        Self { engine, key, inbox }
    }

    /// Wants these blocks. Each is delivered once; wanting what is wanted already changes nothing.
    /// The caller bounds how many are wanted at once.
    pub fn want(&self, cids: &[Cid]) {
        self.engine.want(self.key, cids);
    }

    /// Takes all that has come, which may be nothing.
    #[must_use]
    pub fn try_take(&self) -> VecDeque<Delivery> {
        self.inbox.take()
    }

    /// Takes all that has come; waits until there is something. Cancel-safe.
    ///
    /// # Errors
    /// [`Closed`] when the exchange has ended.
    pub async fn take(&self) -> Result<VecDeque<Delivery>, Closed> {
        loop {
            let arrived = self.inbox.arrived.notified();
            let taken = self.inbox.take();
            if !taken.is_empty() {
                return Ok(taken);
            }
            if self.inbox.closed.load(Ordering::Acquire) {
                return Err(Closed);
            }
            arrived.await;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.engine.close_session(self.key);
        self.inbox.close();
    }
}
