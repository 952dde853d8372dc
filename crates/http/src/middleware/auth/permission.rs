//! Permissions as types: a handler names the one that it needs in its signature, and its caller is the proof.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Deref;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::Response;
use pinfold_model::{Role, Scope};
use pinfold_service::{AuthError, Caller, Credential, Tokens, Via};

use super::identity::{self, Identity};
use crate::middleware::{ErrorBody, MiddlewareError};

/// Something that a caller may be allowed to do.
pub(crate) trait Permission {
    /// Whether this caller has it.
    ///
    /// # Errors
    /// What the caller lacks.
    fn check(caller: &Caller) -> Result<(), MiddlewareError>;
}

macro_rules! scopes {
    ($($name:ident),+ $(,)?) => { $(
        /// The permission of the scope of this name.
        pub(crate) enum $name {}

        impl Permission for $name {
            fn check(caller: &Caller) -> Result<(), MiddlewareError> {
                let scope = Scope::$name;
                if caller.may(scope) { Ok(()) } else { Err(MiddlewareError::MissingScope(scope)) }
            }
        }
    )+ };
}

scopes!(
    FilesRead,
    FilesWrite,
    FilesDelete,
    FilesRename,
    UserRead,
    UserWrite,
    ClusterRead,
    TokensRead,
    TokensWrite,
    TokensDelete,
    LogsRead,
    ReferralsRead,
    PlansRead,
    PlansWrite,
    WebhooksRead,
    WebhooksWrite,
);

/// The permission of a caller who has logged in: for what no API key may do.
pub(crate) enum Session {}

impl Permission for Session {
    fn check(caller: &Caller) -> Result<(), MiddlewareError> {
        let is_session = matches!(caller.credential, Credential::Session(_));
        if is_session { Ok(()) } else { Err(MiddlewareError::SessionRequired) }
    }
}

/// The permission of an administrator: an account with the role admin, by a session, or by a key that has the scope
/// `admin`.
pub(crate) enum Admin {}

impl Permission for Admin {
    fn check(caller: &Caller) -> Result<(), MiddlewareError> {
        if caller.is_admin() {
            return Ok(());
        }
        AdminRole::check(caller)?;
        Err(MiddlewareError::MissingScope(Scope::Admin))
    }
}

/// The permission of an account with the role admin, whatever the scopes of its key: for metrics.
pub(crate) enum AdminRole {}

impl Permission for AdminRole {
    fn check(caller: &Caller) -> Result<(), MiddlewareError> {
        let is_admin = caller.account.role == Role::Admin;
        if is_admin { Ok(()) } else { Err(MiddlewareError::AdminRequired) }
    }
}

/// A caller with the permission `P`: proof that the credential is valid and allows it.
pub(crate) struct Require<P> {
    caller: Arc<Caller>,
    permission: PhantomData<fn() -> P>,
}

/// A caller with a scope.
pub(crate) type RequireScope<S> = Require<S>;
/// A caller who has logged in.
pub(crate) type RequireSession = Require<Session>;
/// An administrator.
pub(crate) type RequireAdmin = Require<Admin>;
/// An account with the role admin.
pub(crate) type RequireAdminRole = Require<AdminRole>;

impl<P> Deref for Require<P> {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl<P: Permission, S: Send + Sync> FromRequestParts<S> for Require<P> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Response> {
        let caller = match parts.extensions.get::<Identity>() {
            Some(Identity::Caller(caller)) => P::check(caller).map(|()| Arc::clone(caller)),
            Some(Identity::Refused(error)) => Err(MiddlewareError::Credential(*error)),
            Some(Identity::Unknown) | None => Err(MiddlewareError::NoCredential),
        };
        match caller {
            Ok(caller) => Ok(Self { caller, permission: PhantomData }),
            Err(error) => Err(ErrorBody::of(parts).response(error)),
        }
    }
}

/// The credential of a request whose answer goes on for long, such as a stream of events: whether it still has the
/// permission `P` can be checked again.
pub(crate) struct CredentialCheck<P> {
    headers: HeaderMap,
    via: Via,
    permission: PhantomData<fn() -> P>,
}

impl<P: Permission> CredentialCheck<P> {
    /// Whether the credential is still valid and has the permission. One that can't be checked right now counts as valid.
    pub(crate) async fn passes(&self, tokens: &Tokens) -> bool {
        match Identity::of(&self.headers, tokens, self.via).await {
            Identity::Caller(caller) => P::check(&caller).is_ok(),
            Identity::Refused(error) => error == AuthError::Unavailable,
            Identity::Unknown => false,
        }
    }
}

impl<P, S: Send + Sync> FromRequestParts<S> for CredentialCheck<P> {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        // Authentication has left the address that the request came from.
        let via = parts.extensions.get::<Via>().copied();
        let via = via.unwrap_or_else(|| identity::via(&parts.headers, IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        let headers = identity::credential_headers(&parts.headers);
        Ok(Self { headers, via, permission: PhantomData })
    }
}
