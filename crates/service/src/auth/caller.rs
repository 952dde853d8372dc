//! The caller of a request: an authenticated credential, and the client it came from.

use std::net::IpAddr;
use std::sync::Arc;

use pinfold_model::{Account, AccountId, Actor, Plan, Role, Scope, ScopeSet, SessionId, Source, TokenId};

/// An authenticated credential: its account and its scopes.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The account, as read when the credential was checked.
    pub account: Account,
    pub plan: Arc<Plan>,
    pub scopes: ScopeSet,
    pub credential: Credential,
    pub via: Via,
}

/// The kind of credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Credential {
    /// An API key.
    Key(TokenId),
    /// A session token: the client has logged in.
    Session(SessionId),
    /// None: an operator acts for the account, outside of the API.
    Operator,
}

/// The client that sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Via {
    pub source: Source,
    pub address: Option<IpAddr>,
}

impl Via {
    /// A command of the operator.
    pub const OPERATOR: Self = Self { source: Source::Operator, address: None };

    /// The actor for the audit log.
    #[must_use]
    pub const fn actor(self, account: Option<AccountId>) -> Actor {
        Actor { actor: account, source: self.source, address: self.address }
    }

    /// An API request from this address.
    #[must_use]
    pub const fn api(address: Option<IpAddr>) -> Self {
        Self { source: Source::Api, address }
    }
}

impl Caller {
    /// Whether the credential has this scope.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(scope)
    }

    /// Whether the caller is an administrator: an account with the role admin, in a session or with an API key that has the
    /// scope `admin`.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        let is_allowed = match self.credential {
            Credential::Key(_) => self.may(Scope::Admin),
            Credential::Session(_) | Credential::Operator => true,
        };
        is_allowed && self.account.role == Role::Admin
    }

    /// The actor for the audit log.
    #[must_use]
    pub fn actor(&self) -> Actor {
        let account = match self.credential {
            Credential::Key(_) | Credential::Session(_) => Some(self.account.id),
            Credential::Operator => None,
        };
        self.via.actor(account)
    }
}

/// Why a credential was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Wrong, expired or revoked; the response does not say which.
    #[error("The API key or session token is not valid")]
    Invalid,
    /// The key is valid, but not from this address.
    #[error("This API key may not be used from this address")]
    IpNotAllowed,
    #[error("The account is disabled")]
    AccountDisabled,
    /// The store failed.
    #[error("The service can't check credentials right now; try again later")]
    Unavailable,
}
