//! Errors of the store, divided by what the caller can do about them.

/// A database operation failed. Nothing was changed, with one exception: after [`StoreError::Failed`] or
/// [`StoreError::Disk`] during a commit, it is unknown whether the transaction was committed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// No space is left on the disk.
    #[error("no space left for the database")]
    Full,
    /// Another process locked the database for too long. The caller can retry.
    #[error("the database is busy")]
    Busy,
    /// The disk failed, or the database file is damaged. The request is not the cause.
    #[error("the database cannot be read or written: {0}")]
    Disk(String),
    /// This build cannot use the database: it was created or changed by another one.
    #[error("this version cannot use the database: {0}")]
    Incompatible(String),
    /// The store is closed.
    #[error("the database is closed")]
    Closed,
    /// A row contains a value that this version does not know: it was written by a newer version or manually.
    #[error("the database contains an unknown {what}: {value}")]
    Strange {
        /// Kind of the value, such as `role`.
        what: &'static str,
        /// The stored value, cut to 100 characters.
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
        // The low byte of an extended SQLite result code is the primary code.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    #[tokio::test]
    async fn damaged_database_file_is_a_disk_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pinfold.db");
        std::fs::write(&path, [7; 8192]).unwrap();
        let damaged = Store::open(&path).await.map(drop);
        assert!(matches!(damaged, Err(StoreError::Disk(_))), "{damaged:?}");
    }
}
