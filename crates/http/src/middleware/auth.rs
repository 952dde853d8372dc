//! The gate of the API v3: every request is counted and its credential looked at before a handler sees it;
//! a handler says in its signature what it needs.

use std::marker::PhantomData;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::Method;
use axum::http::header::{HeaderMap, HeaderName, HeaderValue};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use pinfold_model::{Role, Scope};
use pinfold_service::{AuthError, Caller, Credential, Error, LoginError, Via};

use crate::AppState;
use crate::middleware::identity::{self, Identity};
use crate::middleware::peer;
use crate::middleware::rate_limit::{Budget, Holder, Reading, Verdict, Want, login_of, network_of};
use crate::settings::Rate;
use crate::v3::reject::Reject;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Routes whose reads are polls.
const POLLED: [&str; 5] = [
    "/api/v3/status/{cid}",
    "/api/v3/status/{cid}/events",
    "/api/v3/status/allocations/{cid}",
    "/api/v3/allocations/{cid}",
    "/api/v3/users/me/uploads",
];

/// Routes that let somebody in who had no credential.
const LOGINS: [&str; 3] = ["/api/v3/auth/signup", "/api/v3/auth/login", "/api/v3/auth/2fa/verify-login"];

/// Counts a request and lets it through with its [`Identity`], or refuses it. Either way the answer tells how the
/// budget stands: that of the strictest of its buckets.
///
/// Whoever shows a good credential is counted for the key (or the account's sessions together), for the account,
/// and for the network that it comes from; everyone else for the network alone. From a network that has sent too many
/// wrong credentials no more are looked at. Tries to log in are counted for the network whatever credential comes with
/// them.
pub(crate) async fn count(State(app): State<AppState>, mut request: Request, next: Next) -> Response {
    let address = peer::address_of(request.headers(), request.extensions(), &app.settings().proxies);
    let network = network_of(address);
    if identity::has_credential(request.headers()) {
        let verdict = app.limits().look(&[guess(&app, network)]);
        if verdict.retry_after.is_some() {
            return answer(&app, verdict);
        }
    }
    let via = identity::via(request.headers(), address);
    let identity = Identity::of(request.headers(), &app.service().tokens, via).await;
    if matches!(identity, Identity::Refused(AuthError::Invalid)) {
        app.limits().take(&[guess(&app, network)]);
    }
    let verdict = app.limits().take(&wants(&app, &identity, network, budget_of(&request)));
    if verdict.retry_after.is_some() {
        return answer(&app, verdict);
    }
    request.extensions_mut().insert(via);
    request.extensions_mut().insert(identity);
    let mut response = next.run(request).await;
    // A handler may have counted something stricter.
    let reading = response.extensions_mut().remove().unwrap_or(verdict.reading);
    tell(&mut response, reading, &app);
    response
}

/// Tells how the budget stands also where an answer came before anything was counted, as to CORS
/// preflights: those cost nothing.
pub(crate) async fn set_rate_limit_headers(
    State(app): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let address = peer::address_of(request.headers(), request.extensions(), &app.settings().proxies);
    let mut response = next.run(request).await;
    if !response.headers().contains_key(LIMIT) {
        let wants = wants(&app, &Identity::Unknown, network_of(address), Budget::Calls);
        tell(&mut response, app.limits().look(&wants).reading, &app);
    }
    response
}

/// The answer to a request that is refused.
fn answer(app: &AppState, verdict: Verdict) -> Response {
    let wait = verdict.retry_after.unwrap_or_default();
    let mut response = Reject::rate_limited(verdict.reading, wait, app.now()).into_response();
    tell(&mut response, verdict.reading, app);
    response
}

/// The bucket of a network's wrong credentials.
fn guess(app: &AppState, network: IpAddr) -> Want {
    Want { holder: Holder::Strangers(network), budget: Budget::Guesses, rate: app.settings().rates.guesses }
}

/// All buckets that a request must pass.
fn wants(app: &AppState, identity: &Identity, network: IpAddr, budget: Budget) -> Vec<Want> {
    let rates = &app.settings().rates;
    if budget == Budget::Logins {
        return vec![Want { holder: Holder::Strangers(network), budget, rate: rates.logins }];
    }
    let want = |holder, calls: Rate| {
        let rate = if budget == Budget::Polls { calls.max(rates.polls) } else { calls };
        Want { holder, budget, rate }
    };
    let Identity::Caller(caller) = identity else {
        return vec![want(Holder::Strangers(network), rates.anonymous)];
    };
    let one = want(holder(caller), plan_rate(caller));
    let many = |holder, factor| Want { holder, budget, rate: one.rate.times(factor) };
    let account = many(Holder::Account(caller.account.id), rates.account_factor);
    let address = many(Holder::Network(network, caller.plan.code.clone()), rates.address_factor);
    vec![one, account, address]
}

/// Counts a try of an account's password, wherever it comes from and whether there is such an account or not.
///
/// # Errors
/// 429 when there were too many.
pub(crate) fn count_login(app: &AppState, email: &str) -> Result<(), Reject> {
    let (holder, rate) = (Holder::Login(login_of(email)), app.settings().rates.account_logins);
    let verdict = app.limits().take(&[Want { holder, budget: Budget::Logins, rate }]);
    match verdict.retry_after {
        None => Ok(()),
        Some(wait) => Err(Reject::rate_limited(verdict.reading, wait, app.now())),
    }
}

/// A key has a budget of its own; all sessions of an account share one, so that logging in again gives none.
fn holder(caller: &Caller) -> Holder {
    match caller.credential {
        Credential::Key(key) => Holder::Key(key),
        Credential::Session(_) | Credential::Operator => Holder::Sessions(caller.account.id),
    }
}

