//! The server side of bitswap: the wants of peers, and what to send to them next.
//!
//! Every peer has a ledger of at most [`ServerLimits::peer_wants_max`] wants. A want is *queued* until it is answered. A
//! want for a block that is not stored then *waits* until the block is stored, the want is cancelled, or it is evicted.
//! Ledgers are in memory only and end with the connection.
//!
//! Peers are served fairly: each may have one message being assembled, and the messages share a budget of bytes that is
//! assigned in order of arrival.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use cid::Cid;
use tokio::sync::Notify;

use super::client::PeerKey;
use super::lock;
use super::wire::{DONT_HAVE, HAVE, Outgoing, Presence, ProtocolVersion, WANT_HAVE, Wantlist};
use crate::{Block, Blocks};

#[cfg(test)]
mod tests;

/// A want-have is answered with the block itself up to this size: that costs no more than HAVE.
const SMALL_BLOCK: u64 = 1024;
/// DONT_HAVEs queued for a peer because its ledger was full. Beyond that, wants are dropped silently.
const REFUSALS_MAX: usize = 1024;
/// The maximum number of HAVEs and DONT_HAVEs in one message.
const PRESENCES_MAX: usize = 8 * 1024;
/// Wants taken from a ledger at a time while a message is assembled.
const TAKE: usize = 64;

/// Limits on the wants of peers.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServerLimits {
    /// Wants stored for one peer.
    pub(super) peer_wants_max: usize,
    /// Wants stored for all peers together.
    pub(super) wants_max: usize,
}

/// One want of a peer.
#[derive(Debug, Clone, Copy)]
struct PeerWant {
    cid: Cid,
    rank: Rank,
    have_only: bool,
    send_dont_have: bool,
}

/// Higher priority first, then in order of arrival.
type Rank = (Reverse<i32>, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Queued,
    Waiting,
}

#[derive(Debug)]
struct Ledger {
    writer: Arc<Notify>,
    wants: HashMap<Cid, (PeerWant, Place)>,
    queue: BTreeMap<Rank, Cid>,
    /// Wants for blocks that are not stored, the oldest first.
    waiting: BTreeMap<u64, Cid>,
    refusals: VecDeque<Cid>,
}

#[derive(Debug, Default)]
struct State {
    ledgers: HashMap<PeerKey, Ledger>,
    /// The peers that wait for a block that is not stored.
    waiting: HashMap<Cid, Vec<PeerKey>>,
    wants: usize,
    next_rank: u64,
}

/// All ledgers, and the store from which they are served.
pub(super) struct Server {
    blocks: Arc<dyn Blocks>,
    limits: ServerLimits,
    state: Mutex<State>,
}

impl Server {
    pub(super) fn new(blocks: Arc<dyn Blocks>, limits: ServerLimits) -> Self {
        Self { blocks, limits, state: Mutex::default() }
    }

    /// A peer is connected. `writer` is notified when there is something to send.
    pub(super) fn connect(&self, key: PeerKey, writer: Arc<Notify>) {
        let ledger = Ledger {
            writer,
            wants: HashMap::new(),
            queue: BTreeMap::new(),
            waiting: BTreeMap::new(),
            refusals: VecDeque::new(),
        };
        lock(&self.state).ledgers.insert(key, ledger);
    }

    /// A peer is disconnected.
    pub(super) fn disconnect(&self, key: PeerKey) {
        let mut state = lock(&self.state);
        state.clear(key);
        state.ledgers.remove(&key);
    }

    /// Applies the wantlist of a peer.
    pub(super) fn received(&self, key: PeerKey, wantlist: Wantlist) {
        let mut state = lock(&self.state);
        if wantlist.full {
            state.clear(key);
        }
        for entry in wantlist.entries {
            let Ok(cid) = Cid::try_from(entry.cid.as_ref()) else { continue };
            if entry.cancel {
                state.remove(key, &cid);
                continue;
            }
            let rank = (Reverse(entry.priority), state.next_rank);
            state.next_rank += 1;
            let have_only = entry.want_type == WANT_HAVE;
            let wanted = PeerWant { cid, rank, have_only, send_dont_have: entry.send_dont_have };
            state.add(key, wanted, self.limits);
        }
        if let Some(ledger) = state.ledgers.get(&key)
            && ledger.has_work()
        {
            ledger.writer.notify_one();
        }
    }

