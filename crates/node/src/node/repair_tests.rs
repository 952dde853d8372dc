//! Damage that the scrub finds is repaired by fetching the DAG again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::blocks::{MemoryBlocks, SegmentBlocks, SegmentConfig, scrub_step};
use crate::exchange::testnet::{raws, tree, until};
use crate::{Block, Blocks, FetchLimits, FetchRequest, HoldName, Node, NodeConfig};

fn name() -> HoldName {
    HoldName::parse("pin/test").unwrap()
}

async fn store(blocks: &dyn Blocks, dag: &[Block]) {
    let hold = blocks.open(&name()).unwrap();
    for block in dag {
        blocks.put(hold, block.clone()).await.unwrap();
    }
    blocks.seal(hold).await.unwrap();
}

fn open(dir: &Path) -> Arc<SegmentBlocks> {
    let config = SegmentConfig { reserve_bytes: 0, ..SegmentConfig::default() };
    Arc::new(SegmentBlocks::open(dir, &config).unwrap())
}

/// Damages every block that has these bytes in it.
fn damage(dir: &Path, bytes: &[u8]) {
    let file = dir.join("segments/0000000001.car");
    let mut content = std::fs::read(&file).unwrap();
    let places: Vec<_> =
        (0..content.len() - bytes.len()).filter(|at| content[*at..].starts_with(bytes)).collect();
    assert!(!places.is_empty());
    for at in places {
        content[at] ^= 1;
    }
    std::fs::write(&file, content).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_found_by_the_scrub_is_repaired_by_a_fetch() {
    let dag = tree(raws(40, 3_000), 10);
    let leaf = &dag[7];
    let inner = &dag[41];
    let dir = tempfile::tempdir().unwrap();
    let blocks = open(dir.path());
    store(blocks.as_ref(), &dag).await;
    let before = blocks.totals().unwrap();
    drop(blocks);
    damage(dir.path(), leaf.data());
    damage(dir.path(), inner.data());

    let blocks = open(dir.path());
    scrub_step(&blocks, Duration::from_secs(1)).unwrap();
    until("the record of damage", || blocks.damaged_holds(10).unwrap() == [(name(), 2)]).await;
    let source = Arc::new(MemoryBlocks::new());
    store(source.as_ref(), &dag).await;
    let source = Node::start(NodeConfig::loopback(), source).await.unwrap();
    let node = Node::start(NodeConfig::loopback(), blocks.clone()).await.unwrap();
    let time = Duration::from_secs(60);
    let limits = FetchLimits { bytes_max: u64::MAX, blocks_max: u64::MAX, find_time: time, stall_time: time };
    let origins = source.listen_addresses().await;
    let request = FetchRequest { root: *dag[dag.len() - 1].cid(), hold: name(), origins, limits };
    let held = node.fetch(request, Arc::default()).await.unwrap();

    assert_eq!(held.blocks, dag.len() as u64);
    assert_eq!(node.bitswap().stats().blocks_received, 2, "nothing else is fetched");
    assert!(blocks.damaged_holds(10).unwrap().is_empty());
    assert_eq!(blocks.verify(|_| true).unwrap().damaged, 0);
    let after = blocks.totals().unwrap();
    assert_eq!((after.blocks, after.held_bytes), (before.blocks, before.held_bytes));
    source.stop().await;
    node.stop().await;
}
