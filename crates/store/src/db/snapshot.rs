//! A copy of the whole database as it is at one moment, beside all that goes on.

use std::path::Path;

use crate::{Store, StoreError};

impl Store {
    /// Writes a copy of the database into the file `path`, which must not be there yet, and returns once it is
    /// durable. It has everything that was acknowledged before the call. Readers and writers go on meanwhile.
    /// The copy can be read by its owner alone. Its folder is the caller's to sync.
    ///
    /// # Errors
    /// [`StoreError`]; then there may be a part of it.
    pub async fn snapshot(&self, path: &Path) -> Result<(), StoreError> {
        let failed = |error: std::io::Error| StoreError::Failed(format!("{}: {error}", path.display()));
        let name = path.to_str().ok_or_else(|| {
            StoreError::Failed(format!("{} is not UTF-8, as SQLite needs it", path.display()))
        })?;
        // SQLite would make a file that others may read; it takes an empty one that is there.
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).map_err(failed)?;
        sqlx::query("VACUUM INTO $1").bind(name).execute(&self.readers).await?;
        tokio::fs::File::from_std(file).sync_all().await.map_err(failed)
    }
}
