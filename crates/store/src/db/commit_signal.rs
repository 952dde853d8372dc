//! Wakes a waiting task after the commit of a transaction that marked the signal.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// A signal that a write marks and the write queue sends after its commit.
#[derive(Default)]
pub(crate) struct CommitSignal {
    marked: AtomicBool,
    wake: Notify,
}

impl CommitSignal {
    /// Called by a write inside its transaction.
    pub(crate) fn mark(&self) {
        self.marked.store(true, Ordering::Release);
    }

    /// Called by the write queue after each transaction: readers see what it wrote.
    pub(crate) fn send(&self) {
        if self.marked.swap(false, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }

    /// Returns after a transaction that marked the signal. Cancel-safe.
    pub(crate) async fn committed(&self) {
        self.wake.notified().await;
    }
}
