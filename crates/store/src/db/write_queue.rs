//! The write queue: one task, one connection, group commit.
//!
//! Writes queue up while the transaction before them is synced. Then all queued writes go into one transaction, and
//! each is answered after its commit. So one sync is shared by all writes that came during the last one, and a lone
//! write does not wait. Writes of a kind that implements [`BatchWrite`] wait in a [`Lane`] of their own; the first of
//! them in a transaction runs all that wait there with one set of statements.
//!
//! A refused write (over quota, name taken) is a value, returned before anything is changed. An error is a fault of
//! the database: the transaction is rolled back, and each of its writes is retried alone, so that a write that cannot
//! succeed fails no other. When another process holds the database, no transaction was begun, and all writes fail.
//!
//! Transactions are plain statements here, not those of sqlx: SQLite rolls back by itself when the disk is full, which
//! sqlx does not notice, and it would refuse each later transaction.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use sqlx::{Connection, SqliteConnection, raw_sql};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::StoreError;
use crate::db::commit_signal::CommitSignal;

/// The connection that SQL runs on.
pub(crate) type Conn = SqliteConnection;

/// Jobs in one transaction, and writes that are run as one batch: bounds how long a transaction lasts.
const BATCH_MAX: usize = 256;

/// Queued jobs. Further writers wait for room.
const QUEUE_MAX: usize = 1_024;

/// Changes rows. May be run again after its transaction was rolled back.
pub(crate) trait Write: Send + Sync + 'static {
    type Out: Send + 'static;

    /// Runs inside a transaction.
    fn run(&self, conn: &mut Conn) -> impl Future<Output = Result<Self::Out, StoreError>> + Send;
}

/// A write that can be combined with others of its kind.
pub(crate) trait BatchWrite: Write {
    /// Runs those that can share statements, and returns their results. `None` is for those that have to run alone:
    /// nothing was written for them.
    fn run_batch(
        conn: &mut Conn,
        writes: &[&Self],
    ) -> impl Future<Output = Result<Vec<Option<Self::Out>>, StoreError>> + Send;
}

/// Sends writes to the writer's task. Cheap to clone. The task ends with [`WriteQueue::close`] or the last clone.
#[derive(Clone)]
pub(crate) struct WriteQueue {
    jobs: mpsc::Sender<Box<dyn Job>>,
    closing: Arc<Notify>,
    task: Arc<tokio::sync::Mutex<Option<JoinHandle<()>>>>,
}

impl WriteQueue {
    /// Starts the writer on a connection of its own. `signal` is sent after each commit.
    pub(crate) fn start(conn: Conn, signal: Arc<CommitSignal>) -> Self {
        let (sender, jobs) = mpsc::channel(QUEUE_MAX);
        let closing = Arc::new(Notify::new());
        let task = tokio::spawn(run(conn, jobs, signal, Arc::clone(&closing)));
        Self { jobs: sender, closing, task: Arc::new(tokio::sync::Mutex::new(Some(task))) }
    }

