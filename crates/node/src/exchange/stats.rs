//! Counters of the exchange, for metrics and tests.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the exchange has done since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Blocks received that were wanted.
    pub blocks_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Blocks received that had been wanted, but had come already or were cancelled.
    pub duplicates: u64,
    /// Blocks received that nobody ever wanted, wrong ones among them.
    pub unwanted: u64,
    /// Blocks sent.
    pub blocks_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Messages received.
    pub messages_received: u64,
    /// Messages sent.
    pub messages_sent: u64,
    /// Streams that peers opened.
    pub streams_accepted: u64,
    /// Streams that were dropped because a peer had too many open.
    pub streams_dropped: u64,
    /// Peers that were refused for misbehaving.
    pub peers_refused: u64,
    /// Blocks that are wanted now.
    pub wants: u64,
    /// Peers that are connected now.
    pub peers: u64,
}

/// The counters behind [`Stats`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) blocks_received: AtomicU64,
    pub(super) bytes_received: AtomicU64,
    pub(super) duplicates: AtomicU64,
    pub(super) unwanted: AtomicU64,
    pub(super) blocks_sent: AtomicU64,
    pub(super) bytes_sent: AtomicU64,
    pub(super) messages_received: AtomicU64,
    pub(super) messages_sent: AtomicU64,
    pub(super) streams_accepted: AtomicU64,
    pub(super) streams_dropped: AtomicU64,
    pub(super) peers_refused: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }

    pub(super) fn read(&self, wants: usize, peers: usize) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            blocks_received: read(&self.blocks_received),
            bytes_received: read(&self.bytes_received),
            duplicates: read(&self.duplicates),
            unwanted: read(&self.unwanted),
            blocks_sent: read(&self.blocks_sent),
            bytes_sent: read(&self.bytes_sent),
            messages_received: read(&self.messages_received),
            messages_sent: read(&self.messages_sent),
            streams_accepted: read(&self.streams_accepted),
            streams_dropped: read(&self.streams_dropped),
            peers_refused: read(&self.peers_refused),
            wants: wants as u64,
            peers: peers as u64,
        }
    }
}
