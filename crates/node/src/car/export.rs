//! Exports a local DAG as a CARv1: the root in the header, the blocks depth first, each of them once.
//!
//! Every block is verified when it is read. Memory grows only by the 16 bytes (up to 40 with the overhead of the hash
//! table) that record a visited block: the links of nodes are dropped when there are too many, and read again. Blocks of
//! identity CIDs are not written, because readers of the CAR can decode them.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use cid::Cid;
use tokio::sync::mpsc;

use super::{header, section_head};
use crate::{Block, Blocks, BlocksError, dag};

/// The maximum depth of a DAG in links; deeper ones cannot be pinned.
const DEPTH_MAX: usize = 1_024;
/// Links in the memory of all open nodes together, 96 bytes each.
const LINKS_HELD_MAX: usize = 256 * 1024;
/// The minimum size of a piece in bytes, except the last one.
const PIECE_SIZE: usize = 256 * 1024;
/// Pieces that may wait for the receiver.
const PIECES_MAX: usize = 4;

/// Why a DAG cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A block is not stored locally.
    #[error("block {0} is not stored locally")]
    Missing(Cid),
    /// The stored bytes of a block no longer match its CID.
    #[error("block {0} is damaged on disk")]
    Damaged(Cid),
    /// The links of a block cannot be determined.
    #[error("block {cid} cannot be decoded: {reason}")]
    Unfit { cid: Cid, reason: String },
    /// The block store failed to read a block.
    #[error("block {cid} cannot be read: {reason}")]
    Unreadable { cid: Cid, reason: String },
}

/// The end of a CAR that cannot be completed: a truncated length. Without it, the part written so far could be mistaken
/// for a complete CAR, because the format does not contain the number of blocks.
pub const TRUNCATION_MARK: &[u8] = &[0x80];

/// The pieces of a CARv1 of the DAG of `root`. An error is the last item. The pieces before an error are none, or a CAR
/// that every reader recognises as truncated. The export runs on a blocking thread, which ends when the receiver is
/// dropped. Must be called on a Tokio runtime.
pub fn export_car(blocks: Arc<dyn Blocks>, root: Cid) -> mpsc::Receiver<Result<Bytes, ExportError>> {
    let (pieces, taken) = mpsc::channel(PIECES_MAX);
    tokio::task::spawn_blocking(move || {
        let mut writer = Writer { buffer: BytesMut::from(header(&[root]).as_slice()), pieces };
        let mut walk = DagBlocks::new(blocks, root);
        let last = loop {
            match walk.next_block() {
                Ok(Some(block)) if writer.write(&block) => {}
                Ok(Some(_closed)) => return,
                Ok(None) => break Ok(writer.buffer.split().freeze()),
                Err(error) => {
                    if !walk.has_begun() {
                        break Err(error);
                    }
                    writer.buffer.extend_from_slice(TRUNCATION_MARK);
                    if !writer.flush() {
                        return;
                    }
                    break Err(error);
                }
            }
        };
        // An error says that the receiver was dropped.
        let _ = writer.pieces.blocking_send(last);
    });
    taken
}

struct Writer {
    buffer: BytesMut,
    pieces: mpsc::Sender<Result<Bytes, ExportError>>,
}

impl Writer {
    /// False if the receiver was dropped.
    fn write(&mut self, block: &Block) -> bool {
        self.buffer.extend_from_slice(&section_head(block.cid(), block.data().len()));
        if block.data().len() < PIECE_SIZE {
            self.buffer.extend_from_slice(block.data());
            return self.buffer.len() < PIECE_SIZE || self.flush();
        }
        // A large block is sent without a copy.
        self.flush() && self.pieces.blocking_send(Ok(block.data().clone())).is_ok()
    }

    fn flush(&mut self) -> bool {
        self.pieces.blocking_send(Ok(self.buffer.split().freeze())).is_ok()
    }
}

/// The blocks of a DAG, depth first, each of them once.
pub struct DagBlocks {
    blocks: Arc<dyn Blocks>,
    root: Option<Cid>,
    open: Vec<Node>,
    links_held: usize,
    seen: HashSet<u128>,
    hashers: (RandomState, RandomState),
}

/// A block whose links are being visited.
struct Node {
    cid: Cid,
    next: usize,
    links: Option<Vec<Cid>>,
}

