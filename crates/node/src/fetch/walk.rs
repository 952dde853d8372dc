//! The walk over a DAG: which blocks are stored, which must be fetched, and what they link to.
//!
//! It is depth first, and its only I/O is that of the block store. A [`Frame`] is a block whose links are being visited.
//! The number of frames is bounded. Their links are dropped from memory when there are too many; the block is then read
//! again. Visited blocks that can have links are remembered by a hash of 16 bytes; for leaves the hold itself is
//! consulted.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;
use cid::Cid;

use super::FetchError;
use crate::block::{IDENTITY_SIZE_MAX, is_supported_hash, is_whole_digest};
use crate::blocks::HoldId;
use crate::{Block, Blocks, BlocksError, dag};

/// The maximum depth of a DAG in links. Real DAGs stay below 50.
pub(super) const DEPTH_MAX: u32 = 1024;
/// Links in the memory of all frames together, 96 bytes each.
const LINKS_HELD_MAX: usize = 256 * 1024;
/// With more frames than this, blocks are requested one by one, so that the walk goes down before it widens.
const FRAMES_MAX: usize = 16 * 1024;

/// Why [`Walk::advance`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Nothing is left to visit except below wanted blocks.
    Visited,
    /// As many blocks were added to the wants as there was room for.
    Full,
    /// A block must be read from the disk.
    Disk,
    /// The step limit was reached; there is more to visit.
    StepLimit,
}

#[derive(Debug)]
struct Frame {
    cid: Cid,
    depth: u32,
    next: usize,
    links: Option<Vec<Cid>>,
}

/// The state of a walk.
pub(super) struct Walk {
    blocks: Arc<dyn Blocks>,
    hold: HoldId,
    start: Option<Cid>,
    frames: Vec<Frame>,
    links_held: usize,
    /// Blocks whose content is known without fetching them, to be stored.
    known: Vec<Block>,
    /// Blocks that are being fetched, and their depth.
    wanted: HashMap<Cid, u32>,
    visited: HashSet<u128>,
    /// Whether the hold was sealed before: an edge that cannot be added again is to a damaged block.
    repairs: bool,
    /// Stored blocks that are damaged and fetched again for that reason.
    damaged: HashSet<Cid>,
    hashers: (RandomState, RandomState),
}

impl Walk {
    pub(super) fn new(blocks: Arc<dyn Blocks>, hold: HoldId, root: Cid, repairs: bool) -> Self {
        Self {
            blocks,
            hold,
            start: Some(root),
            frames: Vec::new(),
            links_held: 0,
            known: Vec::new(),
            wanted: HashMap::new(),
            visited: HashSet::new(),
            repairs,
            damaged: HashSet::new(),
            hashers: (RandomState::new(), RandomState::new()),
        }
    }

    /// Takes the blocks whose content is known. The caller must store them like fetched ones.
    pub(super) fn take_known(&mut self) -> Vec<Block> {
        std::mem::take(&mut self.known)
    }

    /// The number of blocks that are being fetched.
    pub(super) fn wanted(&self) -> usize {
        self.wanted.len()
    }

    /// One of the blocks that are being fetched.
    pub(super) fn missing(&self) -> Option<Cid> {
        self.wanted.keys().next().copied()
    }

    /// Whether everything was visited and nothing is missing.
    pub(super) fn is_done(&self) -> bool {
        self.start.is_none() && self.frames.is_empty() && self.wanted.is_empty()
    }

    /// Visits at most `steps` links, and adds up to `room` blocks that must be fetched to `wants`. Reads blocks only if
    /// `may_block`.
    pub(super) fn advance(
        &mut self,
        room: usize,
        steps: usize,
        may_block: bool,
        wants: &mut Vec<Cid>,
    ) -> Result<Stop, FetchError> {
        let room =
            if self.frames.len() > FRAMES_MAX { room.min(usize::from(self.wanted.is_empty())) } else { room };
        let mut steps = steps;
        let first = wants.len();
        loop {
            if wants.len() - first >= room {
                return Ok(Stop::Full);
            }
            if steps == 0 {
                return Ok(Stop::StepLimit);
            }
            steps -= 1;
            if let Some(root) = self.start {
                if !self.visit(root, 0, may_block, wants)? {
                    return Ok(Stop::Disk);
                }
                self.start = None;
                continue;
            }
            let Some((cid, depth)) = (match self.next_link(may_block, wants)? {
                Next::Link(cid, depth) => Some((cid, depth)),
                Next::FrameDone => None,
                Next::Nothing => return Ok(Stop::Visited),
                Next::Disk => return Ok(Stop::Disk),
            }) else {
                continue;
            };
            let frame = self.frames.len() - 1;
            if !self.visit(cid, depth, may_block, wants)? {
                return Ok(Stop::Disk);
            }
            // The visit may have pushed frames; the link belonged to this one.
            self.frames[frame].next += 1;
        }
    }

