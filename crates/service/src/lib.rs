//! The use cases, free of transport: accounts, keys, pins, uploads, clusters, and the reconciler that works
//! in the background.
//!
//! Whoever serves an API turns a request into one call here and the answer, or the [`Error`], into its own
//! words. This crate knows no status codes, headers or JSON, and no SQL.

mod accounts;
mod admin;
mod background;
mod caller;
mod catalog;
mod clusters;
mod core;
mod entries;
mod error;
mod folder;
mod guard;
mod idempotency;
mod logins;
mod logs;
mod mend;
mod password;
mod pins;
mod profile;
mod reconcile;
mod referrals;
mod removal;
mod second_factor;
mod secret;
mod service;
mod sharing;
mod signals;
mod subscriptions;
mod sweep;
mod tokens;
mod uploads;
mod view;
mod watch;
mod webhooks;

pub use accounts::{ADMIN_EMAIL, Accounts, FirstAdmin, NewAccount};
pub use admin::{
    AccountEdit, AccountPage, AccountQuery, AccountView, Admin, ClusterEdit, ClusterStatistics, ClusterView,
    GatewayEdit, Leaving, OwnedPin, OwnedPinPage, OwnedPinQuery, PinCounts, PinOwners, PlanAccounts,
    PlanSource, PlanView, Statistics,
};
pub use background::{Background, PlacementWorker};
pub use caller::{AuthError, Caller, Credential, Source, Via};
pub use clusters::{ClusterHealth, ClusterInfo, ClusterSetup, Clusters, GatewayInfo, Health, PeerInfo};
pub use entries::{EntriesPage, EntriesQuery};
pub use error::{Error, IdempotencyError, LoginError};
pub use idempotency::{Begun, Idempotency, RequestFingerprint, Running};
pub use logins::{LoggedIn, Login, Logins, NewSignup, SessionToken};
pub use logs::{LogPage, LogQuery, Logs};
pub use mend::{DamagedPin, DamagedPins};
pub use password::{Password, PasswordError};
pub use pinfold_cluster::{Cut, EntryKind, Position, Reach, Survey, Usage, WalkEntry};
pub use pinfold_outbound::TargetPolicy;
pub use pinfold_store::{
    AdminPinsCursor, AuditEntry, AuditEvent, DeliveredPin, Delivery, Preference, Referral, StoredResponse,
};
pub use pins::{BATCH_ITEMS_MAX, BatchError, DryRun, ItemFault, Pins, QuotaEffect, RemovedPin};
pub use profile::PREFERENCES_LEN_MAX;
pub use referrals::{ReferralPage, Referrals};
pub use second_factor::SecondFactorSetup;
pub use secret::{ApiKey, KEY_PREFIX};
pub use service::{Offline, Service, Settings};
pub use subscriptions::{PlanChange, Subscriptions};
pub use tokens::{CreatedToken, NewToken, Tokens};
pub use uploads::{
    DirectoryDraft, KeptRoots, LooseFile, Received, ReceivedCar, ReceivedEntry, UploadReceipt, Uploads,
};
pub use view::{
    Cursor, ListQuery, PinPage, PinProgress, PinReceipt, PinRequest, PinStatus, PinView, UploadRequest, Wait,
};
pub use watch::{EventId, EventIdError, EventKind, PinEvent, PinWatch};
pub use webhooks::{CreatedWebhook, DeliveryPage, WebhookDraft, WebhookEdit, Webhooks};
