//! When API keys were last used: collected in memory, and written together.

use std::collections::HashMap;
use std::sync::Mutex;

use pinfold_model::{Timestamp, TokenId};
use pinfold_store::Store;

use crate::lock::lock;

/// Uses that wait to be written. More of them are dropped, because the next use of the key follows soon.
const USES_MAX: usize = 10_000;

/// The last uses of keys that are not written yet.
pub(crate) struct KeyUses {
    store: Store,
    uses: Mutex<HashMap<TokenId, Timestamp>>,
}

impl KeyUses {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, uses: Mutex::default() }
    }

    /// Notes that a key was used.
    pub(crate) fn note(&self, token: TokenId, now: Timestamp) {
        let mut uses = lock(&self.uses);
        if uses.len() < USES_MAX || uses.contains_key(&token) {
            uses.insert(token, now);
        }
    }

    /// Writes the uses that were noted.
    pub(crate) async fn flush(&self) {
        let uses: Vec<_> = std::mem::take(&mut *lock(&self.uses)).into_iter().collect();
        if uses.is_empty() {
            return;
        }
        if let Err(error) = self.store.record_token_use(uses).await {
            tracing::warn!(%error, "failed to record API key usage");
        }
    }
}
