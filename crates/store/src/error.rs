//! What can go wrong with the database, split by what the caller can do.

/// Why the database did not do it. In every case nothing was changed, but for [`StoreError::Failed`] after a
/// commit that gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The disk is full.
    #[error("no space left for the database")]
    Full,
    /// Others hold the database for too long: try again.
    #[error("the database is busy")]
    Busy,
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
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<sqlx::migrate::MigrateError> for StoreError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        Self::Failed(error.to_string())
    }
}
