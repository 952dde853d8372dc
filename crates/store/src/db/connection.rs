//! Opening the database, and the handle to it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pinfold_model::{IdSource, Timestamp};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, SqlitePool};

use crate::StoreError;
use crate::audit::Journal;
use crate::db::write_queue::{Conn, Write, WriteQueue};
use crate::webhooks::outbox::{CommitSignal, Outbox};

/// Connections that read. More of them than processors only wait for each other.
const READERS_MAX: u32 = 8;

/// Connections that search.
const SEARCHERS_MAX: u32 = 2;

/// How long a statement waits for another process's transaction, and a reader for a free connection.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// What the writer keeps of the database in memory: a negative number of KiB. Its indices are written at random places.
const WRITER_CACHE: &str = "-65536";

/// The pages of the log (4 KiB each) after which it is written back into the database: more of them are written once
/// then, after many changes.
const WAL_PAGES: &str = "4000";

/// The database. Cheap to clone; all clones share their connections.
#[derive(Clone)]
pub struct Store {
    pub(crate) readers: SqlitePool,
    /// For what may look through all that an account has: nobody else waits for that.
    pub(crate) searchers: SqlitePool,
    pub(crate) writer: WriteQueue,
    ids: Arc<IdSource>,
    news: Arc<CommitSignal>,
}

impl Store {
    /// Opens or creates the SQLite database in this file, and brings its schema up to date. A new file can be
    /// read by its owner alone.
    ///
    /// # Errors
    /// [`StoreError`], also when the schema is newer than this program.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        create_private(path).map_err(|error| StoreError::Failed(error.to_string()))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        let writes =
            options.clone().pragma("cache_size", WRITER_CACHE).pragma("wal_autocheckpoint", WAL_PAGES);
        let mut conn = writes.connect().await?;
        sqlx::migrate!().run(&mut conn).await?;
        let pool = |most| {
            SqlitePoolOptions::new()
                .max_connections(most)
                .acquire_timeout(BUSY_TIMEOUT)
                // A reader that was given back is as good as before; asking it costs a round trip each time.
                .test_before_acquire(false)
        };
        let options = options.read_only(true);
        let readers = pool(READERS_MAX).connect_with(options.clone()).await?;
        let searchers = pool(SEARCHERS_MAX).connect_lazy_with(options);
        let last = last_id(&mut conn).await?;
        let mut salt = [0; 1];
        getrandom::fill(&mut salt).map_err(|error| StoreError::Failed(error.to_string()))?;
        let news = Arc::new(CommitSignal::default());
        let writer = WriteQueue::start(conn, Arc::clone(&news));
        Ok(Self { readers, searchers, writer, ids: Arc::new(IdSource::new(salt[0]).after(last)), news })
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`StoreError`] if it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.readers).await?;
        Ok(())
    }

    /// Closes the readers' connections. Writes that are queued are still done.
    pub async fn close(&self) {
        self.readers.close().await;
        self.searchers.close().await;
    }

    /// A new id.
    pub(crate) fn id(&self, now: Timestamp) -> i64 {
        self.ids.next(now)
    }

    /// What writes entries of the audit log.
    pub(crate) fn journal(&self) -> Journal {
        Journal::new(Arc::clone(&self.ids))
    }

    /// Where writes put what happened.
    pub(crate) fn outbox(&self) -> Outbox {
        Outbox::new(Arc::clone(&self.ids), Arc::clone(&self.news))
    }

    /// Returns after a transaction of this process that wrote something for a webhook. Cancel-safe: what is written
    /// while nobody waits is told to who waits next.
    pub async fn outbox_written(&self) {
        self.news.written().await;
    }

    /// Runs a write and returns once it is durable.
    pub(crate) async fn write<W: Write>(&self, write: W) -> Result<W::Out, StoreError> {
        self.writer.write(write).await
    }
}

/// The largest id of all: the clock may have been set back since it was made.
async fn last_id(conn: &mut Conn) -> Result<i64, StoreError> {
    let last: Option<i64> = sqlx::query_scalar(
        "SELECT MAX(id) FROM (SELECT MAX(id) AS id FROM accounts UNION ALL SELECT MAX(id) FROM tokens \
         UNION ALL SELECT MAX(id) FROM placements UNION ALL SELECT MAX(id) FROM pins \
         UNION ALL SELECT MAX(id) FROM audit UNION ALL SELECT MAX(id) FROM sessions \
         UNION ALL SELECT MAX(id) FROM challenges UNION ALL SELECT MAX(id) FROM webhooks \
         UNION ALL SELECT MAX(id) FROM webhook_deliveries UNION ALL SELECT MAX(id) FROM named_requests) ids",
    )
    .fetch_one(conn)
    .await?;
    Ok(last.unwrap_or(0))
}

fn create_private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}
