//! [`SegmentBlocks`]: the store as its callers see it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use cid::Cid;
use tokio::sync::oneshot;

use super::index::{HoldRecord, IndexError, Location, Stored};
use super::storage::SegmentConfig;
use super::storage::error::OpenError;
use super::storage::file::{self, Readers};
use super::storage::open;
use super::storage::queue::{self, ActiveHold, Op, Pending, Shared, State, failed};
use super::writer_thread::WriterThread;
use crate::Block;
use crate::blocks::{Blocks, BlocksError, Distinct, HoldId, HoldInfo, HoldName, HoldStats, Totals};

pub(super) mod damage;
pub(super) mod snapshot;
mod totals;

/// Attempts to read a block that is moved or freed during the read.
const READ_TRIES: usize = 4;
/// Edges of a hold that are read at a time for counting.
const COUNT_EDGES: usize = 10_000;

/// A durable [`Blocks`] in a folder of its own. Only one may be open on a folder at a time; the caller must hold a lock
/// that ensures this. Dropping it commits what is queued, joins the writer thread and closes the files.
pub struct SegmentBlocks {
    pub(super) dir: PathBuf,
    pub(super) shared: Arc<Shared>,
    pub(super) readers: Arc<Readers>,
    pub(super) writer: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for SegmentBlocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentBlocks").finish_non_exhaustive()
    }
}

impl SegmentBlocks {
    /// Opens the store in `dir`, or creates it. Uncommitted data is truncated; freeing of released holds continues. Blocks
    /// while it reads.
    ///
    /// # Errors
    /// Any [`OpenError`].
    pub fn open(dir: &Path, config: &SegmentConfig) -> Result<Self, OpenError> {
        let (shared, readers, writer) = open::open(dir, config)?;
        let writer = WriterThread::new(writer);
        let writer = std::thread::Builder::new()
            .name("blocks-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| OpenError::Io { path: dir.to_owned(), error })?;
        Ok(Self { dir: dir.to_owned(), shared, readers, writer: Mutex::new(Some(writer)) })
    }

    /// Commits what is queued, waits for the writer thread to end, and closes the files. All later writes are refused.
    /// Dropping the store does the same, but blocks.
    pub async fn close(&self) {
        self.shared.close();
        if let Some(writer) = self.take_writer() {
            // The task cannot be cancelled, and a panic of the thread is logged by `join`.
            let _ = tokio::task::spawn_blocking(|| join(writer)).await;
        }
    }

    /// Returns once everything that was queued before the call is committed, including records of damage.
    ///
    /// # Errors
    /// As for [`Blocks::commit`].
    pub async fn flush(&self) -> Result<(), BlocksError> {
        let (reply, flushed) = oneshot::channel();
        {
            let mut state = self.shared.state_with_room()?;
            self.shared.push(&mut state, Op::Barrier { reply });
        }
        flushed.await.unwrap_or(Err(BlocksError::Closed)).map(|_| ())
    }

    fn take_writer(&self) -> Option<JoinHandle<()>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn locate(&self, cid: &Cid) -> Result<Option<Found>, BlocksError> {
        let state = self.shared.state();
        match state.blocks.get(cid.hash()) {
            Some(Pending::Memory(data)) => return Ok(Some(Found::Memory(data.clone()))),
            Some(Pending::Written(location)) => return Ok(Some(Found::File(*location))),
            None if state.freeing.contains(cid.hash()) => return Ok(None),
            None => drop(state),
        }
        let stored = self.shared.index.find(cid.hash()).map_err(failed)?;
        Ok(stored.map(|Stored { at, .. }| Found::File(at)))
    }

    /// Adds an edge if the block is stored or queued already; false if it must be put.
    fn add_stored(&self, state: &mut State, hold: u64, cid: &Cid) -> Result<bool, BlocksError> {
        let index = &self.shared.index;
        let hash = *cid.hash();
        let Some((length, block)) = state.find(index, &hash)? else { return Ok(false) };
        let has_edge = state.holds.get(&hold).is_some_and(|active| active.added.contains(&hash))
            || match block {
                Some(block) => index.has_edge(hold, block).map_err(failed)?,
                // A damaged block that was put again may have the edge already.
                None => state.has_edge(index, hold, &hash)?,
            };
        if !has_edge {
            state.add_edge(index, hold, hash, length)?;
            *state.referenced.entry(hash).or_default() += 1;
            self.shared.push(state, Op::AddEdge { hold, hash });
        }
        Ok(true)
    }

    async fn finish(&self, id: HoldId, seal: bool) -> Result<HoldStats, BlocksError> {
        let answer = {
            let mut state = self.shared.state_with_room()?;
            let hold = state.number(&self.shared.index, id)?;
            if !state.holds.contains_key(&hold)
                && let Some(record) = self.shared.index.hold(hold).map_err(failed)?
                && (record.sealed || !seal)
            {
                return Ok(record.stats);
            }
            let (reply, answer) = oneshot::channel();
            self.shared.push(&mut state, Op::Commit { hold, seal, reply });
            answer
        };
        answer.await.unwrap_or(Err(BlocksError::Closed))
    }

    fn info(&self, state: &State, name: &HoldName, hold: u64) -> Result<Option<HoldInfo>, BlocksError> {
        let record = match state.holds.get(&hold) {
            Some(active) => Some(active.committed.clone()),
            None => self.shared.index.hold(hold).map_err(failed)?,
        };
        Ok(record.map(|record| HoldInfo { name: name.clone(), sealed: record.sealed, stats: record.stats }))
    }

    /// A committed hold by its name.
    fn committed(&self, name: &HoldName) -> Result<Option<(u64, HoldRecord)>, IndexError> {
        let index = &self.shared.index;
        let Some(hold) = index.hold_named(name)? else { return Ok(None) };
        Ok(index.hold(hold)?.map(|record| (hold, record)))
    }
}

/// The place of a block's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Memory(bytes::Bytes),
    File(Location),
}

