//! Consistent copies of the database, made while it is in use.

use std::path::Path;

use crate::{Store, StoreError};

impl Store {
    /// Writes a copy of the database to the file `path`, which must not exist, and returns once the copy is durable.
    /// The copy contains every write that was acknowledged before the call. Reads and writes continue during the copy.
    /// Only the owner can read the file. The caller must sync the directory.
    ///
    /// # Errors
    /// [`StoreError`]. An incomplete file may remain.
    pub async fn snapshot(&self, path: &Path) -> Result<(), StoreError> {
        let failed = |error: std::io::Error| StoreError::Failed(format!("{}: {error}", path.display()));
        let name = path.to_str().ok_or_else(|| {
            StoreError::Failed(format!("{} is not UTF-8, as SQLite needs it", path.display()))
        })?;
        // SQLite would create a file that other users can read, but accepts an existing empty file.
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).map_err(failed)?;
        sqlx::query("VACUUM INTO $1").bind(name).execute(&self.readers).await?;
        tokio::fs::File::from_std(file).sync_all().await.map_err(failed)
    }
}
