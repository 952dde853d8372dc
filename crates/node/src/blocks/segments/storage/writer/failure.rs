//! What happens when a write fails: the group is given up, and the index is reopened.

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

    /// Gives up the group and all that is queued behind it, since that may count on it. Data that may be
    /// lost is cut off; after an error of the index it is left, because the index may have it after all.
    pub(crate) fn abort_group(&mut self, error: &WriteError, rest: impl Iterator<Item = Op>) {
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
            match self.reopen_index() {
                Ok(()) => self.in_doubt.clear(),
                Err(error) => {
                    tracing::error!(%error, "the index cannot be written; it is tried again each second");
                    let released = self.group.holds.iter().filter(|(_, hold)| hold.released);
                    self.in_doubt.extend(released.map(|(id, _)| *id));
                }
            }
        }
        self.fail_pending(error, rest);
    }

    /// Opens the index again, and reads what this thread knows of it: the batch that failed may be in it after all.
    fn reopen_index(&mut self) -> Result<(), IndexError> {
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
                    self.shared.state().released.remove(&id);
                }
            }
        }
        self.commit()?;
        self.in_doubt.clear();
        Ok(())
    }

    /// Tells all that wait that it failed, and those that come with handles from before.
    fn fail_pending(&mut self, error: &WriteError, rest: impl Iterator<Item = Op>) {
        let failure = error.failure();
        let group = std::mem::take(&mut self.group);
        let mut state = self.shared.state();
        state.freeing.clear();
        let queued = state.discard_uncommitted(&failure, &self.in_doubt);
        let failed_ops: Vec<Op> = rest.chain(queued).collect();
        // What is not noted has to be found again. After an error of the index that is read anew.
        let noted = group.damaged.keys().filter(|_| !matches!(error, WriteError::Index(_)));
        for hash in noted {
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

    /// Reads again from the index what this thread knows of it.
    fn reload(&mut self) -> Result<(), IndexError> {
        let index = &self.shared.index;
        self.garbage = Garbage::load(index, self.segment_bytes)?;
        self.next_block = self.next_block.max(index.next_block()?);
        self.held = index.hold_totals()?;
        self.shared.state().damaged = damaged_in(index)?;
        Ok(())
    }
}
