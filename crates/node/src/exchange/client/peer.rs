//! What the client knows of one connected peer: what it was asked, and how it delivers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cid::Cid;
use libp2p::PeerId;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::wire::{Dialect, Entry, WANT_BLOCK, WANT_HAVE};

/// Blocks asked of one peer at first.
const WINDOW_START: usize = 32;
/// The most blocks asked of one peer at once: Kubo keeps 1,024 wants a peer, Helia as many.
const WINDOW_MAX: usize = 1024;
/// However slow a peer is, it may be asked for this many, once it delivers.
const WINDOW_SLOW: usize = 16;
/// A window holds what the peer delivers in about this many seconds.
const WINDOW_SECONDS: f64 = 3.0;

/// Blocks a second that are expected of a peer of which nothing is known.
const RATE_HOPED: f64 = 1000.0;

/// How long to wait for a peer that has not delivered yet.
const PATIENCE_START: Duration = Duration::from_secs(4);
const PATIENCE_MIN: Duration = Duration::from_secs(3);
const PATIENCE_MAX: Duration = Duration::from_secs(30);

/// What bytes that nobody asked for a peer may send before it is refused. Wanted bytes earn some back.
const ANNOYANCE_MAX: usize = 16 * 1024 * 1024;
/// What a block that nobody asked for costs beside its bytes.
const ANNOYANCE_BLOCK: usize = 64 * 1024;

/// Entries of no use that may stand among what is to be said.
const CHANGES_SLACK: usize = 64;

/// What a peer is asked about a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whether it has it.
    Have,
    /// To send it.
    Block,
}

/// The state of one CID at one peer: what it should know, and what it was told.
#[derive(Debug, Default)]
struct Ask {
    desired: Option<Kind>,
    told: Option<Kind>,
    queued: bool,
}

/// One connected peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    /// What it negotiated for our last stream to it; 1.2.0 until that is known.
    pub(super) dialect: Dialect,
    /// Blocks that it was asked for and that no other peer is asked for.
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
    impatience: u32,
    annoyance: usize,
}

impl Peer {
    pub(super) fn new(id: PeerId, writer: Arc<Notify>) -> Self {
        Self {
            id,
            dialect: Dialect::V1_2,
            in_flight: 0,
            asks: HashMap::new(),
            changed: VecDeque::new(),
            resend_all: false,
            writer,
            window: WINDOW_START,
            rate: None,
            latency: None,
            last_delivery: None,
            impatience: 0,
            annoyance: 0,
        }
    }

    /// Wants the peer to know that `cid` is wanted; `again` tells it even if it knows.
    pub(super) fn ask(&mut self, cid: Cid, kind: Kind, again: bool) {
        let kind = if self.dialect.has_presences() { kind } else { Kind::Block };
        let ask = self.asks.entry(cid).or_default();
        ask.desired = Some(kind);
        if again {
            ask.told = None;
        }
        if ask.told != ask.desired {
            self.queue(cid);
        }
    }

    /// Wants the peer to know that `cid` is not wanted any more.
    pub(super) fn cancel(&mut self, cid: &Cid) {
        if let Some(ask) = self.asks.get_mut(cid) {
            if ask.told.is_none() {
                // It never heard of it. One whose streams cannot be opened hears of nothing for days.
                self.asks.remove(cid);
            } else {
                ask.desired = None;
                self.queue(*cid);
            }
        }
    }

    /// The peer has sent the block: neither side has anything to say about it any more.
    pub(super) fn settle(&mut self, cid: &Cid) {
        self.asks.remove(cid);
    }

    /// The peer has said HAVE, and with that forgets that it was asked; false if it was asked for more.
    pub(super) fn has_answered(&mut self, cid: &Cid) -> bool {
        let answered = self.asks.get(cid).is_some_and(|ask| ask.told == Some(Kind::Have));
        if answered {
            self.settle(cid);
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
        // What was settled or taken back before it was said is skipped, and must not pile up until then.
        if self.changed.len() > 2 * self.asks.len() + CHANGES_SLACK {
            let mut seen = HashSet::new();
            self.changed.retain(|cid| self.asks.contains_key(cid) && seen.insert(*cid));
        }
        self.writer.notify_one();
    }

    /// Whether it ever sent a block that was wanted.
    pub(super) fn has_delivered(&self) -> bool {
        self.last_delivery.is_some()
    }

    /// Whether there is something to tell the peer.
    pub(super) fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// How much is kept to be told.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.changed.len().max(self.asks.len())
    }

