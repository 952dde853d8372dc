//! Failed writes: the group is aborted, and the index is reopened.

use super::super::super::index::IndexError;
use super::super::error::WriteError;
use super::super::garbage::Garbage;
use super::super::queue::{Op, damaged_in};
use super::Writer;

impl Writer {
    /// Reopens the index after a failure, and completes the releases that are in doubt. If that fails, everything in
    /// `ops` and in the queue fails with it; false then.
    pub(crate) fn recover(&mut self, ops: &mut std::vec::IntoIter<Op>) -> bool {
        if let Err(error) = self.reopen_index() {
            self.fail_pending(&error.into(), ops);
            return false;
        }
        if let Err(error) = self.release_in_doubt() {
            self.abort_group(&error, ops);
            return false;
        }
        true
    }

    /// Aborts the group and everything queued after it, which may depend on it. Data of the group is truncated; after an
    /// error of the index it is left in place, because the index may contain the batch nevertheless.
    pub(crate) fn abort_group(&mut self, error: &WriteError, rest: impl Iterator<Item = Op>) {
        tracing::error!(%error, "failed to write blocks; the group is aborted");
        if let Some(appender) = self.appender.take()
            && !matches!(error, WriteError::Index(_))
            && let Err(error) = appender.abandon(self.committed)
        {
            tracing::warn!(%error, "failed to truncate uncommitted data; it stays in its segment until the next start");
        }
        self.committed = None;
        if let WriteError::Index(_) = error {
            self.is_broken = true;
            match self.reopen_index() {
                Ok(()) => self.in_doubt.clear(),
                Err(error) => {
                    tracing::error!(%error, "failed to reopen the index; retrying every second");
                    let released = self.group.holds.iter().filter(|(_, hold)| hold.released);
                    self.in_doubt.extend(released.map(|(id, _)| *id));
                }
            }
        }
        self.fail_pending(error, rest);
    }

    /// Reopens the index and reloads the writer's state from it: the failed batch may be in it nevertheless.
    fn reopen_index(&mut self) -> Result<(), IndexError> {
        self.shared.index.reopen()?;
        self.reload()?;
        self.is_broken = false;
        Ok(())
    }

    /// Completes the releases that are in doubt, unless the index has them. No caller has used the holds since, and queued
    /// operations may create other holds of the same names.
    fn release_in_doubt(&mut self) -> Result<(), WriteError> {
        for id in self.in_doubt.clone() {
            match self.hold(id)? {
                Some(hold) => {
                    hold.released = true;
                    let name = hold.record.name.clone();
                    self.group.names.insert(name, None);
                }
                None => {
                    self.shared.state().released.remove(&id);
                }
            }
        }
        self.commit()?;
        self.in_doubt.clear();
        Ok(())
    }

    /// Fails all callers that wait, and invalidates the handles of the holds concerned.
    fn fail_pending(&mut self, error: &WriteError, rest: impl Iterator<Item = Op>) {
        let failure = error.failure();
        let group = std::mem::take(&mut self.group);
        let mut state = self.shared.state();
        state.freeing.clear();
        let queued = state.discard_uncommitted(&failure, &self.in_doubt);
        let failed_ops: Vec<Op> = rest.chain(queued).collect();
        // Damage that was not recorded must be found again. After an error of the index the set is reloaded instead.
        let unrecorded = group.damaged.keys().filter(|_| !matches!(error, WriteError::Index(_)));
        for hash in unrecorded {
            state.damaged.remove(hash);
        }
        for op in &failed_ops {
            if let Op::Damaged { hash, .. } = op {
                state.damaged.remove(hash);
            }
        }
        drop(state);
        for (_, reply) in group.waiters {
            let _ = reply.send(Err(failure.error()));
        }
        for op in failed_ops {
            match op {
                Op::Put { permits, .. } => self.shared.permits.add_permits(permits),
                Op::Commit { reply, .. }
                | Op::Release { reply, .. }
                | Op::Repair { reply, .. }
                | Op::Barrier { reply } => {
                    let _ = reply.send(Err(failure.error()));
                }
                Op::Rotate { reply } => drop(reply.send(Err(failure.error()))),
                Op::Open { .. }
                | Op::AddEdge { .. }
                | Op::Damaged { .. }
                | Op::Intact { .. }
                | Op::Scrubbed { .. } => {}
            }
        }
    }

    /// Reloads the writer's state from the index.
    fn reload(&mut self) -> Result<(), IndexError> {
        let index = &self.shared.index;
        self.garbage = Garbage::load(index, self.segment_bytes)?;
        self.next_block = self.next_block.max(index.next_block()?);
        self.held = index.hold_totals()?;
        self.shared.state().damaged = damaged_in(index)?;
        Ok(())
    }
}
