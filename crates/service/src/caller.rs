//! Who calls: a proven credential.

use std::sync::Arc;

use pinfold_model::{Account, Plan, Scope, ScopeSet, TokenId};

/// A proven credential: the account behind it, and what it may do.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The account, as it was when the credential was proven.
    pub account: Account,
    /// Its plan, with the rate limits.
    pub plan: Arc<Plan>,
    /// What this credential may do.
    pub scopes: ScopeSet,
    /// The key.
    pub key: TokenId,
}

impl Caller {
    /// Whether the credential has this scope.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(scope)
    }
}

/// Why a credential proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Wrong, expired or revoked; which of them is not said.
    #[error("The API key is not valid")]
    Invalid,
    /// The account is disabled.
    #[error("The account is disabled")]
    AccountDisabled,
    /// The credential can't be checked right now.
    #[error("The service can't check credentials right now; try again later")]
    Unavailable,
}
