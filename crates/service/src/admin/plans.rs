//! Plans: listed, saved over what is configured, deleted.

use std::collections::HashMap;
use std::sync::Arc;

use pinfold_model::{Actor, Plan, PlanCode};
use pinfold_store::{DeletePlanOutcome, SavePlanOutcome};

use super::Admin;
use crate::Error;
use crate::core::{Core, unavailable};

/// Where a plan comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanSource {
    /// The configuration.
    Configured,
    /// An operator saved it.
    Saved,
    /// An operator saved it over the configured one.
    Overridden,
}

/// A plan, as an operator sees it.
#[derive(Debug, Clone)]
pub struct PlanView {
    /// The plan.
    pub plan: Arc<Plan>,
    /// Where it comes from.
    pub source: PlanSource,
    /// How many accounts have it.
    pub accounts: u64,
}

impl Admin {
    /// All plans.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn plans(&self) -> Result<Vec<PlanView>, Error> {
        let store = &self.core.store;
        let saved = store.saved_plans().await.map_err(unavailable)?;
        let mut accounts: HashMap<PlanCode, u64> = HashMap::new();
        for sum in store.account_sums().await.map_err(unavailable)? {
            *accounts.entry(sum.plan).or_default() += sum.accounts;
        }
        let view = |plan: &Arc<Plan>| {
            let is_saved = saved.iter().any(|saved| saved.code == plan.code);
            let is_configured = self.core.settings.plans.find(&plan.code).is_some();
            let source = match (is_saved, is_configured) {
                (false, _) => PlanSource::Configured,
                (true, false) => PlanSource::Saved,
                (true, true) => PlanSource::Overridden,
            };
            let accounts = accounts.get(&plan.code).copied().unwrap_or(0);
            PlanView { plan: Arc::clone(plan), source, accounts }
        };
        Ok(self.core.plans().iter().map(view).collect())
    }

    /// Saves a plan. It counts at once, for the next request of every account that has it; the storage of accounts
    /// follows before this returns.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] names what is wrong with it.
    pub async fn save_plan(&self, by: Actor, plan: Plan) -> Result<PlanView, Error> {
        check(&self.core, &plan)?;
        let (code, now) = (plan.code.clone(), self.core.clock.now());
        match self.core.store.save_plan(plan, by, now).await.map_err(unavailable)? {
            SavePlanOutcome::Done => {}
            SavePlanOutcome::TooMany => {
                return Err(Error::InvalidRequest("Too many plans are saved; delete some".to_owned()));
            }
        }
        self.refreshed(Some(code.clone())).await?;
        let plans = self.plans().await?;
        plans.into_iter().find(|view| view.plan.code == code).ok_or(Error::PlanNotFound)
    }

    /// Deletes a saved plan. If there is a configured one of its code, that comes back.
    ///
    /// # Errors
    /// [`Error::PlanNotFound`] (also when it is only configured), [`Error::PlanInUse`].
    pub async fn delete_plan(&self, by: Actor, code: &PlanCode) -> Result<(), Error> {
        let is_configured = self.core.settings.plans.find(code).is_some();
        let now = self.core.clock.now();
        let deleted = self.core.store.delete_plan(code.clone(), is_configured, by, now);
        match deleted.await.map_err(unavailable)? {
            DeletePlanOutcome::Done => self.refreshed(Some(code.clone())).await,
            DeletePlanOutcome::NotFound => Err(Error::PlanNotFound),
            DeletePlanOutcome::InUse => Err(Error::PlanInUse),
        }
    }

    /// Swaps what is on offer and has accounts follow, also when nobody waits for it any more.
    pub(super) async fn refreshed(&self, code: Option<PlanCode>) -> Result<(), Error> {
        let core = Arc::clone(&self.core);
        let done = self.core.tasks.spawn(async move {
            core.refresh_offer().await?;
            // Somebody else may have swapped it first, and not be done with the accounts.
            match code.and_then(|code| core.plans().find(&code).map(Arc::clone)) {
                Some(plan) => core.follow_plan(&plan).await,
                None => Ok(()),
            }
        });
        done.await.map_err(|_| Error::Internal)?
    }
}

fn check(core: &Core, plan: &Plan) -> Result<(), Error> {
    let refuse = |text: String| Err(Error::InvalidRequest(text));
    if let Err(error) = plan.check() {
        return refuse(error.to_string());
    }
    // A command beside the server knows no clusters.
    let is_known = |id| core.clusters.is_empty() || core.cluster(id).is_some();
    match plan.limits.clusters.as_ref().and_then(|ids| ids.iter().find(|id| !is_known(*id))) {
        Some(id) => refuse(format!("Unknown cluster: {id}")),
        None => Ok(()),
    }
}
