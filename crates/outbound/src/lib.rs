//! Requests that this server makes to places that others name: to whom they may go, and what a webhook's looks like.
//!
//! Whoever names an address can otherwise use the server to knock at doors inside its own network. So [`is_public`]
//! says which addresses are anybody's; a name is resolved here, every address that it has is checked, and the
//! connection goes to exactly what was checked. Proxies of the environment and redirects are not followed.
//!
//! The crate knows no accounts and no pins, and stands alone.

mod address;
mod notice;
mod resolve;
mod sender;
mod target;

pub use address::is_public;
pub use notice::{WebhookPayload, WebhookPayloadData, signature};
pub use sender::{SendError, Sender};
pub use target::{Reach, Target, TargetError};