    /// The next link of the topmost frame.
    fn next_link(&mut self, may_block: bool, wants: &mut Vec<Cid>) -> Result<Next, FetchError> {
        let Some(frame) = self.frames.last_mut() else { return Ok(Next::Nothing) };
        if frame.links.is_none() {
            if !may_block {
                return Ok(Next::Disk);
            }
            let Some(block) = load(self.blocks.as_ref(), &frame.cid)? else {
                // Its links are visited when it arrives.
                let (cid, depth) = (frame.cid, frame.depth);
                self.frames.pop();
                self.want_again(cid, depth, wants);
                return Ok(Next::FrameDone);
            };
            let links = links_of(&block)?;
            self.links_held += links.len();
            frame.links = Some(links);
        }
        let links = frame.links.as_deref().unwrap_or_default();
        match links.get(frame.next) {
            Some(cid) => Ok(Next::Link(*cid, frame.depth + 1)),
            None => {
                self.links_held -= links.len();
                self.frames.pop();
                Ok(Next::FrameDone)
            }
        }
    }

    /// Visits a block: adds it to the hold and enters it, or wants it. False if it must be read first.
    fn visit(
        &mut self,
        cid: Cid,
        depth: u32,
        may_block: bool,
        wants: &mut Vec<Cid>,
    ) -> Result<bool, FetchError> {
        check(&cid, depth)?;
        if let Some(block) = Block::inline(&cid) {
            // Not remembered: it counts against no limit, so nothing would bound the memory, and the few links that fit
            // into it are visited again quickly.
            if has_links(&cid) {
                self.enter(&block, depth)?;
            }
            return Ok(true);
        }
        if self.wanted.contains_key(&cid) {
            return Ok(true);
        }
        if !has_links(&cid) {
            if !self.blocks.add_edge(self.hold, &cid)? {
                self.want_missing(cid, depth, wants)?;
            }
            return Ok(true);
        }
        if self.visited.contains(&self.fingerprint(&cid)) {
            return Ok(true);
        }
        if !self.blocks.add_edge(self.hold, &cid)? {
            self.first_visit(&cid);
            self.want_missing(cid, depth, wants)?;
            return Ok(true);
        }
        if !may_block {
            return Ok(false);
        }
        self.first_visit(&cid);
        match load(self.blocks.as_ref(), &cid)? {
            Some(block) => self.enter(&block, depth)?,
            None => self.want_again(cid, depth, wants),
        }
        Ok(true)
    }

    fn want_missing(&mut self, cid: Cid, depth: u32, wants: &mut Vec<Cid>) -> Result<(), FetchError> {
        if self.repairs && self.blocks.has_edge(self.hold, &cid)? {
            self.want_again(cid, depth, wants);
            return Ok(());
        }
        self.want(cid, depth, wants)
    }

    fn want_again(&mut self, cid: Cid, depth: u32, wants: &mut Vec<Cid>) {
        self.damaged.insert(cid);
        self.wanted.insert(cid, depth);
        wants.push(cid);
    }

    /// Whether a block that arrived is stored already and must be repaired. True once.
    pub(super) fn take_damaged(&mut self, cid: &Cid) -> bool {
        self.damaged.remove(cid)
    }

    /// Wants a block. The empty block is not requested: its content is known, and Kubo answers DONT_HAVE for it.
    fn want(&mut self, cid: Cid, depth: u32, wants: &mut Vec<Cid>) -> Result<(), FetchError> {
        let Ok(empty) = Block::verify(cid, Bytes::new()) else {
            self.wanted.insert(cid, depth);
            wants.push(cid);
            return Ok(());
        };
        if has_links(&cid) {
            self.enter(&empty, depth)?;
        }
        if !self.known.contains(&empty) {
            self.known.push(empty);
        }
        Ok(())
    }

    /// Continues the walk with a block that was wanted; false if it was not.
    pub(super) fn arrived(&mut self, block: &Block) -> Result<bool, FetchError> {
        let Some(depth) = self.wanted.remove(block.cid()) else { return Ok(false) };
        if has_links(block.cid()) {
            self.enter(block, depth)?;
        }
        Ok(true)
    }