impl DagBlocks {
    /// A traversal from `root`.
    #[must_use]
    pub fn new(blocks: Arc<dyn Blocks>, root: Cid) -> Self {
        Self {
            blocks,
            root: Some(root),
            open: Vec::new(),
            links_held: 0,
            seen: HashSet::new(),
            hashers: (RandomState::new(), RandomState::new()),
        }
    }

    /// The next block; `None` after the last. May block on the disk.
    ///
    /// # Errors
    /// Any [`ExportError`].
    pub fn next_block(&mut self) -> Result<Option<Block>, ExportError> {
        loop {
            let cid = match self.root.take() {
                Some(root) => root,
                None => match self.next_link()? {
                    Some(cid) => cid,
                    None => return Ok(None),
                },
            };
            if let Some(inline) = Block::inline(&cid) {
                self.enter(&inline)?;
            } else if self.seen.insert(self.fingerprint(&cid)) {
                let block = self.load(&cid)?;
                self.enter(&block)?;
                return Ok(Some(block));
            }
        }
    }

    /// Whether anything but the root was visited: before that, nothing was returned.
    fn has_begun(&self) -> bool {
        self.seen.len() > 1
    }

    /// The next link of the innermost open node.
    fn next_link(&mut self) -> Result<Option<Cid>, ExportError> {
        while let Some(node) = self.open.last() {
            if node.links.is_none() {
                let block = self.load(&node.cid)?;
                let links = links(&block)?;
                self.links_held += links.len();
                if let Some(node) = self.open.last_mut() {
                    node.links = Some(links);
                }
            }
            let Some(node) = self.open.last_mut() else { break };
            let links = node.links.as_deref().unwrap_or_default();
            if let Some(cid) = links.get(node.next) {
                node.next += 1;
                return Ok(Some(*cid));
            }
            self.links_held -= links.len();
            self.open.pop();
        }
        Ok(None)
    }

    /// Pushes a block, so that its links are visited next.
    fn enter(&mut self, block: &Block) -> Result<(), ExportError> {
        let links = links(block)?;
        if links.is_empty() {
            return Ok(());
        }
        if self.open.len() >= DEPTH_MAX {
            let reason = format!("the DAG is more than {DEPTH_MAX} links deep");
            return Err(ExportError::Unfit { cid: *block.cid(), reason });
        }
        self.links_held += links.len();
        // The nodes at the bottom are needed last, so their links are dropped first.
        for node in &mut self.open {
            if self.links_held <= LINKS_HELD_MAX {
                break;
            }
            self.links_held -= node.links.take().map_or(0, |links| links.len());
        }
        self.open.push(Node { cid: *block.cid(), next: 0, links: Some(links) });
        Ok(())
    }

    fn load(&self, cid: &Cid) -> Result<Block, ExportError> {
        if let Some(inline) = Block::inline(cid) {
            return Ok(inline);
        }
        match self.blocks.get(cid) {
            Ok(Some(block)) => Ok(block),
            Ok(None) => Err(ExportError::Missing(*cid)),
            Err(BlocksError::Damaged(_)) => Err(ExportError::Damaged(*cid)),
            Err(error) => Err(ExportError::Unreadable { cid: *cid, reason: error.to_string() }),
        }
    }

    /// Two keyed hashes: an attacker cannot choose CIDs that collide.
    fn fingerprint(&self, cid: &Cid) -> u128 {
        u128::from(self.hashers.0.hash_one(cid)) << 64 | u128::from(self.hashers.1.hash_one(cid))
    }
}

fn links(block: &Block) -> Result<Vec<Cid>, ExportError> {
    let links = dag::links(block)
        .map_err(|error| ExportError::Unfit { cid: *block.cid(), reason: error.to_string() })?;
    Ok(links.into_iter().map(|link| link.cid).collect())
}

#[cfg(test)]
mod tests {
    use cid::Version;

    use super::*;
    use crate::HoldName;
    use crate::blocks::MemoryBlocks;
    use crate::car::{CarError, CarReader};
    use crate::dag::pb::{PbLink, PbNode};

