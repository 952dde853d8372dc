//! The state that callers and the writer thread share: the queue, and everything that is not committed yet.
//!
//! Callers decide under the lock whether an edge is new, and queue an operation. The writer takes the whole queue. A
//! caller sees the index overlaid with this state.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cid::Cid;
use cid::multihash::Multihash;
use tokio::sync::{Semaphore, oneshot};

use super::super::index::{Damage, HoldRecord, Index, IndexError, Location};
use super::group::GroupHold;
use crate::Block;
use crate::blocks::{BlocksError, HoldId, HoldName, HoldStats};

/// Bytes of blocks that may wait for the writer.
pub(crate) const QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The memory cost of a queued block besides its bytes.
const QUEUE_ENTRY_BYTES: usize = 512;
/// Operations that may wait for the writer. Callers block while the queue is full.
const QUEUE_LEN_MAX: usize = 64 * 1024;
/// The writer is woken at this many queued bytes or operations.
const TURN_BYTES: usize = 1024 * 1024;
const TURN_LEN: usize = 1024;
/// Holds that were lost before their first commit, and are remembered for a better error.
const LOST_NEW_HOLDS_MAX: usize = 1024;
/// Damaged blocks that are recorded, some 100 bytes each. A store with more must be restored from a backup.
pub(crate) const DAMAGED_MAX: usize = 1_000_000;
/// The bits of a [`HoldId`] that are the hold's id; the others count its losses.
const NUMBER_BITS: u32 = 48;

pub(crate) type Reply = oneshot::Sender<Result<HoldStats, BlocksError>>;

/// An operation for the writer. Operations are applied in order.
pub(crate) enum Op {
    /// Creates a hold.
    Open { hold: u64, name: HoldName },
    /// Stores a block that is not stored yet, or damaged, and its edge, unless the hold has that edge already.
    Put { hold: u64, has_edge: bool, cid: Cid, data: Bytes, permits: usize },
    /// Adds an edge to a block that is stored or was queued before.
    AddEdge { hold: u64, hash: Multihash<64> },
    /// Replies when everything queued before is durable.
    Commit { hold: u64, seal: bool, reply: Reply },
    /// Removes a hold, and replies when that is durable.
    Release { hold: u64, name: HoldName, reply: Reply },
    /// Rewrites a stored block that is damaged, and replies when that is durable.
    Repair { block: Block, reply: Reply },
    /// Records that a block is damaged, if it is still at the place where it was read.
    Damaged { hash: Multihash<64>, at: Location, damage: Damage },
    /// Removes the record that a block is damaged.
    Intact { hash: Multihash<64> },
    /// Records the position of the scrub and the start of its round; `None` when the round is complete.
    Scrubbed { last: Option<Multihash<64>>, began_ms: u64 },
    /// Replies when everything queued before is durable, of any hold.
    Barrier { reply: Reply },
    /// Finishes the active segment, and replies with the ids of all segments that have live blocks.
    Rotate { reply: oneshot::Sender<Result<Vec<u32>, BlocksError>> },
}

/// A failure that a hold reports until it is opened again.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    Full,
    Failed(String),
}

impl Failure {
    pub(crate) fn error(&self) -> BlocksError {
        match self {
            Self::Full => BlocksError::Full,
            Self::Failed(reason) => BlocksError::Failed(reason.clone()),
        }
    }
}

/// A block that is not in the index yet.
pub(crate) enum Pending {
    Memory(Bytes),
    Written(Location),
}

/// A hold that was opened or changed since its last complete commit.
pub(crate) struct ActiveHold {
    pub(crate) committed: HoldRecord,
    /// Blocks whose edges are queued or uncommitted.
    pub(crate) added: HashSet<Multihash<64>>,
    /// The totals of `added`.
    pub(crate) delta: HoldStats,
    /// Damaged blocks that it already referenced and that were put again, queued or uncommitted.
    pub(crate) repaired: u64,
    /// Whether it is not in the index yet.
    pub(crate) is_new: bool,
}

