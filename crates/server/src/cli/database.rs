//! The accounts and keys of a data folder, opened without a server. The database lets several processes in,
//! so nothing is locked: what a running server reads next, it reads new.

use std::sync::Arc;

use pinfold_model::SystemClock;
use pinfold_service::{Accounts, Admin, Offline, Tokens};
use pinfold_store::Store;

use super::DataDirArgs;
use crate::app::open_store;
use crate::config::{Config, settings};
use crate::data_dir::DataDir;

/// Accounts and keys.
pub(super) struct Database {
    pub(super) accounts: Accounts,
    pub(super) tokens: Tokens,
    pub(super) admin: Admin,
    store: Store,
}

impl Database {
    /// Opens those of a data folder.
    ///
    /// # Errors
    /// There is no database yet (so that a mistyped folder is not made), or it cannot be opened.
    pub(super) async fn open(place: &DataDirArgs) -> anyhow::Result<Self> {
        let dir = DataDir::choose(place.data_dir.clone())?;
        dir.expect_pinfold()?;
        let config = Config::load(dir.config_file(place.config.as_deref()).as_deref())?;
        let store = open_store(&dir).await?;
        let offline = Offline::new(store.clone(), Arc::new(SystemClock), settings::service(&config)?);
        let Offline { accounts, tokens, admin } = offline.await?;
        Ok(Self { accounts, tokens, admin, store })
    }

    /// Closes the database, so that nothing is left to be done at the next start.
    pub(super) async fn close(self) {
        self.store.close().await;
    }
}
