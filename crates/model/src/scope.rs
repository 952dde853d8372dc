//! Scopes: the permissions of API keys.

use std::fmt;
use std::str::FromStr;

use crate::Role;

/// One permission of an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Scope {
    /// List uploads and read DAG details.
    FilesRead,
    /// Upload content and pin CIDs.
    FilesWrite,
    FilesDelete,
    /// Rename pins.
    FilesRename,
    /// Read profile and preferences.
    UserRead,
    /// Change profile and preferences.
    UserWrite,
    /// List API keys.
    TokensRead,
    /// Create API keys.
    TokensWrite,
    /// Revoke API keys.
    TokensDelete,
    /// Read the plan.
    PlansRead,
    /// Change the plan.
    PlansWrite,
    /// Read referrals.
    ReferralsRead,
    /// Read the account's audit log.
    LogsRead,
    /// Read clusters, gateways, pin status and allocations.
    ClusterRead,
    /// Administer the service. Only effective for accounts with the role `admin`, and only they can grant it.
    Admin,
    /// Read webhooks and their deliveries.
    WebhooksRead,
    /// Create, change, test and delete webhooks.
    WebhooksWrite,
}

/// The text is not a [`Scope`]. Contains its first 64 characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Unknown scope: {0}")]
pub struct ScopeError(pub String);

impl Scope {
    pub const ALL: [Self; 17] = [
        Self::FilesRead,
        Self::FilesWrite,
        Self::FilesDelete,
        Self::FilesRename,
        Self::UserRead,
        Self::UserWrite,
        Self::TokensRead,
        Self::TokensWrite,
        Self::TokensDelete,
        Self::PlansRead,
        Self::PlansWrite,
        Self::ReferralsRead,
        Self::LogsRead,
        Self::ClusterRead,
        Self::Admin,
        Self::WebhooksRead,
        Self::WebhooksWrite,
    ];

    /// The stored and displayed form, such as `files:write`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FilesRead => "files:read",
            Self::FilesWrite => "files:write",
            Self::FilesDelete => "files:delete",
            Self::FilesRename => "files:rename",
            Self::UserRead => "user:read",
            Self::UserWrite => "user:write",
            Self::TokensRead => "tokens:read",
            Self::TokensWrite => "tokens:write",
            Self::TokensDelete => "tokens:delete",
            Self::PlansRead => "plans:read",
            Self::PlansWrite => "plans:write",
            Self::ReferralsRead => "referrals:read",
            Self::LogsRead => "logs:read",
            Self::ClusterRead => "cluster:read",
            Self::Admin => "admin",
            Self::WebhooksRead => "webhooks:read",
            Self::WebhooksWrite => "webhooks:write",
        }
    }

    fn bit(self) -> u32 {
        1 << (self as u8)
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let known = Self::ALL.into_iter().find(|scope| scope.as_str() == text);
        known.ok_or_else(|| ScopeError(text.chars().take(64).collect()))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of scopes. The text form is a comma-separated list.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct ScopeSet(u32);

impl ScopeSet {
    pub const NONE: Self = Self(0);

    /// All scopes except [`Scope::Admin`].
    #[must_use]
    pub fn all() -> Self {
        Scope::ALL.into_iter().filter(|scope| *scope != Scope::Admin).collect()
    }

    /// All scopes that an account with this role can grant: [`all`](Self::all), and [`Scope::Admin`] for an admin.
    #[must_use]
    pub fn of_role(role: Role) -> Self {
        match role {
            Role::User => Self::all(),
            Role::Admin => Scope::ALL.into_iter().collect(),
        }
    }

    /// Scopes of a key that was created without naming any: `user:read` and `files:read`.
    #[must_use]
    pub fn default_for_key() -> Self {
        [Scope::UserRead, Scope::FilesRead].into_iter().collect()
    }

    /// Whether the set contains this scope.
    #[must_use]
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Whether `other` contains every scope of this set.
    #[must_use]
    pub fn is_subset(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Whether the set contains no scope.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The scopes in the order of [`Scope::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl FromStr for ScopeSet {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::parse).collect()
    }
}

impl fmt::Display for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, scope) in self.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{scope}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScopeSet({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn unknown_scope_is_named_in_the_error() {
        assert_eq!("files:read,files:burn".parse::<ScopeSet>(), Err(ScopeError("files:burn".into())));
        assert_eq!(" files:read , ".parse::<ScopeSet>().unwrap().to_string(), "files:read");
    }

    #[test]
    fn admin_scope_requires_the_admin_role() {
        assert!(
            !ScopeSet::all().contains(Scope::Admin) && !ScopeSet::default_for_key().contains(Scope::Admin)
        );
        assert_eq!(ScopeSet::of_role(Role::User), ScopeSet::all());
        assert!(Scope::ALL.into_iter().all(|scope| ScopeSet::of_role(Role::Admin).contains(scope)));
    }

    proptest! {
        #[test]
        fn set_round_trips_through_text_and_compares_subsets(bits in 0_u32..(1 << 17), more in 0_u32..(1 << 17)) {
            let (small, large) = (ScopeSet(bits), ScopeSet(bits | more));
            prop_assert_eq!(small.to_string().parse(), Ok(small));
            prop_assert!(small.is_subset(large));
            prop_assert_eq!(large.is_subset(small), large == small);
        }
    }
}
