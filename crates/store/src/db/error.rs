//! What can go wrong with the database, split by what the caller can do.

use sqlx::migrate::MigrateError;

/// Why the database did not do it. In every case nothing was changed, but for [`StoreError::Failed`] and
/// [`StoreError::Disk`] after a commit that gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The disk is full.
    #[error("no space left for the database")]
    Full,
    /// Others hold the database for too long: try again.
    #[error("the database is busy")]
    Busy,
    /// The disk fails, or what is on it cannot be used: nothing is wrong with the request.
    #[error("the database cannot be read or written: {0}")]
    Disk(String),
    /// The store is closed.
    #[error("the database is closed")]
    Closed,
    /// A row can't be understood: it was written by a newer version, or by hand.
    #[error("the database has a {what} that is not understood: {value}")]
    Strange {
        /// What kind of thing.
        what: &'static str,
        /// What stands there.
        value: String,
    },
    /// Anything else.
    #[error("the database failed: {0}")]
    Failed(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if matches!(error, sqlx::Error::PoolTimedOut) {
            return Self::Busy;
        }
        if matches!(error, sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed) {
            return Self::Closed;
        }
        // SQLite's extended codes carry the primary one in their low byte.
        let code = error.as_database_error().and_then(|error| error.code());
        match code.and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff) {
            Some(5 | 6) => Self::Busy,
            Some(13) => Self::Full,
            // Read-only, I/O error, corrupt, cannot open, not a database.
            Some(8 | 10 | 11 | 14 | 26) => Self::Disk(error.to_string()),
            _ if matches!(error, sqlx::Error::Io(_)) => Self::Disk(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<MigrateError> for StoreError {
    fn from(error: MigrateError) -> Self {
        if matches!(error, MigrateError::VersionMissing(_)) {
            return Self::Failed(
                "a newer version of Pinfold has been at work on it: start that, or restore a backup"
                    .to_owned(),
            );
        }
        Self::Failed(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    #[tokio::test]
    async fn a_file_that_cannot_be_used_is_the_disks_fault() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pinfold.db");
        std::fs::write(&path, [7; 8192]).unwrap();
        let damaged = Store::open(&path).await.map(drop);
        assert!(matches!(damaged, Err(StoreError::Disk(_))), "{damaged:?}");
    }

    #[tokio::test]
    async fn the_database_of_a_newer_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pinfold.db");
        Store::open(&path).await.unwrap().close().await;
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
        let mut conn = sqlx::ConnectOptions::connect(&options).await.unwrap();
        sqlx::query(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (9999, 'later', 1, x'00', 0)",
        )
        .execute(&mut conn)
        .await
        .unwrap();
        let refused = Store::open(&path).await.map(drop);
        assert!(
            matches!(&refused, Err(StoreError::Failed(text)) if text.starts_with("a newer version")),
            "{refused:?}"
        );
    }
}
