//! Reads files and directories back from the blocks that are here. It never asks the network.
//!
//! The DAG may be hostile: depth, entries and what one step holds in memory are bounded.

use std::sync::Arc;

use bytes::Bytes;
use cid::Cid;
use futures::Stream;

use super::message::{Data, TYPE_DIRECTORY, TYPE_FILE, TYPE_RAW, TYPE_SHARD};
use crate::dag::pb::PbNode;
use crate::dag::{DAG_PB, DagError, RAW};
use crate::{Block, Blocks, BlocksError};

/// How deep a file's tree may be; a balanced one of 1024 links and 8 levels has more bytes than 64 bits count.
const FILE_DEPTH_MAX: usize = 32;
/// How deep shards may nest: a hash of 8 bytes, one byte a level, or less a level with a smaller fanout.
const SHARD_DEPTH_MAX: usize = 32;
/// The most entries of a directory that are listed.
pub const DIRECTORY_ENTRIES_MAX: usize = 1_000_000;
/// The most shards of one directory: a full tree with so many entries has some hundred thousand.
const SHARDS_MAX: usize = 250_000;
/// The bytes of all names of one directory: one shard with a long name can be part of it many times.
const NAMES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Nodes of a file that wait for their turn: those beside the way down. Balanced trees have some thousand.
const FILE_WAITING_MAX: usize = 262_144;

/// Why something cannot be read back.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A block is not stored here.
    #[error("block {0} is not here")]
    Missing(Cid),
    /// It is not a file, or not a directory, or not UnixFS at all.
    #[error("{cid} is not {wanted}")]
    Kind {
        /// The block at fault.
        cid: Cid,
        /// What it should be.
        wanted: &'static str,
    },
    /// A node cannot be decoded.
    #[error("{cid}: {error}")]
    Node {
        /// The node.
        cid: Cid,
        /// What is wrong with it.
        error: DagError,
    },
    /// Too deep, or a directory of more than [`DIRECTORY_ENTRIES_MAX`] entries.
    #[error("{0} is too large to be read")]
    TooLarge(Cid),
    /// A position that no listing of this directory gave.
    #[error("there is no such position in {0}")]
    Position(Cid),
    /// The block store failed.
    #[error(transparent)]
    Blocks(#[from] BlocksError),
    /// The runtime is shutting down.
    #[error("reading was stopped")]
    Stopped,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Its name. It may hold anything but is valid UTF-8.
    pub name: String,
    /// The root of the file or directory.
    pub cid: Cid,
    /// The bytes of all blocks below, as the directory claims.
    pub dag_bytes: Option<u64>,
}

/// The content of a file, chunk by chunk. Reading happens beside the runtime; dropping it ends it.
///
/// # Errors
/// The stream ends after its first error.
pub fn read_file(
    blocks: Arc<dyn Blocks>,
    root: Cid,
) -> impl Stream<Item = Result<Bytes, ReadError>> + Send + 'static {
    futures::stream::try_unfold(vec![(root, 0)], move |mut stack| {
        let blocks = Arc::clone(&blocks);
        async move {
            while let Some((cid, depth)) = stack.pop() {
                let blocks = Arc::clone(&blocks);
                let part = tokio::task::spawn_blocking(move || file_part(blocks.as_ref(), cid))
                    .await
                    .map_err(|_| ReadError::Stopped)??;
                let is_too_deep = depth == FILE_DEPTH_MAX && !part.children.is_empty();
                if is_too_deep || stack.len() + part.children.len() > FILE_WAITING_MAX {
                    return Err(ReadError::TooLarge(cid));
                }
                stack.extend(part.children.into_iter().rev().map(|child| (child, depth + 1)));
                if !part.data.is_empty() {
                    return Ok(Some((part.data, stack)));
                }
            }
            Ok(None)
        }
    })
}

/// What one node adds to a file: its own bytes, then its children's.
struct FilePart {
    data: Bytes,
    children: Vec<Cid>,
}

fn file_part(blocks: &dyn Blocks, cid: Cid) -> Result<FilePart, ReadError> {
    let block = fetch(blocks, &cid)?;
    match cid.codec() {
        RAW => Ok(FilePart { data: block.data().clone(), children: Vec::new() }),
        DAG_PB => {
            let node = decode(&block)?;
            match Data::of(&node) {
                Some(Data { kind: TYPE_FILE | TYPE_RAW, data, .. }) => Ok(FilePart {
                    data: data.unwrap_or_default(),
                    children: node.links.iter().map(|link| link.cid).collect(),
                }),
                Some(_) | None => Err(ReadError::Kind { cid, wanted: "a file" }),
            }
        }
        _ => Err(ReadError::Kind { cid, wanted: "a file" }),
    }
}

/// The entries of a directory, plain or sharded; sharded ones in the order of their hashes. Reads the
/// blocks in place: async callers run it where blocking is allowed.
///
/// # Errors
/// Any [`ReadError`].
pub fn list_directory(blocks: &dyn Blocks, root: &Cid) -> Result<Vec<DirectoryEntry>, ReadError> {
    let mut entries = Vec::new();
    let mut stack = vec![(*root, 0)];
    let (mut shards, mut names_bytes) = (0, 0);
    while let Some((cid, depth)) = stack.pop() {
        let block = fetch(blocks, &cid)?;
        let node = if cid.codec() == DAG_PB { decode(&block)? } else { PbNode::default() };
        let prefix = match Data::of(&node) {
            Some(Data { kind: TYPE_DIRECTORY, .. }) if depth == 0 => 0,
            Some(Data { kind: TYPE_SHARD, fanout: Some(fanout), .. }) => {
                shard_prefix(fanout).ok_or(ReadError::Kind { cid, wanted: "a directory" })?
            }
            Some(_) | None => return Err(ReadError::Kind { cid, wanted: "a directory" }),
        };
        shards += 1;
        if depth > SHARD_DEPTH_MAX || shards > SHARDS_MAX {
            return Err(ReadError::TooLarge(*root));
        }
        let mut below = Vec::new();
        for link in &node.links {
            let name = link.name.unwrap_or_default();
            let name = name.get(prefix..).ok_or(ReadError::Kind { cid, wanted: "a directory" })?;
            if prefix > 0 && name.is_empty() {
                below.push((link.cid, depth + 1));
            } else if entries.len() == DIRECTORY_ENTRIES_MAX || names_bytes > NAMES_BYTES_MAX {
                return Err(ReadError::TooLarge(*root));
            } else {
                names_bytes += name.len();
                entries.push(DirectoryEntry { name: name.to_owned(), cid: link.cid, dag_bytes: link.tsize });
            }
        }
        stack.extend(below.into_iter().rev());
    }
    Ok(entries)
}

/// How much of a name in a shard is its place, which is written in hexadecimal, as wide as the highest one.
pub(super) fn shard_prefix(fanout: u64) -> Option<usize> {
    (8..=1024).contains(&fanout).then(|| format!("{:X}", fanout - 1).len())
}

fn fetch(blocks: &dyn Blocks, cid: &Cid) -> Result<Block, ReadError> {
    blocks.get(cid)?.ok_or(ReadError::Missing(*cid))
}

fn decode(block: &Block) -> Result<PbNode<'_>, ReadError> {
    PbNode::decode(block.data()).map_err(|error| ReadError::Node { cid: *block.cid(), error })
}
