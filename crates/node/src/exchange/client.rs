//! The asking side of bitswap as a state machine: sessions, wants, and which peer is asked for what.
//!
//! It does no I/O and reads no clock. A want is first *queued*. If a peer of its session (one that said
//! HAVE or delivered) has room, it is *asked* of that peer alone, so that hardly any block comes twice;
//! if nobody who may have it is left, all peers are asked whether they have it (*broadcast*). A peer
//! that says DONT_HAVE is not asked again until the want is broadcast anew; one that is late is passed
//! over. `tick` finds what is late: there are no timers for single wants.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use cid::{Cid, Version};
use libp2p::PeerId;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::peer::{Kind, Peer};
use super::session::{Delivery, Inbox};
use super::stats::Counters;
use super::wire::{Dialect, Entry};
use crate::Block;

mod peer;
mod schedule;
#[cfg(test)]
mod tests;

/// One connection epoch of a peer: who reconnects gets a new key, and is asked afresh.
pub(super) type PeerKey = u64;
/// A session's number.
pub(super) type SessionKey = u64;

/// The most peers that a session asks for blocks without a broadcast.
const SESSION_PEERS_MAX: usize = 64;
/// The CIDs remembered as wanted until a short while ago (at most twice as many).
const RECENT_MAX: usize = 16 * 1024;

/// What a peer sent as a block.
#[derive(Debug)]
pub(super) enum Arrived {
    /// It hashes to what it says.
    Block(Block),
    /// It is over the largest size, and has this CID.
    TooLarge(Cid, usize),
    /// It cannot be hashed.
    Nonsense(usize),
}

/// What follows from a message.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// Inboxes that are full: read no more from this peer until they have room.
    pub(super) full: Vec<Arc<Inbox>>,
    /// The peer is a nuisance and should be refused.
    pub(super) refuse: bool,
}

/// Where a want stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the queues of its sessions.
    Queued,
    /// One peer is asked to send it.
    Asked { peer: PeerKey, since: Instant },
    /// All peers are asked whether they have it; again at `again_at`, the next time after `pause`.
    Broadcast { again_at: Instant, pause: Duration },
}

#[derive(Debug)]
struct Want {
    sessions: Vec<SessionKey>,
    state: State,
    /// Peers that were told of it and have not answered with the block.
    told: Vec<PeerKey>,
    /// Peers that said DONT_HAVE.
    absent: Vec<PeerKey>,
    /// Peers that were late with it.
    tried: Vec<PeerKey>,
}

impl Want {
    fn new(session: SessionKey) -> Self {
        Self {
            sessions: vec![session],
            state: State::Queued,
            told: Vec::new(),
            absent: Vec::new(),
            tried: Vec::new(),
        }
    }

    fn may_ask(&self, peer: PeerKey) -> bool {
        !self.absent.contains(&peer) && !self.tried.contains(&peer)
    }

    fn forget(&mut self, peer: PeerKey) {
        for list in [&mut self.told, &mut self.absent, &mut self.tried] {
            list.retain(|key| *key != peer);
        }
    }
}

#[derive(Debug)]
struct Consumer {
    inbox: Arc<Inbox>,
    peers: Vec<PeerKey>,
    /// Wants in the order they were made; entries whose want is not queued any more are skipped.
    queue: VecDeque<Cid>,
    /// How many of its wants are broadcast now.
    broadcasts: usize,
}

/// CIDs that were wanted until a short while ago, so that a late block is no offence.
#[derive(Debug, Default)]
struct Recent {
    hasher: RandomState,
    new: HashMap<u64, SessionKey>,
    old: HashMap<u64, SessionKey>,
}

impl Recent {
    fn insert(&mut self, cid: &Cid, session: Option<SessionKey>) {
        if self.new.len() >= RECENT_MAX {
            self.old = std::mem::take(&mut self.new);
        }
        // Sessions count from 1: none has 0.
        self.new.insert(self.hasher.hash_one(cid), session.unwrap_or(0));
    }

    /// The session that wanted it, even if that has ended.
    fn session(&self, cid: &Cid) -> Option<SessionKey> {
        let print = self.hasher.hash_one(cid);
        self.new.get(&print).or_else(|| self.old.get(&print)).copied()
    }
}

/// All sessions, wants and peers.
#[derive(Debug)]
pub(super) struct Client {
    peers: HashMap<PeerKey, Peer>,
    wants: HashMap<Cid, Want>,
    sessions: HashMap<SessionKey, Consumer>,
    /// The keys of `sessions`, in the order in which they take their turn.
    turns: VecDeque<SessionKey>,
    next_session: SessionKey,
    recent: Recent,
    counters: Arc<Counters>,
}

