//! The contract on a real node with a second one to fetch from, and what only a node has.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cid::{Cid, Version};
use futures::TryStreamExt;
use pinfold_cluster::{
    Cluster, ClusterError, Cut, Embedded, HoldName, HoldOptions, ImportedKind, Progress, Reach, SurveyOptions,
};
use pinfold_node::blocks::{MemoryBlocks, SegmentBlocks, SegmentConfig};
use pinfold_node::unixfs::{self, DirectoryBuilder, Profile};
use pinfold_node::{Block, Blocks, Node, NodeConfig};
use tempfile::TempDir;

use crate::contract::{World, contract, hold, hold_at_once, name, terms};

const RAW: u64 = 0x55;
const DAG_CBOR: u64 = 0x71;
const DAG_PB: u64 = 0x70;
const SHA2_256: u64 = 0x12;

struct Nodes {
    node: Node,
    cluster: Embedded,
    /// Who has what is published.
    source: Node,
    _home: Option<TempDir>,
}

impl Nodes {
    async fn start(blocks: Arc<dyn Blocks>, home: Option<TempDir>) -> Self {
        let source = Node::start(NodeConfig::loopback(), Arc::new(MemoryBlocks::new())).await.unwrap();
        let node = Node::start(NodeConfig::loopback(), blocks).await.unwrap();
        let cluster = Embedded::new(node.clone(), Profile::default());
        Self { node, cluster, source, _home: home }
    }

    async fn in_memory() -> Self {
        Self::start(Arc::new(MemoryBlocks::new()), None).await
    }

    async fn on_disk() -> Self {
        let home = tempfile::tempdir().unwrap();
        let config = SegmentConfig { reserve_bytes: 0, ..SegmentConfig::default() };
        let blocks = SegmentBlocks::open(&home.path().join("blocks"), &config).unwrap();
        Self::start(Arc::new(blocks), Some(home)).await
    }

    /// Puts blocks on the network under a name.
    async fn provide(&self, text: &str, blocks: impl IntoIterator<Item = Block>) {
        let store = self.source.blocks();
        let hold = store.open(&name(text)).unwrap();
        for block in blocks {
            store.put(hold, block).await.unwrap();
        }
        store.seal(hold).await.unwrap();
    }
}

fn block(codec: u64, data: &'static [u8]) -> Block {
    Block::hash(Version::V1, codec, SHA2_256, Bytes::from_static(data)).unwrap()
}

/// The blocks of a directory with two files: the directory itself first.
async fn directory_of_two() -> [Block; 3] {
    let blocks = MemoryBlocks::new();
    let hold = blocks.open(&name("directory")).unwrap();
    let mut directory = DirectoryBuilder::new();
    let mut roots = Vec::new();
    for text in ["first", "second"] {
        let file = unixfs::import_file(text.as_bytes(), Profile::default(), &blocks, hold).await.unwrap();
        directory.insert(text, file).unwrap();
        roots.push(file.root);
    }
    roots.insert(0, directory.import(Profile::default(), &blocks, hold).await.unwrap().root);
    [0, 1, 2].map(|at: usize| blocks.get(&roots[at]).unwrap().unwrap())
}

impl World for Nodes {
    fn cluster(&self) -> &dyn Cluster {
        &self.cluster
    }

    async fn origins(&self) -> Vec<String> {
        self.source.listen_addresses().await.iter().map(ToString::to_string).collect()
    }

    async fn publish(&self, text: &str) -> Cid {
        let data = Bytes::copy_from_slice(text.as_bytes());
        let block = Block::hash(Version::V1, RAW, SHA2_256, data).unwrap();
        let root = *block.cid();
        self.provide(&root.to_string(), [block]).await;
        root
    }

    async fn unpublish(&self, root: &Cid) {
        self.source.blocks().release(&name(root.to_string())).await.unwrap();
    }

