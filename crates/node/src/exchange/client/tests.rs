//! The client without a network, with a clock that the tests advance.

use std::collections::HashSet;

use super::*;
use crate::exchange::testnet::{raw, raws};
use crate::exchange::wire::{WANT_BLOCK, WANT_HAVE};

struct Sim {
    client: Client,
    now: Instant,
    inboxes: HashMap<SessionKey, Arc<Inbox>>,
}

/// A wantlist entry as sent to a peer.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    Have,
    Block,
    Cancel,
}

impl Sim {
    fn new() -> Self {
        let client = Client::new(Arc::default());
        Self { client, now: Instant::now(), inboxes: HashMap::new() }
    }

    fn connect(&mut self, key: PeerKey) {
        self.client.connect(key, PeerId::random(), Arc::default(), self.now);
    }

    fn session(&mut self) -> SessionKey {
        let inbox = Arc::new(Inbox::default());
        let key = self.client.open(inbox.clone());
        self.inboxes.insert(key, inbox);
        key
    }

    fn want(&mut self, session: SessionKey, blocks: &[Block]) {
        let cids: Vec<Cid> = blocks.iter().map(|block| *block.cid()).collect();
        self.client.want(session, &cids, self.now);
    }

    /// The wantlist entries of the next message to a peer.
    fn sent(&mut self, key: PeerKey) -> Vec<(Cid, Sent)> {
        let (entries, _) = self.client.take_changes(key, usize::MAX);
        let sent = entries.iter().map(|entry| {
            let what = match (entry.cancel, entry.want_type) {
                (true, _) => Sent::Cancel,
                (false, WANT_HAVE) => Sent::Have,
                (false, WANT_BLOCK) => Sent::Block,
                (false, other) => panic!("want type {other}"),
            };
            (Cid::try_from(entry.cid.as_ref()).unwrap(), what)
        });
        sent.collect()
    }

    fn sends(&mut self, key: PeerKey, block: &Block) -> Received {
        self.client.received(key, vec![ReceivedBlock::Block(block.clone())], &[], self.now)
    }

    fn answers(&mut self, key: PeerKey, block: &Block, has: bool) {
        self.client.received(key, Vec::new(), &[(*block.cid(), has)], self.now);
    }

    /// Advances the clock in ticks.
    fn pass(&mut self, time: Duration) {
        let tick = Duration::from_millis(500);
        let mut left = time;
        while left > Duration::ZERO {
            self.now += tick;
            self.client.tick(self.now);
            left = left.saturating_sub(tick);
        }
    }

    fn delivered(&self, session: SessionKey) -> usize {
        self.inboxes[&session].take().len()
    }
}

#[test]
fn only_peer_is_asked_directly() {
    let mut sim = Sim::new();
    let block = raw("a");
    sim.connect(1);
    let session = sim.session();
    sim.want(session, std::slice::from_ref(&block));
    assert_eq!(sim.sent(1), [(*block.cid(), Sent::Block)]);
    sim.sends(1, &block);
    assert_eq!(sim.delivered(session), 1);
    assert_eq!(sim.sent(1), [], "the sender needs no cancel");
}

#[test]
fn first_peer_with_the_block_is_asked_and_the_others_get_cancels() {
    let mut sim = Sim::new();
    let block = raw("a");
    let session = sim.session();
    for key in 1..=3 {
        sim.connect(key);
    }
    sim.want(session, std::slice::from_ref(&block));
    for key in 1..=3 {
        assert_eq!(sim.sent(key), [(*block.cid(), Sent::Have)]);
    }
    sim.answers(1, &block, false);
    sim.answers(2, &block, true);
    sim.answers(3, &block, true);
    assert_eq!(sim.sent(2), [(*block.cid(), Sent::Block)]);
    sim.sends(2, &block);
    assert_eq!(sim.delivered(session), 1);
    assert_eq!(sim.sent(1), [(*block.cid(), Sent::Cancel)]);
    assert_eq!(sim.sent(3), [], "the want was removed when it answered");
}

