//! Committing a group: data synced, then one synced batch of the index, then the answers.

use super::super::super::index::SegmentRecord;
use super::super::error::WriteError;
use super::super::file;
use super::super::group::Group;
use super::super::queue::failed;
use super::super::watermark::CommitPoint;
use super::Writer;
use crate::blocks::{BlocksError, HoldStats};

impl Writer {
    /// Makes the group durable, and replies to the callers that wait for it.
    pub(crate) fn commit(&mut self) -> Result<(), WriteError> {
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
                        Err(error) => Err(failed(error)),
                    },
                },
            };
            // An error says that the caller no longer waits.
            let _ = reply.send(stats);
        }
        Ok(())
    }

    fn sync_data(&mut self) -> Result<(), WriteError> {
        let Some(appender) = &mut self.appender else { return Ok(()) };
        let Some(record) = self.group.segments.get_mut(&appender.id) else { return Ok(()) };
        if !self.group.is_compaction && file::free_bytes(&self.dir)? < self.reserve_bytes {
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
        let held = self.group.totals_after(self.held);
        self.shared.index.change(true, |changes| {
            self.group.write(changes);
            changes.set_hold_totals(&held);
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
            self.watermark.write(CommitPoint { segment, end });
        }
        Ok(())
    }

    /// Removes from the shared state what is in the index now.
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
                state.released.remove(id);
                state.losses.remove(id);
                self.garbage.released(*id);
            } else {
                state.hold_committed(*id, hold);
            }
        }
        state.damaged.extend(self.group.damaged.keys());
        for hash in &self.group.repaired {
            state.damaged.remove(hash);
        }
        drop(state);
        self.garbage.vacated(&self.group.vacated);
        let active = self.appender.as_ref().map(|appender| appender.id);
        for (id, record) in self.group.segments.iter().filter(|(id, _)| Some(**id) != active) {
            self.garbage.segment_changed(*id, record, self.group.is_compaction);
        }
    }
}
