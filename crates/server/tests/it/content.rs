//! Generated DAGs, identical in every run.

use std::collections::HashMap;

use async_trait::async_trait;
use bytes::Bytes;
use cid::multihash::Multihash;
use cid::{Cid, Version};
use pinfold_node::blocks::{Distinct, HoldInfo, Totals};
use pinfold_node::dag::pb::{PbLink, PbNode};
use pinfold_node::dag::{DAG_PB, RAW};
use pinfold_node::{Block, Blocks, BlocksError, HoldId, HoldName, HoldStats};

const SHA2_256: u64 = 0x12;

/// The blocks of a DAG.
#[derive(Clone)]
pub(crate) struct Dag {
    /// In topological order: each block after the blocks that it links to, the root last.
    pub(crate) blocks: Vec<Block>,
}

impl Dag {
    /// One raw block.
    pub(crate) fn raw(bytes: impl Into<Bytes>) -> Self {
        Self { blocks: vec![raw(bytes.into())] }
    }

    /// A node with links to `leaves` raw blocks of `leaf_bytes` each. Another `seed` gives other blocks.
    pub(crate) fn flat(seed: u64, leaves: u64, leaf_bytes: usize) -> Self {
        let blocks: Vec<Block> = (0..leaves).map(|i| raw(leaf(seed, i, leaf_bytes))).collect();
        Self::over(vec![Self { blocks }])
    }

    /// A node with a link to the root of each part.
    pub(crate) fn over(parts: Vec<Self>) -> Self {
        let roots: Vec<Cid> = parts
            .iter()
            .flat_map(|part| if part.is_linked() { vec![*part.root()] } else { part.cids() })
            .collect();
        let mut blocks: Vec<Block> = parts.into_iter().flat_map(|part| part.blocks).collect();
        blocks.push(node(&roots));
        Self { blocks }
    }

    pub(crate) fn root(&self) -> &Cid {
        self.blocks.last().expect("a DAG has a block").cid()
    }

    pub(crate) fn text(&self) -> String {
        self.root().to_string()
    }

    pub(crate) fn cids(&self) -> Vec<Cid> {
        self.blocks.iter().map(|block| *block.cid()).collect()
    }

    /// Total size of the distinct blocks.
    pub(crate) fn bytes(&self) -> u64 {
        let sizes: HashMap<&Cid, u64> =
            self.blocks.iter().map(|block| (block.cid(), block.data().len() as u64)).collect();
        sizes.values().sum()
    }

    /// The DAG as a CAR with these roots in its header.
    pub(crate) fn car(&self, roots: &[Cid]) -> Vec<u8> {
        let mut car = pinfold_node::car::header(roots);
        for block in &self.blocks {
            car.extend(pinfold_node::car::section_head(block.cid(), block.data().len()));
            car.extend_from_slice(block.data());
        }
        car
    }

    /// The root and the first `others` of the other blocks.
    pub(crate) fn part(&self, others: usize) -> Self {
        let mut blocks: Vec<Block> =
            self.blocks[..self.blocks.len() - 1].iter().take(others).cloned().collect();
        blocks.push(self.blocks[self.blocks.len() - 1].clone());
        Self { blocks }
    }

    fn is_linked(&self) -> bool {
        self.blocks.len() == 1 || self.root().codec() == DAG_PB
    }
}

/// A dag-pb node with these links.
pub(crate) fn node(links: &[Cid]) -> Block {
    let links = links.iter().map(|cid| PbLink { cid: *cid, name: Some(""), tsize: Some(0) }).collect();
    let bytes = PbNode { links, data: None }.encode();
    Block::hash(Version::V1, DAG_PB, SHA2_256, bytes.into()).unwrap()
}

/// A raw block.
pub(crate) fn raw(bytes: Bytes) -> Block {
    Block::hash(Version::V1, RAW, SHA2_256, bytes).unwrap()
}

/// Incompressible bytes that are different for each `seed` and `index`.
fn leaf(seed: u64, index: u64, length: usize) -> Bytes {
    let mut state =
        seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (index + 1).wrapping_mul(0xd1b5_4a32_d192_ed03);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

/// A block store that generates its blocks on demand, so that a large DAG needs no memory.
pub(crate) struct GeneratedBlocks {
    seed: u64,
    leaf_bytes: usize,
    leaves: HashMap<Multihash<64>, u64>,
    root: Block,
}

impl GeneratedBlocks {
    /// A node with links to `leaves` raw blocks of `leaf_bytes` each.
    pub(crate) fn new(seed: u64, leaves: u64, leaf_bytes: usize) -> Self {
        let cids: Vec<Cid> = (0..leaves).map(|i| *raw(leaf(seed, i, leaf_bytes)).cid()).collect();
        let indexes = cids.iter().map(|cid| *cid.hash()).zip(0..).collect();
        Self { seed, leaf_bytes, leaves: indexes, root: node(&cids) }
    }

    pub(crate) fn root(&self) -> &Block {
        &self.root
    }
}

#[async_trait]
impl Blocks for GeneratedBlocks {
    fn size(&self, cid: &Cid) -> Result<Option<u64>, BlocksError> {
        let of_root = (cid.hash() == self.root.cid().hash()).then(|| self.root.data().len() as u64);
        Ok(of_root.or_else(|| self.leaves.get(cid.hash()).map(|_| self.leaf_bytes as u64)))
    }

    fn get(&self, cid: &Cid) -> Result<Option<Block>, BlocksError> {
        if cid.hash() == self.root.cid().hash() {
            return Ok(Some(self.root.clone()));
        }
        Ok(self.leaves.get(cid.hash()).map(|index| raw(leaf(self.seed, *index, self.leaf_bytes))))
    }

    fn open(&self, _name: &HoldName) -> Result<HoldId, BlocksError> {
        Err(BlocksError::Full)
    }

    async fn put(&self, _hold: HoldId, _block: Block) -> Result<(), BlocksError> {
        Err(BlocksError::Full)
    }

    async fn repair(&self, _block: Block) -> Result<(), BlocksError> {
        Err(BlocksError::Full)
    }

    fn add_edge(&self, _hold: HoldId, _cid: &Cid) -> Result<bool, BlocksError> {
        Err(BlocksError::NoSuchHold)
    }

    fn has_edge(&self, _hold: HoldId, _cid: &Cid) -> Result<bool, BlocksError> {
        Err(BlocksError::NoSuchHold)
    }

    fn stats(&self, _hold: HoldId) -> Result<HoldStats, BlocksError> {
        Err(BlocksError::NoSuchHold)
    }

    async fn commit(&self, _hold: HoldId) -> Result<HoldStats, BlocksError> {
        Err(BlocksError::NoSuchHold)
    }

    async fn seal(&self, _hold: HoldId) -> Result<HoldStats, BlocksError> {
        Err(BlocksError::NoSuchHold)
    }

    async fn release(&self, _name: &HoldName) -> Result<(), BlocksError> {
        Ok(())
    }

    fn holds(&self, _: &str, _: Option<&HoldName>, _: usize) -> Result<Vec<HoldInfo>, BlocksError> {
        Ok(Vec::new())
    }

    fn count(&self, _: &HoldName, _: &mut Distinct) -> Result<(), BlocksError> {
        Ok(())
    }

    fn totals(&self) -> Result<Totals, BlocksError> {
        Ok(Totals::default())
    }

    fn hold(&self, _name: &HoldName) -> Result<Option<HoldInfo>, BlocksError> {
        Ok(None)
    }
}
