//! Fetches between real swarms.

use std::sync::Arc;
use std::time::Duration;

use cid::Cid;

use super::{FetchError, FetchLimits, FetchRequest, Fetcher, Progress};
use crate::bitswap::testnet::{Node, node, raw, raws, soon, tree};
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

fn fetcher(node: &Node) -> Fetcher {
    Fetcher::new(node.blocks.clone(), node.bitswap.clone(), node.dialler(), Vec::new())
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
async fn a_dag_comes_whole_from_an_origin_that_is_dialled() {
    let (alice, bob) = (Node::start().await, Node::start().await);
    let blocks = tree(raws(500, 4096), 20);
    bob.store(&blocks).await;
    let mut request = request(root(&blocks));
    request.origins.push(bob.net.origin());

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
