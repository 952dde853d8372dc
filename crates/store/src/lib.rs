//! Pinfold: store.

use std::path::Path;

/// The store.
#[derive(Clone)]
pub struct Store {}

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database can't be used.
    #[error("the database failed: {0}")]
    Database(String),
}

impl Store {
    /// Opens or creates the SQLite database in this file, and brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let _ = path;
        Err(StoreError::Database("not yet".to_owned()))
    }
}