    /// Pushes a frame with a block's links.
    fn enter(&mut self, block: &Block, depth: u32) -> Result<(), FetchError> {
        let links = links_of(block)?;
        if links.is_empty() {
            return Ok(());
        }
        self.links_held += links.len();
        self.frames.push(Frame { cid: *block.cid(), depth, next: 0, links: Some(links) });
        // The frames at the bottom are needed last, so their links are dropped first.
        let last = self.frames.len() - 1;
        for frame in &mut self.frames[..last] {
            if self.links_held <= LINKS_HELD_MAX {
                break;
            }
            self.links_held -= frame.links.take().map_or(0, |links| links.len());
        }
        Ok(())
    }

    fn first_visit(&mut self, cid: &Cid) -> bool {
        self.visited.insert(self.fingerprint(cid))
    }

    /// Two keyed hashes: an attacker cannot choose CIDs that collide.
    fn fingerprint(&self, cid: &Cid) -> u128 {
        u128::from(self.hashers.0.hash_one(cid)) << 64 | u128::from(self.hashers.1.hash_one(cid))
    }
}

enum Next {
    Link(Cid, u32),
    FrameDone,
    Nothing,
    Disk,
}

pub(super) fn has_links(cid: &Cid) -> bool {
    !matches!(cid.codec(), dag::RAW | dag::CBOR | dag::JSON)
}

/// Refuses a block that can never be held.
pub(super) fn check(cid: &Cid, depth: u32) -> Result<(), FetchError> {
    if depth > DEPTH_MAX {
        return Err(unfit(cid, format!("the DAG is more than {DEPTH_MAX} links deep")));
    }
    if !dag::is_supported_codec(cid.codec()) {
        return Err(unfit(cid, format!("codec {:#x} is not supported", cid.codec())));
    }
    if !is_supported_hash(cid.hash().code()) {
        return Err(unfit(cid, format!("hash function {:#x} is not supported", cid.hash().code())));
    }
    if !is_whole_digest(cid.hash()) {
        return Err(unfit(cid, format!("the digest has only {} bytes", cid.hash().size())));
    }
    if cid.hash().code() == 0 && usize::from(cid.hash().size()) > IDENTITY_SIZE_MAX {
        return Err(unfit(cid, format!("an identity CID has more than {IDENTITY_SIZE_MAX} bytes")));
    }
    Ok(())
}

pub(super) fn links_of(block: &Block) -> Result<Vec<Cid>, FetchError> {
    let links = dag::links(block).map_err(|error| unfit(block.cid(), error.to_string()))?;
    Ok(links.into_iter().map(|link| link.cid).collect())
}

/// Reads a block that the hold references; `None` if it is damaged.
fn load(blocks: &dyn Blocks, cid: &Cid) -> Result<Option<Block>, FetchError> {
    if let Some(block) = Block::inline(cid) {
        return Ok(Some(block));
    }
    match blocks.get(cid) {
        Ok(Some(block)) => Ok(Some(block)),
        // It can only be missing if the hold was released.
        Ok(None) => Err(BlocksError::NoSuchHold.into()),
        Err(BlocksError::Damaged(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn unfit(cid: &Cid, reason: String) -> FetchError {
    FetchError::Unfit { cid: *cid, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HoldName;
    use crate::blocks::MemoryBlocks;
    use crate::exchange::testnet::node;

    #[test]
    fn identity_blocks_take_no_memory() {
        let blocks: Arc<dyn Blocks> = Arc::new(MemoryBlocks::default());
        let hold = blocks.open(&HoldName::parse("test").unwrap()).unwrap();
        // dag-pb nodes without links, which differ in their data.
        let inline = (0..200_u8).map(|at| {
            let hash = cid::multihash::Multihash::wrap(0, &[0x0a, 1, at]).unwrap();
            Cid::new_v1(dag::DAG_PB, hash)
        });
        let root = node(inline);
        let mut walk = Walk::new(blocks, hold, *root.cid(), false);
        let mut wants = Vec::new();
        walk.advance(1, 10, true, &mut wants).unwrap();
        assert!(walk.arrived(&root).unwrap());
        assert_eq!(walk.advance(1, 1000, true, &mut wants).unwrap(), Stop::Visited);
        assert!(walk.is_done());
        assert_eq!(walk.visited.len(), 1);
    }
}
