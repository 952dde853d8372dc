//! The thread that owns the [`Writer`]: the only one that changes the store.
//!
//! It takes everything that is queued and applies it. When a caller waits for an answer it commits the group. While a
//! commit syncs, the next group gathers in the queue. Between groups it reclaims space, one bounded step at a time
//! ([`super::reclaim`]). Because no other thread changes the index, no edge appears or disappears during a step.

use std::time::Duration;

use super::reclaim::Reclaimer;
use super::storage::queue::Op;
use super::storage::writer::Writer;

/// How long to wait before the next reclaim step after one failed, while reclaim is paused, and between attempts to
/// reopen the index.
const RETRY_TIME: Duration = Duration::from_secs(1);

/// The thread's state.
pub(crate) struct WriterThread {
    writer: Writer,
    reclaimer: Reclaimer,
}

impl WriterThread {
    pub(crate) fn new(writer: Writer) -> Self {
        Self { writer, reclaimer: Reclaimer::default() }
    }

    /// Runs until the store is closed. What is queued by then is still committed.
    pub(crate) fn run(mut self) {
        let mut has_failed = false;
        loop {
            let must_wait = has_failed || self.writer.is_broken() || self.writer.shared.is_reclaim_paused();
            let wait = match (self.writer.is_broken() || Reclaimer::has_work(&self.writer), must_wait) {
                (false, _) => None,
                (true, false) => Some(Duration::ZERO),
                (true, true) => Some(RETRY_TIME),
            };
            let (ops, closing) = self.writer.shared.take(wait);
            has_failed = !self.turn(ops, closing);
            if closing {
                break;
            }
        }
        self.writer.close();
    }

    /// One round; false if it failed.
    fn turn(&mut self, ops: Vec<Op>, closing: bool) -> bool {
        let is_idle = ops.is_empty();
        let mut ops = ops.into_iter();
        if self.writer.is_broken() && !self.writer.recover(&mut ops) {
            return false;
        }
        while let Some(op) = ops.next() {
            if let Err(error) = self.writer.apply(op) {
                self.writer.abort_group(&error, ops);
                return false;
            }
        }
        let is_due = self.writer.must_commit() || self.writer.is_group_full();
        let reclaims = is_idle && Reclaimer::has_work(&self.writer);
        if (is_due || reclaims || closing)
            && let Err(error) = self.writer.commit()
        {
            self.writer.abort_group(&error, ops);
            return false;
        }
        if !closing
            && self.writer.group.is_clean()
            && Reclaimer::has_work(&self.writer)
            && !self.writer.shared.is_reclaim_paused()
            && let Err(error) = self.reclaimer.step(&mut self.writer)
        {
            self.writer.abort_group(&error, ops);
            return false;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::index::IndexError;
    use super::super::storage::error::WriteError;
    use super::super::storage::open;
    use super::super::{SegmentBlocks, SegmentConfig};
    use super::*;
    use crate::Blocks;
    use crate::blocks::contract::{block, name};

    #[tokio::test]
    async fn hold_is_not_usable_while_its_release_is_in_doubt() {
        let dir = tempfile::tempdir().unwrap();
        let config = SegmentConfig { reserve_bytes: 0, ..SegmentConfig::default() };
        let blocks = SegmentBlocks::open(dir.path(), &config).unwrap();
        let hold = blocks.open(&name("a")).unwrap();
        blocks.put(hold, block("kept")).await.unwrap();
        blocks.seal(hold).await.unwrap();
        drop(blocks);

        let (shared, readers, writer) = open::open(dir.path(), &config).unwrap();
        let mut thread = WriterThread::new(writer);
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
            thread.writer.apply(op).unwrap();
        }
        // The index fails, and cannot be reopened for now; the open tables still have the hold.
        std::fs::rename(dir.path().join("index"), dir.path().join("aside")).unwrap();
        thread.writer.abort_group(&WriteError::Index(IndexError::Down), std::iter::empty());
        assert!(released.await.is_err());
        assert!(shared.index.hold_named(&a).unwrap().is_some());
        assert!(blocks.hold(&a).unwrap().is_none());
        let again = blocks.open(&a).unwrap();
        let mut sealed = std::pin::pin!(blocks.seal(again));
        assert!(futures::poll!(&mut sealed).is_pending());
        assert!(!thread.turn(shared.take(Some(Duration::ZERO)).0, false));
        assert!(sealed.await.is_err());

        // The release was not in the index, and is completed as soon as possible; the name now has a new hold.
        let again = blocks.open(&a).unwrap();
        let mut sealed = std::pin::pin!(blocks.seal(again));
        assert!(futures::poll!(&mut sealed).is_pending());
        std::fs::rename(dir.path().join("aside"), dir.path().join("index")).unwrap();
        assert!(thread.turn(shared.take(Some(Duration::ZERO)).0, false));
        assert_eq!(sealed.await.unwrap().blocks, 0);
        assert_eq!(shared.index.hold_totals().unwrap().holds, 1);
        while Reclaimer::has_work(&thread.writer) {
            assert!(thread.turn(Vec::new(), false));
        }
        assert_eq!(blocks.get(block("kept").cid()).unwrap(), None);
        assert!(shared.state().released.is_empty() && !thread.writer.has_releases_in_doubt());
        drop(thread);
    }
}
