//! The database: accounts, keys, pins, placements, audit log. The only SQL of the project.
//!
//! SQLite in WAL mode with full synchronisation: an acknowledged write survives power loss. All writes of a
//! process go through one queue to one connection, many to a transaction (`db/write_queue.rs`). Readers have
//! connections of their own and never wait for it.
//!
//! Each operation is next to its row type. An operation that reads and then writes is one transaction. The
//! state transitions of a placement are decided by [`pinfold_model::PlacementState::after`], never by this crate.
//! The SQL keeps to what PostgreSQL accepts as well: `$1`, TEXT, BIGINT, `RETURNING`, `ON CONFLICT`.

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
pub use webhooks::delivery::{Attempt, LeasedWebhook, Next, PreviousSecret, WebhookHealth, WebhookLease};
pub use webhooks::webhook::{NewWebhook, WebhookChange};