#[test]
fn each_block_is_requested_from_one_peer() {
    let mut sim = Sim::new();
    let blocks = raws(40, 16);
    let session = sim.session();
    sim.connect(1);
    sim.connect(2);
    sim.want(session, &blocks[..1]);
    sim.answers(1, &blocks[0], true);
    sim.answers(2, &blocks[0], true);
    sim.sends(1, &blocks[0]);
    sim.sent(1);
    sim.sent(2);
    sim.want(session, &blocks[1..]);
    let (one, two) = (sim.sent(1), sim.sent(2));
    assert_eq!(one.len() + two.len(), 39);
    assert!(one.len() >= 10 && two.len() >= 10, "{} and {}", one.len(), two.len());
    assert!(one.iter().chain(&two).all(|(_, sent)| *sent == Sent::Block));
}

#[test]
fn peer_that_sent_dont_have_is_not_asked_until_it_sends_have() {
    let mut sim = Sim::new();
    let block = raw("a");
    let session = sim.session();
    sim.connect(1);
    sim.want(session, std::slice::from_ref(&block));
    sim.sent(1);
    sim.answers(1, &block, false);
    assert_eq!(sim.sent(1), []);
    sim.pass(Duration::from_secs(9));
    assert_eq!(sim.sent(1), []);
    sim.answers(1, &block, true);
    assert_eq!(sim.sent(1), [(*block.cid(), Sent::Block)]);
}

#[test]
fn broadcasts_back_off() {
    let mut sim = Sim::new();
    let block = raw("a");
    let session = sim.session();
    sim.connect(1);
    sim.connect(2);
    sim.want(session, std::slice::from_ref(&block));
    let mut asked = sim.sent(1).len();
    for _ in 0..100 {
        sim.answers(1, &block, false);
        sim.answers(2, &block, false);
        sim.pass(Duration::from_secs(1));
        asked += sim.sent(1).len();
    }
    assert!((3..=5).contains(&asked), "{asked}");
}

#[test]
fn new_peer_is_asked_for_broadcast_wants() {
    let mut sim = Sim::new();
    let block = raw("a");
    let session = sim.session();
    sim.want(session, std::slice::from_ref(&block));
    sim.connect(1);
    assert_eq!(sim.sent(1).len(), 1);
    sim.answers(1, &block, false);
    sim.connect(2);
    assert_eq!(sim.sent(2), [(*block.cid(), Sent::Have)]);
}

#[test]
fn peer_that_never_delivers_is_skipped() {
    let mut sim = Sim::new();
    let block = raw("a");
    let session = sim.session();
    sim.connect(1);
    sim.connect(2);
    sim.want(session, std::slice::from_ref(&block));
    sim.sent(1);
    sim.sent(2);
    sim.answers(1, &block, true);
    assert_eq!(sim.sent(1), [(*block.cid(), Sent::Block)]);
    sim.answers(2, &block, true);
    sim.pass(Duration::from_secs(6));
    assert_eq!(sim.sent(1), [(*block.cid(), Sent::Cancel)]);
    assert_eq!(sim.sent(2), [(*block.cid(), Sent::Block)]);
    sim.sends(2, &block);
    assert_eq!(sim.delivered(session), 1);
}

#[test]
fn only_peer_is_asked_again_when_late() {
    let mut sim = Sim::new();
    let block = raw("a");
    let session = sim.session();
    sim.connect(1);
    sim.want(session, std::slice::from_ref(&block));
    sim.sent(1);
    sim.pass(Duration::from_secs(6));
    let sent = sim.sent(1);
    assert_eq!(sent, [(*block.cid(), Sent::Have)], "first it is asked whether it has it");
    sim.answers(1, &block, true);
    assert_eq!(sim.sent(1), [(*block.cid(), Sent::Block)]);
}

#[test]
fn requests_of_a_lost_peer_go_to_others() {
    let mut sim = Sim::new();
    let blocks = raws(20, 16);
    let session = sim.session();
    sim.connect(1);
    sim.want(session, &blocks);
    assert_eq!(sim.sent(1).len(), 20);
    sim.sends(1, &blocks[0]);
    sim.connect(2);
    sim.answers(2, &blocks[19], true);
    sim.sent(2);
    sim.client.disconnect(1, sim.now);
    let sent = sim.sent(2);
    assert_eq!(sent.iter().filter(|(_, sent)| *sent == Sent::Block).count(), 19);
}

