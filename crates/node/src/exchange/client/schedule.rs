//! Which peer is asked for which want, and when.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use cid::Cid;
use tokio::time::Instant;

use super::peer::{Kind, Peer};
use super::{Client, Consumer, PeerKey, SESSION_PEERS_MAX, SessionKey, State, Want};

/// Wants of one session that all peers are asked about at once.
const BROADCASTS_MAX: usize = 32;
/// When a broadcast is repeated for the first time; then after twice as long each time.
const BROADCAST_PAUSE: Duration = Duration::from_secs(10);
const BROADCAST_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Wants of a busy session by which a new peer is asked whether it can help.
const INTRODUCTIONS: usize = 4;

/// How far into a queue to look for a want that a peer with room may have.
const LOOK_AHEAD: usize = 64;

/// Who could be asked for a want.
enum Choice {
    Ask(PeerKey),
    /// Some peer, but not now.
    Later,
    Nobody,
}

/// Keeps the sessions' count of broadcasts right when a want leaves its state.
fn leave_broadcast(sessions: &mut HashMap<SessionKey, Consumer>, want: &Want) {
    if matches!(want.state, State::Broadcast { .. }) {
        for session in &want.sessions {
            if let Some(consumer) = sessions.get_mut(session) {
                consumer.broadcasts = consumer.broadcasts.saturating_sub(1);
            }
        }
    }
}

