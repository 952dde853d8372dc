//! The content of the show, the node that has it at first, and the proof that Pinfold holds it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use cid::Cid;
use futures::TryStreamExt;
use pinfold_node::blocks::MemoryBlocks;
use pinfold_node::unixfs::{DirectoryBuilder, Profile, import_file, list_directory, read_file};
use pinfold_node::{Blocks, FetchLimits, FetchRequest, HoldName, Node, NodeConfig, Progress};

/// Large enough for progress to be seen, small enough for any machine's memory.
const LARGE_FILE_SIZE: usize = 48 << 20;

/// A small folder.
pub(super) struct Sample {
    /// Its files: path and content.
    pub(super) files: Vec<(&'static str, Bytes)>,
}

impl Sample {
    /// The same in every run, so that its CID is the same too.
    pub(super) fn make() -> Self {
        let files = vec![
            ("hello.txt", Bytes::from_static(b"Hello from a node that will soon be gone.\n")),
            ("notes/about.md", Bytes::from_static(b"# A sample\n\nMade by `pinfold try`.\n")),
            ("large.bin", noise(LARGE_FILE_SIZE)),
        ];
        Self { files }
    }

    /// How much it is.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, content)| content.len() as u64).sum()
    }
}

/// Bytes without a pattern, so that every block is another one (xorshift64).
fn noise(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

/// The node that has the folder at first.
pub(super) struct Source {
    node: Node,
    root: Cid,
}

impl Source {
    /// Starts it on a free port of loopback, with the folder in its own memory.
    pub(super) async fn start(sample: &Sample) -> anyhow::Result<Self> {
        let blocks = Arc::new(MemoryBlocks::new());
        let root = import(sample, &*blocks).await.context("cannot make the sample")?;
        let node =
            Node::start(NodeConfig::loopback(), blocks).await.context("cannot start the second node")?;
        Ok(Self { node, root })
    }

    /// The folder's root.
    pub(super) fn root(&self) -> &Cid {
        &self.root
    }

    /// Who it is.
    pub(super) fn peer_id(&self) -> String {
        self.node.peer_id().to_string()
    }

    /// Where Pinfold finds it.
    pub(super) async fn addresses(&self) -> Vec<String> {
        self.node.listen_addresses().await.iter().map(ToString::to_string).collect()
    }

    /// Ends it, and with it all that it had.
    pub(super) async fn stop(self) {
        self.node.stop().await;
    }
}

async fn import(sample: &Sample, blocks: &dyn Blocks) -> anyhow::Result<Cid> {
    let hold = blocks.open(&hold_name()?)?;
    let mut folder = DirectoryBuilder::new();
    for (path, content) in &sample.files {
        folder.insert(path, import_file(content.as_ref(), Profile::default(), blocks, hold).await?)?;
    }
    let root = folder.import(Profile::default(), blocks, hold).await?.root;
    blocks.seal(hold).await?;
    Ok(root)
}

/// Reads the folder with a new node that knows only Pinfold, and compares every byte.
///
/// # Errors
/// Something is missing or different.
pub(super) async fn read_back(
    root: &Cid,
    pinfold: &[String],
    sample: &Sample,
    time_max: Duration,
) -> anyhow::Result<()> {
    let peers = pinfold.iter().map(|address| address.parse()).collect::<Result<Vec<_>, _>>()?;
    let blocks: Arc<dyn Blocks> = Arc::new(MemoryBlocks::new());
    let config = NodeConfig { peers: peers.clone(), ..NodeConfig::loopback() };
    let reader = Node::start(config, Arc::clone(&blocks)).await.context("cannot start the third node")?;
    let request = FetchRequest {
        root: *root,
        hold: hold_name()?,
        origins: peers,
        limits: FetchLimits {
            bytes_max: sample.bytes() * 2,
            blocks_max: 1_000_000,
            find_time: time_max,
            stall_time: time_max,
        },
    };
    let fetched = reader.fetch(request, Arc::new(Progress::default())).await;
    reader.stop().await;
    fetched.context("Pinfold does not serve the folder")?;
    for (path, content) in &sample.files {
        let found = read(&blocks, *root, path).await.with_context(|| (*path).to_owned())?;
        ensure!(found == *content, "{path} is different");
    }
    Ok(())
}

async fn read(blocks: &Arc<dyn Blocks>, root: Cid, path: &str) -> anyhow::Result<Vec<u8>> {
    let mut cid = root;
    for name in path.split('/') {
        let entries = list_directory(&**blocks, &cid)?;
        let Some(entry) = entries.into_iter().find(|entry| entry.name == name) else {
            bail!("{name} is missing");
        };
        cid = entry.cid;
    }
    let mut bytes = Vec::new();
    let mut chunks = std::pin::pin!(read_file(Arc::clone(blocks), cid));
    while let Some(chunk) = chunks.try_next().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn hold_name() -> anyhow::Result<HoldName> {
    HoldName::parse("sample").context("not a name for a hold")
}