#[test]
fn sessions_share_a_want() {
    let mut sim = Sim::new();
    let block = raw("a");
    sim.connect(1);
    let (one, two) = (sim.session(), sim.session());
    sim.want(one, std::slice::from_ref(&block));
    sim.want(two, std::slice::from_ref(&block));
    assert_eq!(sim.sent(1).len(), 1);
    sim.client.close(one, sim.now);
    assert_eq!(sim.sent(1), [], "the other session still wants it");
    sim.sends(1, &block);
    assert_eq!(sim.delivered(two), 1);
    assert_eq!(sim.client.wanted(), 0);
}

#[test]
fn closing_a_session_cancels_its_wants() {
    let mut sim = Sim::new();
    let blocks = raws(5, 16);
    sim.connect(1);
    let session = sim.session();
    sim.want(session, &blocks);
    sim.sent(1);
    sim.client.close(session, sim.now);
    assert_eq!(sim.client.wanted(), 0);
    let sent = sim.sent(1);
    assert_eq!(sent.len(), 5);
    assert!(sent.iter().all(|(_, sent)| *sent == Sent::Cancel));
    // A block that was already in flight is not held against the peer.
    assert!(!sim.sends(1, &blocks[0]).ban);
}

#[test]
fn cancel_of_an_unsent_want_sends_nothing() {
    let mut sim = Sim::new();
    let blocks = raws(5, 16);
    sim.connect(1);
    let session = sim.session();
    sim.want(session, &blocks);
    sim.client.close(session, sim.now);
    assert_eq!(sim.sent(1), []);
    assert!(!sim.client.has_changes(1));
}

#[test]
fn flood_of_unwanted_blocks_leads_to_a_ban() {
    let mut sim = Sim::new();
    sim.connect(1);
    let refused_at = raws(1000, 1024).iter().position(|block| sim.sends(1, block).ban);
    assert!(refused_at.is_some_and(|at| at < 300), "{refused_at:?}");
}

#[test]
fn peer_of_an_old_version_gets_only_want_blocks() {
    let mut sim = Sim::new();
    let block = raw("a");
    let session = sim.session();
    sim.connect(1);
    sim.connect(2);
    sim.want(session, std::slice::from_ref(&block));
    sim.client.set_version(1, ProtocolVersion::V1_1);
    assert_eq!(sim.sent(1), [(*block.cid(), Sent::Block)]);
    assert_eq!(sim.sent(2), [(*block.cid(), Sent::Have)]);
}

#[test]
fn full_wantlist_is_sent_after_a_lost_message() {
    let mut sim = Sim::new();
    let blocks = raws(3, 16);
    sim.connect(1);
    let session = sim.session();
    sim.want(session, &blocks);
    assert_eq!(sim.sent(1).len(), 3);
    sim.client.resend_all(1);
    let (entries, full) = sim.client.take_changes(1, usize::MAX);
    assert_eq!((entries.len(), full), (3, true));
}

#[test]
fn wants_reach_the_peer_that_has_the_block() {
    let mut sim = Sim::new();
    let blocks = raws(200, 16);
    let session = sim.session();
    sim.connect(1);
    sim.connect(2);
    sim.want(session, &blocks);
    let mut left: HashSet<Cid> = blocks.iter().map(|block| *block.cid()).collect();
    let by_cid: HashMap<Cid, (usize, &Block)> =
        blocks.iter().enumerate().map(|(at, block)| (*block.cid(), (at, block))).collect();
    for _ in 0..1000 {
        for key in [1, 2] {
            for (cid, sent) in sim.sent(key) {
                let (at, block) = by_cid[&cid];
                let has = at % 2 == usize::try_from(key - 1).unwrap();
                match sent {
                    Sent::Cancel => {}
                    Sent::Block if has => {
                        left.remove(&cid);
                        sim.sends(key, block);
                    }
                    Sent::Have | Sent::Block => sim.answers(key, block, has),
                }
            }
        }
    }
    assert_eq!(left.len(), 0);
    assert_eq!(sim.delivered(session), 200);
}

#[test]
fn peer_with_a_late_have_is_asked_next_time() {
    let mut sim = Sim::new();
    let blocks = raws(40, 16);
    let session = sim.session();
    sim.connect(1);
    sim.connect(2);
    sim.want(session, &blocks[..1]);
    sim.sent(1);
    sim.sent(2);
    sim.answers(1, &blocks[0], true);
    sim.sends(1, &blocks[0]);
    sim.answers(2, &blocks[0], true);
    sim.sent(1);
    sim.sent(2);
    sim.want(session, &blocks[1..]);
    assert!(!sim.sent(2).is_empty());
}