impl Client {
    /// Removes a want: delivered by a peer (with the block's bytes), or given up. Everyone else who
    /// knows of it is told.
    pub(super) fn finish(&mut self, cid: &Cid, by: Option<(PeerKey, usize, Instant)>) -> Option<Want> {
        let want = self.wants.remove(cid)?;
        leave_broadcast(&mut self.sessions, &want);
        if let Some((key, bytes, now)) = by
            && let Some(peer) = self.peers.get_mut(&key)
        {
            let asked_at = match want.state {
                State::Asked { peer, since } if peer == key => Some(since),
                State::Asked { .. } | State::Queued | State::Broadcast { .. } => None,
            };
            peer.delivered(bytes, asked_at, now);
            peer.settle(cid);
        }
        if let State::Asked { peer, .. } = want.state
            && let Some(peer) = self.peers.get_mut(&peer)
        {
            peer.in_flight = peer.in_flight.saturating_sub(1);
        }
        for key in &want.told {
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
            State::Asked { peer, .. } => {
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
            // Entries that were overtaken are skipped when their turn comes, but a peer that says HAVE and
            // DONT_HAVE in turns makes them faster than that.
            if consumer.queue.len() > 2 * wants.len() + LOOK_AHEAD {
                let is_queued = |cid: &Cid| wants.get(cid).is_some_and(|want| want.state == State::Queued);
                let mut seen = HashSet::new();
                consumer.queue.retain(|cid| is_queued(cid) && seen.insert(*cid));
            }
        }
    }

    /// Asks a peer that says it has the block, or leaves the want for the next peer with room.
    pub(super) fn ask_or_queue(&mut self, cid: Cid, key: PeerKey, now: Instant) {
        if self.peers.get(&key).is_some_and(Peer::has_room) {
            self.ask(cid, key, now);
        } else {
            self.requeue(cid);
        }
    }

    fn ask(&mut self, cid: Cid, key: PeerKey, now: Instant) {
        let (Some(want), Some(peer)) = (self.wants.get_mut(&cid), self.peers.get_mut(&key)) else { return };
        leave_broadcast(&mut self.sessions, want);
        want.state = State::Asked { peer: key, since: now };
        peer.in_flight += 1;
        peer.ask(cid, Kind::Block, true);
        if !want.told.contains(&key) {
            want.told.push(key);
        }
    }

    /// Counts a peer among those that a session asks first. Wants that nobody had get another chance.
    pub(super) fn befriend(&mut self, session: SessionKey, key: PeerKey) {
        let Some(consumer) = self.sessions.get_mut(&session) else { return };
        if consumer.peers.contains(&key) {
            return;
        }
        if consumer.peers.len() >= SESSION_PEERS_MAX {
            // To say HAVE is cheap: who delivers takes the place of one that never did.
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

    /// Tells a new peer of what others don't have, and of a few wants by which it may show itself.
    pub(super) fn introduce(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let mut introductions = INTRODUCTIONS;
        for (cid, want) in &mut self.wants {
            match want.state {
                State::Broadcast { .. } => {}
                State::Asked { .. } if introductions > 0 => introductions -= 1,
                State::Asked { .. } | State::Queued => continue,
            }
            peer.ask(*cid, Kind::Have, false);
            want.told.push(key);
        }
    }

    /// Gives every session its turn, beginning with another one each time.
    pub(super) fn pump_all(&mut self, now: Instant) {
        for _ in 0..self.turns.len() {
            let Some(session) = self.turns.pop_front() else { return };
            self.turns.push_back(session);
            self.pump(session, now);
        }
        if let Some(first) = self.turns.pop_front() {
            self.turns.push_back(first);
        }
    }

    /// Asks for what a session has queued, as far as there is room.
    pub(super) fn pump(&mut self, session: SessionKey, now: Instant) {
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
                Choice::Ask(key) => self.ask(cid, key, now),
                Choice::Nobody if broadcasts < BROADCASTS_MAX => {
                    self.broadcast(cid, BROADCAST_PAUSE, false, now);
                }
                Choice::Nobody | Choice::Later => {
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

    /// Whether a peer that the session knows can be asked for anything.
    fn has_room(&self, session: SessionKey) -> bool {
        let Some(consumer) = self.sessions.get(&session) else { return false };
        consumer.peers.iter().any(|key| self.peers.get(key).is_some_and(Peer::has_room))
    }

    /// The peer of the session that would deliver first.
    fn choose(&self, session: SessionKey, want: &Want) -> Choice {
        let Some(consumer) = self.sessions.get(&session) else { return Choice::Nobody };
        if consumer.peers.is_empty()
            && self.peers.len() == 1
            && let Some((only, peer)) = self.peers.iter().next()
            && want.may_ask(*only)
        {
            // With one peer there is nobody to compare it with, and a round trip to save.
            return if peer.has_room() { Choice::Ask(*only) } else { Choice::Later };
        }
        let mut choice = Choice::Nobody;
        let mut best = f64::INFINITY;
        for key in consumer.peers.iter().filter(|key| want.may_ask(**key)) {
            let Some(peer) = self.peers.get(key) else { continue };
            if !peer.has_room() {
                if matches!(choice, Choice::Nobody) {
                    choice = Choice::Later;
                }
            } else if peer.seconds_to_deliver() < best {
                best = peer.seconds_to_deliver();
                choice = Choice::Ask(*key);
            }
        }
        choice
    }

    /// Asks all peers whether they have it.
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
            if !want.told.contains(key) {
                want.told.push(*key);
            }
        }
    }

    /// A peer gave a wrong answer, or none: what it was asked for goes to others.
    pub(super) fn pass_over(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get(&key) else { return };
        let asked: Vec<Cid> = peer.asked().copied().collect();
        for cid in asked {
            self.pass_over_for(&cid, key);
        }
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.was_late();
        }
    }

    fn pass_over_for(&mut self, cid: &Cid, key: PeerKey) {
        let Some(want) = self.wants.get_mut(cid) else { return };
        if !matches!(want.state, State::Asked { peer, .. } if peer == key) {
            return;
        }
        want.tried.push(key);
        want.told.retain(|told| *told != key);
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.cancel(cid);
        }
        self.requeue(*cid);
    }

    /// Passes over peers that are late and repeats broadcasts; called twice a second or so.
    pub(in crate::exchange) fn tick(&mut self, now: Instant) {
        for peer in self.peers.values_mut() {
            peer.tick();
        }
        let mut late = Vec::new();
        let mut again = Vec::new();
        for (cid, want) in &self.wants {
            match want.state {
                State::Asked { peer, since } => {
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
            self.pass_over_for(&cid, key);
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
        self.pump_all(now);
    }
}
