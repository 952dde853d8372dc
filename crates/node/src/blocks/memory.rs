//! A block store in memory: for tests, and as the model that the durable store is compared with.
//!
//! Its memory is not bounded, so it must not be used in a server.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use cid::Cid;
use cid::multihash::Multihash;

use super::{Blocks, BlocksError, Distinct, HoldId, HoldInfo, HoldName, HoldStats, Totals};
use crate::Block;

/// A [`Blocks`] that lives as long as the process.
#[derive(Debug, Default)]
pub struct MemoryBlocks {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    blocks: HashMap<Multihash<64>, Stored>,
    names: BTreeMap<HoldName, HoldId>,
    holds: HashMap<HoldId, Hold>,
    last_id: u64,
}

#[derive(Debug)]
struct Stored {
    data: Bytes,
    /// How many holds reference it.
    holds: usize,
}

#[derive(Debug, Default)]
struct Hold {
    sealed: bool,
    blocks: HashSet<Multihash<64>>,
    bytes: u64,
}

impl Hold {
    fn stats(&self) -> HoldStats {
        HoldStats { blocks: self.blocks.len() as u64, bytes: self.bytes }
    }

    fn info(&self, name: &HoldName) -> HoldInfo {
        HoldInfo { name: name.clone(), sealed: self.sealed, stats: self.stats() }
    }

    fn add(&mut self, hash: Multihash<64>, stored: &mut Stored) {
        if self.blocks.insert(hash) {
            stored.holds += 1;
            self.bytes += stored.data.len() as u64;
        }
    }
}

