//! Pinfold's HTTP side: it proves who calls, parses what they say once, asks `pinfold-service`, and words the
//! answer. It holds no rule and no query.
//!
//! - [`router`] puts the routes together; [`AppState`] is what they share; [`Settings`] bounds them;
//! - [`serve`] runs connections: bounded in number and in time, ended gracefully;
//! - `v3` is the API v3: its routes, its words (`cl`, `timelock`, `uploadId`) and its errors.

mod app;
mod middleware;
mod prefer;
mod server;
mod settings;
mod upload_body;
mod v3;

use axum::Router;
use tower::Layer;
use tower_http::normalize_path::NormalizePathLayer;

pub use app::AppState;
pub use server::serve;
pub use settings::{Bodies, Connections, Events, Rate, Rates, Settings};

/// All that this server answers. Each path also with a trailing slash.
///
/// The requests should know their peer's address as `ConnectInfo<SocketAddr>`, as [`serve`] sees to; without
/// it everyone without a key shares one budget.
pub fn router(app: AppState) -> Router {
    // A router matches before its own layers run, so the slash must go before this one is asked.
    Router::new().fallback_service(NormalizePathLayer::trim_trailing_slash().layer(v3::router(app)))
}