    /// Whether there is something to send to a peer.
    pub(super) fn has_work(&self, key: PeerKey) -> bool {
        lock(&self.state).ledgers.get(&key).is_some_and(Ledger::has_work)
    }

    /// These blocks are stored now: queues the wants of peers that wait for them.
    pub(super) fn notify_stored(&self, cids: &[Cid]) {
        let mut state = lock(&self.state);
        if state.waiting.is_empty() {
            return;
        }
        for cid in cids {
            for key in state.waiting.remove(cid).unwrap_or_default() {
                let Some(ledger) = state.ledgers.get_mut(&key) else { continue };
                let Some((wanted, place)) = ledger.wants.get_mut(cid) else { continue };
                *place = Place::Queued;
                ledger.waiting.remove(&wanted.rank.1);
                ledger.queue.insert(wanted.rank, *cid);
                ledger.writer.notify_one();
            }
        }
    }

    /// Adds answers for a peer to a message until it has `bytes_target` bytes of blocks. Reads the disk.
    pub(super) fn answer(
        &self,
        key: PeerKey,
        version: ProtocolVersion,
        bytes_target: usize,
        out: &mut Outgoing,
    ) {
        let mut bytes = 0usize;
        let mut absent = Vec::new();
        self.take_refusals(key, version, out);
        while out.presences.len() < PRESENCES_MAX {
            let taken = self.take(key);
            if taken.is_empty() {
                break;
            }
            for (at, wanted) in taken.iter().enumerate() {
                let size = self.size(&wanted.cid);
                let Some(size) = size else {
                    if wanted.send_dont_have {
                        push_presence(out, version, &wanted.cid, DONT_HAVE);
                    }
                    absent.push(*wanted);
                    continue;
                };
                if wanted.have_only && size > SMALL_BLOCK {
                    push_presence(out, version, &wanted.cid, HAVE);
                    continue;
                }
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                if bytes > 0 && bytes.saturating_add(size) > bytes_target {
                    self.put_back(key, &taken[at..]);
                    return self.wait_for(key, &absent);
                }
                match self.read(&wanted.cid) {
                    Some(block) => {
                        bytes += block.data().len();
                        out.blocks.push(block);
                    }
                    None if wanted.send_dont_have => push_presence(out, version, &wanted.cid, DONT_HAVE),
                    None => {}
                }
            }
        }
        self.wait_for(key, &absent);
    }

    fn size(&self, cid: &Cid) -> Option<u64> {
        self.blocks.size(cid).unwrap_or_else(|error| {
            tracing::debug!(%cid, %error, "failed to look up a wanted block");
            None
        })
    }

    fn read(&self, cid: &Cid) -> Option<Block> {
        self.blocks.get(cid).unwrap_or_else(|error| {
            tracing::warn!(%cid, %error, "failed to read a wanted block");
            None
        })
    }

    fn take_refusals(&self, key: PeerKey, version: ProtocolVersion, out: &mut Outgoing) {
        let mut state = lock(&self.state);
        if let Some(ledger) = state.ledgers.get_mut(&key) {
            for cid in ledger.refusals.drain(..) {
                push_presence(out, version, &cid, DONT_HAVE);
            }
        }
    }

    fn take(&self, key: PeerKey) -> Vec<PeerWant> {
        let mut state = lock(&self.state);
        let Some(ledger) = state.ledgers.get_mut(&key) else { return Vec::new() };
        let mut taken = Vec::with_capacity(TAKE.min(ledger.queue.len()));
        while taken.len() < TAKE
            && let Some((_, cid)) = ledger.queue.pop_first()
        {
            taken.extend(ledger.wants.remove(&cid).map(|(wanted, _)| wanted));
        }
        state.wants = state.wants.saturating_sub(taken.len());
        taken
    }

    fn put_back(&self, key: PeerKey, wanted: &[PeerWant]) {
        let mut state = lock(&self.state);
        for wanted in wanted {
            state.insert(key, *wanted, Place::Queued);
        }
    }

