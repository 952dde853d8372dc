//! Sessions: the wants of one consumer of blocks, and the blocks delivered to it.

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

/// Bytes in an inbox above which nothing more is read from the peers that fill it.
const INBOX_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A delivery to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// A wanted block, verified.
    Block {
        /// The block under the CID that was wanted.
        block: Block,
        /// The sender.
        peer: PeerId,
    },
    /// A wanted block is larger than the maximum block size.
    TooLarge {
        cid: Cid,
        /// The size of the block.
        bytes: usize,
    },
}

/// The exchange has stopped with its swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the exchange has stopped")]
pub struct Closed;

/// The queue of deliveries to a session. Bounded by the session's wants.
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
    /// Adds a delivery. Returns whether the inbox is full now.
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

    /// Wakes everyone that waits; nothing more will be delivered.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.arrived.notify_one();
        self.drained.notify_waiters();
    }

    /// Waits until the inbox is no longer full, or closed.
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

/// The wants of one consumer, requested from many peers. Dropping it cancels them.
///
/// The consumer must take its deliveries: they wait in memory, and a session that does not take them eventually stops
/// the reading from the peers that send to it.
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

    /// Requests these blocks. Each is delivered once; requesting a wanted block again has no effect. The caller bounds the
    /// number of wants.
    pub fn want(&self, cids: &[Cid]) {
        self.engine.want(self.key, cids);
    }

    /// Takes all deliveries, if there are any.
    #[must_use]
    pub fn try_take(&self) -> VecDeque<Delivery> {
        self.inbox.take()
    }

    /// Waits until there is a delivery, and takes all. Cancel-safe.
    ///
    /// # Errors
    /// [`Closed`] when the exchange has stopped.
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