    async fn interrupt(&self, name: &HoldName) -> Cid {
        let [directory, first, second] = directory_of_two().await;
        let root = *directory.cid();
        self.provide("begin", [directory, first]).await;
        let (terms, progress) = (terms(self).await, Arc::new(Progress::default()));
        {
            let mut holding = self.cluster.hold(name, &root, &terms, &progress);
            for _ in 0..6_000 {
                if progress.read().blocks == 2 {
                    break;
                }
                // Goes on with it a little.
                let ended = tokio::time::timeout(Duration::from_millis(10), &mut holding).await;
                assert!(ended.is_err(), "it ended without the second file: {ended:?}");
            }
        }
        assert_eq!(progress.read().blocks, 2);
        // From here on nobody has what came already.
        self.source.blocks().release(&crate::contract::name("begin")).await.unwrap();
        self.provide("end", [second]).await;
        root
    }

    async fn stop(self) {
        self.node.stop().await;
        self.source.stop().await;
    }
}

mod in_memory {
    super::contract!(super::Nodes::in_memory().await);
}

mod on_disk {
    super::contract!(super::Nodes::on_disk().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directory_is_listed_and_read_after_its_upload_is_released() {
    let world = Nodes::in_memory().await;
    let upload = name("upload/1");
    // More than two chunks, so that the file is a tree.
    let large: Vec<u8> = (0_u32..700_000).flat_map(u32::to_le_bytes).collect();
    let small = world.cluster.import_file(&upload, 5, &mut "small".as_bytes()).await.unwrap();
    let file = world.cluster.import_file(&upload, u64::MAX, &mut large.as_slice()).await.unwrap();
    assert_eq!(file.content_bytes, large.len() as u64);
    let files = [("docs/small.txt".to_owned(), small), ("large.bin".to_owned(), file)];
    let folder = world.cluster.import_directory(&upload, &files).await.unwrap();
    hold_at_once(&world, "pin/a", &folder.root).await.unwrap();
    world.cluster.release(&upload).await.unwrap();

    let blocks = world.node.blocks();
    let list = |root: &Cid| unixfs::list_directory(blocks.as_ref(), root).unwrap();
    let names = |root: &Cid| list(root).into_iter().map(|entry| entry.name).collect::<Vec<_>>();
    assert_eq!(names(&folder.root), ["docs", "large.bin"]);
    assert_eq!(names(&list(&folder.root)[0].cid), ["small.txt"]);
    assert_eq!(list(&folder.root)[1].cid, file.root);
    let chunks: Vec<Bytes> = unixfs::read_file(blocks.clone(), file.root).try_collect().await.unwrap();
    assert_eq!(chunks.concat(), large);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configured_peer_is_listed_and_fetched_from() {
    let source = Node::start(NodeConfig::loopback(), Arc::new(MemoryBlocks::new())).await.unwrap();
    let kept = NodeConfig { peers: source.listen_addresses().await, ..NodeConfig::loopback() };
    let node = Node::start(kept, Arc::new(MemoryBlocks::new())).await.unwrap();
    let cluster = Embedded::new(node.clone(), Profile::default());
    let world = Nodes { node, cluster, source, _home: None };
    let root = world.publish("kept").await;
    let terms = HoldOptions { origins: Vec::new(), ..terms(&world).await };
    world.cluster.hold(&name("pin/a"), &root, &terms, &Arc::default()).await.unwrap();

    let peers = world.cluster.peers(10).await.unwrap();
    assert_eq!(peers.len(), 2);
    assert_eq!(peers[0].id, world.node.peer_id().to_string());
    assert!(peers[0].addresses.iter().all(|address| address.ends_with(&peers[0].id)));
    assert_eq!(peers[1].id, world.source.peer_id().to_string());
    assert!(!peers[1].is_self && peers[1].connected);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsupported_content_is_unfit() {
    let world = Nodes::in_memory().await;
    let garbage = block(DAG_PB, b"this is no dag-pb");
    let root = *garbage.cid();
    world.provide("garbage", [garbage]).await;
    let refused = hold(&world, "pin/a", &root).await;
    assert!(matches!(refused, Err(ClusterError::Unfit(_))), "{refused:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dag_with_missing_blocks_stalls() {
    let world = Nodes::in_memory().await;
    let [directory, first, _] = directory_of_two().await;
    let root = *directory.cid();
    world.provide("begin", [directory, first]).await;
    let terms = HoldOptions { stall_time: Duration::from_millis(50), ..terms(&world).await };
    let stalled = world.cluster.hold(&name("pin/a"), &root, &terms, &Arc::default()).await;
    assert!(matches!(stalled, Err(ClusterError::Stalled(_))), "{stalled:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_a_block_does_not_use_the_network() {
    let world = Nodes::in_memory().await;
    let (here, there) = (world.publish("here").await, world.publish("there").await);
    hold(&world, "pin/a", &here).await.unwrap();
    let before = world.node.bitswap().stats();
    assert_eq!(world.cluster.block(&there).await.unwrap(), None);
    let after = world.node.bitswap().stats();
    assert_eq!((after.wants, after.blocks_received), (0, before.blocks_received));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identity_cid_is_local_and_takes_no_space() {
    let world = Nodes::in_memory().await;
    let inline: Cid = "bafkqabtimvwgy3yk".parse().unwrap();
    let held = hold_at_once(&world, "pin/a", &inline).await.unwrap();
    assert_eq!((held.bytes, held.blocks, held.kind), (0, 0, ImportedKind::File));
    assert_eq!(world.cluster.block(&inline).await.unwrap().unwrap().as_ref(), b"hello\n");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_node_returns_stopping() {
    let world = Nodes::in_memory().await;
    let root = world.publish("x").await;
    world.node.stop().await;
    assert_eq!(hold(&world, "pin/a", &root).await, Err(ClusterError::Stopping));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds_on_disk_survive_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let (dir, config) =
        (home.path().join("blocks"), SegmentConfig { reserve_bytes: 0, ..SegmentConfig::default() });
    let mut roots = Vec::new();
    for round in 0..3 {
        let blocks = Arc::new(SegmentBlocks::open(&dir, &config).unwrap());
        let world = Nodes::start(blocks.clone(), None).await;
        for (at, root) in roots.iter().enumerate() {
            hold_at_once(&world, &format!("pin/{at}"), root).await.unwrap();
        }
        let root = world.publish(&format!("round {round}")).await;
        hold(&world, &format!("pin/{round}"), &root).await.unwrap();
        roots.push(root);
        world.stop().await;
        blocks.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hold_local_holds_only_complete_local_dags() {
    let world = Nodes::on_disk().await;
    let (one, two) = (block(RAW, b"one"), block(RAW, b"two"));
    // A dag-cbor list of two links.
    let mut list = vec![0x82];
    for leaf in [&one, &two] {
        list.extend([0xd8, 0x2a, 0x58, 0x25, 0x00]);
        list.extend(leaf.cid().to_bytes());
    }
    let root = Block::hash(Version::V1, DAG_CBOR, SHA2_256, list.into()).unwrap();
    let terms = terms(&world).await;
    let blocks = world.node.blocks();
    let upload = blocks.open(&name("upload/x")).unwrap();
    for block in [&root, &one] {
        blocks.put(upload, block.clone()).await.unwrap();
    }
    assert!(world.cluster.has(root.cid()) && !world.cluster.has(two.cid()));
    assert_eq!(
        world.cluster.hold_local(&name("pin/x"), root.cid(), &terms).await,
        Ok(None),
        "one is missing"
    );

    blocks.put(upload, two.clone()).await.unwrap();
    let small = HoldOptions { bytes_max: 10, ..terms.clone() };
    let refused = world.cluster.hold_local(&name("pin/x"), root.cid(), &small).await;
    assert_eq!(refused, Err(ClusterError::OverLimit));
    for _ in 0..2 {
        let held = world.cluster.hold_local(&name("pin/x"), root.cid(), &terms).await.unwrap().unwrap();
        assert_eq!((held.blocks, held.bytes), (3, 6 + root.data().len() as u64));
    }
    world.cluster.release(&name("upload/x")).await.unwrap();
    assert_eq!(blocks.get(two.cid()).unwrap(), Some(two), "its own hold keeps it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn survey_counts_local_and_missing_blocks() {
    let world = Nodes::on_disk().await;
    let [directory, first, second] = directory_of_two().await;
    let root = *directory.cid();
    let sizes = [&directory, &first, &second].map(|block| block.data().len() as u64);
    let terms = SurveyOptions { blocks_max: 100, time: Duration::ZERO, origins: Vec::new() };
    let look = async |blocks_max| {
        let terms = SurveyOptions { blocks_max, ..terms.clone() };
        world.cluster.survey(&root, &terms).await.unwrap()
    };
    let blocks = world.node.blocks();
    let upload = blocks.open(&name("upload/x")).unwrap();
    let nothing = look(100).await;
    assert_eq!((nothing.blocks, nothing.missing, nothing.reach), (0, 1, Reach::Nowhere));

    for block in [&directory, &first] {
        blocks.put(upload, block.clone()).await.unwrap();
    }
    let part = look(100).await;
    assert_eq!((part.blocks, part.bytes, part.missing), (2, sizes[0] + sizes[1], 1));
    assert_eq!((part.reach, part.claimed_bytes), (Reach::Here, Some(sizes.iter().sum())));
    blocks.put(upload, second).await.unwrap();
    let whole = look(100).await;
    assert!(whole.is_whole() && whole.bytes == sizes.iter().sum::<u64>(), "{whole:?}");
    let cut = look(2).await;
    assert_eq!((cut.blocks, cut.missing, cut.cut), (2, 0, Some(Cut::Blocks)));
    assert!(!cut.is_whole());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn survey_fetches_only_the_root() {
    let world = Nodes::in_memory().await;
    let [directory, first, second] = directory_of_two().await;
    let root = *directory.cid();
    let own = first.data().len() as u64;
    let blocks = world.node.blocks();
    let upload = blocks.open(&name("upload/x")).unwrap();
    blocks.put(upload, first.clone()).await.unwrap();
    world.provide("all", [directory, first, second]).await;
    let origins = crate::contract::World::origins(&world).await;
    let terms = SurveyOptions { blocks_max: 100, time: Duration::from_secs(60), origins };
    let seen = world.cluster.survey(&root, &terms).await.unwrap();
    assert_eq!((seen.reach, seen.blocks, seen.bytes, seen.missing), (Reach::Delivered, 1, own, 2));
    let stats = world.node.bitswap().stats();
    assert_eq!((stats.wants, stats.blocks_received), (0, 1));
    assert_eq!(world.cluster.block(&root).await.unwrap(), None);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn survey_of_unsupported_content_is_unfit() {
    let world = Nodes::in_memory().await;
    let garbage = block(DAG_PB, b"this is no dag-pb");
    let root = *garbage.cid();
    world.provide("garbage", [garbage]).await;
    let origins = crate::contract::World::origins(&world).await;
    let terms = SurveyOptions { blocks_max: 100, time: Duration::from_secs(60), origins };
    let refused = world.cluster.survey(&root, &terms).await;
    assert!(matches!(refused, Err(ClusterError::Unfit(_))), "{refused:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directory_with_a_lost_file_is_not_created() {
    let world = Nodes::on_disk().await;
    let upload = name("upload/1");
    let entry = world.cluster.import_entry(&upload, 5, &mut "first".as_bytes()).await.unwrap();
    // As after a write that failed: the hold begins anew.
    world.cluster.release(&upload).await.unwrap();
    let files = [("first".to_owned(), entry)];
    let refused = world.cluster.import_directory(&upload, &files).await;
    assert!(matches!(refused, Err(ClusterError::Unavailable(_))), "{refused:?}");
    world.stop().await;
}
