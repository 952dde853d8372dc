//! Who calls: a proven credential, and the way on which it came.

use std::net::IpAddr;
use std::sync::Arc;

pub use pinfold_model::Source;
use pinfold_model::{Account, AccountId, Actor, Plan, Role, Scope, ScopeSet, SessionId, TokenId};

/// A proven credential: the account behind it, and what it may do.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The account, as it was when the credential was proven.
    pub account: Account,
    /// Its plan, with the rate limits.
    pub plan: Arc<Plan>,
    /// What this credential may do.
    pub scopes: ScopeSet,
    /// What was proven.
    pub credential: Credential,
    /// How the request came.
    pub via: Via,
}

/// What a caller has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Credential {
    /// An API key.
    Key(TokenId),
    /// A session token: somebody has logged in.
    Session(SessionId),
    /// Nothing: an operator acts for the account, beside the API.
    Operator,
}

/// The way on which a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Via {
    /// From what kind of client.
    pub source: Source,
    /// From which address, where there is one.
    pub address: Option<IpAddr>,
}

impl Via {
    /// An operator's command.
    pub const OPERATOR: Self = Self { source: Source::Operator, address: None };

    /// Who acts, as the audit log has it: an account, or nobody who is known.
    #[must_use]
    pub const fn by(self, actor: Option<AccountId>) -> Actor {
        Actor { actor, source: self.source, address: self.address }
    }

    /// A request of the API from this address.
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

    /// Whether this is an operator of the service: an account with the role admin, by whoever is logged in or by a key
    /// that has the scope for it.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        let proven = match self.credential {
            Credential::Key(_) => self.may(Scope::Admin),
            Credential::Session(_) | Credential::Operator => true,
        };
        proven && self.account.role == Role::Admin
    }

    /// Who acts, as the audit log has it.
    #[must_use]
    pub fn by(&self) -> Actor {
        let actor = match self.credential {
            Credential::Key(_) | Credential::Session(_) => Some(self.account.id),
            Credential::Operator => None,
        };
        self.via.by(actor)
    }
}

/// Why a credential proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Wrong, expired or revoked; which of them is not said.
    #[error("The API key or session token is not valid")]
    Invalid,
    /// The key is good, but not from this address.
    #[error("This API key may not be used from this address")]
    IpNotAllowed,
    /// The account is disabled.
    #[error("The account is disabled")]
    AccountDisabled,
    /// The credential can't be checked right now.
    #[error("The service can't check credentials right now; try again later")]
    Unavailable,
}
