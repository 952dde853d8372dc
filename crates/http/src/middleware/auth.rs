//! Authentication: looks at the credential of every request, and counts the request, before a handler sees it.
//!
//! What a handler needs of its caller is in its signature: [`Require`] with a [`Permission`].

mod identity;
mod permission;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use pinfold_service::AuthError;

use super::rate_limit::{self, network_of};
use super::{Middleware, peer};

pub(crate) use identity::Identity;
pub(crate) use permission::*;

/// Finds out who sends a request, counts the request, and lets it through with its [`Identity`], or refuses it. Either
/// way the `X-RateLimit-…` headers of the answer are those of the strictest bucket.
///
/// A network that has sent too many wrong credentials is refused without a look at the one that it sends now.
pub(super) async fn authenticate(
    State(middleware): State<Middleware>,
    mut request: Request,
    next: Next,
) -> Response {
    let context = &middleware.context;
    let address = peer::address_of(request.headers(), request.extensions(), &context.settings().proxies);
    let network = network_of(address);
    if identity::has_credential(request.headers())
        && let Some(refused) = rate_limit::refuse_guesses(&middleware, network)
    {
        return refused;
    }
    let via = identity::via(request.headers(), address);
    let identity = Identity::of(request.headers(), &context.service().tokens, via).await;
    if matches!(identity, Identity::Refused(AuthError::Invalid)) {
        rate_limit::count_guess(context, network);
    }
    let reading = match rate_limit::count(&middleware, &request, &identity, network) {
        Ok(reading) => reading,
        Err(refused) => return *refused,
    };
    request.extensions_mut().insert(via);
    request.extensions_mut().insert(identity);
    let mut response = next.run(request).await;
    // A handler may have counted something stricter.
    let reading = response.extensions_mut().remove().unwrap_or(reading);
    rate_limit::write_headers(&mut response, reading, context);
    response
}
