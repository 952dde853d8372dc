//! The database: accounts, keys, pins, placements, audit. The only SQL of the project.
//!
//! SQLite in WAL mode with full synchronisation: what a write answered survives power loss. All writes of a
//! process go through one queue to one connection, many to a transaction ([`writer`](self)); readers have
//! connections of their own and never wait for it. Other processes may open the same file.
//!
//! Each operation stands beside its row type. Operations that look and then write are one transaction; the
//! moves of a placement are [`pinfold_model::PlacementState::after`]'s to decide, never this crate's. The
//! SQL keeps to what PostgreSQL understands as well: `$1`, TEXT, BIGINT, `RETURNING`, `ON CONFLICT`.

mod account;
mod admin_pins;
mod audit;
mod batch;
mod challenge;
mod charge;
mod claim;
mod damage;
mod delivery;
mod distinct;
mod error;
mod list;
mod named;
mod offer;
mod outbox;
mod password;
mod pin;
mod placement;
#[cfg(test)]
mod plans;
mod preferences;
mod referral;
mod remove;
mod rename;
mod reverify;
mod row;
mod second_factor;
mod secrets;
mod session;
mod settle;
mod snapshot;
mod statistics;
mod store;
mod token;
mod webhook;
mod wish;
mod writer;

pub use account::{
    AccountChanges, AccountFilter, AccountList, AccountRecord, Changed, NewAccount, PlanGrant, RemovalBegun,
    RemovalStep,
};
pub use admin_pins::{AdminPinsCursor, AdminPinsCursorError, AdminPinsFilter, AdminPinsList};
pub use audit::{AuditEntry, AuditEvent, AuditFilter, AuditList};
pub use batch::{CreatePinsOutcome, CreatedPin, RemovePinsOutcome, Unremovable};
pub use challenge::{ChallengeTry, NewChallenge};
pub use claim::{Capacity, Lease, LeasedPlacement};
pub use damage::Damage;
pub use delivery::{Attempt, DeliveredPin, Delivery, LeasedWebhook, Next, WebhookHealth, WebhookLease};
pub use distinct::ActivePlacement;
pub use error::StoreError;
pub use list::{PinFilter, PinList};
pub use named::{IdempotentRequest, RequestBounds, Reservation, Reserved, StoredResponse};
pub use offer::{PlanDeleted, PlanSaved, SavedCluster};
pub use pin::{PinRecord, PlacementRecord};
pub use preferences::Preference;
pub use referral::{Referral, Referrals};
pub use remove::{Ended, Removed};
pub use reverify::ReverifyCounts;
pub use second_factor::{SecondFactor, TriesBucket, UsedCode};
pub use session::NewSession;
pub use settle::{CompleteOutcome, PlacementOutcome};
pub use statistics::{AccountSum, Figures, PerCluster, PinSum};
pub use store::Store;
pub use token::{AuthenticatedKey, CreateTokenOutcome, NewToken};
pub use webhook::{NewWebhook, WebhookChange};
pub use wish::{CreatePin, CreatePinOutcome};
