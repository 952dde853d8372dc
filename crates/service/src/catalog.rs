//! What is on offer at this moment: the plans, and what is shown of the clusters.
//!
//! What an operator saved lies over what is configured. All of it is one value that is swapped as a whole, so that a
//! request reads it without asking the database, and never sees half of a change. Who changes it here swaps it at
//! once; what another process changed, such as a command beside the server, is looked for every few seconds.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use pinfold_model::{Account, Plan, PlanCode, Plans};
use pinfold_store::SavedClusterInfo;

use crate::core::{Core, unavailable};
use crate::{ClusterInfo, ClusterSetup, Error, GatewayInfo};

/// The rest between two looks at what is saved.
const PAUSE: Duration = Duration::from_secs(5);

/// The value that is swapped.
pub(crate) struct Catalog {
    now: RwLock<Arc<Offer>>,
    /// Whoever reads anew holds this until it has swapped: an older state never comes after a newer one.
    turn: tokio::sync::Mutex<()>,
}

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
        let offer = Offer { plans: Arc::new(plans.clone()), clusters: Arc::new(clusters) };
        Self { now: RwLock::new(Arc::new(offer)), turn: tokio::sync::Mutex::default() }
    }

    /// What is on offer now.
    pub(crate) fn now(&self) -> Arc<Offer> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn swap(&self, offer: Offer) {
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(offer);
    }
}

impl Core {
    /// The plans on offer now.
    pub(crate) fn plans(&self) -> Arc<Plans> {
        Arc::clone(&self.catalog.now().plans)
    }

    /// What is shown of the clusters now.
    pub(crate) fn cluster_infos(&self) -> Arc<Vec<ClusterInfo>> {
        Arc::clone(&self.catalog.now().clusters)
    }

    /// The plan of an account, if there is such a plan.
    pub(crate) async fn plan_of(&self, account: &Account) -> Result<Option<Arc<Plan>>, Error> {
        self.plan(&account.plan).await
    }

    /// The plan of this code, if there is one; it may have been saved by another process a moment ago.
    pub(crate) async fn plan(&self, code: &PlanCode) -> Result<Option<Arc<Plan>>, Error> {
        if let Some(plan) = self.plans().find(code) {
            return Ok(Some(Arc::clone(plan)));
        }
        self.reload_offer().await?;
        Ok(self.plans().find(code).map(Arc::clone))
    }

    /// Reads what is saved, and swaps what is on offer if that is different. Gives the plans whose storage is another
    /// one than before.
    pub(crate) async fn reload_offer(&self) -> Result<Vec<Arc<Plan>>, Error> {
        let _turn = self.catalog.turn.lock().await;
        let plans = self.store.saved_plans().await.map_err(unavailable)?;
        let saved = self.store.saved_cluster_infos().await.map_err(unavailable)?;
        let infos = self.clusters.iter().map(|setup| shown(&setup.info, &saved));
        let offer = Offer {
            plans: Arc::new(self.settings.plans.overridden_by(plans)),
            clusters: Arc::new(infos.collect()),
        };
        let before = self.catalog.now();
        if *before == offer {
            return Ok(Vec::new());
        }
        let storage = |plans: &Plans, code: &PlanCode| plans.find(code).map(|plan| plan.limits.storage_bytes);
        let is_other =
            |plan: &&Arc<Plan>| storage(&before.plans, &plan.code) != Some(plan.limits.storage_bytes);
        let changed = offer.plans.iter().filter(is_other).map(Arc::clone).collect();
        self.catalog.swap(offer);
        Ok(changed)
    }

    /// Gives the accounts of a plan the plan's storage, in bounded steps.
    pub(crate) async fn follow_plan(&self, plan: &Plan) -> Result<(), Error> {
        let mut last = None;
        loop {
            let bytes = plan.limits.storage_bytes;
            last = self.store.apply_plan_storage(&plan.code, bytes, last).await.map_err(unavailable)?;
            if last.is_none() {
                return Ok(());
            }
        }
    }

    /// Reads what is saved, and has accounts follow.
    pub(crate) async fn refresh_offer(&self) -> Result<(), Error> {
        for plan in self.reload_offer().await? {
            self.follow_plan(&plan).await?;
        }
        Ok(())
    }
}

/// Looks for changes of other processes until the service stops.
pub(crate) async fn run(core: &Core) {
    while core.stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_some() {
        if let Err(error) = core.refresh_offer().await {
            tracing::warn!(%error, "looking for changed plans");
        }
    }
}

/// What is shown of a cluster: what is saved, or else what is configured.
fn shown(configured: &ClusterInfo, saved: &[SavedClusterInfo]) -> ClusterInfo {
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
