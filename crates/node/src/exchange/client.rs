//! The client side of bitswap as a state machine: sessions, wants, and which peer is asked for which block.
//!
//! It does no I/O and reads no clock. A want is first *queued*. If a peer of its session (one that sent HAVE or a block)
//! has room in its window, the block is *requested* from that peer alone, so that few blocks are received twice. If no peer
//! that may have it is left, all peers are asked whether they have it (*broadcast*). A peer that answers DONT_HAVE is not
//! asked again until the next broadcast of the want. A peer that is late is skipped. `tick` detects lateness: single wants
//! have no timers.

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
use super::wire::{Entry, ProtocolVersion};
use crate::Block;

mod peer;
mod schedule;
#[cfg(test)]
mod tests;

/// Identifies one connection epoch of a peer: a peer that reconnects gets a new key and starts without history.
pub(super) type PeerKey = u64;
/// Identifies a session.
pub(super) type SessionKey = u64;

/// The most peers from which a session requests blocks without a broadcast.
const SESSION_PEERS_MAX: usize = 64;
/// Recently wanted CIDs that are remembered (at most twice as many).
const RECENT_MAX: usize = 16 * 1024;

/// A block as a peer sent it.
#[derive(Debug)]
pub(super) enum ReceivedBlock {
    /// Its bytes match its CID.
    Block(Block),
    /// It exceeds the maximum size; its CID and size.
    TooLarge(Cid, usize),
    /// It cannot be hashed; its size.
    Invalid(usize),
}

/// The consequences of a received message.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// Inboxes that are full. Nothing more is read from this peer until they have room.
    pub(super) full: Vec<Arc<Inbox>>,
    /// Whether the peer should be banned.
    pub(super) ban: bool,
}

/// The state of a want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the queues of its sessions.
    Queued,
    /// Requested from one peer.
    Requested { peer: PeerKey, since: Instant },
    /// All peers are asked whether they have it; repeated at `again_at`, and then after `pause`.
    Broadcast { again_at: Instant, pause: Duration },
}

#[derive(Debug)]
struct Want {
    sessions: Vec<SessionKey>,
    state: State,
    /// Peers that have the want in their wantlist.
    notified: Vec<PeerKey>,
    /// Peers that answered DONT_HAVE.
    absent: Vec<PeerKey>,
    /// Peers that were late with it.
    tried: Vec<PeerKey>,
}

impl Want {
    fn new(session: SessionKey) -> Self {
        Self {
            sessions: vec![session],
            state: State::Queued,
            notified: Vec::new(),
            absent: Vec::new(),
            tried: Vec::new(),
        }
    }

    fn may_ask(&self, peer: PeerKey) -> bool {
        !self.absent.contains(&peer) && !self.tried.contains(&peer)
    }

    fn forget(&mut self, peer: PeerKey) {
        for list in [&mut self.notified, &mut self.absent, &mut self.tried] {
            list.retain(|key| *key != peer);
        }
    }
}

#[derive(Debug)]
struct SessionState {
    inbox: Arc<Inbox>,
    peers: Vec<PeerKey>,
    /// Wants in the order in which they were made. Entries whose want is no longer queued are skipped.
    queue: VecDeque<Cid>,
    /// The number of its wants that are being broadcast.
    broadcasts: usize,
}

/// Recently wanted CIDs: a late block of one of them is not held against its sender.
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
        // Session keys start at 1, so 0 stands for none.
        self.new.insert(self.hasher.hash_one(cid), session.unwrap_or(0));
    }

    /// The session that wanted it, even if the session has ended.
    fn session(&self, cid: &Cid) -> Option<SessionKey> {
        let fingerprint = self.hasher.hash_one(cid);
        self.new.get(&fingerprint).or_else(|| self.old.get(&fingerprint)).copied()
    }
}

/// All sessions, wants and peers.
#[derive(Debug)]
pub(super) struct Client {
    peers: HashMap<PeerKey, Peer>,
    wants: HashMap<Cid, Want>,
    sessions: HashMap<SessionKey, SessionState>,
    /// The keys of `sessions` in round-robin order.
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

    /// The number of wanted blocks.
    pub(super) fn wanted(&self) -> usize {
        self.wants.len()
    }

    /// A peer is connected. `writer` is notified when there is something to send to it.
    pub(super) fn connect(&mut self, key: PeerKey, id: PeerId, writer: Arc<Notify>, now: Instant) {
        self.peers.insert(key, Peer::new(id, writer));
        self.send_initial_wants(key);
        self.schedule_all(now);
    }

    /// A peer is disconnected or does not support bitswap: blocks requested from it are requested from others.
    pub(super) fn disconnect(&mut self, key: PeerKey, now: Instant) {
        let Some(peer) = self.peers.remove(&key) else { return };
        for consumer in self.sessions.values_mut() {
            consumer.peers.retain(|other| *other != key);
        }
        for cid in peer.asked() {
            let Some(want) = self.wants.get_mut(cid) else { continue };
            want.forget(key);
            if matches!(want.state, State::Requested { peer, .. } if peer == key) {
                self.requeue(*cid);
            }
        }
        self.schedule_all(now);
    }

