//! What the callers and the writer thread share: the queue, and what is put but not committed yet.
//!
//! Callers decide under the lock whether an edge is new, and queue it; the writer takes the queue whole.
//! What they see as theirs is the index with this state on top of it.

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
/// What a queued block costs beside its bytes.
const QUEUE_ENTRY_BYTES: usize = 512;
/// Entries that may wait for the writer; whoever comes then blocks for the moment that it takes them.
const QUEUE_LEN_MAX: usize = 64 * 1024;
/// Bytes and entries from which on the queue is worth a turn of the writer.
const TURN_BYTES: usize = 1024 * 1024;
const TURN_LEN: usize = 1024;
/// Holds that were lost before they were ever committed, and are remembered for a better error.
const LOST_NEW_HOLDS_MAX: usize = 1024;
/// Damaged blocks that are remembered, some 100 bytes each; with more of them it is time for a backup.
pub(crate) const DAMAGED_MAX: usize = 1_000_000;
/// The bits of a [`HoldId`] that are the hold's number; the rest counts its losses.
const NUMBER_BITS: u32 = 48;

pub(crate) type Reply = oneshot::Sender<Result<HoldStats, BlocksError>>;

/// What the writer is asked to do, in order.
pub(crate) enum Op {
    /// Makes a hold.
    Open { hold: u64, name: HoldName },
    /// Stores a block that is stored nowhere yet, or damaged, and its edge; no edge if the hold has it already.
    Put { hold: u64, has_edge: bool, cid: Cid, data: Bytes, permits: usize },
    /// Adds an edge to a block that is stored, or queued before.
    AddEdge { hold: u64, hash: Multihash<64> },
    /// Answers when everything before is durable.
    Commit { hold: u64, seal: bool, reply: Reply },
    /// Removes a hold, and answers when that is durable.
    Release { hold: u64, name: HoldName, reply: Reply },
    /// Stores a block anew that is stored and damaged, and answers when that is durable.
    Repair { block: Block, reply: Reply },
    /// Notes that a block is damaged, if it is still where it was read.
    Damaged { hash: Multihash<64>, at: Location, damage: Damage },
    /// Takes such a note back.
    Intact { hash: Multihash<64> },
    /// Notes how far the scrub is, and when its round began; `None` when the round is over.
    Scrubbed { last: Option<Multihash<64>>, began_ms: u64 },
    /// Answers when everything before is durable, whatever it was.
    Barrier { reply: Reply },
    /// Ends the segment that is appended to, and answers with the segments that are there then and have live blocks.
    Rotate { reply: oneshot::Sender<Result<Vec<u32>, BlocksError>> },
}

/// A failure that holds remember until they are opened again.
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

/// A hold that was opened or changed since it was last committed whole.
pub(crate) struct ActiveHold {
    pub(crate) committed: HoldRecord,
    /// Blocks whose edges are queued or not committed.
    pub(crate) added: HashSet<Multihash<64>>,
    /// What `added` sums up to.
    pub(crate) delta: HoldStats,
    /// Damaged blocks that it has kept all along and has repaired again, queued or not committed.
    pub(crate) repaired: u64,
    /// Whether the index knows it.
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
    /// The permits of what is queued.
    queued_bytes: usize,
    /// Whether somebody waits for something in the queue.
    has_waiter: bool,
    pub(crate) blocks: HashMap<Multihash<64>, Pending>,
    pub(crate) holds: HashMap<u64, ActiveHold>,
    /// Names of holds that the index does not know yet.
    pub(crate) opened: BTreeMap<HoldName, u64>,
    /// Released holds that the index still knows.
    pub(crate) released: HashSet<u64>,
    /// How often a hold has lost what was not committed, and why the last time.
    pub(crate) losses: HashMap<u64, (u16, Failure)>,
    pub(crate) lost_new_holds: VecDeque<(u64, Failure)>,
    /// Blocks that queued `Keep`s count on.
    pub(crate) referenced: HashMap<Multihash<64>, u32>,
    /// Blocks that the writer is taking out of the index: for everybody else they are gone already.
    pub(crate) freeing: HashSet<Multihash<64>>,
    /// Blocks that are known to be damaged: nobody may count on them until they are put or repaired.
    pub(crate) damaged: HashSet<Multihash<64>>,
    pub(crate) last_hold: u64,
    pub(crate) closing: bool,
}

