//! Tests of the store on a real database in a temporary folder, with an injected clock.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod admin_lists;
mod audit;
mod batches;
mod combined_writes;
mod idempotency;
mod lists;
mod maintenance;
mod placements;
mod plans;
#[cfg(feature = "postgres-tests")]
mod postgres;
mod quota;
mod reads;
mod referrals;
mod retention;
mod sessions;
mod shared_content;
mod tokens;
mod webhooks;
mod world;
