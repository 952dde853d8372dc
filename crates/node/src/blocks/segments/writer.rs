//! The one thread that changes the store: it appends blocks, commits in groups, and frees what is released.
//!
//! It takes all that is queued, appends it, and when somebody waits for an answer it commits the group:
//! data synced, then one synced batch of the index, then the answers. While it syncs, the next group
//! gathers in the queue. Between groups it tidies up, one bounded step at a time ([`super::tidy`]): it frees
//! released holds, gives space back, and moves blocks out of segments that are mostly waste. Since nothing
//! else changes the index, no edge can come or go under its hands.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cid::Cid;
use cid::multihash::Multihash;

use super::file::{self, Appender, Readers};
use super::group::{Group, GroupHold};
use super::index::{
    Damage, Edge, HeldRecord, HoldRecord, Index, IndexError, Location, SegmentRecord, Stored,
};
use super::mark::{Committed, Mark};
use super::punch::PUNCH_BYTES_MIN;
use super::state::{Failure, Op, Pending, Shared, State};
use super::tidy::Tidy;
use crate::blocks::{BlocksError, HoldStats};
use crate::car;

/// Edges that one group may have: bounds the index batch and what is kept in memory for it, and lets the
/// index work while more is put.
const GROUP_EDGES_MAX: usize = 8 * 1024;
/// Damaged blocks that are remembered, some 100 bytes each; with more of them it is time for a backup.
pub(super) const DAMAGED_MAX: usize = 1_000_000;
/// How long tidying up rests after it failed, and while it is not allowed.
const REST: Duration = Duration::from_secs(1);

/// Why a group cannot be committed.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error("segments: {0}")]
    Data(#[from] io::Error),
    #[error("less than {0} bytes are free")]
    Reserve(u64),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("a block that a hold counted on is gone")]
    Dangling,
}

impl WriteError {
    pub(super) fn failure(&self) -> Failure {
        match self {
            Self::Reserve(_) => Failure::Full,
            Self::Data(error) if is_full(error) => Failure::Full,
            Self::Index(IndexError::Fjall(fjall::Error::Io(error))) if is_full(error) => Failure::Full,
            Self::Index(IndexError::Io(error)) if is_full(error) => Failure::Full,
            Self::Data(_) | Self::Index(_) | Self::Dangling => Failure::Failed(self.to_string()),
        }
    }
}

pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) readers: Arc<Readers>,
    /// The folder of the segments.
    pub(super) dir: PathBuf,
    pub(super) segment_bytes: u64,
    pub(super) reserve_bytes: u64,
    /// The segment that is appended to, if one is open.
    pub(super) appender: Option<Appender>,
    /// How far that segment is committed; `None` while it is not in the index at all.
    pub(super) committed: Option<u64>,
    /// What is to be tidied up.
    pub(super) tidy: Tidy,
    pub(super) group: Group,
    mark: Mark,
    /// Whether the index takes no writes until it is opened again.
    is_broken: bool,
    /// Holds whose release has failed and may be in the index after all, until that can be read.
    in_doubt: BTreeSet<u64>,
    /// The id of the next new block.
    next_block: u64,
    /// What all holds keep, as it is committed.
    held: HeldRecord,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.writer_ended();
    }
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        readers: Arc<Readers>,
        dir: PathBuf,
        config: &super::SegmentConfig,
        mark: Mark,
    ) -> Result<Self, IndexError> {
        let index = &shared.index;
        Ok(Self {
            tidy: Tidy::load(index, config.segment_bytes)?,
            next_block: index.next_block()?,
            held: index.held()?,
            shared,
            readers,
            dir,
            segment_bytes: config.segment_bytes,
            reserve_bytes: config.reserve_bytes,
            appender: None,
            committed: None,
            group: Group::default(),
            mark,
            is_broken: false,
            in_doubt: BTreeSet::new(),
        })
    }

    /// Works until the store is closed; what is queued by then is still committed.
    pub(super) fn run(mut self) {
        let mut rest = false;
        loop {
            let is_idle = !self.is_broken && !self.has_to_tidy();
            let wait = match (!is_idle, rest || self.is_broken || self.shared.is_frozen()) {
                (false, _) => None,
                (true, false) => Some(Duration::ZERO),
                (true, true) => Some(REST),
            };
            let (ops, closing) = self.shared.take(wait);
            rest = !self.turn(ops, closing);
            if closing {
                break;
            }
        }
        if let Some(appender) = self.appender.take()
            && let Err(error) = appender.finish()
        {
            tracing::warn!(%error, "the last segment keeps its padding");
        }
    }

    /// One round; false if it failed.
    fn turn(&mut self, ops: Vec<Op>, closing: bool) -> bool {
        let idle = ops.is_empty();
        let mut ops = ops.into_iter();
        if self.is_broken {
            if let Err(error) = self.mend_index() {
                self.give_up(&error.into(), ops);
                return false;
            }
            if let Err(error) = self.release_in_doubt() {
                self.fail(&error, ops);
                return false;
            }
        }
        while let Some(op) = ops.next() {
            if let Err(error) = self.apply(op) {
                self.fail(&error, ops);
                return false;
            }
        }
        let full = self.group.edges.len() >= GROUP_EDGES_MAX;
        let tidying = idle && self.has_to_tidy();
        if (!self.group.waiters.is_empty() || self.group.has_notes() || full || tidying || closing)
            && let Err(error) = self.commit()
        {
            self.fail(&error, ops);
            return false;
        }
        if !closing
            && self.group.is_clean()
            && self.has_to_tidy()
            && !self.shared.is_frozen()
            && let Err(error) = self.tidy_some()
        {
            self.fail(&error, ops);
            return false;
        }
        true
    }

    fn apply(&mut self, op: Op) -> Result<(), WriteError> {
        match op {
            Op::Open { hold, name } => {
                let record = HoldRecord::new(name.clone());
                self.group
                    .holds
                    .insert(hold, GroupHold { record, is_new: true, released: false, brought: 0 });
                self.group.names.insert(name, Some(hold));
            }
            Op::Put { hold, is_kept, cid, data, permits } => {
                self.shared.permits.add_permits(permits);
                self.put((!is_kept).then_some(hold), &cid, &data)?;
                if is_kept && let Some(hold) = self.hold(hold)? {
                    hold.brought += 1;
                }
            }
            Op::Keep { hold, hash } => {
                let stored = self.find(&hash)?.ok_or(WriteError::Dangling)?;
                self.add_edge(hold, hash, &stored)?;
                self.shared.state().unwant(&hash);
            }
            Op::Commit { hold, seal, reply } => {
                self.group.waiters.push((Some(hold), reply));
                if seal && let Some(hold) = self.hold(hold)? {
                    hold.record.sealed = true;
                }
            }
            Op::Release { hold, name, reply } => {
                self.group.waiters.push((None, reply));
                if let Some(hold) = self.hold(hold)? {
                    hold.released = true;
                    self.group.names.insert(name, None);
                }
            }
            Op::Repair { block, reply } => {
                // Answered behind it: a segment that ends with it commits what was before.
                let (cid, data) = block.into_parts();
                let put = self.put(None, &cid, &data);
                self.group.waiters.push((None, reply));
                put?;
            }
            Op::Damaged { hash, at, damage } => self.note_damage(hash, at, damage)?,
            Op::Sound { hash } => {
                self.group.damaged.remove(&hash);
                self.group.mended.insert(hash);
            }
            Op::Scrubbed { last, began_ms } => self.group.scrubbed = Some((last, began_ms)),
            Op::Barrier { reply } => self.group.waiters.push((None, reply)),
            Op::Roll { reply } => match self.roll() {
                // Who does not wait any more needs no answer.
                Ok(segments) => drop(reply.send(Ok(segments))),
                Err(error) => {
                    let _ = reply.send(Err(error.failure().error()));
                    return Err(error);
                }
            },
        }
        Ok(())
    }

    fn note_damage(&mut self, hash: Multihash<64>, at: Location, damage: Damage) -> Result<(), WriteError> {
        if self.find(&hash)?.is_some_and(|stored| stored.at == at) {
            self.group.mended.remove(&hash);
            self.group.damaged.insert(hash, damage);
        } else {
            // It was freed meanwhile, or stands whole somewhere else.
            self.shared.state().damaged.remove(&hash);
        }
        Ok(())
    }

    /// Ends the segment that is appended to; gives those that have live blocks, none of which gets anything more.
    fn roll(&mut self) -> Result<Vec<u32>, WriteError> {
        self.next_segment()?;
        let segments = self.shared.index.segments()?.into_iter();
        Ok(segments.filter(|(_, record)| record.live_blocks > 0).map(|(id, _)| id).collect())
    }

    /// Where a block is, the group included.
    fn find(&self, hash: &Multihash<64>) -> Result<Option<Stored>, WriteError> {
        match self.group.blocks.get(hash) {
            Some(stored) => Ok(Some(*stored)),
            None => Ok(self.shared.index.find(hash)?),
        }
    }

    /// Stores a block under a new id, or under its own one if it is stored already: then it was damaged, and
    /// stands anew. Without a hold only the latter: whoever kept it may have gone meanwhile.
    fn put(&mut self, hold: Option<u64>, cid: &Cid, data: &Bytes) -> Result<(), WriteError> {
        let hash = *cid.hash();
        let stored = match (self.find(&hash)?, hold) {
            (Some(old), _) => {
                tracing::warn!(%cid, "a damaged block is stored anew");
                let stored = self.relocate(cid, data, &old)?;
                self.group.damaged.remove(&hash);
                self.group.mended.insert(hash);
                stored
            }
            (None, Some(_)) => {
                let at = self.append(cid, data)?;
                let id = self.next_block;
                self.next_block += 1;
                self.place(hash, Stored { id, at })
            }
            (None, None) => return Ok(()),
        };
        match hold {
            Some(hold) => self.add_edge(hold, hash, &stored),
            None => Ok(()),
        }
    }

    /// Stores a block once more, and gives its old place up.
    pub(super) fn relocate(&mut self, cid: &Cid, data: &Bytes, old: &Stored) -> Result<Stored, WriteError> {
        let at = self.append(cid, data)?;
        // What was appended may have begun a new group, in which the old place is as it is committed.
        self.segment(old.at.segment)?.take(&old.at);
        if !self.group.is_tidying && old.at.length >= PUNCH_BYTES_MIN {
            self.group.left.push(old.at);
        }
        Ok(self.place(*cid.hash(), Stored { id: old.id, at }))
    }

    fn place(&mut self, hash: Multihash<64>, stored: Stored) -> Stored {
        self.group.blocks.insert(hash, stored);
        self.group.unwritten.push_back((hash, stored.at));
        self.forget_written();
        stored
    }

    /// The record of a segment, to be changed.
    fn segment(&mut self, id: u32) -> Result<&mut SegmentRecord, WriteError> {
        use std::collections::hash_map::Entry;
        match self.group.segments.entry(id) {
            Entry::Occupied(record) => Ok(record.into_mut()),
            Entry::Vacant(vacant) => Ok(vacant.insert(self.shared.index.segment(id)?.unwrap_or_default())),
        }
    }

    /// Commits, and ends the segment that is appended to: one at a time has anything uncommitted.
    pub(super) fn next_segment(&mut self) -> Result<(), WriteError> {
        let is_tidying = self.group.is_tidying;
        self.commit()?;
        self.group.is_tidying = is_tidying;
        let Some(appender) = self.appender.take() else { return Ok(()) };
        let id = appender.id;
        appender.finish()?;
        self.tidy.ended(id);
        self.look_at(id)
    }

    fn hold(&mut self, id: u64) -> Result<Option<&mut GroupHold>, WriteError> {
        use std::collections::hash_map::Entry;
        match self.group.holds.entry(id) {
            Entry::Occupied(hold) => Ok(Some(hold.into_mut())),
            Entry::Vacant(vacant) => {
                let record = self.shared.index.hold(id)?;
                let hold = |record| GroupHold { record, is_new: false, released: false, brought: 0 };
                Ok(record.map(|record| vacant.insert(hold(record))))
            }
        }
    }

    fn add_edge(&mut self, hold: u64, hash: Multihash<64>, stored: &Stored) -> Result<(), WriteError> {
        let (block, length) = (stored.id, stored.at.length);
        if let Some(group_hold) = self.hold(hold)? {
            group_hold.record.stats.blocks += 1;
            group_hold.record.stats.bytes += u64::from(length);
            self.group.edges.push(Edge { hold, hash, block, length });
        }
        Ok(())
    }

    fn append(&mut self, cid: &Cid, data: &Bytes) -> Result<Location, WriteError> {
        let head = car::section_head(cid, data.len());
        let needed = (head.len() + data.len()) as u64;
        if self.appender.as_ref().is_some_and(|appender| appender.end() + needed > self.segment_bytes) {
            self.next_segment()?;
        }
        let appender = match &mut self.appender {
            Some(appender) => appender,
            None => {
                self.committed = None;
                // The index alone decides: after a failure it may have the last segment or not, and an id
                // that is passed over would look like an index from a backup at the next start.
                let id = self.shared.index.next_segment()?;
                let appender = Appender::create(&self.dir, id)?;
                self.readers.forget(id);
                self.appender.insert(appender)
            }
        };
        appender.fill(&head)?;
        let (segment, offset) = (appender.id, appender.end() as u32);
        appender.fill(data)?;
        let location = Location { segment, offset, length: data.len() as u32, head: head.len() as u8 };
        self.segment(segment)?.add(&location);
        Ok(location)
    }

    /// Drops the memory of blocks that the file has by now: they are read from there.
    fn forget_written(&mut self) {
        let Some(written) = self.appender.as_ref().map(Appender::written) else { return };
        let ends_within = |(_, at): &(_, Location)| at.end() <= written;
        if !self.group.unwritten.front().is_some_and(ends_within) {
            return;
        }
        let mut state = self.shared.state();
        while let Some((hash, location)) = self.group.unwritten.pop_front_if(|block| ends_within(block)) {
            if let Some(pending) = state.blocks.get_mut(&hash) {
                *pending = Pending::Written(location);
            }
        }
    }

    /// Makes the group durable, and answers whoever waits for it.
    pub(super) fn commit(&mut self) -> Result<(), WriteError> {
        if !self.group.is_clean() {
            self.sync_data()?;
            self.sync_index()?;
            self.publish();
        }
        let waiters = std::mem::take(&mut self.group.waiters);
        let holds = std::mem::take(&mut self.group.holds);
        self.group = Group::default();
        for (hold, reply) in waiters {
            let stats = match hold {
                None => Ok(HoldStats::default()),
                Some(hold) => match holds.get(&hold) {
                    Some(hold) => Ok(hold.record.stats),
                    None => match self.shared.index.hold(hold) {
                        Ok(Some(record)) => Ok(record.stats),
                        Ok(None) => Err(BlocksError::NoSuchHold),
                        Err(error) => Err(super::state::failed(error)),
                    },
                },
            };
            // Who does not wait any more needs no answer.
            let _ = reply.send(stats);
        }
        Ok(())
    }

    fn sync_data(&mut self) -> Result<(), WriteError> {
        let Some(appender) = &mut self.appender else { return Ok(()) };
        let Some(record) = self.group.segments.get_mut(&appender.id) else { return Ok(()) };
        if !self.group.is_tidying && file::free_bytes(&self.dir)? < self.reserve_bytes {
            return Err(WriteError::Reserve(self.reserve_bytes));
        }
        appender.sync()?;
        record.end = appender.end();
        Ok(())
    }

    fn sync_index(&mut self) -> Result<(), WriteError> {
        let appended = self.appender.as_ref().map(|appender| appender.id);
        let appended = appended.filter(|id| self.group.segments.contains_key(id));
        let new_segment = appended.filter(|_| self.committed.is_none());
        let held = self.group.held_after(self.held);
        self.shared.index.change(true, |changes| {
            self.group.write(changes);
            changes.set_held(&held);
            changes.set_next_block(self.next_block);
            if let Some(id) = new_segment {
                changes.set_next_segment(id + 1);
            }
        })?;
        self.held = held;
        if let Some(segment) = appended
            && let Some(SegmentRecord { end, .. }) = self.group.segments.get(&segment).copied()
        {
            self.committed = Some(end);
            self.mark.write(Committed { segment, end });
        }
        Ok(())
    }

    /// Takes what is in the index now out of the state of what is not.
    fn publish(&mut self) {
        let mut state = self.shared.state();
        for hash in self.group.blocks.keys() {
            state.blocks.remove(hash);
        }
        for edge in &self.group.edges {
            if let Some(active) = state.holds.get_mut(&edge.hold)
                && active.added.remove(&edge.hash)
            {
                active.delta.blocks -= 1;
                active.delta.bytes -= u64::from(edge.length);
            }
        }
        for (id, hold) in &self.group.holds {
            if hold.released {
                state.gone.remove(id);
                state.losses.remove(id);
                self.tidy.release(*id);
            } else {
                state.settle(*id, hold);
            }
        }
        state.damaged.extend(self.group.damaged.keys());
        for hash in &self.group.mended {
            state.damaged.remove(hash);
        }
        drop(state);
        self.tidy.left(&self.group.left);
        let active = self.appender.as_ref().map(|appender| appender.id);
        for (id, record) in self.group.segments.iter().filter(|(id, _)| Some(**id) != active) {
            self.tidy.shrunk(*id, record, self.group.is_tidying);
        }
    }

    /// Gives up the group and all that is queued behind it, since that may count on it. Data that may be
    /// lost is cut off; after an error of the index it is left, because the index may have it after all.
    fn fail(&mut self, error: &WriteError, rest: impl Iterator<Item = Op>) {
        tracing::error!(%error, "writing blocks failed; nothing of the group is acknowledged");
        if let Some(appender) = self.appender.take()
            && !matches!(error, WriteError::Index(_))
            && let Err(error) = appender.abandon(self.committed)
        {
            tracing::warn!(%error, "what was not committed stays in its segment until the next start");
        }
        self.committed = None;
        if let WriteError::Index(_) = error {
            self.is_broken = true;
            match self.mend_index() {
                Ok(()) => self.in_doubt.clear(),
                Err(error) => {
                    tracing::error!(%error, "the index cannot be written; it is tried again each second");
                    let released = self.group.holds.iter().filter(|(_, hold)| hold.released);
                    self.in_doubt.extend(released.map(|(id, _)| *id));
                }
            }
        }
        self.give_up(error, rest);
    }

    /// Opens the index again, and reads what this thread knows of it: the batch that failed may be in it after all.
    fn mend_index(&mut self) -> Result<(), IndexError> {
        self.shared.index.reopen()?;
        self.reload()?;
        self.is_broken = false;
        Ok(())
    }

    /// Releases the holds whose release was in doubt, unless that is done: nobody has counted on them since, and
    /// others may have their names in what is queued.
    fn release_in_doubt(&mut self) -> Result<(), WriteError> {
        for id in self.in_doubt.clone() {
            match self.hold(id)? {
                Some(hold) => {
                    hold.released = true;
                    let name = hold.record.name.clone();
                    self.group.names.insert(name, None);
                }
                None => {
                    self.shared.state().gone.remove(&id);
                }
            }
        }
        self.commit()?;
        self.in_doubt.clear();
        Ok(())
    }

    /// Tells all that wait that it failed, and those that come with handles from before.
    fn give_up(&mut self, error: &WriteError, rest: impl Iterator<Item = Op>) {
        let failure = error.failure();
        let group = std::mem::take(&mut self.group);
        let mut state = self.shared.state();
        state.freeing.clear();
        let queued = state.lose(&failure, &self.in_doubt);
        let given_up: Vec<Op> = rest.chain(queued).collect();
        // What is not noted has to be found again. After an error of the index that is read anew.
        let noted = group.damaged.keys().filter(|_| !matches!(error, WriteError::Index(_)));
        for hash in noted {
            state.damaged.remove(hash);
        }
        for op in &given_up {
            if let Op::Damaged { hash, .. } = op {
                state.damaged.remove(hash);
            }
        }
        drop(state);
        for (_, reply) in group.waiters {
            let _ = reply.send(Err(failure.error()));
        }
        for op in given_up {
            match op {
                Op::Put { permits, .. } => self.shared.permits.add_permits(permits),
                Op::Commit { reply, .. }
                | Op::Release { reply, .. }
                | Op::Repair { reply, .. }
                | Op::Barrier { reply } => {
                    let _ = reply.send(Err(failure.error()));
                }
                Op::Roll { reply } => drop(reply.send(Err(failure.error()))),
                Op::Open { .. }
                | Op::Keep { .. }
                | Op::Damaged { .. }
                | Op::Sound { .. }
                | Op::Scrubbed { .. } => {}
            }
        }
    }

    /// Reads again from the index what this thread knows of it.
    fn reload(&mut self) -> Result<(), IndexError> {
        let index = &self.shared.index;
        self.tidy = Tidy::load(index, self.segment_bytes)?;
        self.next_block = self.next_block.max(index.next_block()?);
        self.held = index.held()?;
        self.shared.state().damaged = damaged_in(index)?;
        Ok(())
    }
}

