//! Opens the database. [`Store`] is the handle to it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pinfold_model::{IdSource, Timestamp};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, SqlitePool};

use crate::StoreError;
use crate::db::commit_signal::CommitSignal;
use crate::db::migrate;
use crate::db::statement;
use crate::db::write_queue::{Conn, Write, WriteQueue};
use crate::lanes::Lanes;

/// Maximum number of connections for reads. More connections than processors do not increase throughput.
const READERS_MAX: u32 = 8;

/// Maximum number of connections for searches, which may scan many rows.
const SEARCHERS_MAX: u32 = 2;

/// How long a statement waits for a transaction of another process, and a read for a free connection.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Page cache of the writer: a negative number is a size in KiB. It is large because index pages are written in random
/// order.
const WRITER_CACHE: &str = "-65536";

/// Number of pages (4 KiB) in the write-ahead log that trigger a checkpoint. A larger value writes pages that change
/// often less frequently.
const WAL_PAGES: &str = "4000";

/// The database. Cheap to clone; all clones share their connections.
#[derive(Clone)]
pub struct Store {
    pub(crate) readers: SqlitePool,
    /// For queries that may scan all rows of an account, so that other reads do not wait for them.
    pub(crate) searchers: SqlitePool,
    pub(crate) writer: WriteQueue,
    pub(crate) lanes: Lanes,
    pub(crate) ids: Arc<IdSource>,
    pub(crate) signal: Arc<CommitSignal>,
}

impl Store {
    /// Opens or creates the SQLite database in this file, and brings its schema up to date. Only the owner can read a
    /// new file.
    ///
    /// Transactions of several processes wait for each other, so short commands may open the database of a running
    /// server. Only the process that holds the lock of the data directory (`pinfold.lock`) may lease placements and
    /// reset leases ([`Store::reset_placement_leases`]); the store does not check that.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Incompatible`] when the database was created by an earlier or a later build.
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
        migrate::run(&mut conn).await?;
        let pool = |most| {
            SqlitePoolOptions::new()
                .max_connections(most)
                .acquire_timeout(BUSY_TIMEOUT)
                // Idle connections to a local file do not break, and the test costs a round trip for each query.
                .test_before_acquire(false)
        };
        let options = options.read_only(true);
        let readers = pool(READERS_MAX).connect_with(options.clone()).await?;
        let searchers = pool(SEARCHERS_MAX).connect_lazy_with(options);
        let last = last_id(&mut conn).await?;
        let mut salt = [0; 1];
        getrandom::fill(&mut salt).map_err(|error| StoreError::Failed(error.to_string()))?;
        let signal = Arc::new(CommitSignal::default());
        let writer = WriteQueue::start(conn, Arc::clone(&signal));
        let ids = Arc::new(IdSource::new(salt[0]).after(last));
        Ok(Self { readers, searchers, writer, lanes: Lanes::default(), ids, signal })
    }

    /// Checks that the database responds.
    ///
    /// # Errors
    /// [`StoreError`] if it does not respond.
    pub async fn ping(&self) -> Result<(), StoreError> {
        statement::query("SELECT CAST(1 AS BIGINT)").execute(&self.readers).await?;
        Ok(())
    }

    /// Closes the database: refuses further writes, finishes those that are queued, waits for the writer's task, and
    /// closes all connections.
    pub async fn close(&self) {
        self.writer.close().await;
        self.readers.close().await;
        self.searchers.close().await;
    }

    /// A new id.
    pub(crate) fn id(&self, now: Timestamp) -> i64 {
        self.ids.next(now)
    }

    /// Runs a write and returns once it is durable.
    pub(crate) async fn write<W: Write>(&self, write: W) -> Result<W::Out, StoreError> {
        self.writer.write(write).await
    }
}

/// The largest id of all tables. New ids continue after it even if the clock was set back.
async fn last_id(conn: &mut Conn) -> Result<i64, StoreError> {
    let last: Option<i64> = statement::query_scalar(
        "SELECT MAX(id) FROM (SELECT MAX(id) AS id FROM accounts UNION ALL SELECT MAX(id) FROM tokens \
         UNION ALL SELECT MAX(id) FROM placements UNION ALL SELECT MAX(id) FROM pins \
         UNION ALL SELECT MAX(id) FROM audit_log UNION ALL SELECT MAX(id) FROM sessions \
         UNION ALL SELECT MAX(id) FROM login_challenges UNION ALL SELECT MAX(id) FROM webhooks \
         UNION ALL SELECT MAX(id) FROM webhook_deliveries UNION ALL SELECT MAX(id) FROM idempotent_requests) ids",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ids_continue_after_existing_ones_when_the_clock_was_set_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pinfold.db");
        let store = Store::open(&path).await.unwrap();
        let event = pinfold_model::AuditEvent::new(
            pinfold_model::AccountId(7),
            pinfold_model::Actor::OPERATOR,
            "x",
            "x",
        );
        store.record_audit_event(event, Timestamp::from_ms(1_000_000)).await.unwrap();
        let last = store.id(Timestamp::from_ms(0));
        store.close().await;
        assert!(matches!(store.secret("a", "b".to_owned()).await, Err(StoreError::Closed)));
        let store = Store::open(&path).await.unwrap();
        assert!(store.id(Timestamp::from_ms(0)) >= last);
    }
}