    /// What to tell the peer next, at most `limit` entries, and whether they replace all it knew.
    pub(super) fn take_changes(&mut self, limit: usize) -> (Vec<Entry>, bool) {
        let mut entries = Vec::with_capacity(limit.min(self.changed.len()));
        while entries.len() < limit
            && let Some(cid) = self.changed.pop_front()
        {
            let Some(ask) = self.asks.get_mut(&cid) else { continue };
            ask.queued = false;
            let differs = ask.desired != ask.told;
            ask.told = ask.desired;
            if let Some(kind) = ask.desired {
                if differs {
                    entries.push(entry(&cid, Some(kind), self.dialect));
                }
            } else {
                self.asks.remove(&cid);
                if differs {
                    entries.push(entry(&cid, None, self.dialect));
                }
            }
        }
        (entries, std::mem::take(&mut self.resend_all))
    }

    /// A message may have been lost: the next one tells everything anew.
    pub(super) fn resend_all(&mut self) {
        self.resend_all = true;
        self.changed.clear();
        self.asks.retain(|_, ask| ask.desired.is_some());
        for (cid, ask) in &mut self.asks {
            ask.told = None;
            ask.queued = true;
            self.changed.push_back(*cid);
        }
        self.writer.notify_one();
    }

    /// The CIDs that the peer knows or will know of.
    pub(super) fn asked(&self) -> impl Iterator<Item = &Cid> {
        self.asks.iter().filter(|(_, ask)| ask.desired.is_some()).map(|(cid, _)| cid)
    }

    /// Whether it may be asked for one more block.
    pub(super) fn has_room(&self) -> bool {
        self.in_flight < self.window
    }

    /// How many seconds one more block would take; an unknown peer counts as a quick one.
    pub(super) fn seconds_to_deliver(&self) -> f64 {
        (self.in_flight + 1) as f64 / self.rate.unwrap_or(RATE_HOPED).max(0.1)
    }

    /// It delivered a block that was wanted; `asked_at` is when it was asked for it.
    pub(super) fn delivered(&mut self, bytes: usize, asked_at: Option<Instant>, now: Instant) {
        if self.in_flight + self.window / 4 >= self.window {
            self.window = (self.window + 1).min(self.window_cap());
        }
        if let Some(latency) = asked_at.map(|at| now.saturating_duration_since(at)) {
            self.latency = Some(self.latency.map_or(latency, |known| (known * 7 + latency) / 8));
            // What is under way, divided by how long it is under way (Little's law): idling costs nothing.
            let rate = self.in_flight.max(1) as f64 / latency.as_secs_f64().max(0.001);
            self.rate = Some(self.rate.map_or(rate, |known| known + (rate - known) / 16.0));
        }
        self.last_delivery = Some(now);
        self.impatience = 0;
        self.annoyance = self.annoyance.saturating_sub(bytes / 2 + ANNOYANCE_BLOCK / 16);
    }

    fn window_cap(&self) -> usize {
        match self.rate {
            Some(rate) => ((rate * WINDOW_SECONDS) as usize).clamp(WINDOW_SLOW, WINDOW_MAX),
            None => WINDOW_MAX,
        }
    }

    /// It sent a block that nobody wants; `known` if it was wanted a short while ago. True once it is
    /// too much.
    pub(super) fn annoyed(&mut self, bytes: usize, known: bool) -> bool {
        self.annoyance += if known { bytes / 4 } else { bytes + ANNOYANCE_BLOCK };
        self.annoyance > ANNOYANCE_MAX
    }

    /// Now and then: a peer that is left idle is thought better of, so that it is tried again.
    pub(super) fn tick(&mut self) {
        if self.in_flight > 0 {
            self.window = self.window.min(self.window_cap());
        } else if let Some(rate) = &mut self.rate {
            *rate = (*rate * 1.25).clamp(1.0, RATE_HOPED);
        }
    }

    /// Whether a block that it was asked for at `since` should be asked of another.
    pub(super) fn is_late(&self, since: Instant, now: Instant) -> bool {
        let patience = self.patience();
        let last_sign = self.last_delivery.map_or(since, |at| at.max(since));
        // Silence of the whole peer, or one want that was passed over again and again.
        now.saturating_duration_since(last_sign) > patience
            || now.saturating_duration_since(since) > patience * 5
    }

    fn patience(&self) -> Duration {
        let start = self.latency.map_or(PATIENCE_START, |latency| latency * 6);
        (start.clamp(PATIENCE_MIN, PATIENCE_MAX) * 2u32.saturating_pow(self.impatience)).min(PATIENCE_MAX)
    }

    /// It let a want go stale: it is asked for less, and given more time.
    pub(super) fn was_late(&mut self) {
        self.window = (self.window / 2).max(1);
        self.rate = Some(self.rate.map_or(1.0, |rate| rate / 2.0));
        self.impatience = (self.impatience + 1).min(8);
    }
}

fn entry(cid: &Cid, kind: Option<Kind>, dialect: Dialect) -> Entry {
    let presences = dialect.has_presences();
    Entry {
        cid: cid.to_bytes().into(),
        priority: 1,
        cancel: kind.is_none(),
        want_type: if kind == Some(Kind::Have) { WANT_HAVE } else { WANT_BLOCK },
        send_dont_have: kind.is_some() && presences,
    }
}
