//! The one thread that changes the store: it appends blocks, commits in groups, and frees what is released.
//!
//! It takes all that is queued, appends it, and when somebody waits for an answer it commits the group:
//! data synced, then one synced batch of the index, then the answers. While it syncs, the next group
//! gathers in the queue. Between groups it frees released holds, a bounded batch at a time
//! ([`super::release`]). Since nothing else changes the index, no edge can come or go under its hands.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cid::Cid;
use cid::multihash::Multihash;

use super::file::{self, Appender, Readers};
use super::index::{Edge, HoldRecord, IndexError, Location, SegmentRecord};
use super::release::Going;
use super::state::{Failure, Op, Pending, Reply, Shared, State};
use crate::blocks::{BlocksError, HoldName, HoldStats};
use crate::{Block, car};

/// Edges that one group may have: bounds the index batch and what is kept in memory for it, and lets the
/// index work while more is put.
const GROUP_EDGES_MAX: usize = 8 * 1024;
/// How long freeing rests after it failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

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
    fn failure(&self) -> Failure {
        match self {
            Self::Reserve(_) => Failure::Full,
            Self::Data(error) if is_full(error) => Failure::Full,
            Self::Index(IndexError::Fjall(fjall::Error::Io(error))) if is_full(error) => Failure::Full,
            Self::Data(_) | Self::Index(_) | Self::Dangling => Failure::Failed(self.to_string()),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A hold that the group changes.
struct GroupHold {
    record: HoldRecord,
    released: bool,
}

/// What is appended but not committed, and who waits for it.
#[derive(Default)]
struct Group {
    blocks: HashMap<Multihash<64>, Location>,
    /// Blocks that the file may not have yet, in its order.
    unwritten: VecDeque<(Multihash<64>, Location)>,
    edges: Vec<Edge>,
    holds: HashMap<u64, GroupHold>,
    names: HashMap<HoldName, Option<u64>>,
    /// The record of the segment that is appended to.
    segment: Option<SegmentRecord>,
    waiters: Vec<(Option<u64>, Reply)>,
}

impl Group {
    fn is_clean(&self) -> bool {
        self.edges.is_empty() && self.holds.is_empty() && self.names.is_empty() && self.segment.is_none()
    }
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
    /// Released holds whose space is still to be freed.
    pub(super) going: VecDeque<Going>,
    group: Group,
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
    ) -> Self {
        Self {
            shared,
            readers,
            dir,
            segment_bytes: config.segment_bytes,
            reserve_bytes: config.reserve_bytes,
            appender: None,
            committed: None,
            going: VecDeque::new(),
            group: Group::default(),
        }
    }

    /// Works until the store is closed; what is queued by then is still committed.
    pub(super) fn run(mut self) {
        let mut rest = false;
        loop {
            let wait = match (self.going.is_empty(), rest) {
                (true, _) => None,
                (false, false) => Some(Duration::ZERO),
                (false, true) => Some(RETRY_PAUSE),
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
        while let Some(op) = ops.next() {
            if let Err(error) = self.apply(op) {
                self.fail(&error, ops);
                return false;
            }
        }
        let full = self.group.edges.len() >= GROUP_EDGES_MAX;
        let freeing = idle && !self.going.is_empty();
        if (!self.group.waiters.is_empty() || full || freeing || closing)
            && let Err(error) = self.commit()
        {
            self.fail(&error, ops);
            return false;
        }
        if !closing
            && self.group.is_clean()
            && !self.going.is_empty()
            && let Err(error) = self.free_some()
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
                self.group.holds.insert(hold, GroupHold { record, released: false });
                self.group.names.insert(name, Some(hold));
            }
            Op::Put { hold, cid, data, permits } => {
                self.shared.permits.add_permits(permits);
                let location = self.append(&cid, &data)?;
                self.add_edge(Edge { hold, hash: *cid.hash(), location })?;
            }
            Op::Keep { hold, hash } => {
                let location = match self.group.blocks.get(&hash) {
                    Some(location) => Some(*location),
                    None => self.shared.index.locate(&hash)?,
                };
                self.add_edge(Edge { hold, hash, location: location.ok_or(WriteError::Dangling)? })?;
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
                self.group.waiters.push((None, reply));
                self.repair(&block)?;
            }
            Op::Barrier { reply } => self.group.waiters.push((None, reply)),
        }
        Ok(())
    }

    /// Writes a block again where it is.
    fn repair(&mut self, block: &Block) -> Result<(), WriteError> {
        let Some(location) = self.shared.index.locate(block.cid().hash())? else { return Ok(()) };
        if self.appender.as_ref().is_some_and(|appender| appender.id == location.segment) {
            // The appender would write its last page from memory over what is mended now.
            self.next_segment()?;
        }
        file::overwrite(&self.dir, &location, block.data())?;
        tracing::warn!(cid = %block.cid(), "a damaged block was written again");
        Ok(())
    }

    /// Commits, and ends the segment that is appended to: one at a time has anything uncommitted.
    fn next_segment(&mut self) -> Result<(), WriteError> {
        self.commit()?;
        match self.appender.take() {
            Some(appender) => Ok(appender.finish()?),
            None => Ok(()),
        }
    }

    fn hold(&mut self, id: u64) -> Result<Option<&mut GroupHold>, WriteError> {
        use std::collections::hash_map::Entry;
        match self.group.holds.entry(id) {
            Entry::Occupied(hold) => Ok(Some(hold.into_mut())),
            Entry::Vacant(vacant) => {
                let record = self.shared.index.hold(id)?;
                Ok(record.map(|record| vacant.insert(GroupHold { record, released: false })))
            }
        }
    }

    fn add_edge(&mut self, edge: Edge) -> Result<(), WriteError> {
        if let Some(hold) = self.hold(edge.hold)? {
            hold.record.stats.blocks += 1;
            hold.record.stats.bytes += u64::from(edge.location.length);
            self.group.edges.push(edge);
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
        let written = appender.written();
        let location = Location { segment, offset, length: data.len() as u32 };
        self.count(segment, &location)?;
        self.group.blocks.insert(*cid.hash(), location);
        self.group.unwritten.push_back((*cid.hash(), location));
        self.forget_written(written);
        Ok(location)
    }

    fn count(&mut self, segment: u32, location: &Location) -> Result<(), WriteError> {
        let record = match &mut self.group.segment {
            Some(record) => record,
            None => self.group.segment.insert(self.shared.index.segment(segment)?.unwrap_or_default()),
        };
        record.live_blocks += 1;
        record.live_bytes += u64::from(location.length);
        Ok(())
    }

    /// Drops the memory of blocks that the file has by now: they are read from there.
    fn forget_written(&mut self, written: u64) {
        let ends_within = |(_, at): &(_, Location)| u64::from(at.offset) + u64::from(at.length) <= written;
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
    fn commit(&mut self) -> Result<(), WriteError> {
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
        let (Some(record), Some(appender)) = (&mut self.group.segment, &mut self.appender) else {
            return Ok(());
        };
        if file::free_bytes(&self.dir)? < self.reserve_bytes {
            return Err(WriteError::Reserve(self.reserve_bytes));
        }
        appender.sync()?;
        record.end = appender.end();
        Ok(())
    }

    fn sync_index(&mut self) -> Result<(), WriteError> {
        let group = &self.group;
        let segment = self.appender.as_ref().map(|appender| appender.id).zip(group.segment.as_ref());
        let is_new_segment = self.committed.is_none();
        self.shared.index.change(true, |changes| {
            for (hash, location) in &group.blocks {
                changes.put_block(hash, location);
            }
            for edge in &group.edges {
                changes.put_edge(edge);
            }
            for (id, hold) in &group.holds {
                if hold.released {
                    changes.remove_hold(*id);
                    changes.put_going(*id);
                } else {
                    changes.put_hold(*id, &hold.record);
                }
            }
            for (name, id) in &group.names {
                changes.name_hold(name, *id);
            }
            if let Some((id, record)) = segment {
                changes.put_segment(id, record);
                if is_new_segment {
                    changes.set_next_segment(id + 1);
                }
            }
        })?;
        if let Some((_, record)) = segment {
            self.committed = Some(record.end);
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
                active.delta.bytes -= u64::from(edge.location.length);
            }
        }
        for (id, hold) in &self.group.holds {
            if hold.released {
                state.gone.remove(id);
                state.losses.remove(id);
                self.going.push_back(Going::from(*id));
            } else {
                state.settle(*id, &hold.record);
            }
        }
    }

    /// Gives up the group and all that is queued behind it, since that may count on it. Data that may be
    /// lost is cut off; after an error of the index it is left, because the index may have it after all.
    fn fail(&mut self, error: &WriteError, rest: impl Iterator<Item = Op>) {
        tracing::error!(%error, "writing blocks failed; nothing of the group is acknowledged");
        let failure = error.failure();
        if let Some(appender) = self.appender.take()
            && !matches!(error, WriteError::Index(_))
            && let Err(error) = appender.abandon(self.committed)
        {
            tracing::warn!(%error, "what was not committed stays in its segment until the next start");
        }
        self.committed = None;
        if let WriteError::Index(_) = error {
            if let Err(error) = self.shared.index.reopen() {
                tracing::error!(%error, "the index cannot be reopened");
            }
            let going = self.shared.index.going().unwrap_or_default();
            self.going = going.into_iter().map(Going::from).collect();
        }
        let group = std::mem::take(&mut self.group);
        let mut state = self.shared.state();
        state.freeing.clear();
        let queued = state.lose(&failure);
        drop(state);
        for (_, reply) in group.waiters {
            let _ = reply.send(Err(failure.error()));
        }
        for op in rest.chain(queued) {
            match op {
                Op::Put { permits, .. } => self.shared.permits.add_permits(permits),
                Op::Commit { reply, .. }
                | Op::Release { reply, .. }
                | Op::Repair { reply, .. }
                | Op::Barrier { reply } => {
                    let _ = reply.send(Err(failure.error()));
                }
                Op::Open { .. } | Op::Keep { .. } => {}
            }
        }
    }
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

    /// A hold is committed as the record says.
    fn settle(&mut self, id: u64, record: &HoldRecord) {
        if self.opened.get(&record.name) == Some(&id) {
            self.opened.remove(&record.name);
        }
        if let Some(active) = self.holds.get_mut(&id) {
            active.committed = record.clone();
            active.is_new = false;
            if active.added.is_empty() {
                self.holds.remove(&id);
            }
        }
    }
}
