//! Scheduling: which peer is asked for which want, and when.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use cid::Cid;
use tokio::time::Instant;

use super::peer::{Kind, Peer};
use super::{Client, PeerKey, SESSION_PEERS_MAX, SessionKey, SessionState, State, Want};

/// Wants of one session that may be broadcast at the same time.
const BROADCASTS_MAX: usize = 32;
/// The pause before a broadcast is repeated. It doubles each time.
const BROADCAST_PAUSE: Duration = Duration::from_secs(10);
const BROADCAST_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Requested wants of which a new peer is asked whether it has the block.
const INITIAL_WANTS_MAX: usize = 4;

/// How far into a queue to look for a want that a peer with room in its window may have.
const LOOK_AHEAD: usize = 64;

/// The peer to ask for a want.
enum Choice {
    Request(PeerKey),
    /// Some peer, but none has room now.
    Later,
    None,
}

/// Updates the sessions' count of broadcasts when a want leaves the broadcast state.
fn leave_broadcast(sessions: &mut HashMap<SessionKey, SessionState>, want: &Want) {
    if matches!(want.state, State::Broadcast { .. }) {
        for session in &want.sessions {
            if let Some(consumer) = sessions.get_mut(session) {
                consumer.broadcasts = consumer.broadcasts.saturating_sub(1);
            }
        }
    }
}

impl Client {
    /// Removes a want, because a peer delivered it (with the size of the block) or because it was cancelled. All other peers
    /// that have it in their wantlist get a cancel.
    pub(super) fn finish(&mut self, cid: &Cid, by: Option<(PeerKey, usize, Instant)>) -> Option<Want> {
        let want = self.wants.remove(cid)?;
        leave_broadcast(&mut self.sessions, &want);
        if let Some((key, bytes, now)) = by
            && let Some(peer) = self.peers.get_mut(&key)
        {
            let asked_at = match want.state {
                State::Requested { peer, since } if peer == key => Some(since),
                State::Requested { .. } | State::Queued | State::Broadcast { .. } => None,
            };
            peer.delivered(bytes, asked_at, now);
            peer.block_received(cid);
        }
        if let State::Requested { peer, .. } = want.state
            && let Some(peer) = self.peers.get_mut(&peer)
        {
            peer.in_flight = peer.in_flight.saturating_sub(1);
        }
        for key in &want.notified {
            if by.is_none_or(|(by, ..)| by != *key)
                && let Some(peer) = self.peers.get_mut(key)
            {
                peer.cancel(cid);
            }
        }
        self.recent.insert(cid, want.sessions.first().copied());
        Some(want)
    }

