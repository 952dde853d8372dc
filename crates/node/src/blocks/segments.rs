//! The durable engine: blocks in append-only segment files, and an index of them.
//!
//! A store is a folder:
//!
//! - `VERSION`: the format, so that a later Pinfold knows what it opens;
//! - `segments/0000000001.car`, …: files of about 128 MiB, each of them a CARv1;
//! - `index/`: a fjall database ([`index`]), which can be made anew from the segments ([`rebuild`]);
//! - `MARK`: up to where segments were committed, by which an old index is recognised ([`mark`]).
//!
//! One thread writes ([`writer`]); callers queue and wait ([`state`]). Data is synced before the index
//! says so, the index before the answer. What nobody keeps is given back in the background ([`tidy`]), what
//! is kept is looked at from time to time ([`check`]). `docs/adr/0004-block-engine.md` has the reasons and the
//! figures.

mod check;
mod file;
mod group;
mod index;
mod mark;
mod punch;
mod rebuild;
mod recover;
mod snapshot;
mod state;
mod tidy;
mod writer;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use cid::Cid;
use tokio::sync::oneshot;

use self::file::Readers;
use self::index::{HoldRecord, IndexError, Location, Stored};
use self::state::{ActiveHold, Op, Pending, Shared, State, failed};
use super::{Blocks, BlocksError, Distinct, HoldId, HoldInfo, HoldName, HoldStats, Totals};
use crate::Block;

pub use check::{DamagedBlock, ScrubStep, VerifyProgress};
pub use rebuild::LostSegment;
pub use snapshot::{KeepAll, Snapshot};

/// How often a read is tried again because its block was moved or freed meanwhile.
const READ_TRIES: usize = 4;
/// Edges of a hold that are counted at one time.
const COUNT_EDGES: usize = 10_000;

/// The engine's settings.
#[derive(Debug, Clone)]
pub struct SegmentConfig {
    /// Where a segment ends and the next begins, in bytes. Small enough that a dead one comes soon, large
    /// enough that there are few files. At most 1 GiB.
    pub segment_bytes: u64,
    /// Bytes of the file system that are left free: the index needs them to go on, and to release.
    pub reserve_bytes: u64,
}

impl Default for SegmentConfig {
    fn default() -> Self {
        Self { segment_bytes: 128 * 1024 * 1024, reserve_bytes: 256 * 1024 * 1024 }
    }
}

/// Why a store cannot be opened. Nothing was changed in it, unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be read or written.
    #[error("{path}: {error}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Another version made it.
    #[error(
        "{path} holds blocks in format {found:?}, this Pinfold reads {expected:?}: use the version that wrote it"
    )]
    Version {
        /// The store's folder.
        path: PathBuf,
        /// What its `VERSION` says.
        found: String,
        /// What it should say.
        expected: &'static str,
    },
    /// There are segments, but no index or no `VERSION` that belongs to them.
    #[error("{path} has segments without their index: it has to be made anew from them")]
    NoIndex {
        /// The store's folder.
        path: PathBuf,
    },
    /// The segments are newer than the index.
    #[error("{path} is newer than the index: the index is an old one, and has to be made anew")]
    StaleIndex {
        /// A segment that the index cannot know yet.
        path: PathBuf,
    },
    /// A segment is not there, or shorter than what was committed.
    #[error(
        "{path} has {found} bytes of the {expected} that were committed: restore it from a backup, or accept \
         that its blocks are lost and have to be fetched again"
    )]
    SegmentLost {
        /// The segment.
        path: PathBuf,
        /// Its length; 0 if it is not there.
        found: u64,
        /// What was committed.
        expected: u64,
    },
    /// The index cannot be read.
    #[error("{path}: {reason}")]
    Index {
        /// The folder of the index.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// A durable [`Blocks`] in a folder of its own. Only one may be open on a folder at a time: whoever opens it
/// holds a lock for that. Dropping it commits what is queued and closes the files.
pub struct SegmentBlocks {
    dir: PathBuf,
    shared: Arc<Shared>,
    readers: Arc<Readers>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for SegmentBlocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentBlocks").finish_non_exhaustive()
    }
}

