//! Direct access to the accounts, API keys and plans in a data directory, for `user`, `plan` and `token`.
//!
//! The database supports access from several processes, so the data directory is not locked. A running server sees
//! changes with its next query.

use std::sync::Arc;

use pinfold_model::SystemClock;
use pinfold_service::{Accounts, Admin, Offline, Tokens};
use pinfold_store::Store;

use super::DataDirArgs;
use crate::app::open_store;
use crate::config::settings;

/// The services that need no running node.
pub(super) struct Database {
    pub(super) accounts: Accounts,
    pub(super) tokens: Tokens,
    pub(super) admin: Admin,
    store: Store,
}

impl Database {
    /// Opens the database of a data directory.
    ///
    /// # Errors
    /// The data directory has no database, or it cannot be opened.
    pub(super) async fn open(args: &DataDirArgs) -> anyhow::Result<Self> {
        let dir = args.data_dir()?;
        dir.expect_database()?;
        let config = args.load_config(&dir)?;
        let store = open_store(&dir).await?;
        let offline = Offline::new(store.clone(), Arc::new(SystemClock), settings::service(&config)?);
        let Offline { accounts, tokens, admin } = offline.await?;
        Ok(Self { accounts, tokens, admin, store })
    }

    /// Closes the database, which checkpoints its write-ahead log.
    pub(super) async fn close(self) {
        self.store.close().await;
    }
}