#[async_trait]
impl Blocks for SegmentBlocks {
    fn size(&self, cid: &Cid) -> Result<Option<u64>, BlocksError> {
        if let Some(block) = Block::inline(cid) {
            return Ok(Some(block.data().len() as u64));
        }
        let found = self.shared.state().find(&self.shared.index, cid.hash())?;
        Ok(found.map(|(length, _)| length))
    }

    fn get(&self, cid: &Cid) -> Result<Option<Block>, BlocksError> {
        if let Some(block) = Block::inline(cid) {
            return Ok(Some(block));
        }
        let mut found = self.locate(cid)?;
        for _ in 0..READ_TRIES {
            let (data, error) = match &found {
                None => return Ok(None),
                Some(Found::Memory(data)) => (data.clone(), BlocksError::Damaged(*cid)),
                Some(Found::File(location)) => match self.readers.read(location) {
                    Ok(data) => (data.into(), BlocksError::Damaged(*cid)),
                    Err(error) if file::is_unreadable(&error) => {
                        (bytes::Bytes::new(), BlocksError::Damaged(*cid))
                    }
                    Err(error) => (bytes::Bytes::new(), failed(error)),
                },
            };
            let is_short = matches!(error, BlocksError::Failed(_));
            if !is_short && let Ok(block) = Block::verify(*cid, data) {
                return Ok(Some(block));
            }
            // It may have been freed or moved during the read.
            let again = self.locate(cid)?;
            if again == found {
                tracing::error!(%cid, ?found, %error, "failed to read a stored block");
                if let (BlocksError::Damaged(_), Some(Found::File(location))) = (&error, found) {
                    self.note_damage(*cid, location)?;
                }
                return Err(error);
            }
            found = again;
        }
        Err(BlocksError::Failed(format!("{cid} was moved repeatedly while it was read")))
    }

    fn open(&self, name: &HoldName) -> Result<HoldId, BlocksError> {
        let mut state = self.shared.state_with_room()?;
        if let Some(hold) = state.named(&self.shared.index, name)? {
            return Ok(state.handle(hold));
        }
        state.last_hold += 1;
        let hold = state.last_hold;
        state.opened.insert(name.clone(), hold);
        state.holds.insert(hold, ActiveHold::new(HoldRecord::new(name.clone()), true));
        self.shared.push(&mut state, Op::Open { hold, name: name.clone() });
        Ok(state.handle(hold))
    }

    async fn put(&self, id: HoldId, block: Block) -> Result<(), BlocksError> {
        let index = &self.shared.index;
        {
            let mut state = self.shared.state_with_room()?;
            let hold = state.number(index, id)?;
            if Block::inline(block.cid()).is_some() || self.add_stored(&mut state, hold, block.cid())? {
                return Ok(());
            }
        }
        let permits = queue::permits_for(block.data().len());
        let permit =
            self.shared.permits.acquire_many(permits as u32).await.map_err(|_| BlocksError::Closed)?;
        let mut state = self.shared.state_with_room()?;
        let hold = state.number(index, id)?;
        if self.add_stored(&mut state, hold, block.cid())? {
            return Ok(());
        }
        let (cid, data) = block.into_parts();
        let hash = *cid.hash();
        // Only a damaged block can have the edge at this point.
        let has_edge = state.damaged.contains(&hash) && state.has_edge(index, hold, &hash)?;
        if has_edge {
            state.activate(index, hold)?.repaired += 1;
        } else {
            state.add_edge(index, hold, hash, data.len() as u64)?;
        }
        state.blocks.insert(hash, Pending::Memory(data.clone()));
        // The writer returns the permits.
        permit.forget();
        self.shared.push(&mut state, Op::Put { hold, has_edge, cid, data, permits });
        Ok(())
    }

    async fn repair(&self, block: Block) -> Result<(), BlocksError> {
        let answer = {
            let mut state = self.shared.state_with_room()?;
            let (reply, answer) = oneshot::channel();
            self.shared.push(&mut state, Op::Repair { block, reply });
            answer
        };
        answer.await.unwrap_or(Err(BlocksError::Closed)).map(|_| ())
    }

