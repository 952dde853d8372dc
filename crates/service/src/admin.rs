//! Administration of accounts, plans, clusters and all pins.
//!
//! The caller must have been authorized before ([`Caller::is_admin`](crate::Caller::is_admin), or the command line). Every
//! operation names its actor, and is recorded in the audit log of the account that it affects, or in the actor's own log.

mod accounts;
mod clusters;
mod pins;
mod plans;
mod statistics;

use std::sync::Arc;

use pinfold_model::Clock;
use pinfold_store::Store;
use tokio::sync::Notify;

use crate::Clusters;
use crate::auth::Auth;
use crate::catalog::Catalog;
use crate::placements::Placements;

pub use accounts::{AccountEdit, AccountPage, AccountQuery, AccountView, RemoveAccountOutcome};
pub use clusters::{ClusterEdit, ClusterView, GatewayEdit};
pub use pins::{OwnedPin, OwnedPinPage, OwnedPinQuery, PinOwners};
pub use plans::{PlanSource, PlanView};
pub use statistics::{ClusterStatistics, PinCounts, PlanAccounts, Statistics};

/// Administration. Cheap to clone.
#[derive(Clone)]
pub struct Admin {
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) auth: Arc<Auth>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) clusters: Clusters,
    pub(crate) placements: Arc<Placements>,
    pub(crate) accounts_to_remove: Arc<Notify>,
}
