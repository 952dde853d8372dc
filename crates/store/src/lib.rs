//! The database: accounts, API keys, pins, placements, webhooks, audit log. Only this crate contains SQL.
//!
//! It uses SQLite in WAL mode with full synchronization: an acknowledged write survives power loss. All writes of a
//! process go through one queue to one connection, many in one transaction (`db/write_queue.rs`). Reads use separate
//! connections and never wait for writes.
//!
//! Each operation is defined next to its row type. An operation that reads and then writes is one transaction. This crate
//! never decides the next state of a placement; [`pinfold_model::PlacementState::after`] does. The SQL is restricted to
//! what PostgreSQL also accepts: `$1`, TEXT, BIGINT, `RETURNING`, `ON CONFLICT`.

mod accounts;
mod audit;
mod cluster_info;
mod db;
mod idempotency;
mod lanes;
mod pins;
mod placements;
mod plans;
#[cfg(test)]
mod query_plan_tests;
mod secrets;
mod statistics;
mod webhooks;

pub use accounts::account::NewAccount;
pub use accounts::dedup_usage::ActivePlacement;
pub use accounts::list::{AccountFilter, AccountList, AccountRecord};
pub use accounts::login_challenge::{ChallengeAttempt, NewChallenge};
pub use accounts::referrals::Referrals;
pub use accounts::removal::{BeginRemovalOutcome, RemovalStep};
pub use accounts::second_factor::{AttemptBucket, SecondFactor, TotpCode};
pub use accounts::sessions::NewSession;
pub use accounts::tokens::{AuthenticatedKey, CreateTokenOutcome, NewToken};
pub use accounts::update::{AccountChanges, PlanGrant, UpdateAccountOutcome};
pub use audit::{AuditFilter, AuditList};
pub use cluster_info::SavedClusterInfo;
pub use db::connection::Store;
pub use db::error::StoreError;
pub use idempotency::{IdempotentRequest, RequestBounds, Reservation, ReserveOutcome};
pub use pins::admin_pins::{AdminPinsFilter, AdminPinsList};
pub use pins::bulk::{CreatePinsOutcome, CreatedPin, RemovePinError, RemovePinsOutcome};
pub use pins::create::{CreatePin, CreatePinOutcome};
pub use pins::list::{PinFilter, PinList};
pub use pins::record::PinRecord;
pub use pins::remove::{PinRemoval, RemovePinOutcome};
pub use placements::complete::{CompleteOutcome, PlacementOutcome};
pub use placements::damage::Damage;
pub use placements::lease::{Capacity, Lease, LeasedPlacement};
pub use placements::record::PlacementRecord;
pub use placements::reverify::ReverifyCounts;
pub use plans::{DeletePlanOutcome, SavePlanOutcome};
pub use statistics::{AccountSum, PerCluster, PinSum, StoreStatistics};
pub use webhooks::lease::{
    Attempt, AttemptOutcome, LeasedWebhook, PreviousSecret, WebhookHealth, WebhookLease,
};
pub use webhooks::webhook::{NewWebhook, WebhookChange};