    /// Puts a want back to the front of its sessions' queues.
    pub(super) fn requeue(&mut self, cid: Cid) {
        let Some(want) = self.wants.get_mut(&cid) else { return };
        match want.state {
            State::Queued => return,
            State::Requested { peer, .. } => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.in_flight = peer.in_flight.saturating_sub(1);
                }
            }
            State::Broadcast { .. } => leave_broadcast(&mut self.sessions, want),
        }
        want.state = State::Queued;
        let sessions = want.sessions.clone();
        let wants = &self.wants;
        for session in sessions {
            let Some(consumer) = self.sessions.get_mut(&session) else { continue };
            consumer.queue.push_front(cid);
            // Obsolete entries are skipped when their turn comes, but a peer that alternates HAVE and DONT_HAVE adds them
            // faster than that.
            if consumer.queue.len() > 2 * wants.len() + LOOK_AHEAD {
                let is_queued = |cid: &Cid| wants.get(cid).is_some_and(|want| want.state == State::Queued);
                let mut seen = HashSet::new();
                consumer.queue.retain(|cid| is_queued(cid) && seen.insert(*cid));
            }
        }
    }

    /// Requests a block from a peer that has it, or queues the want for the next peer with room.
    pub(super) fn request_or_queue(&mut self, cid: Cid, key: PeerKey, now: Instant) {
        if self.peers.get(&key).is_some_and(Peer::has_room) {
            self.request(cid, key, now);
        } else {
            self.requeue(cid);
        }
    }

    fn request(&mut self, cid: Cid, key: PeerKey, now: Instant) {
        let (Some(want), Some(peer)) = (self.wants.get_mut(&cid), self.peers.get_mut(&key)) else { return };
        leave_broadcast(&mut self.sessions, want);
        want.state = State::Requested { peer: key, since: now };
        peer.in_flight += 1;
        peer.ask(cid, Kind::Block, true);
        if !want.notified.contains(&key) {
            want.notified.push(key);
        }
    }

    /// Adds a peer to those that a session asks first. Broadcast wants are queued again for it.
    pub(super) fn add_session_peer(&mut self, session: SessionKey, key: PeerKey) {
        let Some(consumer) = self.sessions.get_mut(&session) else { return };
        if consumer.peers.contains(&key) {
            return;
        }
        if consumer.peers.len() >= SESSION_PEERS_MAX {
            // HAVE is cheap to send: a peer that delivers replaces one that never did.
            let delivers = |key: &PeerKey| self.peers.get(key).is_some_and(Peer::has_delivered);
            let idle = consumer.peers.iter().position(|other| !delivers(other));
            let Some(idle) = idle.filter(|_| delivers(&key)) else { return };
            consumer.peers.swap_remove(idle);
        }
        consumer.peers.push(key);
        if consumer.broadcasts == 0 {
            return;
        }
        let waiting: Vec<Cid> = self
            .wants
            .iter()
            .filter(|(_, want)| matches!(want.state, State::Broadcast { .. }) && want.may_ask(key))
            .filter(|(_, want)| want.sessions.contains(&session))
            .map(|(cid, _)| *cid)
            .collect();
        for cid in waiting {
            self.requeue(cid);
        }
    }

    /// Asks a new peer for all broadcast wants, and for a few requested ones to find out whether it has such blocks.
    pub(super) fn send_initial_wants(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let mut remaining = INITIAL_WANTS_MAX;
        for (cid, want) in &mut self.wants {
            match want.state {
                State::Broadcast { .. } => {}
                State::Requested { .. } if remaining > 0 => remaining -= 1,
                State::Requested { .. } | State::Queued => continue,
            }
            peer.ask(*cid, Kind::Have, false);
            want.notified.push(key);
        }
    }

    /// Schedules the wants of all sessions, starting with another session each time.
    pub(super) fn schedule_all(&mut self, now: Instant) {
        for _ in 0..self.turns.len() {
            let Some(session) = self.turns.pop_front() else { return };
            self.turns.push_back(session);
            self.schedule(session, now);
        }
        if let Some(first) = self.turns.pop_front() {
            self.turns.push_back(first);
        }
    }

    /// Requests the queued wants of a session, as far as there is room.
    pub(super) fn schedule(&mut self, session: SessionKey, now: Instant) {
        let queued = self.sessions.get(&session).map_or(0, |consumer| consumer.queue.len());
        let mut later = Vec::new();
        for _ in 0..queued {
            let Some(consumer) = self.sessions.get_mut(&session) else { return };
            let Some(cid) = consumer.queue.pop_front() else { break };
            let broadcasts = consumer.broadcasts;
            let Some(want) = self.wants.get(&cid) else { continue };
            if want.state != State::Queued || !want.sessions.contains(&session) {
                continue;
            }
            match self.choose(session, want) {
                Choice::Request(key) => self.request(cid, key, now),
                Choice::None if broadcasts < BROADCASTS_MAX => {
                    self.broadcast(cid, BROADCAST_PAUSE, false, now);
                }
                Choice::None | Choice::Later => {
                    later.push(cid);
                    if later.len() >= LOOK_AHEAD || !self.has_room(session) {
                        break;
                    }
                }
            }
        }
        if let Some(consumer) = self.sessions.get_mut(&session) {
            for cid in later.into_iter().rev() {
                consumer.queue.push_front(cid);
            }
        }
    }

    /// Whether any peer of the session has room.
    fn has_room(&self, session: SessionKey) -> bool {
        let Some(consumer) = self.sessions.get(&session) else { return false };
        consumer.peers.iter().any(|key| self.peers.get(key).is_some_and(Peer::has_room))
    }

    /// The peer of the session with the shortest expected time to deliver.
    fn choose(&self, session: SessionKey, want: &Want) -> Choice {
        let Some(consumer) = self.sessions.get(&session) else { return Choice::None };
        if consumer.peers.is_empty()
            && self.peers.len() == 1
            && let Some((only, peer)) = self.peers.iter().next()
            && want.may_ask(*only)
        {
            // With only one peer, a want-have would cost a round trip without any choice.
            return if peer.has_room() { Choice::Request(*only) } else { Choice::Later };
        }
        let mut choice = Choice::None;
        let mut best = f64::INFINITY;
        for key in consumer.peers.iter().filter(|key| want.may_ask(**key)) {
            let Some(peer) = self.peers.get(key) else { continue };
            if !peer.has_room() {
                if matches!(choice, Choice::None) {
                    choice = Choice::Later;
                }
            } else if peer.seconds_to_deliver() < best {
                best = peer.seconds_to_deliver();
                choice = Choice::Request(*key);
            }
        }
        choice
    }

    /// Asks all peers whether they have the block.
    fn broadcast(&mut self, cid: Cid, pause: Duration, again: bool, now: Instant) {
        let Some(want) = self.wants.get_mut(&cid) else { return };
        let was_broadcast = matches!(want.state, State::Broadcast { .. });
        want.state = State::Broadcast { again_at: now + pause, pause: (pause * 2).min(BROADCAST_PAUSE_MAX) };
        if !was_broadcast {
            for session in &want.sessions {
                if let Some(consumer) = self.sessions.get_mut(session) {
                    consumer.broadcasts += 1;
                }
            }
        }
        for (key, peer) in &mut self.peers {
            if want.absent.contains(key) {
                continue;
            }
            peer.ask(cid, Kind::Have, again);
            if !want.notified.contains(key) {
                want.notified.push(*key);
            }
        }
    }

    /// A peer sent a wrong answer: all blocks requested from it are requested from others.
    pub(super) fn skip_peer(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get(&key) else { return };
        let asked: Vec<Cid> = peer.asked().copied().collect();
        for cid in asked {
            self.skip_peer_for(&cid, key);
        }
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.was_late();
        }
    }

    fn skip_peer_for(&mut self, cid: &Cid, key: PeerKey) {
        let Some(want) = self.wants.get_mut(cid) else { return };
        if !matches!(want.state, State::Requested { peer, .. } if peer == key) {
            return;
        }
        want.tried.push(key);
        want.notified.retain(|other| *other != key);
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.cancel(cid);
        }
        self.requeue(*cid);
    }

    /// Skips peers that are late, and repeats broadcasts. Called about twice a second.
    pub(in crate::exchange) fn tick(&mut self, now: Instant) {
        for peer in self.peers.values_mut() {
            peer.tick();
        }
        let mut late = Vec::new();
        let mut again = Vec::new();
        for (cid, want) in &self.wants {
            match want.state {
                State::Requested { peer, since } => {
                    if self.peers.get(&peer).is_none_or(|peer| peer.is_late(since, now)) {
                        late.push((*cid, peer));
                    }
                }
                State::Broadcast { again_at, pause } if again_at <= now => again.push((*cid, pause)),
                State::Broadcast { .. } | State::Queued => {}
            }
        }
        let mut late_peers: Vec<PeerKey> = late.iter().map(|(_, key)| *key).collect();
        late_peers.sort_unstable();
        late_peers.dedup();
        for (cid, key) in late {
            self.skip_peer_for(&cid, key);
        }
        for key in late_peers {
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.was_late();
            }
        }
        for (cid, pause) in again {
            if let Some(want) = self.wants.get_mut(&cid) {
                want.absent.clear();
                want.tried.clear();
            }
            self.broadcast(cid, pause, true, now);
        }
        self.schedule_all(now);
    }
}
