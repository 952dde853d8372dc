//! A network of DAGs that share blocks, with sources that become unavailable and return.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use cid::multihash::Multihash;
use cid::{Cid, Version};
use pinfold_cluster::ClusterError;
use pinfold_node::Block;
use pinfold_node::dag::pb::{PbLink, PbNode};
use pinfold_node::dag::{CBOR, DAG_PB, JSON, RAW, links};

use crate::random::Dice;

const SHA2_256: u64 = 0x12;
const SHA2_512: u64 = 0x13;
const BLAKE3: u64 = 0x1e;

/// The multihash under which a block is stored.
pub(crate) type Hash = Multihash<64>;

/// A fault while a DAG is held.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// After this number of blocks, or after all are held, in which case the response is lost.
    pub(crate) after: u64,
    /// The cluster itself fails, which can also happen with local blocks.
    pub(crate) own: bool,
    pub(crate) error: ClusterError,
}

/// A fault of a release: before it is done, or after it, in which case the response is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    Request,
    Answer,
}

#[derive(Default)]
struct State {
    blocks: HashMap<Hash, Bytes>,
    away: HashSet<Hash>,
    hold_faults: HashMap<Cid, VecDeque<Fault>>,
    release_faults: VecDeque<Lost>,
}

/// The network and the scripted faults. Outlives every process.
#[derive(Clone, Default)]
pub(crate) struct Network(Arc<Mutex<State>>);

impl Network {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn publish(&self, block: &Block) {
        self.state().blocks.insert(*block.cid().hash(), block.data().clone());
    }

    /// A block, if it is available.
    pub(crate) fn fetch(&self, cid: &Cid) -> Option<Block> {
        let state = self.state();
        let data = state.blocks.get(cid.hash()).filter(|_| !state.away.contains(cid.hash()))?;
        Some(Block::verify(*cid, data.clone()).unwrap())
    }

    /// Makes one of these blocks unavailable.
    pub(crate) fn leave(&self, hashes: impl IntoIterator<Item = Hash>) {
        self.state().away.extend(hashes);
    }

    /// Makes all blocks available again.
    pub(crate) fn come_back(&self) {
        self.state().away.clear();
    }

    pub(crate) fn script_hold(&self, root: &Cid, fault: Fault) {
        self.state().hold_faults.entry(*root).or_default().push_back(fault);
    }

    pub(crate) fn script_release(&self, lost: Lost) {
        self.state().release_faults.push_back(lost);
    }

    pub(crate) fn next_hold_fault(&self, root: &Cid) -> Option<Fault> {
        self.state().hold_faults.get_mut(root).and_then(VecDeque::pop_front)
    }

    pub(crate) fn next_release_fault(&self) -> Option<Lost> {
        self.state().release_faults.pop_front()
    }

    /// Ends all faults.
    pub(crate) fn end_faults(&self) {
        let mut state = self.state();
        state.away.clear();
        state.hold_faults.clear();
        state.release_faults.clear();
    }

    /// The distinct blocks of a DAG that is completely available, with their lengths.
    pub(crate) fn dag(&self, root: &Cid) -> BTreeMap<Hash, u64> {
        let state = self.state();
        walk(root, |cid| Block::verify(*cid, state.blocks[cid.hash()].clone()).unwrap())
    }
}

/// Walks a DAG and returns its distinct blocks with their lengths. Identity CIDs have no blocks.
pub(crate) fn walk(root: &Cid, load: impl Fn(&Cid) -> Block) -> BTreeMap<Hash, u64> {
    let (mut found, mut seen, mut left) = (BTreeMap::new(), HashSet::new(), vec![*root]);
    while let Some(cid) = left.pop() {
        if !seen.insert(cid) {
            continue;
        }
        let block = Block::inline(&cid).unwrap_or_else(|| {
            let block = load(&cid);
            found.insert(*cid.hash(), block.data().len() as u64);
            block
        });
        left.extend(links(&block).unwrap().into_iter().map(|link| link.cid));
    }
    found
}

/// The content of a network.
pub(crate) struct Grown {
    /// DAGs to pin. Some have the same multihash with another version or codec, so that one is a tree and the other a
    /// single block.
    pub(crate) roots: Vec<Cid>,
    /// The bytes of these blocks.
    pub(crate) leaves: Vec<Bytes>,
    /// All blocks.
    pub(crate) hashes: Vec<Hash>,
}

impl Network {
    /// Publishes about 200 blocks of DAGs that share parts.
    pub(crate) fn grow(&self, dice: &mut Dice) -> Grown {
        let mut parts: Vec<Cid> = (0..150).map(|_| leaf(self, dice)).collect();
        let leaves = parts.iter().take(40).map(|cid| self.state().blocks[cid.hash()].clone()).collect();
        let inline = Cid::new_v1(RAW, Hash::wrap(0, b"inline").unwrap());
        let mut roots = vec![inline, parts[0], parts[1]];
        parts.push(inline);
        for level in 0..50 {
            let fan = 1 + dice.roll(8);
            let cids: Vec<Cid> = (0..fan).map(|_| *dice.pick(&parts)).collect();
            let node = node(self, dice, &cids);
            let variants = variants(dice, &node);
            if level % 4 == 0 {
                roots.extend(variants.iter().take(2));
            }
            parts.extend(variants);
        }
        let mut hashes: Vec<Hash> = self.state().blocks.keys().copied().collect();
        hashes.sort();
        Grown { roots, leaves, hashes }
    }
}

fn leaf(network: &Network, dice: &mut Dice) -> Cid {
    let length = match dice.roll(10) {
        0 => dice.roll(3),
        1..7 => dice.roll(300),
        7 | 8 => dice.roll(2_000),
        _ => dice.roll(6_000),
    };
    let data = Bytes::from(dice.bytes(length as usize));
    let hash = *dice.pick(&[SHA2_256, SHA2_256, SHA2_256, SHA2_512, BLAKE3]);
    let block = Block::hash(Version::V1, *dice.pick(&[RAW, RAW, CBOR, JSON]), hash, data).unwrap();
    network.publish(&block);
    *block.cid()
}

fn node(network: &Network, dice: &mut Dice, cids: &[Cid]) -> Block {
    let links = cids.iter().map(|cid| PbLink { cid: *cid, name: Some(""), tsize: None }).collect();
    let data = dice.bytes(8);
    let node = PbNode { links, data: Some(&data) }.encode();
    let version = *dice.pick(&[Version::V0, Version::V1]);
    let block = Block::hash(version, DAG_PB, SHA2_256, node.into()).unwrap();
    network.publish(&block);
    block
}

/// The node itself, sometimes with its other CID version, and sometimes its bytes as a raw block.
fn variants(dice: &mut Dice, node: &Block) -> Vec<Cid> {
    let hash = *node.cid().hash();
    let other = match node.cid().version() {
        Version::V0 => Cid::new_v1(DAG_PB, hash),
        Version::V1 => Cid::new_v0(hash).unwrap(),
    };
    let mut variants = vec![*node.cid()];
    if dice.roll(2) == 0 {
        variants.push(other);
    }
    if dice.roll(3) == 0 {
        variants.push(Cid::new_v1(RAW, hash));
    }
    variants
}
