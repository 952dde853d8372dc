//! The exchange between real swarms, including peers that misbehave.

use std::collections::HashSet;

use cid::Cid;
use libp2p::PeerId;

use super::testnet::{Node, ScriptedPeer, raw, raws, soon, until};
use super::wire::{
    DONT_HAVE, Entry, HAVE, MESSAGE_SIZE_MAX, Outgoing, Presence, ProtocolVersion, WANT_BLOCK,
};
use super::{Delivery, Session};
use crate::Block;
use crate::block::BLOCK_SIZE_MAX;

const MODERN: &[ProtocolVersion] = &[ProtocolVersion::V1_2];

fn cids(blocks: &[Block]) -> Vec<Cid> {
    blocks.iter().map(|block| *block.cid()).collect()
}

/// Takes deliveries until there are `count` different blocks; returns them and their senders.
async fn collect(session: &Session, count: usize) -> (HashSet<Cid>, HashSet<PeerId>) {
    let (mut got, mut from) = (HashSet::new(), HashSet::new());
    while got.len() < count {
        for delivery in soon(session.take()).await.unwrap() {
            let Delivery::Block { block, peer } = delivery else { panic!("{delivery:?}") };
            assert!(got.insert(*block.cid()), "delivered twice");
            from.insert(peer);
        }
    }
    (got, from)
}

fn blocks(blocks: &[Block]) -> Outgoing {
    Outgoing { blocks: blocks.to_vec(), ..Outgoing::default() }
}

