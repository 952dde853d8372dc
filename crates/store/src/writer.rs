//! One writer with group commit.
//!
//! Writes queue up while the one before them is synced; then all that wait go into one transaction, and each
//! is answered after its commit. So a sync is shared by as many writes as came during the last one, and a
//! lone write waits for nobody.
//!
//! A write answers "no" (over quota, name taken) as a value, before it changes anything. An error is a fault
//! of the database: the transaction is undone, and each of its writes is tried alone, so that one that can't
//! succeed takes no other with it.

use futures::future::BoxFuture;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use crate::StoreError;

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

/// Sends writes to the writer's task. Cheap to clone; the task ends with the last clone.
#[derive(Clone)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Box<dyn Job>>,
}

impl Writer {
    /// Starts the writer on a connection of its own.
    pub(crate) fn start(conn: Conn) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(run(conn, jobs));
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
trait Job: Send {
    fn run<'a>(&'a mut self, conn: &'a mut Conn) -> BoxFuture<'a, Result<(), StoreError>>;
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
            self.out = Some(self.write.run(conn).await?);
            Ok(())
        })
    }

    fn answer(self: Box<Self>, result: Result<(), StoreError>) {
        let Self { out, reply, .. } = *self;
        // Nobody may wait for it any more.
        let _ = reply.send(result.and_then(|()| out.ok_or(StoreError::Closed)));
    }
}

async fn run(mut conn: Conn, mut jobs: mpsc::Receiver<Box<dyn Job>>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while jobs.recv_many(&mut batch, BATCH_MAX).await > 0 {
        match transaction(&mut conn, &mut batch).await {
            Ok(()) => batch.drain(..).for_each(|job| job.answer(Ok(()))),
            Err(error) if batch.len() == 1 => batch.drain(..).for_each(|job| job.answer(Err(error.clone()))),
            Err(error) => {
                tracing::warn!(%error, writes = batch.len(), "a batch of writes was undone; trying each alone");
                for job in batch.drain(..) {
                    alone(&mut conn, job).await;
                }
            }
        }
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
    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await?;
    for job in batch {
        if let Err(error) = job.run(&mut tx).await {
            tx.rollback().await?;
            return Err(error);
        }
    }
    Ok(tx.commit().await?)
}
