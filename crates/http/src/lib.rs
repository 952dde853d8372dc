//! Pinfold's HTTP side: it proves who calls, parses what they say once, asks `pinfold-service`, and words the
//! answer. It holds no rule and no query.
//!
//! - [`router`] puts the routes together; [`AppState`] is what they share; [`Settings`] bounds them;
//! - [`serve`] runs connections: bounded in number and in time, ended gracefully;
//! - `v3` is the API v3: its routes, its words (`cl`, `timelock`, `uploadId`) and its errors.

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
pub use server::serve;
pub use settings::{Bodies, Connections, Events, Rate, Rates, Settings};

/// All that this server answers: every surface, with its middleware.
///
/// The requests should know their peer's address as `ConnectInfo<SocketAddr>`, as [`serve`] sees to; without
/// it everyone without a key shares one budget.
pub fn router(app: AppState) -> Router {
    surface::compose(&app, [v3::surface()])
}
