//! The client's state of one connected peer: its wantlist as it knows it, and how fast it delivers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cid::Cid;
use libp2p::PeerId;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::wire::{Entry, ProtocolVersion, WANT_BLOCK, WANT_HAVE};

/// Initial window: blocks requested from one peer.
const WINDOW_START: usize = 32;
/// Maximum window: Kubo and Helia store 1,024 wants per peer.
const WINDOW_MAX: usize = 1024;
/// Minimum window of a peer that delivers, however slow it is.
const WINDOW_SLOW: usize = 16;
/// A window holds about as many blocks as the peer delivers in this many seconds.
const WINDOW_SECONDS: f64 = 3.0;

/// Assumed rate of an unknown peer, in blocks a second.
const RATE_INITIAL: f64 = 1000.0;

/// The time-out of a peer that has not delivered yet, and the bounds of the adaptive time-out.
const TIMEOUT_START: Duration = Duration::from_secs(4);
const TIMEOUT_MIN: Duration = Duration::from_secs(3);
const TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// Unwanted bytes that a peer may send before it is banned. Wanted bytes reduce the count.
const PENALTY_MAX: usize = 16 * 1024 * 1024;
/// The penalty of an unwanted block besides its bytes.
const PENALTY_PER_BLOCK: usize = 64 * 1024;

/// Obsolete entries that may be in the queue of changes.
const CHANGES_SLACK: usize = 64;

/// The kind of a want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whether the peer has the block.
    Have,
    /// The block itself.
    Block,
}

/// The state of one CID at one peer: the desired want, and the want that was sent.
#[derive(Debug, Default)]
struct Ask {
    desired: Option<Kind>,
    sent: Option<Kind>,
    queued: bool,
}

/// One connected peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    /// The version negotiated for the latest outbound stream; 1.2.0 until one was opened.
    pub(super) version: ProtocolVersion,
    /// Blocks that are requested from this peer alone.
    pub(super) in_flight: usize,
    asks: HashMap<Cid, Ask>,
    changed: VecDeque<Cid>,
    resend_all: bool,
    writer: Arc<Notify>,
    window: usize,
    /// Blocks a second while it is busy, as measured.
    rate: Option<f64>,
    latency: Option<Duration>,
    last_delivery: Option<Instant>,
    late_count: u32,
    penalty: usize,
}

impl Peer {
    pub(super) fn new(id: PeerId, writer: Arc<Notify>) -> Self {
        Self {
            id,
            version: ProtocolVersion::V1_2,
            in_flight: 0,
            asks: HashMap::new(),
            changed: VecDeque::new(),
            resend_all: false,
            writer,
            window: WINDOW_START,
            rate: None,
            latency: None,
            last_delivery: None,
            late_count: 0,
            penalty: 0,
        }
    }

    /// Sends a want for `cid` to the peer; with `again` even if it was sent before.
    pub(super) fn ask(&mut self, cid: Cid, kind: Kind, again: bool) {
        let kind = if self.version.has_presences() { kind } else { Kind::Block };
        let ask = self.asks.entry(cid).or_default();
        ask.desired = Some(kind);
        if again {
            ask.sent = None;
        }
        if ask.sent != ask.desired {
            self.queue(cid);
        }
    }

    /// Sends a cancel for `cid` to the peer.
    pub(super) fn cancel(&mut self, cid: &Cid) {
        if let Some(ask) = self.asks.get_mut(cid) {
            if ask.sent.is_none() {
                // The want was never sent. If no stream can be opened, wants would pile up for days.
                self.asks.remove(cid);
            } else {
                ask.desired = None;
                self.queue(*cid);
            }
        }
    }

    /// The peer sent the block: nothing more needs to be sent about it.
    pub(super) fn block_received(&mut self, cid: &Cid) {
        self.asks.remove(cid);
    }

    /// The peer answered HAVE, and thereby removes the want-have from its wantlist. False if its want was for the block.
    pub(super) fn has_answered(&mut self, cid: &Cid) -> bool {
        let answered = self.asks.get(cid).is_some_and(|ask| ask.sent == Some(Kind::Have));
        if answered {
            self.block_received(cid);
        }
        answered
    }

    fn queue(&mut self, cid: Cid) {
        if let Some(ask) = self.asks.get_mut(&cid)
            && !ask.queued
        {
            ask.queued = true;
            self.changed.push_back(cid);
        }
        // Entries that became obsolete before they were sent are skipped later, and must not pile up until then.
        if self.changed.len() > 2 * self.asks.len() + CHANGES_SLACK {
            let mut seen = HashSet::new();
            self.changed.retain(|cid| self.asks.contains_key(cid) && seen.insert(*cid));
        }
        self.writer.notify_one();
    }

    /// Whether it ever delivered a wanted block.
    pub(super) fn has_delivered(&self) -> bool {
        self.last_delivery.is_some()
    }

