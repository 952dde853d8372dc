//! Files: a balanced tree with chunks as leaves, built as the bytes arrive.

use bytes::{Bytes, BytesMut};
use cid::Cid;
use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::task::JoinHandle;

use super::message::Data;
use super::{ImportError, Imported, Profile};
use crate::dag::pb::{PbLink, PbNode};
use crate::{Block, BlockError, Blocks, HoldId};

/// Chunks that are hashed while the next one is read.
const HASHING_MAX: usize = 4;

/// A subtree without a parent yet.
#[derive(Debug, Clone, Copy)]
struct Child {
    cid: Cid,
    size_bytes: u64,
    dag_bytes: u64,
}

/// The leaf for one chunk of a file.
pub(super) fn leaf(profile: &Profile, chunk: Bytes) -> Result<Block, BlockError> {
    if profile.raw_leaves() {
        return profile.raw(chunk);
    }
    let size = chunk.len() as u64;
    let message = Data::file((!chunk.is_empty()).then_some(chunk), size, Vec::new());
    profile.node(PbNode { links: Vec::new(), data: Some(&message.bytes()) }.encode().into())
}

/// Builds the tree over the leaves. Its memory is the links of one node for each level, independent of the file's size.
pub(super) struct TreeBuilder {
    profile: Profile,
    /// From the leaves up: subtrees that wait for a parent.
    levels: Vec<Vec<Child>>,
}

impl TreeBuilder {
    pub(super) fn new(profile: Profile) -> Self {
        Self { profile, levels: vec![Vec::new()] }
    }

    /// Adds the next leaf. Returns the inner nodes that it completes.
    pub(super) fn push(&mut self, leaf: &Block, size_bytes: u64) -> Result<Vec<Block>, BlockError> {
        let mut child = Child { cid: *leaf.cid(), size_bytes, dag_bytes: leaf.data().len() as u64 };
        let mut nodes = Vec::new();
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            if self.levels[level].len() < self.profile.links_max() {
                self.levels[level].push(child);
                break;
            }
            let full = std::mem::replace(&mut self.levels[level], vec![child]);
            let (node, parent) = self.parent(&full)?;
            nodes.push(node);
            child = parent;
        }
        Ok(nodes)
    }

    /// Completes the tree. Returns the remaining nodes and the root. At least one leaf was added.
    pub(super) fn finish(mut self) -> Result<(Vec<Block>, Imported), BlockError> {
        let mut nodes = Vec::new();
        let mut below: Option<Child> = None;
        let levels = std::mem::take(&mut self.levels);
        let top = levels.len() - 1;
        for (level, mut children) in levels.into_iter().enumerate() {
            children.extend(below);
            if level == top && children.len() == 1 {
                below = children.pop();
                break;
            }
            let (node, parent) = self.parent(&children)?;
            nodes.push(node);
            below = Some(parent);
            if level == top {
                break;
            }
        }
        let root = below.unwrap_or(Child { cid: Cid::default(), size_bytes: 0, dag_bytes: 0 });
        Ok((nodes, Imported { root: root.cid, size_bytes: root.size_bytes, dag_bytes: root.dag_bytes }))
    }

    fn parent(&self, children: &[Child]) -> Result<(Block, Child), BlockError> {
        let size_bytes = children.iter().map(|child| child.size_bytes).sum();
        let message = Data::file(None, size_bytes, children.iter().map(|child| child.size_bytes).collect());
        let link = |child: &Child| PbLink { cid: child.cid, name: Some(""), tsize: Some(child.dag_bytes) };
        let node = PbNode { links: children.iter().map(link).collect(), data: Some(&message.bytes()) };
        let block = self.profile.node(node.encode().into())?;
        let dag_bytes = block.data().len() as u64 + children.iter().map(|child| child.dag_bytes).sum::<u64>();
        let parent = Child { cid: *block.cid(), size_bytes, dag_bytes };
        Ok((block, parent))
    }
}

/// Imports the bytes of `reader` as one file into `hold`. The caller commits or seals the hold.
///
/// Uses memory for a few chunks. Hashing runs on blocking threads. If the import fails or is dropped, the hold has the
/// blocks imported so far; the caller releases it.
///
/// # Errors
/// [`ImportError::Source`], [`ImportError::Blocks`], [`ImportError::Stopped`].
pub async fn import_file(
    mut reader: impl AsyncRead + Unpin + Send,
    profile: Profile,
    blocks: &dyn Blocks,
    hold: HoldId,
) -> Result<Imported, ImportError> {
    let mut tree = TreeBuilder::new(profile);
    let mut hashing: FuturesOrdered<JoinHandle<_>> = FuturesOrdered::new();
    let mut chunks = 0_u64;
    loop {
        let chunk = read_chunk(&mut reader, profile.chunk_bytes()).await?;
        let is_last = chunk.len() < profile.chunk_bytes();
        // An empty file has one empty leaf; other files have no empty leaf.
        if !chunk.is_empty() || chunks == 0 {
            chunks += 1;
            hashing.push_back(tokio::task::spawn_blocking(move || {
                let size_bytes = chunk.len() as u64;
                leaf(&profile, chunk).map(|block| (block, size_bytes))
            }));
        }
        while hashing.len() > if is_last { 0 } else { HASHING_MAX } {
            let Some(hashed) = hashing.next().await else { break };
            let (leaf, size_bytes) = hashed.map_err(|_| ImportError::Stopped)??;
            let nodes = tree.push(&leaf, size_bytes)?;
            blocks.put(hold, leaf).await?;
            for node in nodes {
                blocks.put(hold, node).await?;
            }
        }
        if is_last {
            break;
        }
    }
    let (nodes, imported) = tree.finish()?;
    for node in nodes {
        blocks.put(hold, node).await?;
    }
    Ok(imported)
}

/// Reads a whole chunk, or the rest.
async fn read_chunk(reader: &mut (impl AsyncRead + Unpin), length: usize) -> Result<Bytes, std::io::Error> {
    let mut chunk = BytesMut::with_capacity(length);
    while chunk.len() < length {
        let missing = (length - chunk.len()) as u64;
        if reader.take(missing).read_buf(&mut chunk).await? == 0 {
            break;
        }
    }
    Ok(chunk.freeze())
}