impl ActiveHold {
    pub(crate) fn new(committed: HoldRecord, is_new: bool) -> Self {
        Self { committed, added: HashSet::new(), delta: HoldStats::default(), repaired: 0, is_new }
    }
}

#[derive(Default)]
pub(crate) struct State {
    queue: Vec<Op>,
    /// The permits of all queued blocks.
    queued_bytes: usize,
    /// Whether a caller waits for an operation in the queue.
    has_waiter: bool,
    pub(crate) blocks: HashMap<Multihash<64>, Pending>,
    pub(crate) holds: HashMap<u64, ActiveHold>,
    /// Names of holds that are not in the index yet.
    pub(crate) opened: BTreeMap<HoldName, u64>,
    /// Released holds that are still in the index.
    pub(crate) released: HashSet<u64>,
    /// How often a hold has lost uncommitted data, and the latest reason.
    pub(crate) losses: HashMap<u64, (u16, Failure)>,
    pub(crate) lost_new_holds: VecDeque<(u64, Failure)>,
    /// Blocks that queued [`Op::AddEdge`]s reference, and how many do.
    pub(crate) referenced: HashMap<Multihash<64>, u32>,
    /// Blocks that the writer is removing from the index. For all other callers they no longer exist.
    pub(crate) freeing: HashSet<Multihash<64>>,
    /// Blocks that are known to be damaged. No edge may be added to them until they are put or repaired.
    pub(crate) damaged: HashSet<Multihash<64>>,
    pub(crate) last_hold: u64,
    pub(crate) closing: bool,
}

/// Everything that callers and the writer share.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Wakes the writer.
    work: Condvar,
    /// Wakes callers that wait for room in the queue.
    room: Condvar,
    /// Bytes that may still be queued.
    pub(crate) permits: Semaphore,
    /// The number of active reclaim pauses.
    reclaim_pauses: AtomicUsize,
    pub(crate) index: Index,
}

