//! What is on offer at this moment: the plans, and what is shown of the clusters.
//!
//! What an operator saved lies over what is configured. All of it is one value that is swapped as a whole, so that a
//! request reads it without asking the database, and never sees half of a change.

use std::sync::{Arc, PoisonError, RwLock};

use pinfold_model::{Account, Plan, Plans};

use crate::core::Core;
use crate::{ClusterInfo, ClusterSetup};

/// The value that is swapped.
pub(crate) struct Catalog(RwLock<Arc<Offer>>);

/// What is on offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) plans: Arc<Plans>,
    pub(crate) clusters: Arc<Vec<ClusterInfo>>,
}

impl Catalog {
    /// What is configured.
    pub(crate) fn new(plans: &Plans, clusters: &[ClusterSetup]) -> Self {
        let clusters = clusters.iter().map(|setup| setup.info.clone()).collect();
        Self(RwLock::new(Arc::new(Offer { plans: Arc::new(plans.clone()), clusters: Arc::new(clusters) })))
    }

    /// What is on offer now.
    pub(crate) fn now(&self) -> Arc<Offer> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Core {
    /// The plans on offer now.
    pub(crate) fn plans(&self) -> Arc<Plans> {
        Arc::clone(&self.catalog.now().plans)
    }

    /// The plan of an account, if there is such a plan.
    pub(crate) fn plan_of(&self, account: &Account) -> Option<Arc<Plan>> {
        self.plans().find(&account.plan).map(Arc::clone)
    }
}
