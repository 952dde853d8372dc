//! Webhooks and their deliveries.

pub(crate) mod cleanup;
pub(crate) mod delivery;
pub(crate) mod lease;
pub(crate) mod outbox;
pub(crate) mod webhook;