    /// Whether there are changes to send.
    pub(super) fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The number of queued changes, or of wants if that is larger.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.changed.len().max(self.asks.len())
    }

    /// The next wantlist entries, at most `limit`, and whether they replace the peer's wantlist.
    pub(super) fn take_changes(&mut self, limit: usize) -> (Vec<Entry>, bool) {
        let mut entries = Vec::with_capacity(limit.min(self.changed.len()));
        while entries.len() < limit
            && let Some(cid) = self.changed.pop_front()
        {
            let Some(ask) = self.asks.get_mut(&cid) else { continue };
            ask.queued = false;
            let differs = ask.desired != ask.sent;
            ask.sent = ask.desired;
            if let Some(kind) = ask.desired {
                if differs {
                    entries.push(entry(&cid, Some(kind), self.version));
                }
            } else {
                self.asks.remove(&cid);
                if differs {
                    entries.push(entry(&cid, None, self.version));
                }
            }
        }
        (entries, std::mem::take(&mut self.resend_all))
    }

    /// A message may have been lost: the next one sends the full wantlist.
    pub(super) fn resend_all(&mut self) {
        self.resend_all = true;
        self.changed.clear();
        self.asks.retain(|_, ask| ask.desired.is_some());
        for (cid, ask) in &mut self.asks {
            ask.sent = None;
            ask.queued = true;
            self.changed.push_back(*cid);
        }
        self.writer.notify_one();
    }

    /// The CIDs of all wants that were or will be sent.
    pub(super) fn asked(&self) -> impl Iterator<Item = &Cid> {
        self.asks.iter().filter(|(_, ask)| ask.desired.is_some()).map(|(cid, _)| cid)
    }

    /// Whether the window has room for one more block.
    pub(super) fn has_room(&self) -> bool {
        self.in_flight < self.window
    }

    /// The expected seconds until one more block is delivered. An unknown peer counts as fast.
    pub(super) fn seconds_to_deliver(&self) -> f64 {
        (self.in_flight + 1) as f64 / self.rate.unwrap_or(RATE_INITIAL).max(0.1)
    }

    /// It delivered a wanted block that was requested at `asked_at`.
    pub(super) fn delivered(&mut self, bytes: usize, asked_at: Option<Instant>, now: Instant) {
        if self.in_flight + self.window / 4 >= self.window {
            self.window = (self.window + 1).min(self.window_cap());
        }
        if let Some(latency) = asked_at.map(|at| now.saturating_duration_since(at)) {
            self.latency = Some(self.latency.map_or(latency, |known| (known * 7 + latency) / 8));
            // Blocks in flight divided by latency (Little's law): idle time does not count.
            let rate = self.in_flight.max(1) as f64 / latency.as_secs_f64().max(0.001);
            self.rate = Some(self.rate.map_or(rate, |known| known + (rate - known) / 16.0));
        }
        self.last_delivery = Some(now);
        self.late_count = 0;
        self.penalty = self.penalty.saturating_sub(bytes / 2 + PENALTY_PER_BLOCK / 16);
    }

    fn window_cap(&self) -> usize {
        match self.rate {
            Some(rate) => ((rate * WINDOW_SECONDS) as usize).clamp(WINDOW_SLOW, WINDOW_MAX),
            None => WINDOW_MAX,
        }
    }

    /// It sent an unwanted block; `known` if the block was wanted recently. Returns true when the peer should be banned.
    pub(super) fn penalize(&mut self, bytes: usize, known: bool) -> bool {
        self.penalty += if known { bytes / 4 } else { bytes + PENALTY_PER_BLOCK };
        self.penalty > PENALTY_MAX
    }

    /// Called periodically. The assumed rate of an idle peer rises, so that it is tried again.
    pub(super) fn tick(&mut self) {
        if self.in_flight > 0 {
            self.window = self.window.min(self.window_cap());
        } else if let Some(rate) = &mut self.rate {
            *rate = (*rate * 1.25).clamp(1.0, RATE_INITIAL);
        }
    }

    /// Whether a block requested at `since` should be requested from another peer.
    pub(super) fn is_late(&self, since: Instant, now: Instant) -> bool {
        let timeout = self.timeout();
        let last_sign = self.last_delivery.map_or(since, |at| at.max(since));
        // The peer delivers nothing at all, or it delivers others and never this one.
        now.saturating_duration_since(last_sign) > timeout
            || now.saturating_duration_since(since) > timeout * 5
    }

    fn timeout(&self) -> Duration {
        let start = self.latency.map_or(TIMEOUT_START, |latency| latency * 6);
        (start.clamp(TIMEOUT_MIN, TIMEOUT_MAX) * 2u32.saturating_pow(self.late_count)).min(TIMEOUT_MAX)
    }

    /// A want was late: the window shrinks, and the time-out grows.
    pub(super) fn was_late(&mut self) {
        self.window = (self.window / 2).max(1);
        self.rate = Some(self.rate.map_or(1.0, |rate| rate / 2.0));
        self.late_count = (self.late_count + 1).min(8);
    }
}

fn entry(cid: &Cid, kind: Option<Kind>, version: ProtocolVersion) -> Entry {
    let presences = version.has_presences();
    Entry {
        cid: cid.to_bytes().into(),
        priority: 1,
        cancel: kind.is_none(),
        want_type: if kind == Some(Kind::Have) { WANT_HAVE } else { WANT_BLOCK },
        send_dont_have: kind.is_some() && presences,
    }
}
