//! The server without a network.

use futures::executor::block_on;

use super::*;
use crate::HoldName;
use crate::blocks::MemoryBlocks;
use crate::exchange::testnet::{raw, raws};
use crate::exchange::wire::{Entry, WANT_BLOCK};

struct Sim {
    server: Server,
    blocks: Arc<MemoryBlocks>,
}

impl Sim {
    fn new() -> Self {
        let blocks = Arc::new(MemoryBlocks::default());
        let limits = ServerLimits { peer_wants_max: 1024, wants_max: 3000 };
        let server = Server::new(blocks.clone(), limits);
        server.connect(1, Arc::default());
        Self { server, blocks }
    }

    fn store(&self, blocks: &[Block]) {
        let hold = self.blocks.open(&HoldName::parse("test").unwrap()).unwrap();
        for block in blocks {
            block_on(self.blocks.put(hold, block.clone())).unwrap();
        }
    }

    fn wants(&self, key: PeerKey, entries: Vec<Entry>) {
        self.server.received(key, Wantlist { entries, full: false });
    }

    fn answer(&self, key: PeerKey) -> Outgoing {
        let mut out = Outgoing::default();
        self.server.answer(key, ProtocolVersion::V1_2, 1024 * 1024, &mut out);
        out
    }
}

fn want(block: &Block, want_type: i32) -> Entry {
    let cid = block.cid().to_bytes().into();
    Entry { cid, priority: 1, cancel: false, want_type, send_dont_have: true }
}

fn presences(out: &Outgoing, kind: i32) -> usize {
    out.presences.iter().filter(|presence| presence.kind == kind).count()
}

#[test]
fn want_have_is_answered_with_small_blocks_and_have() {
    let sim = Sim::new();
    let (small, large, absent) = (raw("small"), raw(vec![7; 2000]), raw("absent"));
    sim.store(&[small.clone(), large.clone()]);
    sim.wants(1, [&small, &large, &absent].map(|block| want(block, WANT_HAVE)).into());
    let out = sim.answer(1);
    assert_eq!(out.blocks, [small]);
    assert_eq!((presences(&out, HAVE), presences(&out, DONT_HAVE)), (1, 1));
    assert!(!sim.server.has_work(1));
}

#[test]
fn dont_have_is_sent_only_on_request() {
    let sim = Sim::new();
    sim.wants(1, vec![Entry { send_dont_have: false, ..want(&raw("absent"), WANT_BLOCK) }]);
    assert!(sim.answer(1).is_empty());
}

#[test]
fn block_stored_later_is_sent_to_waiting_peers() {
    let sim = Sim::new();
    let block = raw("late");
    sim.wants(1, vec![want(&block, WANT_BLOCK)]);
    sim.answer(1);
    sim.store(std::slice::from_ref(&block));
    sim.server.notify_stored(&[*block.cid()]);
    assert!(sim.server.has_work(1));
    assert_eq!(sim.answer(1).blocks, std::slice::from_ref(&block));
    sim.server.notify_stored(&[*block.cid()]);
    assert!(!sim.server.has_work(1), "it is sent once");
}

#[test]
fn cancelled_want_is_not_answered() {
    let sim = Sim::new();
    let blocks = raws(2, 16);
    sim.store(&blocks);
    sim.wants(1, blocks.iter().map(|block| want(block, WANT_BLOCK)).collect());
    sim.wants(1, vec![Entry { cancel: true, ..want(&blocks[0], WANT_BLOCK) }]);
    assert_eq!(sim.answer(1).blocks, blocks[1..]);
}

#[test]
fn full_wantlist_replaces_the_previous_one() {
    let sim = Sim::new();
    let blocks = raws(3, 16);
    sim.store(&blocks);
    sim.wants(1, blocks.iter().map(|block| want(block, WANT_BLOCK)).collect());
    let entries = vec![want(&blocks[2], WANT_BLOCK)];
    sim.server.received(1, Wantlist { entries, full: true });
    assert_eq!(sim.answer(1).blocks, blocks[2..]);
}

#[test]
fn higher_priority_is_answered_first() {
    let sim = Sim::new();
    let blocks = raws(3, 16);
    sim.store(&blocks);
    let entries = blocks.iter().zip([1, 3, 2]);
    let entries = entries.map(|(block, priority)| Entry { priority, ..want(block, WANT_BLOCK) }).collect();
    sim.wants(1, entries);
    assert_eq!(sim.answer(1).blocks, [blocks[1].clone(), blocks[2].clone(), blocks[0].clone()]);
}

#[test]
fn answers_are_split_at_the_target_size() {
    let sim = Sim::new();
    let blocks = raws(5, 400 * 1024);
    sim.store(&blocks);
    sim.wants(1, blocks.iter().map(|block| want(block, WANT_BLOCK)).collect());
    let answers: Vec<usize> = (0..4).map(|_| sim.answer(1).blocks.len()).collect();
    assert_eq!(answers, [2, 2, 1, 0]);
}

#[test]
fn wants_beyond_the_limit_are_refused() {
    let sim = Sim::new();
    let blocks = raws(1100, 16);
    sim.store(&blocks);
    sim.wants(1, blocks.iter().map(|block| want(block, WANT_BLOCK)).collect());
    let out = sim.answer(1);
    assert_eq!((out.blocks.len(), presences(&out, DONT_HAVE)), (1024, 76));
}

#[test]
fn wants_for_absent_blocks_are_evicted_for_new_ones() {
    let sim = Sim::new();
    let absent = raws(1024, 17);
    sim.wants(1, absent.iter().map(|block| want(block, WANT_BLOCK)).collect());
    assert_eq!(presences(&sim.answer(1), DONT_HAVE), 1024);
    let here = raw("here");
    sim.store(std::slice::from_ref(&here));
    sim.wants(1, vec![want(&here, WANT_BLOCK)]);
    assert_eq!(sim.answer(1).blocks, [here]);
}

#[test]
fn peers_that_want_absent_blocks_do_not_lock_out_others() {
    let sim = Sim::new();
    let absent = raws(1024, 17);
    for key in 2..=4 {
        sim.server.connect(key, Arc::default());
        sim.wants(key, absent.iter().map(|block| want(block, WANT_BLOCK)).collect());
        sim.answer(key);
    }
    let here = raw("here");
    sim.store(std::slice::from_ref(&here));
    sim.wants(1, vec![want(&here, WANT_BLOCK)]);
    assert_eq!(sim.answer(1).blocks, [here]);
}

#[test]
fn total_wants_are_limited_and_freed_on_disconnect() {
    let sim = Sim::new();
    let blocks = raws(1024, 16);
    sim.store(&blocks);
    let entries: Vec<Entry> = blocks.iter().map(|block| want(block, WANT_BLOCK)).collect();
    for key in 2..=4 {
        sim.server.connect(key, Arc::default());
        sim.wants(key, entries.clone());
    }
    assert!(presences(&sim.answer(4), DONT_HAVE) > 0, "no room for all of the fourth");
    for key in 2..=4 {
        sim.server.disconnect(key);
    }
    sim.wants(1, entries);
    assert_eq!(sim.answer(1).blocks.len(), 1024);
    assert_eq!(lock(&sim.server.state).wants, 0, "the count of wants is right");
}
