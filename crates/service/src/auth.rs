//! Authentication: passwords, sessions, API keys, second factor.
//!
//! [`Auth`] is what they share. The credential of every request is looked up in the store; nothing is cached, so that a
//! revoked credential is refused at once.

pub(crate) mod api_key;
pub(crate) mod caller;
pub(crate) mod key_uses;
pub(crate) mod logins;
pub(crate) mod password;
pub(crate) mod second_factor;
mod session_key;
pub(crate) mod tokens;

use std::sync::Arc;

use pinfold_model::{Account, AuditEvent, Clock, Plan};
use pinfold_store::Store;
use tokio::sync::{OnceCell, watch};

use self::caller::{AuthError, Caller};
use self::key_uses::KeyUses;
use self::password::Hasher;
use self::session_key::SessionKey;
use crate::audit_log::AuditLog;
use crate::catalog::Catalog;
use crate::error::log_store_error;
use crate::{Error, LoginError};

/// What authentication shares.
pub(crate) struct Auth {
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) audit: AuditLog,
    pub(crate) hasher: Hasher,
    pub(crate) key_uses: KeyUses,
    /// Signs session tokens. Loaded on first use.
    session_key: OnceCell<SessionKey>,
    revocations: watch::Sender<()>,
}

impl Auth {
    pub(crate) fn new(store: Store, clock: Arc<dyn Clock>, catalog: Arc<Catalog>, audit: AuditLog) -> Self {
        Self {
            key_uses: KeyUses::new(store.clone()),
            store,
            clock,
            catalog,
            audit,
            hasher: Hasher::default(),
            session_key: OnceCell::new(),
            revocations: watch::Sender::new(()),
        }
    }

    /// Notifies long requests that a credential may have been revoked, so that they check theirs.
    pub(crate) fn notify_revocation(&self) {
        self.revocations.send_replace(());
    }

    /// Verifies the caller's password, and returns its hash.
    ///
    /// # Errors
    /// [`LoginError::WrongPassword`].
    pub(crate) async fn check_password(&self, caller: &Caller, password: String) -> Result<String, Error> {
        let hash = self.store.password_hash(caller.account.id).await.map_err(log_store_error)?;
        let is_right = self.hasher.compare(password, hash.clone()).await?;
        hash.filter(|_| is_right).ok_or_else(|| {
            let event = AuditEvent::new(caller.account.id, caller.actor(), "account.password", "password");
            self.audit.record_later(event.refused());
            Error::Login(LoginError::WrongPassword)
        })
    }

    /// The plan of an account.
    ///
    /// # Errors
    /// [`AuthError::Unavailable`] if the plan does not exist, or the store fails.
    async fn plan_of(&self, account: &Account) -> Result<Arc<Plan>, AuthError> {
        let plan = self.catalog.plan_of(account).await.map_err(|_| AuthError::Unavailable)?;
        plan.ok_or_else(|| {
            tracing::error!(account = %account.id, plan = %account.plan, "the plan of an account does not exist");
            AuthError::Unavailable
        })
    }
}