    /// Runs a write and returns once it is durable. When the future is dropped, the write may still happen.
    pub(crate) async fn write<W: Write>(&self, write: W) -> Result<W::Out, StoreError> {
        let (queued, answer) = Queued::new(write);
        self.jobs.send(Box::new(queued)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// The same for a write that may be combined with others in its lane.
    pub(crate) async fn write_in<W: BatchWrite>(
        &self,
        lane: &Lane<W>,
        write: W,
    ) -> Result<W::Out, StoreError> {
        let place = self.jobs.reserve().await.map_err(|_| StoreError::Closed)?;
        let (queued, answer) = Queued::new(write);
        lane.lock().push_back(queued);
        place.send(Box::new(LaneJob { lane: lane.clone(), writes: Vec::new(), has_taken: false }));
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Refuses further writes, and returns when the queued ones are done and the connection is closed. Cancel-safe.
    pub(crate) async fn close(&self) {
        self.closing.notify_one();
        let mut task = self.task.lock().await;
        if let Some(running) = task.as_mut()
            && let Err(error) = running.await
        {
            tracing::error!(%error, "the database writer failed");
        }
        *task = None;
    }
}

/// Writes of one kind that wait to be combined. For each there is one [`LaneJob`] in the queue, which bounds them.
pub(crate) struct Lane<W: BatchWrite>(Arc<Mutex<VecDeque<Queued<W>>>>);

impl<W: BatchWrite> Lane<W> {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Queued<W>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: BatchWrite> Default for Lane<W> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<W: BatchWrite> Clone for Lane<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// One or more writes with their types erased.
trait Job: Send {
    fn run<'a>(&'a mut self, conn: &'a mut Conn) -> BoxFuture<'a, Result<(), StoreError>>;
    /// The single writes, to be run alone after the transaction was rolled back.
    fn split(self: Box<Self>) -> Vec<Box<dyn Job>>;
    fn answer(self: Box<Self>, result: Result<(), StoreError>);
}

struct Queued<W: Write> {
    write: W,
    out: Option<W::Out>,
    reply: oneshot::Sender<Result<W::Out, StoreError>>,
}

type Answer<W> = oneshot::Receiver<Result<<W as Write>::Out, StoreError>>;

impl<W: Write> Queued<W> {
    fn new(write: W) -> (Self, Answer<W>) {
        let (reply, answer) = oneshot::channel();
        (Self { write, out: None, reply }, answer)
    }

    fn answer(self, result: Result<(), StoreError>) {
        let Self { out, reply, .. } = self;
        // The caller may be gone.
        let _ = reply.send(result.and_then(|()| out.ok_or(StoreError::Closed)));
    }
}

impl<W: Write> Job for Queued<W> {
    fn run<'a>(&'a mut self, conn: &'a mut Conn) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.out = Some(self.write.run(conn).await?);
            Ok(())
        })
    }

    fn split(mut self: Box<Self>) -> Vec<Box<dyn Job>> {
        self.out = None;
        vec![self]
    }

    fn answer(self: Box<Self>, result: Result<(), StoreError>) {
        (*self).answer(result);
    }
}

/// Runs what waits in a lane; nothing if an earlier job has run it.
struct LaneJob<W: BatchWrite> {
    lane: Lane<W>,
    writes: Vec<Queued<W>>,
    has_taken: bool,
}

impl<W: BatchWrite> LaneJob<W> {
    /// Takes what waits in the lane, unless this job did so before.
    fn take(&mut self) {
        if !self.has_taken {
            let mut waiting = self.lane.lock();
            let count = waiting.len().min(BATCH_MAX);
            self.writes.extend(waiting.drain(..count));
        }
        self.has_taken = true;
    }
}

impl<W: BatchWrite> Job for LaneJob<W> {
    fn run<'a>(&'a mut self, conn: &'a mut Conn) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.take();
            // One write alone needs as many statements either way.
            if self.writes.len() > 1 {
                let writes: Vec<_> = self.writes.iter().map(|queued| &queued.write).collect();
                let outs = W::run_batch(conn, &writes).await?;
                for (queued, out) in self.writes.iter_mut().zip(outs) {
                    queued.out = out;
                }
            }
            for queued in self.writes.iter_mut().filter(|queued| queued.out.is_none()) {
                queued.out = Some(queued.write.run(conn).await?);
            }
            Ok(())
        })
    }

    fn split(mut self: Box<Self>) -> Vec<Box<dyn Job>> {
        self.take();
        let writes = std::mem::take(&mut self.writes).into_iter();
        writes.flat_map(|queued| Job::split(Box::new(queued))).collect()
    }

    fn answer(mut self: Box<Self>, result: Result<(), StoreError>) {
        self.take();
        for queued in std::mem::take(&mut self.writes) {
            queued.answer(result.clone());
        }
    }
}

impl<W: BatchWrite> Drop for LaneJob<W> {
    /// The writer's task is gone before it came to this job: those that wait in the lane must not wait for ever.
    fn drop(&mut self) {
        if !self.has_taken {
            self.lane.lock().clear();
        }
    }
}

async fn run(
    mut conn: Conn,
    mut jobs: mpsc::Receiver<Box<dyn Job>>,
    signal: Arc<CommitSignal>,
    closing: Arc<Notify>,
) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    let mut is_closing = false;
    loop {
        tokio::select! {
            biased;
            () = closing.notified(), if !is_closing => {
                is_closing = true;
                jobs.close();
            }
            count = jobs.recv_many(&mut batch, BATCH_MAX) => {
                if count == 0 {
                    break;
                }
                commit(&mut conn, &mut batch).await;
                signal.send();
            }
        }
    }
    if let Err(error) = conn.close().await {
        tracing::warn!(%error, "failed to close the database");
    }
}

/// Runs jobs in one transaction and answers them.
async fn commit(conn: &mut Conn, batch: &mut Vec<Box<dyn Job>>) {
    let result = transaction(conn, batch).await;
    match result {
        Ok(()) => batch.drain(..).for_each(|job| job.answer(Ok(()))),
        // Each alone would wait for the other process as long again.
        Err(error @ (StoreError::Busy | StoreError::Closed)) => {
            batch.drain(..).for_each(|job| job.answer(Err(error.clone())));
        }
        Err(error) => {
            let mut writes: Vec<_> = batch.drain(..).flat_map(Job::split).collect();
            if writes.len() == 1 {
                writes.drain(..).for_each(|write| write.answer(Err(error.clone())));
                return;
            }
            tracing::warn!(%error, writes = writes.len(), "a batch of writes failed, retrying each alone");
            for write in writes {
                let mut alone = [write];
                let result = transaction(conn, &mut alone).await;
                let [write] = alone;
                write.answer(result);
            }
        }
    }
}

async fn transaction(conn: &mut Conn, batch: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
    let result = try_transaction(conn, batch).await;
    // It fails when SQLite has rolled back by itself. If a transaction is still open, the next one reports it.
    if result.is_err()
        && let Err(error) = raw_sql("ROLLBACK").execute(conn).await
    {
        tracing::debug!(%error, "nothing to roll back");
    }
    result
}

