//! One writer with group commit.
//!
//! Writes queue up while the one before them is synced; then all that wait go into one transaction, and each
//! is answered after its commit. So a sync is shared by as many writes as came during the last one, and a
//! lone write waits for nobody. Those that can be done with the same few statements are done first.
//!
//! A write answers "no" (over quota, name taken) as a value, before it changes anything. An error is a fault
//! of the database: the transaction is undone, and each of its writes is tried alone, so that one that can't
//! succeed takes no other with it. When another process holds the database, none was begun, and all are told.
//!
//! Transactions are plain statements here, not sqlx's: SQLite undoes one by itself when the disk is full, sqlx
//! takes it for open then, and would refuse each later one.

use std::any::Any;
use std::sync::Arc;

use futures::future::BoxFuture;
use sqlx::{Connection, SqliteConnection, raw_sql};
use tokio::sync::{mpsc, oneshot};

use crate::StoreError;
use crate::pins::create::CreatePinWrite;
use crate::placements::complete::CompleteWrite;
use crate::webhooks::outbox::CommitSignal;

/// The connection that SQL runs on.
pub(crate) type Conn = SqliteConnection;

/// Writes in one transaction: bounds how long it lasts.
const BATCH_MAX: usize = 256;

/// Writes that wait; more of them wait for room.
const QUEUE_MAX: usize = 1_024;

/// Something that changes rows. It may be run again after it was undone.
pub(crate) trait Write: Send + Sync + 'static {
    /// What it answers.
    type Out: Send + 'static;

    /// Runs inside a transaction.
    fn run(&self, conn: &mut Conn) -> impl Future<Output = Result<Self::Out, StoreError>> + Send;
}

/// Something of which several can be done with the same few statements.
pub(crate) trait Together: Write {
    /// Does those that can be, and gives what they answer. `None` is for those that must go their own way: nothing was
    /// written for them.
    fn run_together(
        conn: &mut Conn,
        writes: &[&Self],
    ) -> impl Future<Output = Result<Vec<Option<Self::Out>>, StoreError>> + Send;
}

/// Sends writes to the writer's task. Cheap to clone; the task ends with the last clone.
#[derive(Clone)]
pub(crate) struct WriteQueue {
    queue: mpsc::Sender<Box<dyn Job>>,
}

impl WriteQueue {
    /// Starts the writer on a connection of its own. `news` hears of each commit.
    pub(crate) fn start(conn: Conn, news: Arc<CommitSignal>) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(run(conn, jobs, news));
        Self { queue }
    }

    /// Runs a write and returns once it is durable. When the future is dropped, the write may still happen.
    pub(crate) async fn write<W: Write>(&self, write: W) -> Result<W::Out, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Queued { write, out: None, reply });
        self.queue.send(job).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

/// A queued write, its type forgotten.
trait Job: Any + Send {
    /// Does it, unless it was done with others.
    fn run<'a>(&'a mut self, conn: &'a mut Conn) -> BoxFuture<'a, Result<(), StoreError>>;
    /// It was undone, with all else in its transaction.
    fn undone(&mut self);
    fn answer(self: Box<Self>, result: Result<(), StoreError>);
}

struct Queued<W: Write> {
    write: W,
    out: Option<W::Out>,
    reply: oneshot::Sender<Result<W::Out, StoreError>>,
}

impl<W: Write> Job for Queued<W> {
    fn run<'a>(&'a mut self, conn: &'a mut Conn) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            if self.out.is_none() {
                self.out = Some(self.write.run(conn).await?);
            }
            Ok(())
        })
    }

    fn undone(&mut self) {
        self.out = None;
    }

    fn answer(self: Box<Self>, result: Result<(), StoreError>) {
        let Self { out, reply, .. } = *self;
        // Nobody may wait for it any more.
        let _ = reply.send(result.and_then(|()| out.ok_or(StoreError::Closed)));
    }
}

async fn run(mut conn: Conn, mut jobs: mpsc::Receiver<Box<dyn Job>>, news: Arc<CommitSignal>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while jobs.recv_many(&mut batch, BATCH_MAX).await > 0 {
        match transaction(&mut conn, &mut batch).await {
            Ok(()) => batch.drain(..).for_each(|job| job.answer(Ok(()))),
            // Each alone would wait for the other process as long once more.
            Err(error @ (StoreError::Busy | StoreError::Closed)) => {
                batch.drain(..).for_each(|job| job.answer(Err(error.clone())));
            }
            Err(error) if batch.len() == 1 => batch.drain(..).for_each(|job| job.answer(Err(error.clone()))),
            Err(error) => {
                tracing::warn!(%error, writes = batch.len(), "a batch of writes was undone; trying each alone");
                for job in batch.drain(..) {
                    alone(&mut conn, job).await;
                }
            }
        }
        news.committed();
    }
    if let Err(error) = conn.close().await {
        tracing::warn!(%error, "closing the database");
    }
}

async fn alone(conn: &mut Conn, job: Box<dyn Job>) {
    let mut batch = vec![job];
    let result = transaction(conn, &mut batch).await;
    for job in batch {
        job.answer(result.clone());
    }
}

async fn transaction(conn: &mut Conn, batch: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
    let result = try_transaction(conn, batch).await;
    if result.is_err() {
        batch.iter_mut().for_each(|job| job.undone());
        // It fails when there is nothing to undo any more. If there is, the next transaction says so.
        if let Err(error) = raw_sql("ROLLBACK").execute(conn).await {
            tracing::debug!(%error, "nothing to undo");
        }
    }
    result
}

async fn try_transaction(conn: &mut Conn, batch: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
    raw_sql("BEGIN IMMEDIATE").execute(&mut *conn).await?;
    together::<CompleteWrite>(conn, batch).await?;
    together::<CreatePinWrite>(conn, batch).await?;
    for job in batch {
        job.run(conn).await?;
    }
    raw_sql("COMMIT").execute(conn).await?;
    Ok(())
}

/// Does those writes of a kind that can be done together.
async fn together<W: Together>(conn: &mut Conn, batch: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
    let queued = batch.iter_mut().filter_map(|job| (&mut **job as &mut dyn Any).downcast_mut());
    let (mut outs, writes): (Vec<_>, Vec<_>) =
        queued.map(|Queued::<W> { write, out, .. }| (out, &*write)).unzip();
    let done = W::run_together(conn, &writes).await?;
    for (out, done) in outs.iter_mut().zip(done) {
        **out = done;
    }
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
