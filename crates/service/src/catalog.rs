//! The catalog: the plans and the descriptions of clusters that are in force.
//!
//! Saved plans and descriptions override the configured ones. The catalog is one value that is replaced as a whole, so that a
//! request reads it from memory and never sees half of a change. A change in this process replaces it at once; changes by
//! another process, such as a command, are read every few seconds.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use pinfold_model::{Account, Plan, PlanCode, Plans};
use pinfold_store::{PlanGrant, SavedClusterInfo, Store};

use crate::Error;
use crate::clusters::cluster_set::{ClusterInfo, ClusterSet, GatewayInfo};
use crate::error::log_store_error;
use crate::tasks::Tasks;

/// Wait between two looks at the saved rows.
const INTERVAL: Duration = Duration::from_secs(5);

/// The plans and cluster descriptions in force.
pub(crate) struct Catalog {
    store: Store,
    clusters: ClusterSet,
    configured_plans: Plans,
    current: RwLock<Arc<Offer>>,
    /// Locked from reading the rows until the value is replaced, so that an older state never replaces a newer one.
    reload: tokio::sync::Mutex<()>,
}

/// One state of the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Offer {
    plans: Arc<Plans>,
    clusters: Arc<Vec<ClusterInfo>>,
}

impl Catalog {
    /// Reads the saved plans and descriptions.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`] if the store fails.
    pub(crate) async fn load(
        store: Store,
        clusters: ClusterSet,
        configured_plans: Plans,
    ) -> Result<Self, Error> {
        let infos = clusters.iter().map(|setup| setup.info.clone()).collect();
        let offer = Offer { plans: Arc::new(configured_plans.clone()), clusters: Arc::new(infos) };
        let current = RwLock::new(Arc::new(offer));
        let catalog =
            Self { store, clusters, configured_plans, current, reload: tokio::sync::Mutex::default() };
        catalog.reload().await?;
        Ok(catalog)
    }

    fn current(&self) -> Arc<Offer> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The plans in force.
    pub(crate) fn plans(&self) -> Arc<Plans> {
        Arc::clone(&self.current().plans)
    }

    /// The configured plan with this code, whether or not a saved one overrides it.
    pub(crate) fn configured_plan(&self, code: &PlanCode) -> Option<&Arc<Plan>> {
        self.configured_plans.find(code)
    }

    /// The descriptions of the clusters in force.
    pub(crate) fn cluster_infos(&self) -> Arc<Vec<ClusterInfo>> {
        Arc::clone(&self.current().clusters)
    }

    /// The plan of an account, if it exists.
    pub(crate) async fn plan_of(&self, account: &Account) -> Result<Option<Arc<Plan>>, Error> {
        self.plan(&account.plan).await
    }

    /// The plan with this code, if it exists. Another process may have saved it a moment ago.
    pub(crate) async fn plan(&self, code: &PlanCode) -> Result<Option<Arc<Plan>>, Error> {
        if let Some(plan) = self.plans().find(code) {
            return Ok(Some(Arc::clone(plan)));
        }
        self.reload().await?;
        Ok(self.plans().find(code).map(Arc::clone))
    }

    /// As [`plan`](Self::plan), for a code in a request.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] if the plan does not exist.
    pub(crate) async fn requested_plan(&self, code: &PlanCode) -> Result<Arc<Plan>, Error> {
        let plan = self.plan(code).await?;
        plan.ok_or_else(|| Error::InvalidRequest(format!("Unknown plan: {code}")))
    }

    /// The grant of a plan to an account.
    pub(crate) fn grant(&self, plan: &Plan, must_fit: bool) -> PlanGrant {
        let configured_bytes = self.configured_plan(&plan.code).map(|plan| plan.limits.storage_bytes);
        PlanGrant { code: plan.code.clone(), configured_bytes, must_fit }
    }

    /// Reads the saved rows, and replaces the catalog if they changed. Returns the plans whose storage changed.
    pub(crate) async fn reload(&self) -> Result<Vec<Arc<Plan>>, Error> {
        let _turn = self.reload.lock().await;
        let plans = self.store.saved_plans().await.map_err(log_store_error)?;
        let saved = self.store.saved_cluster_infos().await.map_err(log_store_error)?;
        let infos = self.clusters.iter().map(|setup| effective_info(&setup.info, &saved));
        let offer = Offer {
            plans: Arc::new(self.configured_plans.overridden_by(plans)),
            clusters: Arc::new(infos.collect()),
        };
        let before = self.current();
        if *before == offer {
            return Ok(Vec::new());
        }
        let storage = |plans: &Plans, code: &PlanCode| plans.find(code).map(|plan| plan.limits.storage_bytes);
        let is_changed =
            |plan: &&Arc<Plan>| storage(&before.plans, &plan.code) != Some(plan.limits.storage_bytes);
        let changed = offer.plans.iter().filter(is_changed).map(Arc::clone).collect();
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(offer);
        Ok(changed)
    }

    /// Applies a plan's storage to its accounts, in bounded steps.
    pub(crate) async fn apply_plan(&self, plan: &Plan) -> Result<(), Error> {
        let mut last = None;
        loop {
            let bytes = plan.limits.storage_bytes;
            last = self.store.apply_plan_storage(&plan.code, bytes, last).await.map_err(log_store_error)?;
            if last.is_none() {
                return Ok(());
            }
        }
    }

    /// Reads the saved rows, and applies changed plans to their accounts.
    pub(crate) async fn refresh(&self) -> Result<(), Error> {
        for plan in self.reload().await? {
            self.apply_plan(&plan).await?;
        }
        Ok(())
    }

    /// Reads changes by other processes until the service stops.
    pub(crate) async fn run(&self, tasks: &Tasks) {
        while tasks.sleep(INTERVAL).await {
            if let Err(error) = self.refresh().await {
                tracing::warn!(%error, "failed to reload plans and cluster descriptions");
            }
        }
    }
}

/// The saved description of a cluster, or else the configured one.
fn effective_info(configured: &ClusterInfo, saved: &[SavedClusterInfo]) -> ClusterInfo {
    let Some(saved) = saved.iter().find(|saved| saved.cluster == configured.id) else {
        return configured.clone();
    };
    let gateway = |(url, label): &(String, String)| GatewayInfo { url: url.clone(), label: label.clone() };
    ClusterInfo {
        id: configured.id.clone(),
        label: saved.label.clone(),
        region: saved.region.clone(),
        country: saved.country.clone(),
        gateways: saved.gateways.iter().map(gateway).collect(),
    }
}