async fn try_transaction(conn: &mut Conn, batch: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
    raw_sql("BEGIN IMMEDIATE").execute(&mut *conn).await?;
    for job in batch {
        job.run(conn).await?;
    }
    raw_sql("COMMIT").execute(conn).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use cid::Cid;
    use cid::multihash::Multihash;
    use pinfold_model::{AccountId, Actor, ClusterId, PinOptions, Timestamp};

    use super::*;
    use crate::{CreatePin, CreatePinOutcome, Store};

    struct Sql(&'static str);

    impl Write for Sql {
        type Out = ();

        async fn run(&self, conn: &mut Conn) -> Result<(), StoreError> {
            raw_sql(self.0).execute(conn).await?;
            Ok(())
        }
    }

    async fn store(dir: &tempfile::TempDir) -> Store {
        let store = Store::open(&dir.path().join("pinfold.db")).await.unwrap();
        store.write(Sql("CREATE TABLE heap (what BLOB NOT NULL)")).await.unwrap();
        store
    }

    const A_MIB: Sql = Sql("INSERT INTO heap VALUES (zeroblob(1048576))");

    #[tokio::test]
    async fn a_full_disk_stops_no_later_write() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        // The database may not grow: SQLite meets that as it meets a full disk.
        store.write(Sql("PRAGMA max_page_count = 1")).await.unwrap();
        for _ in 0..2 {
            let full = store.write(A_MIB).await;
            assert!(matches!(full, Err(StoreError::Full)), "{full:?}");
        }
        store.write(Sql("DELETE FROM heap")).await.unwrap();
        store.write(Sql("PRAGMA max_page_count = 1000000")).await.unwrap();
        store.write(A_MIB).await.unwrap();
    }

    #[tokio::test]
    async fn one_write_that_fails_takes_no_other_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        let writes =
            (0..20).map(|i| store.write(if i == 7 { Sql("INSERT INTO nowhere VALUES (1)") } else { A_MIB }));
        let answers = futures::future::join_all(writes).await;
        let failed: Vec<_> = (0..20).filter(|i| answers[*i].is_err()).collect();
        assert_eq!(failed, [7]);
        let rows: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM heap").fetch_one(&store.readers).await.unwrap();
        assert_eq!(rows, 19, "and none was done twice");
    }

    const ACCOUNT: Sql = Sql(
        "INSERT INTO accounts (id, email, name, role, plan, disabled, storage_limit_bytes, \
         used_bytes, pin_count, created_at_ms) VALUES (1, 'ada@example.org', 'Ada', 'user', 'free', 0, 1000, 0, 0, 0)",
    );

    fn wish(number: u8) -> CreatePin {
        CreatePin {
            account: AccountId(1),
            actor: Actor::OPERATOR,
            action: "pin.create",
            cid: Cid::new_v1(0x55, Multihash::wrap(0x12, &[number; 32]).unwrap()),
            cluster: ClusterId::default(),
            options: PinOptions::default(),
            in_flight_max: 100,
            lease_until: None,
        }
    }

    #[tokio::test]
    async fn wishes_that_are_undone_with_another_write_are_granted_all_the_same() {
        const BYTES: u64 = 10;
        let (dir, now) = (tempfile::tempdir().unwrap(), Timestamp::from_ms(0));
        let store = store(&dir).await;
        store.write(ACCOUNT).await.unwrap();
        for number in 0..20 {
            store.create_pin(wish(number), now).await.unwrap();
        }
        store
            .write(Sql("UPDATE placements SET state = 'pinned', bytes = 10, due_at_ms = NULL"))
            .await
            .unwrap();
        store.write(Sql("DELETE FROM pins")).await.unwrap();
        let nowhere = store.write(Sql("INSERT INTO nowhere VALUES (1)"));
        let wishes = futures::future::join_all((0..20).map(|number| store.create_pin(wish(number), now)));
        let (wished, failed) = futures::join!(wishes, nowhere);
        failed.unwrap_err();
        for wished in wished {
            assert!(matches!(wished, Ok(CreatePinOutcome::Done { created: true, .. })), "{wished:?}");
        }
        let account = store.account(AccountId(1)).await.unwrap().unwrap();
        assert_eq!(account.used_bytes, 20 * BYTES, "each is charged once");
    }

    #[tokio::test]
    async fn while_another_process_writes_all_are_told_to_come_again() {
        let dir = tempfile::tempdir().unwrap();
        let (store, other) = (store(&dir).await, store_beside(&dir).await);
        store.write(Sql("PRAGMA busy_timeout = 1")).await.unwrap();
        let mut conn = other.acquire().await.unwrap();
        raw_sql("BEGIN IMMEDIATE").execute(&mut *conn).await.unwrap();
        for answer in futures::future::join_all((0..20).map(|_| store.write(A_MIB))).await {
            assert!(matches!(answer, Err(StoreError::Busy)), "{answer:?}");
        }
        raw_sql("COMMIT").execute(&mut *conn).await.unwrap();
        store.write(A_MIB).await.unwrap();
    }

    async fn store_beside(dir: &tempfile::TempDir) -> sqlx::SqlitePool {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.path().join("pinfold.db"));
        sqlx::SqlitePool::connect_with(options).await.unwrap()
    }
}
