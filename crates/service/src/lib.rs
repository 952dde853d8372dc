//! The use cases, free of transport: accounts, keys, pins, uploads, clusters, and the reconciler that works
//! in the background.
//!
//! Whoever serves an API turns a request into one call here and the answer, or the [`Error`], into its own
//! words. This crate knows no status codes, headers or JSON, and no SQL.

mod accounts;
mod background;
mod caller;
mod clusters;
mod error;
mod pins;
mod secret;
mod service;
mod tokens;
mod uploads;

pub use accounts::{Accounts, NewAccount, Password, PasswordError};
pub use background::{Background, Reconciler};
pub use caller::{AuthError, Caller};
pub use clusters::{ClusterHealth, ClusterInfo, ClusterSetup, Clusters, GatewayInfo, Health, PeerInfo};
pub use error::Error;
pub use pins::{
    Cursor, ListQuery, Origin, PinPage, PinProgress, PinReceipt, PinStatus, PinView, PinWish, Pins, Wait,
};
pub use secret::{ApiKey, KEY_PREFIX};
pub use service::{Service, Settings};
pub use tokens::{CreatedToken, NewToken, Tokens};
pub use uploads::{DirectoryDraft, ReceivedEntry, Received, UploadReceipt, UploadTerms, Uploads};