/// Everything that the callers and the writer share.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Wakes the writer.
    work: Condvar,
    /// Wakes callers that found the queue full.
    room: Condvar,
    /// Bytes that may still be queued.
    pub(crate) permits: Semaphore,
    /// How many want that nothing is freed, moved or given back.
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

    /// The state, once there is room in its queue.
    pub(crate) fn state_with_room(&self) -> Result<MutexGuard<'_, State>, BlocksError> {
        let mut state = self.state();
        while state.queue.len() >= QUEUE_LEN_MAX && !state.closing {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closing { Err(BlocksError::Closed) } else { Ok(state) }
    }

    /// Queues an operation. The writer is woken when somebody waits for it, or when enough has come
    /// together: waking it for each small block would cost more than storing the block.
    pub(crate) fn push(&self, state: &mut State, op: Op) {
        let was_ready = state.is_batch_ready();
        match &op {
            Op::Put { permits, .. } => state.queued_bytes += permits,
            Op::Open { .. } | Op::AddEdge { .. } => {}
            // Nobody waits for a note, but it shall be written down soon.
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

    /// Takes the queue, once there is something in it or `wait` is over (`None` waits for ever). The flag
    /// says that the store is closing.
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

    /// Stops freeing, until [`resume_reclaim`](Self::resume_reclaim) is called as often.
    pub(crate) fn pause_reclaim(&self) {
        self.reclaim_pauses.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn resume_reclaim(&self) {
        self.reclaim_pauses.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn is_reclaim_paused(&self) -> bool {
        self.reclaim_pauses.load(Ordering::SeqCst) > 0
    }

    /// Lets nobody wait for a writer that is not there any more.
    pub(crate) fn writer_ended(&self) {
        self.close();
        // Whoever waits for an answer is told by its end being dropped.
        let queue = self.state().take_queue();
        drop(queue);
    }

    /// Lets nobody queue anything more.
    pub(crate) fn close(&self) {
        self.state().closing = true;
        self.permits.close();
        self.work.notify_all();
        self.room.notify_all();
    }
}

/// How many permits a block of this length needs.
pub(crate) fn permits_for(length: usize) -> usize {
    (length + QUEUE_ENTRY_BYTES).min(QUEUE_BYTES_MAX)
}

/// The store failed, and this is what is said of it outside.
pub(crate) fn failed(error: impl std::fmt::Display) -> BlocksError {
    BlocksError::Failed(error.to_string())
}

impl State {
    /// The handle of a hold as it is given out now.
    pub(crate) fn handle(&self, hold: u64) -> HoldId {
        let losses = self.losses.get(&hold).map_or(0, |(losses, _)| *losses);
        HoldId(hold | u64::from(losses) << NUMBER_BITS)
    }

    /// The number of a hold, if it is there and has lost nothing since the handle was given out.
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

    /// The hold with its uncommitted part, ready to be changed.
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

    /// The length and, when it is in the index, the id of a block that is stored or about to be.
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

    /// Whether the index has a block that nobody may count on.
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

    /// Notes a new edge of a hold.
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

    /// Forgets everything that is not committed, after a failure; the holds concerned remember it. Those `in_doubt`
    /// stay gone: their release has failed, and may be in the index after all.
    pub(crate) fn discard_uncommitted(&mut self, failure: &Failure, in_doubt: &BTreeSet<u64>) -> Vec<Op> {
        let (gone, released): (HashSet<_>, HashSet<_>) =
            self.released.drain().partition(|hold| in_doubt.contains(hold));
        self.released = gone;
        // A release that fails takes along what its hold had not committed.
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

    /// Whether the queue is worth a turn of the writer.
    fn is_batch_ready(&self) -> bool {
        self.has_waiter || self.queued_bytes >= TURN_BYTES || self.queue.len() >= TURN_LEN
    }

    /// A queued `Keep` has become an edge.
    pub(crate) fn edge_applied(&mut self, hash: &Multihash<64>) {
        if let Some(count) = self.referenced.get_mut(hash) {
            *count -= 1;
            if *count == 0 {
                self.referenced.remove(hash);
            }
        }
    }

    /// A hold is committed as the group has it.
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

/// All blocks that are noted as damaged.
pub(crate) fn damaged_in(index: &Index) -> Result<HashSet<Multihash<64>>, IndexError> {
    Ok(index.damaged(None, DAMAGED_MAX)?.into_iter().map(|(hash, _)| hash).collect())
}