    /// Stores wants for blocks that are not stored. A block that was stored while its want was in no ledger is found by a
    /// second lookup.
    fn wait_for(&self, key: PeerKey, absent: &[PeerWant]) {
        if absent.is_empty() {
            return;
        }
        {
            let mut state = lock(&self.state);
            for wanted in absent {
                if state.has_room(key, self.limits) {
                    state.insert(key, *wanted, Place::Waiting);
                }
            }
        }
        let stored: Vec<Cid> =
            absent.iter().map(|wanted| wanted.cid).filter(|cid| self.size(cid).is_some()).collect();
        self.notify_stored(&stored);
    }
}

fn push_presence(out: &mut Outgoing, version: ProtocolVersion, cid: &Cid, kind: i32) {
    if version.has_presences() {
        out.presences.push(Presence { cid: cid.to_bytes().into(), kind });
    }
}

impl Ledger {
    fn has_work(&self) -> bool {
        !self.queue.is_empty() || !self.refusals.is_empty()
    }
}

impl State {
    fn has_room(&self, key: PeerKey, limits: ServerLimits) -> bool {
        self.wants < limits.wants_max
            && self.ledgers.get(&key).is_some_and(|ledger| ledger.wants.len() < limits.peer_wants_max)
    }

    /// Adds a want of a peer. If there is no room, evicts the oldest waiting want, or refuses the new one.
    fn add(&mut self, key: PeerKey, wanted: PeerWant, limits: ServerLimits) {
        self.remove(key, &wanted.cid);
        if !self.has_room(key, limits) {
            match self.evictable(key, limits) {
                Some((holder, cid)) => self.remove(holder, &cid),
                None => return self.refuse(key, wanted),
            }
        }
        self.insert(key, wanted, Place::Queued);
    }

    /// The oldest waiting want of the peer. If the limit for all peers is reached, the one of the peer with the most waiting
    /// wants: otherwise a few peers that want unavailable blocks could lock out all others.
    fn evictable(&self, key: PeerKey, limits: ServerLimits) -> Option<(PeerKey, Cid)> {
        let own = self.ledgers.get(&key)?;
        let (holder, ledger) = if own.waiting.is_empty() && own.wants.len() < limits.peer_wants_max {
            self.ledgers.iter().max_by_key(|(_, ledger)| ledger.waiting.len())?
        } else {
            (&key, own)
        };
        ledger.waiting.values().next().map(|cid| (*holder, *cid))
    }

    fn refuse(&mut self, key: PeerKey, wanted: PeerWant) {
        if let Some(ledger) = self.ledgers.get_mut(&key)
            && wanted.send_dont_have
            && ledger.refusals.len() < REFUSALS_MAX
        {
            ledger.refusals.push_back(wanted.cid);
        }
    }

    /// Does nothing if the peer sent a new want for the block in the meantime.
    fn insert(&mut self, key: PeerKey, wanted: PeerWant, place: Place) {
        let Some(ledger) = self.ledgers.get_mut(&key) else { return };
        if ledger.wants.contains_key(&wanted.cid) {
            return;
        }
        ledger.wants.insert(wanted.cid, (wanted, place));
        match place {
            Place::Queued => {
                ledger.queue.insert(wanted.rank, wanted.cid);
            }
            Place::Waiting => {
                ledger.waiting.insert(wanted.rank.1, wanted.cid);
                self.waiting.entry(wanted.cid).or_default().push(key);
            }
        }
        self.wants += 1;
    }

    fn remove(&mut self, key: PeerKey, cid: &Cid) {
        let Some(ledger) = self.ledgers.get_mut(&key) else { return };
        let Some((wanted, place)) = ledger.wants.remove(cid) else { return };
        self.wants = self.wants.saturating_sub(1);
        match place {
            Place::Queued => {
                ledger.queue.remove(&wanted.rank);
            }
            Place::Waiting => {
                ledger.waiting.remove(&wanted.rank.1);
                if let Some(keys) = self.waiting.get_mut(cid) {
                    keys.retain(|other| *other != key);
                    if keys.is_empty() {
                        self.waiting.remove(cid);
                    }
                }
            }
        }
    }

    fn clear(&mut self, key: PeerKey) {
        let Some(ledger) = self.ledgers.get_mut(&key) else { return };
        ledger.refusals.clear();
        let cids: Vec<Cid> = ledger.wants.keys().copied().collect();
        for cid in cids {
            self.remove(key, &cid);
        }
    }
}
