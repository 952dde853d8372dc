//! Pins: create, remove, rename, status and event streams.

pub(crate) mod batch;
pub(crate) mod dry_run;
pub(crate) mod events;
pub(crate) mod pin;
pub(crate) mod rename;
pub(crate) mod reply;
pub(crate) mod status;