impl MemoryBlocks {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of distinct blocks in the store.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state().blocks.len()
    }

    /// Whether there is no block at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Corrupts the bytes of a block, as a faulty disk would.
    #[cfg(test)]
    pub(crate) fn damage(&self, cid: &Cid) {
        if let Some(stored) = self.state().blocks.get_mut(cid.hash()) {
            stored.data = Bytes::from_static(b"damaged");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Blocks for MemoryBlocks {
    fn size(&self, cid: &Cid) -> Result<Option<u64>, BlocksError> {
        if let Some(block) = Block::inline(cid) {
            return Ok(Some(block.data().len() as u64));
        }
        Ok(self.state().blocks.get(cid.hash()).map(|stored| stored.data.len() as u64))
    }

    fn get(&self, cid: &Cid) -> Result<Option<Block>, BlocksError> {
        if let Some(block) = Block::inline(cid) {
            return Ok(Some(block));
        }
        let Some(data) = self.state().blocks.get(cid.hash()).map(|stored| stored.data.clone()) else {
            return Ok(None);
        };
        Block::verify(*cid, data).map(Some).map_err(|_| BlocksError::Damaged(*cid))
    }

    fn open(&self, name: &HoldName) -> Result<HoldId, BlocksError> {
        let mut state = self.state();
        if let Some(id) = state.names.get(name) {
            return Ok(*id);
        }
        state.last_id += 1;
        let id = HoldId(state.last_id);
        state.names.insert(name.clone(), id);
        state.holds.insert(id, Hold::default());
        Ok(id)
    }

    async fn put(&self, hold: HoldId, block: Block) -> Result<(), BlocksError> {
        let mut state = self.state();
        let State { blocks, holds, .. } = &mut *state;
        let hold = holds.get_mut(&hold).ok_or(BlocksError::NoSuchHold)?;
        if Block::inline(block.cid()).is_some() {
            return Ok(());
        }
        let (cid, data) = block.into_parts();
        let stored = blocks.entry(*cid.hash()).or_insert(Stored { data, holds: 0 });
        hold.add(*cid.hash(), stored);
        Ok(())
    }

    async fn repair(&self, block: Block) -> Result<(), BlocksError> {
        let (cid, data) = block.into_parts();
        if let Some(stored) = self.state().blocks.get_mut(cid.hash()) {
            stored.data = data;
        }
        Ok(())
    }

    fn add_edge(&self, hold: HoldId, cid: &Cid) -> Result<bool, BlocksError> {
        let mut state = self.state();
        let State { blocks, holds, .. } = &mut *state;
        let hold = holds.get_mut(&hold).ok_or(BlocksError::NoSuchHold)?;
        if Block::inline(cid).is_some() {
            return Ok(true);
        }
        let Some(stored) = blocks.get_mut(cid.hash()) else { return Ok(false) };
        hold.add(*cid.hash(), stored);
        Ok(true)
    }

    fn has_edge(&self, hold: HoldId, cid: &Cid) -> Result<bool, BlocksError> {
        let state = self.state();
        let hold = state.holds.get(&hold).ok_or(BlocksError::NoSuchHold)?;
        Ok(Block::inline(cid).is_some() || hold.blocks.contains(cid.hash()))
    }

    fn stats(&self, hold: HoldId) -> Result<HoldStats, BlocksError> {
        self.state().holds.get(&hold).map(Hold::stats).ok_or(BlocksError::NoSuchHold)
    }

    async fn commit(&self, hold: HoldId) -> Result<HoldStats, BlocksError> {
        self.stats(hold)
    }

    async fn seal(&self, hold: HoldId) -> Result<HoldStats, BlocksError> {
        let mut state = self.state();
        let hold = state.holds.get_mut(&hold).ok_or(BlocksError::NoSuchHold)?;
        hold.sealed = true;
        Ok(hold.stats())
    }

    async fn release(&self, name: &HoldName) -> Result<(), BlocksError> {
        let mut state = self.state();
        let State { blocks, holds, names, .. } = &mut *state;
        let Some(hold) = names.remove(name).and_then(|id| holds.remove(&id)) else { return Ok(()) };
        for hash in hold.blocks {
            if let Entry::Occupied(mut stored) = blocks.entry(hash) {
                stored.get_mut().holds -= 1;
                if stored.get().holds == 0 {
                    stored.remove();
                }
            }
        }
        Ok(())
    }

    fn holds(
        &self,
        prefix: &str,
        after: Option<&HoldName>,
        limit: usize,
    ) -> Result<Vec<HoldInfo>, BlocksError> {
        let state = self.state();
        let infos = state
            .names
            .iter()
            .filter(|(name, _)| name.as_str().starts_with(prefix) && after.is_none_or(|after| *name > after))
            .filter_map(|(name, id)| state.holds.get(id).map(|hold| hold.info(name)))
            .take(limit)
            .collect();
        Ok(infos)
    }

    fn count(&self, name: &HoldName, counted: &mut Distinct) -> Result<(), BlocksError> {
        let state = self.state();
        let Some(hold) = state.names.get(name).and_then(|hold| state.holds.get(hold)) else { return Ok(()) };
        for hash in &hold.blocks {
            // Blocks have no numbers here; the beginning of their digest is as good.
            let number = hash.digest().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
            counted.add(number, state.blocks.get(hash).map_or(0, |stored| stored.data.len() as u64));
        }
        Ok(())
    }

    fn totals(&self) -> Result<Totals, BlocksError> {
        let state = self.state();
        let held = || state.holds.values().map(Hold::stats);
        Ok(Totals {
            blocks: state.blocks.len() as u64,
            bytes: state.blocks.values().map(|stored| stored.data.len() as u64).sum(),
            holds: state.holds.len() as u64,
            held_blocks: held().map(|stats| stats.blocks).sum(),
            held_bytes: held().map(|stats| stats.bytes).sum(),
            ..Totals::default()
        })
    }

    fn hold(&self, name: &HoldName) -> Result<Option<HoldInfo>, BlocksError> {
        let state = self.state();
        let hold = state.names.get(name).and_then(|id| state.holds.get(id));
        Ok(hold.map(|hold| hold.info(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::blocks::contract::contract!(((), MemoryBlocks::new()));
}
