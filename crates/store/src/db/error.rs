//! What can go wrong with the database, split by what the caller can do.

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
    /// This build cannot use the database: it was created or changed by another one.
    #[error("this version cannot use the database: {0}")]
    Incompatible(String),
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
}