impl SegmentBlocks {
    /// Opens the store in `dir`, or makes one there. Whatever was not committed is cut off; what was
    /// released goes on being freed. Blocks while it reads.
    ///
    /// # Errors
    /// Any [`OpenError`].
    pub fn open(dir: &Path, config: &SegmentConfig) -> Result<Self, OpenError> {
        let (shared, readers, writer) = recover::open(dir, config)?;
        let writer = std::thread::Builder::new()
            .name("blocks-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| OpenError::Io { path: dir.to_owned(), error })?;
        Ok(Self { dir: dir.to_owned(), shared, readers, writer: Mutex::new(Some(writer)) })
    }

    /// Commits what is queued and closes the files; from then on every write is refused. Dropping the store
    /// does the same, but blocks.
    pub async fn close(&self) {
        self.shared.close();
        if let Some(writer) = self.take_writer() {
            // The task cannot be cancelled, and what it returns is logged by the thread itself.
            let _ = tokio::task::spawn_blocking(|| join(writer)).await;
        }
    }

    /// Returns once everything that was queued before the call is committed, notes of damage too.
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

    fn locate(&self, cid: &Cid) -> Result<Option<Found>, BlocksError> {
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

    /// Adds an edge if the block is stored or queued already; false if it has to be put.
    fn add_stored(&self, state: &mut State, hold: u64, cid: &Cid) -> Result<bool, BlocksError> {
        let index = &self.shared.index;
        let hash = *cid.hash();
        let Some((length, block)) = state.find(index, &hash)? else { return Ok(false) };
        let is_kept = state.holds.get(&hold).is_some_and(|active| active.added.contains(&hash))
            || match block {
                Some(block) => index.has_edge(hold, block).map_err(failed)?,
                // One that is brought again because it is damaged may be kept by now.
                None => state.is_kept(index, hold, &hash)?,
            };
        if !is_kept {
            state.add_edge(index, hold, hash, length)?;
            *state.wanted.entry(hash).or_default() += 1;
            self.shared.push(state, Op::Keep { hold, hash });
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

/// Where a block was found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
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
                    Err(error) if check::is_of_the_file(&error) => {
                        (bytes::Bytes::new(), BlocksError::Damaged(*cid))
                    }
                    Err(error) => (bytes::Bytes::new(), failed(error)),
                },
            };
            let is_short = matches!(error, BlocksError::Failed(_));
            if !is_short && let Ok(block) = Block::verify(*cid, data) {
                return Ok(Some(block));
            }
            // It may have been released or moved while it was read.
            let again = self.locate(cid)?;
            if again == found {
                tracing::error!(%cid, ?found, %error, "a stored block cannot be read");
                if let (BlocksError::Damaged(_), Some(Found::File(location))) = (&error, found) {
                    self.note_damage(*cid, location)?;
                }
                return Err(error);
            }
            found = again;
        }
        Err(BlocksError::Failed(format!("{cid} was released and stored again while it was read")))
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
        let permits = state::permits_for(block.data().len());
        let permit =
            self.shared.permits.acquire_many(permits as u32).await.map_err(|_| BlocksError::Closed)?;
        let mut state = self.shared.state_with_room()?;
        let hold = state.number(index, id)?;
        if self.add_stored(&mut state, hold, block.cid())? {
            return Ok(());
        }
        let (cid, data) = block.into_parts();
        let hash = *cid.hash();
        // Only a damaged block can be kept already by now.
        let is_kept = state.damaged.contains(&hash) && state.is_kept(index, hold, &hash)?;
        if is_kept {
            state.activate(index, hold)?.brought += 1;
        } else {
            state.add_edge(index, hold, hash, data.len() as u64)?;
        }
        state.blocks.insert(hash, Pending::Memory(data.clone()));
        // The writer gives the permits back.
        permit.forget();
        self.shared.push(&mut state, Op::Put { hold, is_kept, cid, data, permits });
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

    fn keep(&self, id: HoldId, cid: &Cid) -> Result<bool, BlocksError> {
        let mut state = self.shared.state_with_room()?;
        let hold = state.number(&self.shared.index, id)?;
        Ok(Block::inline(cid).is_some() || self.add_stored(&mut state, hold, cid)?)
    }

    fn is_kept(&self, id: HoldId, cid: &Cid) -> Result<bool, BlocksError> {
        let mut state = self.shared.state();
        let hold = state.number(&self.shared.index, id)?;
        Ok(Block::inline(cid).is_some() || state.is_kept(&self.shared.index, hold, cid.hash())?)
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
                    state.gone.insert(hold);
                    Op::Release { hold, name: name.clone(), reply }
                }
                // Somebody else's release of it may not be durable yet.
                None if !state.gone.is_empty() => Op::Barrier { reply },
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
        // Those that are being released are in the index still, and are taken out below.
        let mut names =
            self.shared.index.names(prefix, after, limit.saturating_add(state.gone.len())).map_err(failed)?;
        names.retain(|(_, hold)| !state.gone.contains(hold));
        let is_asked =
            |name: &HoldName| name.as_str().starts_with(prefix) && after.is_none_or(|after| name > after);
        names.extend(
            state.opened.iter().filter(|(name, _)| is_asked(name)).map(|(name, hold)| (name.clone(), *hold)),
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
        self.add_up()
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
        tracing::error!("the writer of the blocks has panicked");
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

#[cfg(test)]
mod crash;
#[cfg(test)]
mod tests;
