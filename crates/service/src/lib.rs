//! The operations of Pinfold, free of transport: accounts, API keys, pins, uploads, clusters, webhooks, and the background
//! work.
//!
//! A surface (such as the HTTP API) turns a request into one call of this crate, and the result or the [`Error`] into its
//! reply. This crate knows no transport's status codes, headers or JSON, and no SQL.

mod accounts;
mod admin;
mod audit_log;
mod auth;
mod background;
mod catalog;
mod clusters;
mod content;
mod error;
mod idempotency;
mod lock;
mod pins;
mod placements;
mod schedule;
mod service;
mod settings;
mod tasks;
mod uploads;
mod webhooks;

pub use accounts::referrals::{ReferralPage, Referrals};
pub use accounts::subscriptions::{PlanChange, Subscriptions};
pub use accounts::{
    ADMIN_EMAIL, Accounts, FirstAdmin, NewAccount, NewSignup, PREFERENCES_LEN_MAX, SecondFactorSetup,
};
pub use admin::{
    AccountEdit, AccountPage, AccountQuery, AccountView, Admin, ClusterEdit, ClusterStatistics, ClusterView,
    GatewayEdit, OwnedPin, OwnedPinPage, OwnedPinQuery, PinCounts, PinOwners, PlanAccounts, PlanSource,
    PlanView, RemoveAccountOutcome, Statistics,
};
pub use audit_log::{AuditLog, LogPage, LogQuery};
pub use auth::api_key::{ApiKey, KEY_PREFIX};
pub use auth::caller::{AuthError, Caller, Credential, Via};
pub use auth::logins::{LoggedIn, Login, Logins, SessionToken};
pub use auth::password::{Password, PasswordError};
pub use auth::tokens::{CreatedToken, NewToken, Tokens};
pub use background::repair::{DamagedPin, DamagedPins};
pub use background::runner::{Background, Workers};
pub use clusters::cluster_set::{ClusterInfo, ClusterSetup, GatewayInfo};
pub use clusters::{ClusterHealth, Clusters, Health, PeerInfo};
pub use content::{Content, EntriesPage, EntriesQuery};
pub use error::{Error, IdempotencyError, LoginError};
pub use idempotency::{Begun, Idempotency, RequestFingerprint, Running};
pub use pinfold_cluster::{Cut, EntryKind, Position, Reach, Survey, Usage, WalkEntry};
pub use pinfold_model::Source;
pub use pinfold_outbound::TargetPolicy;
pub use pins::pin_events::{EventId, EventIdError, EventKind, PinEvent, PinEventStream};
pub use pins::types::{
    Cursor, ListQuery, PinPage, PinProgress, PinReceipt, PinRequest, PinStatus, PinView, UploadRequest, Wait,
};
pub use pins::{BATCH_ITEMS_MAX, BatchError, DryRun, ItemFault, PendingPin, Pins, QuotaEffect, RemovedPin};
pub use service::{Offline, Service};
pub use settings::Settings;
pub use uploads::{
    DirectoryDraft, KeptRoots, LooseFile, Received, ReceivedCar, ReceivedEntry, UploadReceipt, Uploads,
};
pub use webhooks::{CreatedWebhook, DeliveryPage, WebhookDraft, WebhookEdit, Webhooks};
