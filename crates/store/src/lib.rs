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
mod pins_of_all;
mod placement;
#[cfg(test)]
mod plans;
mod preferences;
mod recheck;
mod referral;
mod remove;
mod rename;
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
pub use audit::{Act, AuditEntry, AuditFilter, AuditList};
pub use batch::{Granted, RemovedAll, Unremovable, WishedAll};
pub use challenge::{ChallengeTry, NewChallenge};
pub use claim::{Claim, Hands, Lease};
pub use damage::Damage;
pub use delivery::{Attempt, DeliveredPin, Delivery, HookClaim, HookHealth, HookLease, Next};
pub use distinct::KeptPlacement;
pub use error::StoreError;
pub use list::{PinFilter, PinList};
pub use named::{KeptAnswer, NamedRequest, RequestBounds, Reservation, Reserved};
pub use offer::{PlanDeleted, PlanSaved, SavedCluster};
pub use pin::{PinRecord, PlacementRecord};
pub use pins_of_all::{AllPinsCursor, AllPinsCursorError, AllPinsFilter, AllPinsList};
pub use preferences::Preference;
pub use recheck::Rechecks;
pub use referral::{Referral, Referrals};
pub use remove::{Ended, Removed};
pub use second_factor::{SecondFactor, TriesBucket, UsedCode};
pub use session::NewSession;
pub use settle::{Outcome, Settled};
pub use statistics::{AccountSum, Figures, PerCluster, PinSum};
pub use store::Store;
pub use token::{Kept, NewToken, Proven};
pub use webhook::{HookChange, NewHook};
pub use wish::{Wish, Wished};