#[test]
fn slow_peer_gets_fewer_requests() {
    let mut sim = Sim::new();
    let blocks = raws(2000, 16);
    let session = sim.session();
    sim.connect(1);
    sim.connect(2);
    sim.want(session, &blocks[..20]);
    for key in [1, 2] {
        sim.answers(key, &blocks[0], true);
        sim.answers(key, &blocks[1], true);
    }
    let mut asked: HashMap<PeerKey, VecDeque<Cid>> = HashMap::new();
    let by_cid: HashMap<Cid, &Block> = blocks.iter().map(|block| (*block.cid(), block)).collect();
    let (mut next, mut by_slow) = (20, 0);
    for round in 0.. {
        for key in [1, 2] {
            let sent = sim.sent(key).into_iter().filter(|(_, sent)| *sent == Sent::Block);
            asked.entry(key).or_default().extend(sent.map(|(cid, _)| cid));
            // The first peer delivers ten blocks in 10 ms, the second one block.
            for _ in 0..if key == 1 { 10 } else { 1 } {
                let Some(cid) = asked.get_mut(&key).and_then(VecDeque::pop_front) else { break };
                sim.sends(key, by_cid[&cid]);
                by_slow += usize::from(key == 2);
            }
        }
        let room = 20 - sim.client.wanted();
        let until = (next + room).min(blocks.len());
        sim.want(session, &blocks[next..until]);
        next = until;
        sim.now += Duration::from_millis(10);
        if round % 50 == 0 {
            sim.client.tick(sim.now);
        }
        if sim.client.wanted() == 0 {
            break;
        }
        assert!(round < 1000, "it takes too long");
    }
    assert_eq!(sim.delivered(session), 2000);
    assert!((20..400).contains(&by_slow), "{by_slow}");
}

#[test]
fn peer_that_delivers_replaces_one_that_only_sends_have() {
    let mut sim = Sim::new();
    let blocks = raws(2, 16);
    let session = sim.session();
    let honest = 1000;
    sim.connect(honest);
    sim.want(session, &blocks);
    for key in 1..=u64::try_from(SESSION_PEERS_MAX).unwrap() {
        sim.connect(key);
        sim.answers(key, &blocks[0], true);
    }
    sim.sends(honest, &blocks[0]);
    assert!(sim.client.sessions[&session].peers.contains(&honest));
    assert_eq!(sim.client.sessions[&session].peers.len(), SESSION_PEERS_MAX);
}

#[test]
fn alternating_have_and_dont_have_uses_bounded_memory() {
    let mut sim = Sim::new();
    let blocks = raws(100, 16);
    let session = sim.session();
    sim.connect(1);
    sim.connect(2);
    sim.want(session, &blocks);
    // It has none of them, so the maximum number is broadcast, and the others wait.
    sim.answers(1, &blocks[0], true);
    let none: Vec<(Cid, bool)> = blocks.iter().map(|block| (*block.cid(), false)).collect();
    for _ in 0..10 {
        sim.client.received(1, Vec::new(), &none, sim.now);
    }
    let waits = |block: &&Block| sim.client.wants[block.cid()].state == State::Queued;
    let cid = *blocks.iter().find(waits).unwrap().cid();
    let moods = [(cid, true), (cid, false)].repeat(10_000);
    for _ in 0..5 {
        sim.client.received(1, Vec::new(), &moods, sim.now);
    }
    let queued = sim.client.sessions[&session].queue.len();
    assert!(queued < 1000, "{queued} entries for 100 wants");
}

#[test]
fn unsent_wants_are_removed_on_cancel() {
    let mut sim = Sim::new();
    sim.connect(1);
    for block in raws(2000, 16) {
        let session = sim.session();
        sim.want(session, &[block]);
        sim.client.close(session, sim.now);
    }
    assert!(sim.client.peers[&1].queued() < 200, "{} changes are queued", sim.client.peers[&1].queued());
}

#[test]
fn processing_stops_when_a_peer_is_banned() {
    let mut sim = Sim::new();
    sim.connect(1);
    let flood = raws(1000, 16).into_iter().map(ReceivedBlock::Block).collect();
    assert!(sim.client.received(1, flood, &[], sim.now).ban);
    let unwanted = sim.client.counters.unwanted.load(std::sync::atomic::Ordering::Relaxed);
    assert!(unwanted < 300, "{unwanted}");
}
