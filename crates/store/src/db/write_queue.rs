//! The write queue: one task, one connection, group commit.
//!
//! Writes are queued while the previous transaction is synced. Then all queued writes run in one transaction, and each is
//! acknowledged after its commit. All writes that arrive during a sync therefore share the next one, and a single write
//! does not wait. Writes whose type implements [`BatchWrite`] wait in the [`Lane`] of that type; the first of them in a
//! transaction runs all writes of the lane with one set of statements.
//!
//! A rejected write (quota exceeded, name in use) returns a value, before it changes anything. An error is a failure of
//! the database: the transaction is rolled back, and each of its writes is retried alone, so that a write that cannot
//! succeed does not affect others. If another process locks the database, no transaction is begun, and all writes fail.
//!
//! Transactions use plain statements instead of the API of sqlx: SQLite rolls back automatically when the disk is full.
//! sqlx does not notice that, and would reject every later transaction.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use sqlx::{Connection, SqliteConnection, raw_sql};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::StoreError;
use crate::db::commit_signal::CommitSignal;

/// The connection on which writes run.
pub(crate) type Conn = SqliteConnection;

/// Maximum number of jobs in a transaction, and of writes in a batch. Bounds the duration of a transaction.
const BATCH_MAX: usize = 256;

/// Maximum number of queued jobs. Further writes wait until there is space.
const QUEUE_MAX: usize = 1_024;

/// A write operation. It can run again after its transaction was rolled back.
pub(crate) trait Write: Send + Sync + 'static {
    type Out: Send + 'static;

    /// Runs inside a transaction.
    fn run(&self, conn: &mut Conn) -> impl Future<Output = Result<Self::Out, StoreError>> + Send;
}

/// A write that can be combined with others of the same type.
pub(crate) trait BatchWrite: Write {
    /// Runs the writes that can share statements, and returns their results. `None` marks a write that must run alone:
    /// nothing was written for it.
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
    /// Starts the writer on its own connection. `signal` is sent after each commit.
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

    /// Rejects further writes, and returns when the queued ones are done and the connection is closed. Cancel-safe.
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

/// Writes of one type that wait to be combined. Each has a [`LaneJob`] in the queue, so the queue bounds their number.
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
        // The caller may have dropped the receiver.
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

/// Runs the writes that wait in a lane. Does nothing if an earlier job ran them.
struct LaneJob<W: BatchWrite> {
    lane: Lane<W>,
    writes: Vec<Queued<W>>,
    has_taken: bool,
}

impl<W: BatchWrite> LaneJob<W> {
    /// Takes the waiting writes from the lane, unless this job already did.
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
            // A single write needs as many statements either way.
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
    /// The writer's task ended before it ran this job: the writes in the lane must not wait forever.
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

/// Runs jobs in one transaction and sends their results.
async fn commit(conn: &mut Conn, batch: &mut Vec<Box<dyn Job>>) {
    let result = transaction(conn, batch).await;
    match result {
        Ok(()) => batch.drain(..).for_each(|job| job.answer(Ok(()))),
        // No retry: each write would wait for the other process again.
        Err(error @ (StoreError::Busy | StoreError::Closed)) => {
            batch.drain(..).for_each(|job| job.answer(Err(error.clone())));
        }
        Err(error) => {
            let mut writes: Vec<_> = batch.drain(..).flat_map(Job::split).collect();
            if writes.len() == 1 {
                writes.drain(..).for_each(|write| write.answer(Err(error.clone())));
                return;
            }
            tracing::warn!(%error, writes = writes.len(), "batch of writes failed, retrying each write alone");
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
    // Fails if SQLite rolled back automatically. If a transaction is still open, the next BEGIN reports it.
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
    async fn writes_succeed_again_after_a_full_disk() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        // A limit of the database size: SQLite reports it like a full disk.
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
    async fn failed_write_does_not_affect_others_in_its_batch() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        let writes =
            (0..20).map(|i| store.write(if i == 7 { Sql("INSERT INTO nowhere VALUES (1)") } else { A_MIB }));
        let answers = futures::future::join_all(writes).await;
        let failed: Vec<_> = (0..20).filter(|i| answers[*i].is_err()).collect();
        assert_eq!(failed, [7]);
        let rows: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM heap").fetch_one(&store.readers).await.unwrap();
        assert_eq!(rows, 19, "each other write runs once");
    }

    const ACCOUNT: Sql = Sql(
        "INSERT INTO accounts (id, email, name, role, plan, disabled, storage_limit_bytes, \
         used_bytes, pin_count, created_at_ms) VALUES (1, 'ada@example.org', 'Ada', 'user', 'free', 0, 1000, 0, 0, 0)",
    );

    fn request(number: u8) -> CreatePin {
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
    async fn batched_pins_are_created_after_a_rollback_by_another_write() {
        const BYTES: u64 = 10;
        let (dir, now) = (tempfile::tempdir().unwrap(), Timestamp::from_ms(0));
        let store = store(&dir).await;
        store.write(ACCOUNT).await.unwrap();
        for number in 0..20 {
            store.create_pin(request(number), now).await.unwrap();
        }
        store
            .write(Sql("UPDATE placements SET state = 'pinned', bytes = 10, due_at_ms = NULL"))
            .await
            .unwrap();
        store.write(Sql("DELETE FROM pins")).await.unwrap();
        let nowhere = store.write(Sql("INSERT INTO nowhere VALUES (1)"));
        let creations =
            futures::future::join_all((0..20).map(|number| store.create_pin(request(number), now)));
        let (outcomes, failed) = futures::join!(creations, nowhere);
        failed.unwrap_err();
        for outcome in outcomes {
            assert!(matches!(outcome, Ok(CreatePinOutcome::Done { created: true, .. })), "{outcome:?}");
        }
        let account = store.account(AccountId(1)).await.unwrap().unwrap();
        assert_eq!(account.used_bytes, 20 * BYTES, "each pin is charged once");
    }

    #[tokio::test]
    async fn writes_fail_as_busy_while_another_process_writes() {
        let dir = tempfile::tempdir().unwrap();
        let (store, other) = (store(&dir).await, other_connection(&dir).await);
        store.write(Sql("PRAGMA busy_timeout = 1")).await.unwrap();
        let mut conn = other.acquire().await.unwrap();
        raw_sql("BEGIN IMMEDIATE").execute(&mut *conn).await.unwrap();
        for answer in futures::future::join_all((0..20).map(|_| store.write(A_MIB))).await {
            assert!(matches!(answer, Err(StoreError::Busy)), "{answer:?}");
        }
        raw_sql("COMMIT").execute(&mut *conn).await.unwrap();
        store.write(A_MIB).await.unwrap();
    }

    async fn other_connection(dir: &tempfile::TempDir) -> sqlx::SqlitePool {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.path().join("pinfold.db"));
        sqlx::SqlitePool::connect_with(options).await.unwrap()
    }
}