/// All blocks that are noted as damaged.
pub(super) fn damaged_in(index: &Index) -> Result<HashSet<Multihash<64>>, IndexError> {
    Ok(index.damaged(None, DAMAGED_MAX)?.into_iter().map(|(hash, _)| hash).collect())
}

impl State {
    /// A queued `Keep` has become an edge.
    fn unwant(&mut self, hash: &Multihash<64>) {
        if let Some(wanted) = self.wanted.get_mut(hash) {
            *wanted -= 1;
            if *wanted == 0 {
                self.wanted.remove(hash);
            }
        }
    }

    /// A hold is committed as the group has it.
    fn settle(&mut self, id: u64, GroupHold { record, brought, .. }: &GroupHold) {
        if self.opened.get(&record.name) == Some(&id) {
            self.opened.remove(&record.name);
        }
        if let Some(active) = self.holds.get_mut(&id) {
            active.committed = record.clone();
            active.is_new = false;
            active.brought = active.brought.saturating_sub(*brought);
            if active.added.is_empty() && active.brought == 0 {
                self.holds.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::{SegmentBlocks, SegmentConfig, recover};
    use super::*;
    use crate::Blocks;
    use crate::blocks::contract::{block, name};

    #[tokio::test]
    async fn nobody_counts_on_a_hold_while_its_release_may_be_in_the_index_after_all() {
        let dir = tempfile::tempdir().unwrap();
        let config = SegmentConfig { reserve_bytes: 0, ..SegmentConfig::default() };
        let blocks = SegmentBlocks::open(dir.path(), &config).unwrap();
        let hold = blocks.open(&name("a")).unwrap();
        blocks.put(hold, block("kept")).await.unwrap();
        blocks.seal(hold).await.unwrap();
        drop(blocks);

        let (shared, readers, mut writer) = recover::open(dir.path(), &config).unwrap();
        let blocks = SegmentBlocks {
            dir: dir.path().to_owned(),
            shared: Arc::clone(&shared),
            readers,
            writer: Mutex::new(None),
        };
        let a = name("a");
        let mut released = std::pin::pin!(blocks.release(&a));
        assert!(futures::poll!(&mut released).is_pending());
        let (ops, _) = shared.take(Some(Duration::ZERO));
        for op in ops {
            writer.apply(op).unwrap();
        }
        // The index fails, and cannot be read again for now; the tables that are open still have the hold.
        std::fs::rename(dir.path().join("index"), dir.path().join("aside")).unwrap();
        writer.fail(&WriteError::Index(IndexError::Down), std::iter::empty());
        assert!(released.await.is_err());
        assert!(shared.index.hold_named(&a).unwrap().is_some());
        assert!(blocks.hold(&a).unwrap().is_none());
        let again = blocks.open(&a).unwrap();
        let mut sealed = std::pin::pin!(blocks.seal(again));
        assert!(futures::poll!(&mut sealed).is_pending());
        assert!(!writer.turn(shared.take(Some(Duration::ZERO)).0, false));
        assert!(sealed.await.is_err());

        // It was not in the index, and is done as soon as it can be; whoever came meanwhile has a new hold.
        let again = blocks.open(&a).unwrap();
        let mut sealed = std::pin::pin!(blocks.seal(again));
        assert!(futures::poll!(&mut sealed).is_pending());
        std::fs::rename(dir.path().join("aside"), dir.path().join("index")).unwrap();
        assert!(writer.turn(shared.take(Some(Duration::ZERO)).0, false));
        assert_eq!(sealed.await.unwrap().blocks, 0);
        assert_eq!(shared.index.held().unwrap().holds, 1);
        while writer.has_to_tidy() {
            assert!(writer.turn(Vec::new(), false));
        }
        assert_eq!(blocks.get(block("kept").cid()).unwrap(), None);
        assert!(shared.state().gone.is_empty() && writer.in_doubt.is_empty());
        drop(writer);
    }
}