impl Client {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        Self {
            peers: HashMap::new(),
            wants: HashMap::new(),
            sessions: HashMap::new(),
            turns: VecDeque::new(),
            next_session: 0,
            recent: Recent::default(),
            counters,
        }
    }

    /// How many blocks are wanted now.
    pub(super) fn wanted(&self) -> usize {
        self.wants.len()
    }

    /// A peer is connected; `writer` is notified when there is something to tell it.
    pub(super) fn connect(&mut self, key: PeerKey, id: PeerId, writer: Arc<Notify>, now: Instant) {
        self.peers.insert(key, Peer::new(id, writer));
        self.introduce(key);
        self.pump_all(now);
    }

    /// A peer is gone, or turned out not to speak bitswap: its wants go to others.
    pub(super) fn disconnect(&mut self, key: PeerKey, now: Instant) {
        let Some(peer) = self.peers.remove(&key) else { return };
        for consumer in self.sessions.values_mut() {
            consumer.peers.retain(|other| *other != key);
        }
        for cid in peer.asked() {
            let Some(want) = self.wants.get_mut(cid) else { continue };
            want.forget(key);
            if matches!(want.state, State::Asked { peer, .. } if peer == key) {
                self.requeue(*cid);
            }
        }
        self.pump_all(now);
    }

    /// What was negotiated with a peer.
    pub(super) fn set_dialect(&mut self, key: PeerKey, dialect: Dialect) {
        if let Some(peer) = self.peers.get_mut(&key)
            && peer.dialect != dialect
        {
            peer.dialect = dialect;
            // What was queued in other words must be said in these.
            let asked: Vec<Cid> = peer.asked().copied().collect();
            for cid in asked {
                peer.ask(cid, Kind::Block, false);
            }
        }
    }

    /// Whether there is something to tell a peer.
    pub(super) fn has_changes(&self, key: PeerKey) -> bool {
        self.peers.get(&key).is_some_and(Peer::has_changes)
    }

    /// What to tell a peer next, and whether that replaces all it knew.
    pub(super) fn take_changes(&mut self, key: PeerKey, limit: usize) -> (Vec<Entry>, bool) {
        self.peers.get_mut(&key).map(|peer| peer.take_changes(limit)).unwrap_or_default()
    }

    /// A message to a peer may have been lost.
    pub(super) fn resend_all(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.resend_all();
        }
    }

    /// Opens a session.
    pub(super) fn open(&mut self, inbox: Arc<Inbox>) -> SessionKey {
        self.next_session += 1;
        let key = self.next_session;
        let consumer = Consumer { inbox, peers: Vec::new(), queue: VecDeque::new(), broadcasts: 0 };
        self.sessions.insert(key, consumer);
        self.turns.push_back(key);
        key
    }

    /// Ends a session and takes back what only it wants.
    pub(super) fn close(&mut self, session: SessionKey, now: Instant) {
        self.sessions.remove(&session);
        self.turns.retain(|key| *key != session);
        let mut orphans = Vec::new();
        for (cid, want) in &mut self.wants {
            want.sessions.retain(|key| *key != session);
            if want.sessions.is_empty() {
                orphans.push(*cid);
            }
        }
        for cid in orphans {
            self.finish(&cid, None);
        }
        self.pump_all(now);
    }

    /// Ends everything.
    pub(super) fn close_all(&mut self) {
        for consumer in self.sessions.values() {
            consumer.inbox.close();
        }
        self.peers.clear();
        self.wants.clear();
        self.sessions.clear();
        self.turns.clear();
    }

    /// Adds wants to a session.
    pub(super) fn want(&mut self, session: SessionKey, cids: &[Cid], now: Instant) {
        let Some(consumer) = self.sessions.get_mut(&session) else { return };
        for cid in cids {
            match self.wants.get_mut(cid) {
                None => {
                    self.wants.insert(*cid, Want::new(session));
                    consumer.queue.push_back(*cid);
                }
                Some(want) if want.sessions.contains(&session) => {}
                Some(want) => {
                    want.sessions.push(session);
                    match want.state {
                        State::Queued => consumer.queue.push_back(*cid),
                        State::Broadcast { .. } => consumer.broadcasts += 1,
                        State::Asked { .. } => {}
                    }
                }
            }
        }
        self.pump(session, now);
    }

    /// Takes in what a peer sent: blocks, and what it says of others (true: HAVE).
    pub(super) fn received(
        &mut self,
        from: PeerKey,
        blocks: Vec<Arrived>,
        presences: &[(Cid, bool)],
        now: Instant,
    ) -> Received {
        let mut received = Received::default();
        for arrived in blocks {
            match arrived {
                Arrived::Block(block) => self.block(from, block, now, &mut received),
                Arrived::TooLarge(cid, bytes) => self.too_large(from, cid, bytes, &mut received),
                Arrived::Nonsense(bytes) => self.annoyed(from, bytes, false, &mut received),
            }
            if received.refuse {
                // Each block more would cost a look at all that the peer was asked.
                return received;
            }
        }
        for (cid, has) in presences {
            if *has { self.have(from, *cid, now) } else { self.dont_have(from, cid) }
        }
        self.pump_all(now);
        received
    }

    fn block(&mut self, from: PeerKey, block: Block, now: Instant, received: &mut Received) {
        let Some(peer) = self.peers.get(&from) else { return };
        let id = peer.id;
        let bytes = block.data().len();
        let Some(block) = self.as_wanted(block) else { return self.annoyed(from, bytes, false, received) };
        let cid = *block.cid();
        let Some(want) = self.finish(&cid, Some((from, bytes, now))) else {
            let known = self.recent.session(&cid).is_some();
            return self.annoyed(from, bytes, known, received);
        };
        Counters::add(&self.counters.blocks_received, 1);
        Counters::add(&self.counters.bytes_received, bytes as u64);
        for session in want.sessions {
            let Some(consumer) = self.sessions.get(&session) else { continue };
            if consumer.inbox.push(Delivery::Block { block: block.clone(), peer: id }) {
                received.full.push(consumer.inbox.clone());
            }
            self.befriend(session, from);
        }
    }

    /// The block under the CID by which it is wanted: 1.0.0 can only send CIDv0.
    fn as_wanted(&self, block: Block) -> Option<Block> {
        if block.cid().version() != Version::V0 || self.wants.contains_key(block.cid()) {
            return Some(block);
        }
        let wanted = [0x70, 0x55]
            .into_iter()
            .map(|codec| Cid::new_v1(codec, *block.cid().hash()))
            .find(|cid| self.wants.contains_key(cid));
        match wanted {
            Some(cid) => Block::verify(cid, block.into_parts().1).ok(),
            None => Some(block),
        }
    }

    fn too_large(&mut self, from: PeerKey, cid: Cid, bytes: usize, received: &mut Received) {
        let Some(want) = self.finish(&cid, None) else { return self.annoyed(from, bytes, false, received) };
        for session in want.sessions {
            if let Some(consumer) = self.sessions.get(&session) {
                consumer.inbox.push(Delivery::TooLarge { cid, bytes });
            }
        }
    }

    /// A block came that nobody wants (any more).
    fn annoyed(&mut self, from: PeerKey, bytes: usize, known: bool, received: &mut Received) {
        let counter = if known { &self.counters.duplicates } else { &self.counters.unwanted };
        Counters::add(counter, 1);
        let Some(peer) = self.peers.get_mut(&from) else { return };
        received.refuse |= peer.annoyed(bytes, known);
        if !known {
            // It is most likely a wrong answer: others shall give the right one.
            self.pass_over(from);
        }
    }

    fn have(&mut self, from: PeerKey, cid: Cid, now: Instant) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let has_forgotten = peer.has_answered(&cid);
        let Some(want) = self.wants.get_mut(&cid) else {
            // Too late for this block, but it is likely to have the next ones.
            if let Some(session) = self.recent.session(&cid) {
                self.befriend(session, from);
            }
            return;
        };
        if has_forgotten {
            want.told.retain(|key| *key != from);
        }
        want.absent.retain(|key| *key != from);
        want.tried.retain(|key| *key != from);
        let asked = matches!(want.state, State::Asked { .. });
        let sessions = want.sessions.clone();
        for session in sessions {
            self.befriend(session, from);
        }
        if !asked {
            self.ask_or_queue(cid, from, now);
        }
    }

    fn dont_have(&mut self, from: PeerKey, cid: &Cid) {
        let Some(want) = self.wants.get_mut(cid) else { return };
        if !want.told.contains(&from) {
            return;
        }
        if !want.absent.contains(&from) {
            want.absent.push(from);
        }
        if let State::Asked { peer, .. } = want.state
            && peer == from
        {
            self.requeue(*cid);
        }
    }
}
