//! The server itself: health, peers, clusters, metrics, documentation, locales.

pub(crate) mod docs;
pub(crate) mod info;
pub(crate) mod locales;
pub(crate) mod metrics;
