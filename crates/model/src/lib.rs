//! Domain types and rules: accounts, plans, scopes, pins, placements, names and times.
//!
//! Text is parsed once, at the edge; afterwards the type guarantees that the value is valid, and no other code checks it
//! again. The messages of the errors are shown to users. The crate does no I/O and must not depend on HTTP or SQL.

mod account;
mod admin_pins;
mod audit;
mod backoff;
mod cid_text;
mod clock;
mod cluster;
mod id;
mod idempotency;
mod ip_rules;
mod lifetime;
mod name;
mod pin;
mod pin_options;
mod placement;
mod plan;
mod scope;
mod time;
mod token;
mod webhook;

pub use account::{Account, Email, EmailError, Preference, Referral, Role, RoleError};
pub use admin_pins::{AdminPinsCursor, AdminPinsCursorError};
pub use audit::{Actor, AuditCursor, AuditCursorError, AuditEntry, AuditEvent, AuditStatus, Details, Source};
pub use backoff::Backoff;
pub use cid_text::{CID_TEXT_LEN_MAX, CidError, parse_cid};
pub use clock::{Clock, ManualClock, SystemClock};
pub use cluster::{ClusterId, ClusterIdError};
pub use id::{
    AccountId, AuditId, DeliveryId, IdError, IdSource, PinId, PlacementId, SessionId, TokenId, WebhookId,
};
pub use idempotency::{IdempotencyKey, IdempotencyKeyError, StoredResponse};
pub use ip_rules::{IpRules, IpRulesError};
pub use lifetime::{Lifetime, LifetimeError, Retention, RetentionError};
pub use name::{NameError, PinName};
pub use pin::{Failure, FailureCode, PinKind, PinPhase, PinState, UnknownValue};
pub use pin_options::{Origin, OriginError, PinOptions};
pub use placement::{Event, PlacementState};
pub use plan::{Plan, PlanCode, PlanCodeError, PlanError, PlanLimits, Plans};
pub use scope::{Scope, ScopeError, ScopeSet};
pub use time::{Timelock, TimelockError, Timestamp, TimestampError};
pub use token::{Token, TokenLife, TokenLifeError, TokenName, TokenNameError};
pub use webhook::{
    DeliveredPin, Delivery, DeliveryState, Webhook, WebhookEvent, WebhookEvents, WebhookSecret,
};
