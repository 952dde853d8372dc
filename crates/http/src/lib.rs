//! The HTTP server of Pinfold: it authenticates callers, parses requests once, calls `pinfold-service`, and formats the
//! answers. It holds no rule and no query.
//!
//! - [`router`] composes the surfaces; [`AppState`] is what handlers share; [`Settings`] bounds them.
//! - `surface` is how an API with its own paths and error body is added.
//! - `middleware` is what every surface needs around its routes.
//! - `v3` is the API v3: its routes and their policies, its wire types, its error body.
//! - [`serve`] accepts and runs connections: bounded in number and in time, ended gracefully.

mod app;
mod body;
mod middleware;
mod prefer;
mod server;
mod settings;
mod surface;
mod v3;

use axum::Router;

pub use app::AppState;
pub use server::{Accepted, ConnectionLimits, Listener, serve, serve_listener};
pub use settings::{Bodies, Connections, Events, Rate, Rates, Settings};

/// The router of this server: every surface, with its middleware.
///
/// Requests should carry the peer's address as `ConnectInfo<SocketAddr>`, as [`serve`] provides it. Without it, all callers
/// without a credential share one rate limit.
pub fn router(app: AppState) -> Router {
    surface::compose(&app, [v3::surface()])
}
