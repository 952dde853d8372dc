//! What operators do: with accounts, plans, clusters and everybody's pins.
//!
//! Whoever calls these has proven to be an operator ([`Caller::is_admin`], or the command line). Every act says who it
//! was, and stands in the audit log of the account that it touches, or in the operator's own if it touches none.

mod accounts;
mod clusters;
mod pins;
mod plans;
mod statistics;

use std::sync::Arc;

use crate::core::Core;

pub use accounts::{AccountEdit, AccountPage, AccountQuery, AccountView, Leaving};
pub use clusters::{ClusterEdit, ClusterView, GatewayEdit};
pub use pins::{OwnedPin, OwnedPinPage, OwnedPinQuery, PinOwners};
pub use plans::{PlanSource, PlanView};
pub use statistics::{ClusterStatistics, PinCounts, PlanAccounts, Statistics};

/// What operators do. Cheap to clone.
#[derive(Clone)]
pub struct Admin {
    pub(crate) core: Arc<Core>,
}