    /// The protocol version negotiated with a peer.
    pub(super) fn set_version(&mut self, key: PeerKey, version: ProtocolVersion) {
        if let Some(peer) = self.peers.get_mut(&key)
            && peer.version != version
        {
            peer.version = version;
            // Queued entries must be expressed in the new version.
            let asked: Vec<Cid> = peer.asked().copied().collect();
            for cid in asked {
                peer.ask(cid, Kind::Block, false);
            }
        }
    }

    /// Whether there is something to send to a peer.
    pub(super) fn has_changes(&self, key: PeerKey) -> bool {
        self.peers.get(&key).is_some_and(Peer::has_changes)
    }

    /// The next wantlist entries for a peer, and whether they replace its wantlist.
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
        let consumer = SessionState { inbox, peers: Vec::new(), queue: VecDeque::new(), broadcasts: 0 };
        self.sessions.insert(key, consumer);
        self.turns.push_back(key);
        key
    }

    /// Ends a session, and cancels the wants that no other session has.
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
        self.schedule_all(now);
    }

    /// Ends all sessions.
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
                        State::Requested { .. } => {}
                    }
                }
            }
        }
        self.schedule(session, now);
    }

    /// Processes a message of a peer: blocks, and presences (true for HAVE).
    pub(super) fn received(
        &mut self,
        from: PeerKey,
        blocks: Vec<ReceivedBlock>,
        presences: &[(Cid, bool)],
        now: Instant,
    ) -> Received {
        let mut received = Received::default();
        for received_block in blocks {
            match received_block {
                ReceivedBlock::Block(block) => self.block(from, block, now, &mut received),
                ReceivedBlock::TooLarge(cid, bytes) => self.too_large(from, cid, bytes, &mut received),
                ReceivedBlock::Invalid(bytes) => self.unwanted_block(from, bytes, false, &mut received),
            }
            if received.ban {
                // Processing each further block would cost a pass over all wants sent to the peer.
                return received;
            }
        }
        for (cid, has) in presences {
            if *has { self.have(from, *cid, now) } else { self.dont_have(from, cid) }
        }
        self.schedule_all(now);
        received
    }

    fn block(&mut self, from: PeerKey, block: Block, now: Instant, received: &mut Received) {
        let Some(peer) = self.peers.get(&from) else { return };
        let id = peer.id;
        let bytes = block.data().len();
        let Some(block) = self.as_wanted(block) else {
            return self.unwanted_block(from, bytes, false, received);
        };
        let cid = *block.cid();
        let Some(want) = self.finish(&cid, Some((from, bytes, now))) else {
            let known = self.recent.session(&cid).is_some();
            return self.unwanted_block(from, bytes, known, received);
        };
        Counters::add(&self.counters.blocks_received, 1);
        Counters::add(&self.counters.bytes_received, bytes as u64);
        for session in want.sessions {
            let Some(consumer) = self.sessions.get(&session) else { continue };
            if consumer.inbox.push(Delivery::Block { block: block.clone(), peer: id }) {
                received.full.push(consumer.inbox.clone());
            }
            self.add_session_peer(session, from);
        }
    }

    /// The block under the CID by which it is wanted: version 1.0.0 sends only CIDv0.
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
        let Some(want) = self.finish(&cid, None) else {
            return self.unwanted_block(from, bytes, false, received);
        };
        for session in want.sessions {
            if let Some(consumer) = self.sessions.get(&session) {
                consumer.inbox.push(Delivery::TooLarge { cid, bytes });
            }
        }
    }

    /// A block arrived that is not (or no longer) wanted.
    fn unwanted_block(&mut self, from: PeerKey, bytes: usize, known: bool, received: &mut Received) {
        let counter = if known { &self.counters.duplicates } else { &self.counters.unwanted };
        Counters::add(counter, 1);
        let Some(peer) = self.peers.get_mut(&from) else { return };
        received.ban |= peer.penalize(bytes, known);
        if !known {
            // It is most likely a wrong answer: the wants go to other peers.
            self.skip_peer(from);
        }
    }

    fn have(&mut self, from: PeerKey, cid: Cid, now: Instant) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let is_forgotten = peer.has_answered(&cid);
        let Some(want) = self.wants.get_mut(&cid) else {
            // Too late for this block, but the peer probably has the next ones.
            if let Some(session) = self.recent.session(&cid) {
                self.add_session_peer(session, from);
            }
            return;
        };
        if is_forgotten {
            want.notified.retain(|key| *key != from);
        }
        want.absent.retain(|key| *key != from);
        want.tried.retain(|key| *key != from);
        let is_requested = matches!(want.state, State::Requested { .. });
        let sessions = want.sessions.clone();
        for session in sessions {
            self.add_session_peer(session, from);
        }
        if !is_requested {
            self.request_or_queue(cid, from, now);
        }
    }

    fn dont_have(&mut self, from: PeerKey, cid: &Cid) {
        let Some(want) = self.wants.get_mut(cid) else { return };
        if !want.notified.contains(&from) {
            return;
        }
        if !want.absent.contains(&from) {
            want.absent.push(from);
        }
        if let State::Requested { peer, .. } = want.state
            && peer == from
        {
            self.requeue(*cid);
        }
    }
}