fn plan_rate(caller: &Caller) -> Rate {
    Rate::new(caller.plan.limits.requests_per_minute, caller.plan.limits.requests_per_second)
}

fn budget_of(request: &Request) -> Budget {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    match route {
        Some(route) if is_read && POLLED.contains(&route) => Budget::Polls,
        Some(route) if LOGINS.contains(&route) => Budget::Logins,
        Some(_) | None => Budget::Calls,
    }
}

/// Writes the `X-RateLimit-…` headers. `Reset` is the Unix time, in seconds, when the budget is whole again.
fn tell(response: &mut Response, reading: Reading, app: &AppState) {
    let reset_at_s = app.now().after(reading.whole_in + Duration::from_millis(999)).as_ms() / 1000;
    let headers = response.headers_mut();
    headers.insert(LIMIT, HeaderValue::from(reading.limit));
    headers.insert(REMAINING, HeaderValue::from(reading.remaining));
    headers.insert(RESET, HeaderValue::from(reset_at_s));
}

/// A permission that a handler can ask for in its signature.
pub(crate) trait Permission {
    const SCOPE: Scope;
}

macro_rules! permissions {
    ($($name:ident),+ $(,)?) => { $(
        /// The permission of the scope of this name.
        pub(crate) enum $name {}
        impl Permission for $name {
            const SCOPE: Scope = Scope::$name;
        }
    )+ };
}

permissions!(
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

/// A caller who is allowed to do this: proof that the credential is good and has the scope.
pub(crate) struct RequireScope<P>(Arc<Caller>, PhantomData<fn() -> P>);

impl<P> Deref for RequireScope<P> {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

/// What a request proved itself with, for answers that go on after it: whether that is still good can be asked again.
pub(crate) struct Proof {
    headers: HeaderMap,
    via: Via,
    scope: Scope,
}

impl Proof {
    /// Whether the credential still proves what it did. What can't be checked right now counts as good.
    pub(crate) async fn is_good(&self, app: &AppState) -> bool {
        match Identity::of(&self.headers, &app.service().tokens, self.via).await {
            Identity::Caller(caller) => caller.may(self.scope),
            Identity::Refused(error) => error == AuthError::Unavailable,
            Identity::Unknown => false,
        }
    }
}

impl FromRequestParts<AppState> for Proof {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Self::Rejection> {
        let address = peer::address_of(&parts.headers, &parts.extensions, &app.settings().proxies);
        let via = identity::via(&parts.headers, address);
        let headers = identity::credential_headers(&parts.headers);
        Ok(Self { headers, via, scope: Scope::ClusterRead })
    }
}

/// A caller who has logged in: for what no API key may do.
pub(crate) struct RequireSession(Arc<Caller>);

impl Deref for RequireSession {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

impl FromRequestParts<AppState> for RequireSession {
    type Rejection = Reject;

    async fn from_request_parts(parts: &mut Parts, _app: &AppState) -> Result<Self, Reject> {
        match parts.extensions.get::<Identity>() {
            Some(Identity::Caller(caller)) if matches!(caller.credential, Credential::Session(_)) => {
                Ok(Self(Arc::clone(caller)))
            }
            Some(Identity::Caller(_)) => Err(Error::Login(LoginError::SessionNeeded).into()),
            Some(Identity::Refused(error)) => Err((*error).into()),
            Some(Identity::Unknown) | None => Err(Reject::no_credential()),
        }
    }
}

/// A caller who acts as an operator: somebody logged in with the role admin, or a key of such an account that has the
/// scope for it.
pub(crate) struct RequireAdmin(Arc<Caller>);

impl Deref for RequireAdmin {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

impl FromRequestParts<AppState> for RequireAdmin {
    type Rejection = Reject;

    async fn from_request_parts(parts: &mut Parts, _app: &AppState) -> Result<Self, Reject> {
        match parts.extensions.get::<Identity>() {
            Some(Identity::Caller(caller)) if caller.is_admin() => Ok(Self(Arc::clone(caller))),
            Some(Identity::Caller(caller)) if caller.account.role == Role::Admin => {
                Err(Reject::missing_scope(Scope::Admin))
            }
            Some(Identity::Caller(_)) => Err(Reject::not_admin()),
            Some(Identity::Refused(error)) => Err((*error).into()),
            Some(Identity::Unknown) | None => Err(Reject::no_credential()),
        }
    }
}

/// A caller whose account is an operator's, whatever its key may do: for figures.
pub(crate) struct RequireAdminRole;

impl FromRequestParts<AppState> for RequireAdminRole {
    type Rejection = Reject;

    async fn from_request_parts(parts: &mut Parts, _app: &AppState) -> Result<Self, Reject> {
        match parts.extensions.get::<Identity>() {
            Some(Identity::Caller(caller)) if caller.account.role == Role::Admin => Ok(Self),
            Some(Identity::Caller(_)) => Err(Reject::not_admin()),
            Some(Identity::Refused(error)) => Err((*error).into()),
            Some(Identity::Unknown) | None => Err(Reject::no_credential()),
        }
    }
}

impl<P: Permission> FromRequestParts<AppState> for RequireScope<P> {
    type Rejection = Reject;

    async fn from_request_parts(parts: &mut Parts, _app: &AppState) -> Result<Self, Reject> {
        match parts.extensions.get::<Identity>() {
            Some(Identity::Caller(caller)) if caller.may(P::SCOPE) => {
                Ok(Self(Arc::clone(caller), PhantomData))
            }
            Some(Identity::Caller(_)) => Err(Reject::missing_scope(P::SCOPE)),
            Some(Identity::Refused(error)) => Err((*error).into()),
            Some(Identity::Unknown) | None => Err(Reject::no_credential()),
        }
    }
}
