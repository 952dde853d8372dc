//! Reads files and directories from local blocks. It never uses the network.
//!
//! The DAG may be hostile: depth, entries and memory are bounded.

use std::sync::Arc;

use bytes::Bytes;
use cid::Cid;
use futures::Stream;

use super::message::{Data, TYPE_DIRECTORY, TYPE_FILE, TYPE_RAW, TYPE_SHARD};
use crate::dag::pb::PbNode;
use crate::dag::{DAG_PB, DagError, RAW};
use crate::{Block, Blocks, BlocksError};

/// The maximum depth of a file's tree. A balanced tree of 1024 links and 8 levels has more than 2^64 bytes.
const FILE_DEPTH_MAX: usize = 32;
/// The maximum nesting of shards: a hash of 8 bytes, with one byte a level, or less with a smaller fanout.
const SHARD_DEPTH_MAX: usize = 32;
/// The maximum number of entries of a directory that can be listed.
pub const DIRECTORY_ENTRIES_MAX: usize = 1_000_000;
/// The maximum number of shards of a directory: a full tree with the maximum number of entries has some hundred thousand.
const SHARDS_MAX: usize = 250_000;
/// The maximum bytes of all names of a directory: one shard with a long name can occur many times.
const NAMES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Nodes of a file that wait to be visited: the siblings along the path. Balanced trees have some thousand.
const FILE_WAITING_MAX: usize = 262_144;

/// Why a file or directory cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A block is not stored locally.
    #[error("block {0} is not stored locally")]
    Missing(Cid),
    /// The node is not of the expected type, or not UnixFS.
    #[error("{cid} is not {wanted}")]
    Kind {
        cid: Cid,
        /// The expected type.
        wanted: &'static str,
    },
    /// A node cannot be decoded.
    #[error("{cid}: {error}")]
    Node { cid: Cid, error: DagError },
    /// Too deep, or a directory of more than [`DIRECTORY_ENTRIES_MAX`] entries.
    #[error("{0} is too large to read")]
    TooLarge(Cid),
    /// The position is not from a listing of this directory.
    #[error("no such position in {0}")]
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
    /// Valid UTF-8, otherwise unrestricted.
    pub name: String,
    pub cid: Cid,
    /// The bytes of all blocks of the entry, as the directory claims.
    pub dag_bytes: Option<u64>,
}

/// The content of a file, chunk by chunk. Blocks are read on blocking threads. Dropping the stream ends the reading.
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

/// The content of one node of a file: its own bytes, then its children.
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

/// The entries of a directory, plain or sharded; of a sharded one in the order of hashes. Reads from the disk: async
/// callers run it where blocking is allowed.
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

/// The length of the place that prefixes a name in a shard: hexadecimal digits, as many as the highest place needs.
pub(super) fn shard_prefix(fanout: u64) -> Option<usize> {
    (8..=1024).contains(&fanout).then(|| format!("{:X}", fanout - 1).len())
}

fn fetch(blocks: &dyn Blocks, cid: &Cid) -> Result<Block, ReadError> {
    blocks.get(cid)?.ok_or(ReadError::Missing(*cid))
}

fn decode(block: &Block) -> Result<PbNode<'_>, ReadError> {
    PbNode::decode(block.data()).map_err(|error| ReadError::Node { cid: *block.cid(), error })
}