    fn raw(text: &str) -> Block {
        Block::hash(Version::V1, dag::RAW, 0x12, Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    fn node(links: &[&Cid]) -> Block {
        let links = links.iter().map(|cid| PbLink { cid: **cid, name: Some(""), tsize: None }).collect();
        let bytes = PbNode { links, data: None }.encode();
        Block::hash(Version::V1, dag::DAG_PB, 0x12, bytes.into()).unwrap()
    }

    async fn store(blocks: &[Block]) -> Arc<dyn Blocks> {
        let store = MemoryBlocks::new();
        let hold = store.open(&HoldName::parse("test").unwrap()).unwrap();
        for block in blocks {
            store.put(hold, block.clone()).await.unwrap();
        }
        Arc::new(store)
    }

    async fn exported(blocks: Arc<dyn Blocks>, root: &Cid) -> Result<Vec<u8>, ExportError> {
        let mut pieces = export_car(blocks, *root);
        let mut car = Vec::new();
        while let Some(piece) = pieces.recv().await {
            car.extend(piece?);
        }
        Ok(car)
    }

    async fn sections(car: &[u8]) -> (Vec<Cid>, Vec<Cid>) {
        let mut reader = CarReader::open(car).await.unwrap();
        let mut cids = Vec::new();
        while let Some((cid, data)) = reader.next_section().await.unwrap() {
            Block::verify(cid, data).unwrap();
            cids.push(cid);
        }
        (reader.roots().to_vec(), cids)
    }

    #[tokio::test]
    async fn blocks_are_exported_depth_first_and_once() {
        let [a, b, c] = ["a", "b", "c"].map(raw);
        let inline: Cid = "bafkqabtimvwgy3yk".parse().unwrap();
        let left = node(&[a.cid(), b.cid()]);
        let right = node(&[b.cid(), left.cid(), &inline, c.cid()]);
        let root = node(&[left.cid(), right.cid(), left.cid()]);
        let all = [a, b, c, left, right, root];
        let car = exported(store(&all).await, all[5].cid()).await.unwrap();
        let order = [5, 3, 0, 1, 4, 2].map(|at: usize| *all[at].cid());
        assert_eq!(sections(&car).await, (vec![*all[5].cid()], order.to_vec()));
    }

    #[tokio::test]
    async fn large_and_small_blocks_are_exported() {
        let leaves: Vec<Block> = (0..40).map(|at| raw(&format!("{at}").repeat(20_000 * at))).collect();
        let root = node(&leaves.iter().map(Block::cid).collect::<Vec<_>>());
        let all: Vec<Block> = leaves.into_iter().chain([root]).collect();
        let car = exported(store(&all).await, all[40].cid()).await.unwrap();
        assert_eq!(sections(&car).await.1.len(), 41);
    }

    #[tokio::test]
    async fn missing_block_is_reported() {
        let [a, b] = ["a", "b"].map(raw);
        let root = node(&[a.cid(), b.cid()]);
        let (root_cid, missing) = (*root.cid(), *b.cid());
        let blocks = store(&[a, root]).await;
        let outcome = exported(blocks.clone(), &root_cid).await;
        assert!(matches!(outcome, Err(ExportError::Missing(cid)) if cid == missing), "{outcome:?}");

        let mut pieces = export_car(blocks, root_cid);
        let begun = pieces.recv().await.unwrap().unwrap();
        let mut reader = CarReader::open(begun.as_ref()).await.unwrap();
        assert!(
            reader.next_section().await.unwrap().is_some() && reader.next_section().await.unwrap().is_some()
        );
        assert!(
            matches!(reader.next_section().await, Err(CarError::CutOff(_))),
            "it is recognised as truncated"
        );
        assert!(pieces.recv().await.unwrap().is_err() && pieces.recv().await.is_none());

        let mut pieces = export_car(store(&[]).await, root_cid);
        assert!(pieces.recv().await.unwrap().is_err(), "nothing comes before it");
    }

    #[tokio::test]
    async fn nodes_with_many_links_are_read_again() {
        // A chain of nodes with so many links that a few of them exceed the limit on links in memory.
        let leaf = raw("leaf");
        let mut chain = vec![leaf.clone()];
        for _ in 0..12 {
            let below = *chain.last().unwrap().cid();
            let mut links = vec![leaf.cid(); 40_000];
            links.insert(20_000, &below);
            chain.push(node(&links));
        }
        let root = *chain.last().unwrap().cid();
        let mut walk = DagBlocks::new(store(&chain).await, root);
        let mut found = Vec::new();
        while let Some(block) = walk.next_block().unwrap() {
            assert!(walk.links_held <= LINKS_HELD_MAX + 40_001);
            found.push(*block.cid());
        }
        assert_eq!(found.len(), 13);
        assert_eq!(walk.links_held, 0);
    }

    #[tokio::test]
    async fn export_ends_when_the_receiver_is_dropped() {
        let blocks = store(&[raw("x")]).await;
        let weak = Arc::downgrade(&blocks);
        drop(export_car(blocks, *raw("x").cid()));
        while weak.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
    }
}