impl Shared {
    pub(crate) fn new(index: Index, last_hold: u64, damaged: HashSet<Multihash<64>>) -> Self {
        Self {
            state: Mutex::new(State { last_hold, damaged, ..State::default() }),
            work: Condvar::new(),
            room: Condvar::new(),
            permits: Semaphore::new(QUEUE_BYTES_MAX),
            reclaim_pauses: AtomicUsize::new(0),
            index,
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room in the queue, and locks the state.
    pub(crate) fn state_with_room(&self) -> Result<MutexGuard<'_, State>, BlocksError> {
        let mut state = self.state();
        while state.queue.len() >= QUEUE_LEN_MAX && !state.closing {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closing { Err(BlocksError::Closed) } else { Ok(state) }
    }

    /// Queues an operation. The writer is woken when a caller waits for it, or when enough is queued: waking it for each
    /// small block would cost more than storing the block.
    pub(crate) fn push(&self, state: &mut State, op: Op) {
        let was_ready = state.is_batch_ready();
        match &op {
            Op::Put { permits, .. } => state.queued_bytes += permits,
            Op::Open { .. } | Op::AddEdge { .. } => {}
            // No caller waits for the first three, but they should be recorded soon.
            Op::Damaged { .. }
            | Op::Intact { .. }
            | Op::Scrubbed { .. }
            | Op::Commit { .. }
            | Op::Release { .. }
            | Op::Repair { .. }
            | Op::Barrier { .. }
            | Op::Rotate { .. } => state.has_waiter = true,
        }
        state.queue.push(op);
        if !was_ready && state.is_batch_ready() {
            self.work.notify_one();
        }
    }

    /// Takes the queue once there is enough in it or `wait` has passed (`None` waits without limit). The flag says whether
    /// the store is closing.
    pub(crate) fn take(&self, wait: Option<Duration>) -> (Vec<Op>, bool) {
        let idle = |state: &mut State| !state.is_batch_ready() && !state.closing;
        let state = self.state();
        let mut state = match wait {
            None => self.work.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner),
            Some(wait) => {
                self.work.wait_timeout_while(state, wait, idle).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        let closing = state.closing;
        let queue = state.take_queue();
        drop(state);
        self.room.notify_all();
        (queue, closing)
    }

    /// Pauses reclaim until [`resume_reclaim`](Self::resume_reclaim) is called as often.
    pub(crate) fn pause_reclaim(&self) {
        self.reclaim_pauses.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn resume_reclaim(&self) {
        self.reclaim_pauses.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn is_reclaim_paused(&self) -> bool {
        self.reclaim_pauses.load(Ordering::SeqCst) > 0
    }

    /// Fails everything that waits for a writer that has ended.
    pub(crate) fn writer_ended(&self) {
        self.close();
        // Dropping the reply channels notifies the callers.
        let queue = self.state().take_queue();
        drop(queue);
    }

    /// Refuses further operations, and wakes the writer to finish.
    pub(crate) fn close(&self) {
        self.state().closing = true;
        self.permits.close();
        self.work.notify_all();
        self.room.notify_all();
    }
}

/// The number of permits that a block of this length needs.
pub(crate) fn permits_for(length: usize) -> usize {
    (length + QUEUE_ENTRY_BYTES).min(QUEUE_BYTES_MAX)
}

/// Converts an internal error for callers.
pub(crate) fn failed(error: impl std::fmt::Display) -> BlocksError {
    BlocksError::Failed(error.to_string())
}

impl State {
    /// The current handle of a hold.
    pub(crate) fn handle(&self, hold: u64) -> HoldId {
        let losses = self.losses.get(&hold).map_or(0, |(losses, _)| *losses);
        HoldId(hold | u64::from(losses) << NUMBER_BITS)
    }

    /// The id of a hold, if it exists and has lost nothing since the handle was issued.
    pub(crate) fn number(&mut self, index: &Index, id: HoldId) -> Result<u64, BlocksError> {
        let hold = id.0 & ((1 << NUMBER_BITS) - 1);
        if self.released.contains(&hold) {
            return Err(BlocksError::NoSuchHold);
        }
        if let Some((losses, failure)) = self.losses.get(&hold)
            && u64::from(*losses) != id.0 >> NUMBER_BITS
        {
            return Err(failure.error());
        }
        if let Some((_, failure)) = self.lost_new_holds.iter().find(|(lost, _)| *lost == hold) {
            return Err(failure.error());
        }
        if self.holds.contains_key(&hold) || index.hold(hold).map_err(failed)?.is_some() {
            return Ok(hold);
        }
        Err(BlocksError::NoSuchHold)
    }

    /// The hold with its uncommitted part, to be changed.
    pub(crate) fn activate(&mut self, index: &Index, hold: u64) -> Result<&mut ActiveHold, BlocksError> {
        use std::collections::hash_map::Entry;
        match self.holds.entry(hold) {
            Entry::Occupied(active) => Ok(active.into_mut()),
            Entry::Vacant(vacant) => {
                let committed = index.hold(hold).map_err(failed)?.ok_or(BlocksError::NoSuchHold)?;
                Ok(vacant.insert(ActiveHold::new(committed, false)))
            }
        }
    }

    /// The hold of a name, if there is one.
    pub(crate) fn named(&self, index: &Index, name: &HoldName) -> Result<Option<u64>, BlocksError> {
        if let Some(hold) = self.opened.get(name) {
            return Ok(Some(*hold));
        }
        let hold = index.hold_named(name).map_err(failed)?;
        Ok(hold.filter(|hold| !self.released.contains(hold)))
    }

    /// The length of a block that is stored or queued, and its id if it is in the index.
    pub(crate) fn find(
        &self,
        index: &Index,
        hash: &Multihash<64>,
    ) -> Result<Option<(u64, Option<u64>)>, BlocksError> {
        match self.blocks.get(hash) {
            Some(Pending::Memory(data)) => return Ok(Some((data.len() as u64, None))),
            Some(Pending::Written(location)) => return Ok(Some((u64::from(location.length), None))),
            None if self.is_lost(hash) => return Ok(None),
            None => {}
        }
        let stored = index.find(hash).map_err(failed)?;
        Ok(stored.map(|stored| (u64::from(stored.at.length), Some(stored.id))))
    }

    /// Whether no edge may be added to a block, although it is in the index.
    pub(crate) fn is_lost(&self, hash: &Multihash<64>) -> bool {
        self.freeing.contains(hash) || self.damaged.contains(hash)
    }

    /// Whether the hold has an edge to the block, committed or not.
    pub(crate) fn has_edge(
        &self,
        index: &Index,
        hold: u64,
        hash: &Multihash<64>,
    ) -> Result<bool, BlocksError> {
        if self.holds.get(&hold).is_some_and(|active| active.added.contains(hash)) {
            return Ok(true);
        }
        match index.find(hash).map_err(failed)? {
            Some(stored) => index.has_edge(hold, stored.id).map_err(failed),
            None => Ok(false),
        }
    }

    /// Records a new edge of a hold.
    pub(crate) fn add_edge(
        &mut self,
        index: &Index,
        hold: u64,
        hash: Multihash<64>,
        length: u64,
    ) -> Result<(), BlocksError> {
        let active = self.activate(index, hold)?;
        active.added.insert(hash);
        active.delta.blocks += 1;
        active.delta.bytes += length;
        Ok(())
    }

    /// Discards everything uncommitted after a failure, and returns the queue. The holds concerned fail from now on. Those
    /// `in_doubt` stay released: their release failed, and may be in the index nevertheless.
    pub(crate) fn discard_uncommitted(&mut self, failure: &Failure, in_doubt: &BTreeSet<u64>) -> Vec<Op> {
        let (gone, released): (HashSet<_>, HashSet<_>) =
            self.released.drain().partition(|hold| in_doubt.contains(hold));
        self.released = gone;
        // A failed release loses what its hold had not committed.
        let released = released.into_iter().map(|hold| (hold, false));
        let active = self.holds.drain().map(|(hold, active)| (hold, active.is_new));
        for (hold, is_new) in active.chain(released) {
            if is_new {
                if self.lost_new_holds.len() == LOST_NEW_HOLDS_MAX {
                    self.lost_new_holds.pop_front();
                }
                self.lost_new_holds.push_back((hold, failure.clone()));
            } else {
                let (losses, last) = self.losses.entry(hold).or_insert((0, failure.clone()));
                *losses = losses.wrapping_add(1);
                *last = failure.clone();
            }
        }
        self.blocks.clear();
        self.opened.clear();
        self.referenced.clear();
        self.take_queue()
    }

    fn take_queue(&mut self) -> Vec<Op> {
        self.queued_bytes = 0;
        self.has_waiter = false;
        std::mem::take(&mut self.queue)
    }

    /// Whether the queue is worth waking the writer.
    fn is_batch_ready(&self) -> bool {
        self.has_waiter || self.queued_bytes >= TURN_BYTES || self.queue.len() >= TURN_LEN
    }

    /// A queued [`Op::AddEdge`] was applied.
    pub(crate) fn edge_applied(&mut self, hash: &Multihash<64>) {
        if let Some(count) = self.referenced.get_mut(hash) {
            *count -= 1;
            if *count == 0 {
                self.referenced.remove(hash);
            }
        }
    }

    /// A hold was committed with the group.
    pub(crate) fn hold_committed(&mut self, id: u64, GroupHold { record, repaired, .. }: &GroupHold) {
        if self.opened.get(&record.name) == Some(&id) {
            self.opened.remove(&record.name);
        }
        if let Some(active) = self.holds.get_mut(&id) {
            active.committed = record.clone();
            active.is_new = false;
            active.repaired = active.repaired.saturating_sub(*repaired);
            if active.added.is_empty() && active.repaired == 0 {
                self.holds.remove(&id);
            }
        }
    }
}

/// All blocks that the index records as damaged.
pub(crate) fn damaged_in(index: &Index) -> Result<HashSet<Multihash<64>>, IndexError> {
    Ok(index.damaged(None, DAMAGED_MAX)?.into_iter().map(|(hash, _)| hash).collect())
}
