//! Pins: an account's requests to keep a CID in a cluster.

pub(crate) mod admin_pins;
pub(crate) mod bulk;
pub(crate) mod create;
pub(crate) mod create_batch;
pub(crate) mod list;
pub(crate) mod record;
pub(crate) mod remove;
pub(crate) mod rename;
