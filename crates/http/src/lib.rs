//! Pinfold's HTTP side: it proves who calls, parses what they say once, asks `pinfold-service`, and words the
//! answer. It holds no rule and no query.
//!
//! - [`router`] puts the routes together; [`AppState`] is what they share; [`Settings`] bounds them;
//! - [`serve`] runs connections: bounded in number and in time, ended gracefully;
//! - `v3` is the API v3: its routes, its words (`cl`, `timelock`, `uploadId`) and its errors.

mod limits;
mod peer;
mod prefer;
mod request_id;
mod settings;

pub use settings::{Bodies, Connections, Rate, Rates, Settings};
