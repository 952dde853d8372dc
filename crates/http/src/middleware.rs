//! What every HTTP surface needs around its routes: authentication, rate limits, idempotency, tracing.

pub(crate) mod auth;
pub(crate) mod drain;
pub(crate) mod idempotency;
pub(crate) mod identity;
pub(crate) mod multipart_digest;
pub(crate) mod peer;
pub(crate) mod rate_limit;
pub(crate) mod request_id;
pub(crate) mod trace;
