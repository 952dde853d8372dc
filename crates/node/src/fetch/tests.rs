//! Fetches between real swarms on loopback.

use std::sync::Arc;
use std::time::Duration;

use cid::Cid;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::mpsc;

use super::{Dial, FetchError, FetchLimits, FetchRequest, Fetcher, Progress};
use crate::exchange::testnet::{Node, node, raw, raws, soon, tree, until};
use crate::{Block, Blocks, HoldName, HoldStats};

fn name() -> HoldName {
    HoldName::parse("pin/test").unwrap()
}

fn request(root: Cid) -> FetchRequest {
    FetchRequest {
        root,
        hold: name(),
        origins: Vec::new(),
        limits: FetchLimits {
            bytes_max: u64::MAX,
            blocks_max: u64::MAX,
            find_time: Duration::from_secs(30),
            stall_time: Duration::from_secs(30),
        },
    }
}

/// Passes dials on to the swarm of a test node.
struct Dialler(mpsc::Sender<Multiaddr>);

impl Dial for Dialler {
    fn dial(&self, peer: PeerId, addresses: Vec<Multiaddr>) {
        for address in addresses {
            let _full = self.0.try_send(address.with_p2p(peer).unwrap());
        }
    }
}

fn dialler(node: &Node) -> Arc<dyn Dial> {
    Arc::new(Dialler(node.dial_queue()))
}

fn fetcher(node: &Node) -> Fetcher {
    Fetcher::new(node.blocks.clone(), node.bitswap.clone(), dialler(node), Vec::new())
}

async fn fetch(node: &Node, request: FetchRequest) -> Result<HoldStats, FetchError> {
    soon(fetcher(node).fetch(request, Arc::new(Progress::default()))).await
}

fn root(blocks: &[Block]) -> Cid {
    *blocks.last().unwrap().cid()
}