fn presences(entries: &[Entry], kind: i32) -> Outgoing {
    let presences = entries.iter().map(|entry| Presence { cid: entry.cid.clone(), kind }).collect();
    Outgoing { presences, ..Outgoing::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_providers_cause_few_duplicates() {
    let alice = Node::start().await;
    let content = raws(600, 2000);
    let mut providers = Vec::new();
    for _ in 0..3 {
        let node = Node::start().await;
        node.store(&content).await;
        alice.connect(&node.swarm).await;
        providers.push(node);
    }
    let session = alice.bitswap.session();
    for wanted in content.chunks(100) {
        session.want(&cids(wanted));
        collect(&session, wanted.len()).await;
    }
    let stats = alice.bitswap.stats();
    assert_eq!((stats.blocks_received, stats.unwanted), (600, 0));
    assert!(stats.duplicates <= 6, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn older_versions_work_in_both_directions() {
    for old in [ProtocolVersion::V1_1, ProtocolVersion::V1_0] {
        let (new, old) = (Node::start().await, Node::speaking(&[old]).await);
        // Version 1.0.0 can only express CIDv0; a block must match a want for another CID nevertheless.
        let hello = raw("hello");
        let (theirs, ours) = (raws(20, 2000), raws(20, 3000));
        old.store(&theirs).await;
        old.store(std::slice::from_ref(&hello)).await;
        new.store(&ours).await;
        new.connect(&old.swarm).await;
        let (at_new, at_old) = (new.bitswap.session(), old.bitswap.session());
        at_new.want(&cids(&theirs));
        at_old.want(&cids(&ours));
        at_new.want(&[*hello.cid()]);
        assert_eq!(collect(&at_new, 21).await.0.len(), 21);
        assert_eq!(collect(&at_old, 20).await.0.len(), 20);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_without_bitswap_is_ignored() {
    let (alice, bob) = (Node::start().await, Node::start().await);
    // It supports only a version that Alice does not.
    let deaf = Node::speaking(&[]).await;
    let block = raw("a");
    bob.store(std::slice::from_ref(&block)).await;
    alice.connect(&deaf.swarm).await;
    alice.connect(&bob.swarm).await;
    let session = alice.bitswap.session();
    session.want(&[*block.cid()]);
    assert_eq!(collect(&session, 1).await.1, HashSet::from([bob.swarm.id]));
}

#[tokio::test(flavor = "multi_thread")]
async fn block_is_sent_when_it_is_stored() {
    let (alice, bob) = (Node::start().await, Node::start().await);
    alice.connect(&bob.swarm).await;
    let block = raw("later");
    let session = alice.bitswap.session();
    session.want(&[*block.cid()]);
    until("a DONT_HAVE", || bob.bitswap.stats().messages_sent > 0).await;
    bob.store(std::slice::from_ref(&block)).await;
    collect(&session, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_dropped_and_requested_from_another_peer() {
    let (alice, bob) = (Node::start().await, Node::start().await);
    let mut liar = ScriptedPeer::start(MODERN).await;
    let block = raw("the truth");
    alice.connect(&liar.swarm).await;
    let session = alice.bitswap.session();
    session.want(&[*block.cid()]);
    let (peer, entries) = liar.wanted().await;
    assert_eq!(entries[0].want_type, WANT_BLOCK);
    assert!(liar.send(peer, blocks(&[raw("a lie")])).await);
    until("the lie is found out", || alice.bitswap.stats().unwanted == 1).await;
    bob.store(std::slice::from_ref(&block)).await;
    alice.connect(&bob.swarm).await;
    assert_eq!(collect(&session, 1).await.1, HashSet::from([bob.swarm.id]));
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_block_is_reported() {
    let alice = Node::start().await;
    let mut peer = ScriptedPeer::start(MODERN).await;
    let data = vec![7; BLOCK_SIZE_MAX + 1];
    let hash = multihash_codetable::MultihashDigest::digest(&multihash_codetable::Code::Sha2_256, &data);
    let cid = Cid::new_v1(0x55, hash);
    alice.connect(&peer.swarm).await;
    let session = alice.bitswap.session();
    session.want(&[cid]);
    let (id, _) = peer.wanted().await;
    let payload = super::wire::Payload { prefix: vec![1, 0x55, 0x12, 32].into(), data: data.into() };
    let message = super::wire::Message { payload: vec![payload], ..super::wire::Message::default() };
    let bytes = prost::Message::encode_length_delimited_to_vec(&message);
    assert!(peer.send_bytes(id, &bytes).await);
    let delivery = soon(session.take()).await.unwrap().pop_front().unwrap();
    assert_eq!(delivery, Delivery::TooLarge { cid, bytes: BLOCK_SIZE_MAX + 1 });
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_message_closes_only_its_stream() {
    let alice = Node::start().await;
    let mut peer = ScriptedPeer::start(MODERN).await;
    let block = raw("fine");
    alice.connect(&peer.swarm).await;
    let session = alice.bitswap.session();
    session.want(&[*block.cid()]);
    let (id, _) = peer.wanted().await;
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(MESSAGE_SIZE_MAX as u64 + 1, &mut bytes);
    bytes.extend_from_slice(&blocks(std::slice::from_ref(&block)).encode(ProtocolVersion::V1_2).concat());
    peer.send_bytes(id, &bytes).await;
    // Not a message.
    peer.send_bytes(id, &[3, 0xff, 0xff, 0xff]).await;
    assert!(peer.send(id, blocks(std::slice::from_ref(&block))).await);
    collect(&session, 1).await;
    assert_eq!(alice.bitswap.stats().messages_received, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_that_floods_is_banned() {
    let alice = Node::start().await;
    let peer = ScriptedPeer::start(MODERN).await;
    alice.connect(&peer.swarm).await;
    let flood = raws(8, 500 * 1024);
    let mut sent = 0;
    while alice.bitswap.stats().peers_banned == 0 {
        assert!(sent < 100, "the flood is not stopped");
        peer.send(alice.swarm.id, blocks(&flood[..2])).await;
        sent += 1;
    }
    until("the disconnection", || alice.bitswap.stats().peers == 0).await;
    assert!(alice.bitswap.stats().unwanted > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_that_sends_have_and_no_block_is_skipped() {
    let (alice, bob) = (Node::start().await, Node::start().await);
    let mut silent = ScriptedPeer::start(MODERN).await;
    let content = raws(50, 2000);
    alice.connect(&silent.swarm).await;
    let session = alice.bitswap.session();
    session.want(&cids(&content));
    let (peer, entries) = silent.wanted().await;
    assert!(silent.send(peer, presences(&entries, HAVE)).await);
    bob.store(&content).await;
    alice.connect(&bob.swarm).await;
    assert_eq!(collect(&session, 50).await.1, HashSet::from([bob.swarm.id]));
}

#[tokio::test(flavor = "multi_thread")]
async fn wants_of_a_disconnected_peer_go_to_another() {
    let (alice, bob) = (Node::start().await, Node::start().await);
    let mut first = ScriptedPeer::start(MODERN).await;
    let content = raws(100, 2000);
    alice.connect(&first.swarm).await;
    let session = alice.bitswap.session();
    session.want(&cids(&content));
    let (peer, _) = first.wanted().await;
    assert!(first.send(peer, blocks(&content[..10])).await);
    collect(&session, 10).await;
    bob.store(&content).await;
    alice.connect(&bob.swarm).await;
    alice.swarm.disconnect(first.swarm.id);
    assert_eq!(collect(&session, 90).await.1, HashSet::from([bob.swarm.id]));
    assert_eq!(alice.bitswap.stats().duplicates, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_session_sends_cancels() {
    let alice = Node::start().await;
    let mut peer = ScriptedPeer::start(MODERN).await;
    let content = raws(10, 2000);
    alice.connect(&peer.swarm).await;
    let session = alice.bitswap.session();
    session.want(&cids(&content));
    let (id, entries) = peer.wanted().await;
    assert!(peer.send(id, presences(&entries[..5], DONT_HAVE)).await);
    drop(session);
    let mut cancelled = 0;
    while cancelled < entries.len() {
        let entries = peer.next_message().await.1.wantlist.unwrap_or_default().entries;
        cancelled += entries.iter().filter(|entry| entry.cancel).count();
    }
    assert_eq!(alice.bitswap.stats().wants, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn greedy_peer_does_not_starve_others() {
    let bob = Node::start().await;
    let content = raws(300, 500_000);
    bob.store(&content).await;
    // It wants everything and never reads an answer completely, so its window fills up.
    let greedy = ScriptedPeer::start(MODERN).await;
    let entries = cids(&content)
        .iter()
        .map(|cid| Entry { cid: cid.to_bytes().into(), priority: 1, ..Entry::default() })
        .collect();
    bob.connect(&greedy.swarm).await;
    greedy.send(bob.swarm.id, Outgoing { entries, ..Outgoing::default() }).await;
    let alice = Node::start().await;
    alice.connect(&bob.swarm).await;
    let session = alice.bitswap.session();
    session.want(&cids(&content[..40]));
    collect(&session, 40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_and_many_messages_on_one_stream_work() {
    let alice = Node::start().await;
    let mut peer = ScriptedPeer::start(MODERN).await;
    let content = raws(1000, 600);
    alice.connect(&peer.swarm).await;
    let session = alice.bitswap.session();
    session.want(&cids(&content));
    let (id, _) = peer.wanted().await;
    for block in &content[..500] {
        assert!(peer.send(id, blocks(std::slice::from_ref(block))).await);
    }
    let mut bytes = Vec::new();
    for block in &content[500..] {
        bytes.extend_from_slice(&blocks(std::slice::from_ref(block)).encode(ProtocolVersion::V1_2).concat());
    }
    assert!(peer.send_bytes(id, &bytes).await);
    collect(&session, 1000).await;
    assert_eq!(alice.bitswap.stats().streams_dropped, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_closed_with_the_swarm() {
    let alice = Node::start().await;
    let session = alice.bitswap.session();
    let bitswap = alice.bitswap.clone();
    drop(alice);
    assert!(soon(session.take()).await.is_err());
    let late = bitswap.session();
    assert!(soon(late.take()).await.is_err());
}
