//! Webhooks and their deliveries.

pub(crate) mod delivery;
pub(crate) mod outbox;
pub(crate) mod webhook;