fn bytes(blocks: &[Block]) -> u64 {
    blocks.iter().map(|block| block.data().len() as u64).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn dag_is_fetched_from_an_origin() {
    let (alice, bob) = (Node::start().await, Node::start().await);
    let blocks = tree(raws(500, 4096), 20);
    bob.store(&blocks).await;
    let mut request = request(root(&blocks));
    request.origins.push(bob.swarm.origin());

    let progress = Arc::new(Progress::default());
    let held = soon(fetcher(&alice).fetch(request, progress.clone())).await.unwrap();

    assert_eq!(held, HoldStats { blocks: blocks.len() as u64, bytes: bytes(&blocks) });
    assert!(alice.blocks.hold(&name()).unwrap().unwrap().sealed);
    let reading = progress.read();
    assert_eq!((reading.blocks, reading.bytes, reading.peers), (held.blocks, held.bytes, 1));
    for block in &blocks {
        assert_eq!(alice.blocks.get(block.cid()).unwrap().as_ref(), Some(block));
    }
    let stats = alice.bitswap.stats();
    assert_eq!((stats.blocks_received, stats.duplicates, stats.unwanted), (blocks.len() as u64, 0, 0));
    assert_eq!(stats.wants, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_subtrees_are_fetched_once() {
    let (alice, bob) = (Node::start().await, Node::start().await);
    let mut blocks = tree(raws(30, 2000), 10);
    let shared = root(&blocks);
    let same = *blocks[0].cid();
    let inner: Vec<Block> = (0..20).map(|at| node([shared, same, *raw(format!("{at}")).cid()])).collect();
    blocks.extend((0..20).map(|at| raw(format!("{at}"))));
    blocks.push(node(inner.iter().chain(&inner).map(|block| *block.cid())));
    let top = root(&blocks);
    blocks.extend(inner);
    bob.store(&blocks).await;
    alice.connect(&bob.swarm).await;
    let held = fetch(&alice, request(top)).await.unwrap();
    assert_eq!(held.blocks, blocks.len() as u64);
    let stats = alice.bitswap.stats();
    assert_eq!((stats.blocks_received, stats.duplicates), (held.blocks, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn fetch_without_provider_is_not_found() {
    let (alice, bob) = (Node::start().await, Node::start().await);
    alice.connect(&bob.swarm).await;
    let absent = *raw("absent").cid();
    let mut request = request(absent);
    request.limits.find_time = Duration::from_millis(300);
    let error = fetch(&alice, request).await.unwrap_err();
    assert!(matches!(error, FetchError::NotFound(cid) if cid == absent), "{error}");
    assert_eq!(alice.bitswap.stats().wants, 0);
    assert!(!alice.blocks.hold(&name()).unwrap().unwrap().sealed);
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_fetch_names_a_missing_block() {
    let (alice, bob) = (Node::start().await, Node::start().await);
    let mut blocks = tree(raws(30, 2000), 10);
    let lost = *blocks.remove(13).cid();
    bob.store(&blocks).await;
    alice.connect(&bob.swarm).await;
    let mut request = request(root(&blocks));
    request.limits.stall_time = Duration::from_millis(300);
    let error = fetch(&alice, request).await.unwrap_err();
    assert!(matches!(error, FetchError::Stalled { missing, .. } if missing == lost), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_fetch_is_resumed() {
    let (alice, bob) = (Node::start().await, Node::start().await);
    let leaves = raws(200, 2000);
    let all = tree(leaves.clone(), 20);
    // At first Bob lacks some of the leaves.
    let mut some = all.clone();
    some.drain(180..200);
    bob.store(&some).await;
    alice.connect(&bob.swarm).await;
    let progress = Arc::new(Progress::default());
    let fetcher = fetcher(&alice);
    let fetching = tokio::spawn({
        let (fetcher, progress) = (fetcher.clone(), progress.clone());
        async move { fetcher.fetch(request(root(&all)), progress).await }
    });
    until("the first part", || progress.read().blocks == some.len() as u64).await;
    fetching.abort();
    assert!(soon(fetching).await.unwrap_err().is_cancelled());
    assert_eq!(alice.bitswap.stats().wants, 0, "its wants are cancelled");

    bob.store(&leaves[180..]).await;
    let held = fetch(&alice, request(root(&some))).await.unwrap();
    assert_eq!(held.blocks, some.len() as u64 + 20);
    let stats = alice.bitswap.stats();
    // Bob may have sent some before the cancels arrived: those are duplicates.
    assert_eq!(stats.blocks_received, held.blocks, "nothing was fetched again");
}

#[tokio::test(flavor = "multi_thread")]
async fn dag_over_the_limits_is_refused() {
    let (alice, bob) = (Node::start().await, Node::start().await);
    let blocks = tree(raws(300, 2000), 20);
    bob.store(&blocks).await;
    alice.connect(&bob.swarm).await;
    let mut over_bytes = request(root(&blocks));
    over_bytes.limits.bytes_max = 100_000;
    let mut over_blocks = request(root(&blocks));
    over_blocks.limits.blocks_max = 100;
    for request in [over_bytes, over_blocks] {
        let error = fetch(&alice, request).await.unwrap_err();
        assert!(matches!(error, FetchError::OverLimit { .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unsupported_blocks_are_refused_with_their_cid() {
    let (alice, bob) = (Node::start().await, Node::start().await);
    alice.connect(&bob.swarm).await;
    let digest = *raw("x").cid().hash();
    let sha1 = cid::multihash::Multihash::wrap(0x11, &[7; 20]).unwrap();
    let cut_short = cid::multihash::Multihash::wrap(0x12, &[7; 20]).unwrap();
    let broken = Block::hash(cid::Version::V1, 0x71, 0x12, "no cbor".into()).unwrap();
    for bad in
        [Cid::new_v1(0x9999, digest), Cid::new_v1(0x55, sha1), Cid::new_v1(0x55, cut_short), *broken.cid()]
    {
        let top = node([bad]);
        bob.store(&[top.clone(), broken.clone()]).await;
        let error = fetch(&alice, request(*top.cid())).await.unwrap_err();
        assert!(matches!(error, FetchError::Unfit { cid, .. } if cid == bad), "{error}");
        alice.blocks.release(&name()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dag_that_is_too_deep_is_refused() {
    let alice = Node::start().await;
    let mut chain = vec![raw("end")];
    for _ in 0..super::walk::DEPTH_MAX + 1 {
        chain.push(node([root(&chain)]));
    }
    alice.store(&chain).await;
    let error = fetch(&alice, request(root(&chain))).await.unwrap_err();
    assert!(matches!(error, FetchError::Unfit { cid, .. } if cid == *chain[0].cid()), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_cids_are_not_stored() {
    let alice = Node::start().await;
    let leaf = raw("leaf");
    let inner = node([*leaf.cid()]);
    let hash = cid::multihash::Multihash::wrap(0, inner.data()).unwrap();
    let top = node([Cid::new_v1(0x71, hash), Cid::new_v1(0x55, hash)]);
    alice.store(&[leaf, top.clone()]).await;
    let held = fetch(&alice, request(*top.cid())).await.unwrap();
    assert_eq!(held.blocks, 2, "identity blocks are not stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn local_dag_needs_no_network() {
    let alice = Node::start().await;
    let blocks = tree(raws(20_000, 64), 100);
    alice.store(&blocks).await;
    let held = fetch(&alice, request(root(&blocks))).await.unwrap();
    assert_eq!(held.blocks, blocks.len() as u64);
    // A sealed hold is complete: it is not walked again.
    alice.blocks.release(&HoldName::parse("test").unwrap()).await.unwrap();
    assert_eq!(fetch(&alice, request(root(&blocks))).await.unwrap(), held);
    assert_eq!(alice.bitswap.stats().messages_sent, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_of_the_maximum_size_are_fetched() {
    let (alice, bob) = (Node::start().await, Node::start().await);
    let mut leaves = raws(40, 1 << 20);
    leaves.extend(raws(8, crate::block::BLOCK_SIZE_MAX));
    let blocks = tree(leaves, 174);
    bob.store(&blocks).await;
    alice.connect(&bob.swarm).await;
    let held = fetch(&alice, request(root(&blocks))).await.unwrap();
    assert_eq!(held.bytes, bytes(&blocks));
}

/// A source that finds one peer.
struct OnePeer(libp2p::PeerId, libp2p::Multiaddr);

impl crate::sources::Source for OnePeer {
    fn name(&self) -> &'static str {
        "test"
    }

    fn find(&self, _: &Cid) -> futures::stream::BoxStream<'static, crate::sources::Provider> {
        let found = crate::sources::Provider::Peer { peer: self.0, addresses: vec![self.1.clone()] };
        Box::pin(futures::stream::iter([found]))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_found_by_a_source_are_dialled() {
    let (alice, bob) = (Node::start().await, Node::start().await);
    let blocks = tree(raws(30, 2000), 10);
    bob.store(&blocks).await;
    let source: Arc<dyn crate::sources::Source> = Arc::new(OnePeer(bob.swarm.id, bob.swarm.address.clone()));
    let fetcher = Fetcher::new(alice.blocks.clone(), alice.bitswap.clone(), dialler(&alice), vec![source]);
    let held = soon(fetcher.fetch(request(root(&blocks)), Arc::new(Progress::default()))).await.unwrap();
    assert_eq!(held.blocks, blocks.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_fetches_of_one_dag_share_blocks() {
    let (alice, bob) = (Node::start().await, Node::start().await);
    let blocks = tree(raws(400, 2000), 20);
    bob.store(&blocks).await;
    alice.connect(&bob.swarm).await;
    let mut other = request(root(&blocks));
    other.hold = HoldName::parse("pin/other").unwrap();
    let (one, two) = tokio::join!(fetch(&alice, request(root(&blocks))), fetch(&alice, other));
    assert_eq!(one.unwrap(), two.unwrap());
    let received = alice.bitswap.stats().blocks_received;
    assert!(received < 2 * blocks.len() as u64, "{received}");
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_block_is_not_requested() {
    let alice = Node::start().await;
    let codecs = [(0x55, 0x12), (0x70, 0x12), (0x55, 0x1e)];
    let empty =
        codecs.map(|(codec, hash)| Block::hash(cid::Version::V1, codec, hash, bytes::Bytes::new()).unwrap());
    let top = node(empty.iter().chain(&empty).map(|block| *block.cid()));
    alice.store(std::slice::from_ref(&top)).await;
    let held = fetch(&alice, request(*top.cid())).await.unwrap();
    assert_eq!(held.blocks, 3, "two of them share their hash");
    for block in &empty {
        assert_eq!(alice.blocks.get(block.cid()).unwrap().as_ref(), Some(block));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_local_blocks_are_fetched_again_and_repaired() {
    let (alice, bob) = (Node::start().await, Node::start().await);
    let blocks = tree(raws(30, 2000), 10);
    alice.store(&blocks).await;
    bob.store(&blocks).await;
    alice.connect(&bob.swarm).await;
    let damaged = [&blocks[30], &blocks[32]];
    for block in damaged {
        alice.blocks.damage(block.cid());
    }
    let held = fetch(&alice, request(root(&blocks))).await.unwrap();
    assert_eq!(held.blocks, blocks.len() as u64);
    for block in damaged {
        assert_eq!(alice.blocks.get(block.cid()).unwrap().as_ref(), Some(block));
    }
    assert_eq!(alice.bitswap.stats().blocks_received, 2);
}