    fn add_edge(&self, id: HoldId, cid: &Cid) -> Result<bool, BlocksError> {
        let mut state = self.shared.state_with_room()?;
        let hold = state.number(&self.shared.index, id)?;
        Ok(Block::inline(cid).is_some() || self.add_stored(&mut state, hold, cid)?)
    }

    fn has_edge(&self, id: HoldId, cid: &Cid) -> Result<bool, BlocksError> {
        let mut state = self.shared.state();
        let hold = state.number(&self.shared.index, id)?;
        Ok(Block::inline(cid).is_some() || state.has_edge(&self.shared.index, hold, cid.hash())?)
    }

    fn stats(&self, id: HoldId) -> Result<HoldStats, BlocksError> {
        let mut state = self.shared.state();
        let hold = state.number(&self.shared.index, id)?;
        if let Some(active) = state.holds.get(&hold) {
            return Ok(HoldStats {
                blocks: active.committed.stats.blocks + active.delta.blocks,
                bytes: active.committed.stats.bytes + active.delta.bytes,
            });
        }
        let record = self.shared.index.hold(hold).map_err(failed)?;
        record.map(|record| record.stats).ok_or(BlocksError::NoSuchHold)
    }

    async fn commit(&self, hold: HoldId) -> Result<HoldStats, BlocksError> {
        self.finish(hold, false).await
    }

    async fn seal(&self, hold: HoldId) -> Result<HoldStats, BlocksError> {
        self.finish(hold, true).await
    }

    async fn release(&self, name: &HoldName) -> Result<(), BlocksError> {
        let answer = {
            let mut state = self.shared.state_with_room()?;
            let (reply, answer) = oneshot::channel();
            let op = match state.named(&self.shared.index, name)? {
                Some(hold) => {
                    state.opened.remove(name);
                    state.holds.remove(&hold);
                    state.released.insert(hold);
                    Op::Release { hold, name: name.clone(), reply }
                }
                // Another caller's release of it may not be durable yet.
                None if !state.released.is_empty() => Op::Barrier { reply },
                None => return Ok(()),
            };
            self.shared.push(&mut state, op);
            answer
        };
        answer.await.unwrap_or(Err(BlocksError::Closed)).map(|_| ())
    }

    fn holds(
        &self,
        prefix: &str,
        after: Option<&HoldName>,
        limit: usize,
    ) -> Result<Vec<HoldInfo>, BlocksError> {
        let state = self.shared.state();
        // Released holds that are still in the index are filtered out below.
        let mut names = self
            .shared
            .index
            .names(prefix, after, limit.saturating_add(state.released.len()))
            .map_err(failed)?;
        names.retain(|(_, hold)| !state.released.contains(hold));
        let matches =
            |name: &HoldName| name.as_str().starts_with(prefix) && after.is_none_or(|after| name > after);
        names.extend(
            state.opened.iter().filter(|(name, _)| matches(name)).map(|(name, hold)| (name.clone(), *hold)),
        );
        names.sort_unstable();
        names.dedup();
        names.truncate(limit);
        let mut infos = Vec::with_capacity(names.len());
        for (name, hold) in names {
            infos.extend(self.info(&state, &name, hold)?);
        }
        Ok(infos)
    }

    fn is_damaged(&self, name: &HoldName) -> Result<bool, BlocksError> {
        match self.committed(name).map_err(failed)? {
            Some((hold, record)) => self.has_damage(hold, record.stats.blocks).map_err(failed),
            None => Ok(false),
        }
    }

    fn damaged_holds(&self, limit: usize) -> Result<Vec<(HoldName, u64)>, BlocksError> {
        if self.shared.state().damaged.is_empty() {
            return Ok(Vec::new());
        }
        let mut holds = BTreeMap::new();
        for hold in self.damaged(None, limit)?.into_iter().flat_map(|block| block.holds) {
            *holds.entry(hold).or_default() += 1;
        }
        Ok(holds.into_iter().collect())
    }

    fn count(&self, name: &HoldName, counted: &mut Distinct) -> Result<(), BlocksError> {
        let Some((hold, _)) = self.committed(name).map_err(failed)? else { return Ok(()) };
        let mut last = None;
        loop {
            let edges = self.shared.index.edges(hold, last, COUNT_EDGES).map_err(failed)?;
            last = edges.last().map(|edge| edge.block);
            edges.iter().for_each(|edge| counted.add(edge.block, u64::from(edge.length)));
            if edges.len() < COUNT_EDGES {
                return Ok(());
            }
        }
    }

    fn totals(&self) -> Result<Totals, BlocksError> {
        self.compute_totals()
    }

    fn hold(&self, name: &HoldName) -> Result<Option<HoldInfo>, BlocksError> {
        let state = self.shared.state();
        match state.named(&self.shared.index, name)? {
            Some(hold) => self.info(&state, name, hold),
            None => Ok(None),
        }
    }
}

fn join(writer: JoinHandle<()>) {
    if writer.join().is_err() {
        tracing::error!("the block writer thread panicked");
    }
}

impl Drop for SegmentBlocks {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(writer) = self.take_writer() {
            join(writer);
        }
    }
}
