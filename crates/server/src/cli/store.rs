//! The accounts and keys of a data folder, opened without a server. The database lets several processes in,
//! so nothing is locked: what a running server reads next, it reads new.

use std::sync::Arc;

use anyhow::{Context, bail};
use pinfold_model::SystemClock;
use pinfold_service::{Accounts, Offline, Tokens};
use pinfold_store::Store;

use super::Place;
use crate::app::settings;
use crate::config::Config;
use crate::data_dir::DataDir;

/// Accounts and keys.
pub(super) struct Books {
    pub(super) accounts: Accounts,
    pub(super) tokens: Tokens,
    store: Store,
}

impl Books {
    /// Opens those of a data folder.
    ///
    /// # Errors
    /// There is no database yet (so that a mistyped folder is not made), or it cannot be opened.
    pub(super) async fn open(place: &Place) -> anyhow::Result<Self> {
        let dir = DataDir::choose(place.data_dir.clone())?;
        if !dir.database().exists() {
            bail!(
                "{} holds no Pinfold yet; start one there with `pinfold serve`, or name another folder with \
                 --data-dir",
                dir.path().display()
            );
        }
        let config = Config::load(dir.config_file(place.config.as_deref()).as_deref())?;
        let store = Store::open(&dir.database()).await.context("cannot open the database")?;
        let offline = Offline::new(store.clone(), Arc::new(SystemClock), settings::service(&config)?);
        Ok(Self { accounts: offline.accounts, tokens: offline.tokens, store })
    }

    /// Closes the database, so that nothing is left to be done at the next start.
    pub(super) async fn close(self) {
        self.store.close().await;
    }
}
