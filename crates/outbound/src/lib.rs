//! HTTP requests to addresses that users name: which targets are allowed, and what a webhook request looks like.
//!
//! A user who names an address could make the server send requests into its own network (SSRF). Therefore
//! [`is_public`] decides which addresses are public, host names are resolved here, each resolved address is checked,
//! and the connection goes to exactly the address that was checked. Proxies from the environment and redirects are not
//! followed.
//!
//! Webhook requests follow the [Standard Webhooks](https://www.standardwebhooks.com) specification 1.0.0.
//!
//! The crate knows neither accounts nor pins, and depends on no other crate of the workspace.

mod address;
mod payload;
mod resolve;
mod sender;
mod signature;
mod target;

pub use address::is_public;
pub use payload::{WebhookPayload, WebhookPayloadData};
pub use sender::{SendError, Sender, SignedRequest};
pub use signature::sign;
pub use target::{Target, TargetError, TargetPolicy};
