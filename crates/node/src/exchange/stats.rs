//! Counters of the exchange, for metrics and tests.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the exchange was started, and current gauges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Wanted blocks received.
    pub blocks_received: u64,
    /// Bytes of wanted blocks received.
    pub bytes_received: u64,
    /// Blocks received that had been wanted, but were already received or cancelled.
    pub duplicates: u64,
    /// Blocks received that were never wanted, including wrong ones.
    pub unwanted: u64,
    pub blocks_sent: u64,
    pub bytes_sent: u64,
    pub messages_received: u64,
    pub messages_sent: u64,
    /// Inbound streams.
    pub streams_accepted: u64,
    /// Inbound streams dropped because a peer had too many open.
    pub streams_dropped: u64,
    /// Peers that were banned temporarily for misbehaving.
    pub peers_banned: u64,
    /// Currently wanted blocks.
    pub wants: u64,
    /// Currently connected peers.
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
    pub(super) peers_banned: AtomicU64,
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
            peers_banned: read(&self.peers_banned),
            wants: wants as u64,
            peers: peers as u64,
        }
    }
}
