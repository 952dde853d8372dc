//! Plans: listing, saving, deleting. Saved plans override the configured ones.

use std::collections::HashMap;
use std::sync::Arc;

use pinfold_model::{Actor, Plan, PlanCode};
use pinfold_store::{DeletePlanOutcome, SavePlanOutcome};

use super::Admin;
use crate::Error;
use crate::error::log_store_error;

/// The source of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanSource {
    /// The configuration file.
    Configured,
    /// Saved by an administrator.
    Saved,
    /// Saved by an administrator, overriding a configured plan.
    Overridden,
}

/// A plan, as administrators see it.
#[derive(Debug, Clone)]
pub struct PlanView {
    pub plan: Arc<Plan>,
    pub source: PlanSource,
    /// Number of accounts with the plan.
    pub accounts: u64,
}

impl Admin {
    /// Lists all plans.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn plans(&self) -> Result<Vec<PlanView>, Error> {
        let store = &self.store;
        let saved = store.saved_plans().await.map_err(log_store_error)?;
        let mut accounts: HashMap<PlanCode, u64> = HashMap::new();
        for sum in store.account_sums().await.map_err(log_store_error)? {
            *accounts.entry(sum.plan).or_default() += sum.accounts;
        }
        let view = |plan: &Arc<Plan>| {
            let is_saved = saved.iter().any(|saved| saved.code == plan.code);
            let is_configured = self.catalog.configured_plan(&plan.code).is_some();
            let source = match (is_saved, is_configured) {
                (false, _) => PlanSource::Configured,
                (true, false) => PlanSource::Saved,
                (true, true) => PlanSource::Overridden,
            };
            let accounts = accounts.get(&plan.code).copied().unwrap_or(0);
            PlanView { plan: Arc::clone(plan), source, accounts }
        };
        Ok(self.catalog.plans().iter().map(view).collect())
    }

    /// Saves a plan. It applies to the next request of every account that has it; the storage limits of the accounts are updated
    /// before this returns.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] names the invalid field.
    pub async fn save_plan(&self, actor: Actor, plan: Plan) -> Result<PlanView, Error> {
        self.check_plan(&plan)?;
        let (code, now) = (plan.code.clone(), self.clock.now());
        match self.store.save_plan(plan, actor, now).await.map_err(log_store_error)? {
            SavePlanOutcome::Done => {}
            SavePlanOutcome::TooMany => {
                return Err(Error::InvalidRequest("Too many plans are saved; delete some first".to_owned()));
            }
        }
        self.refresh_catalog(Some(code.clone())).await?;
        let plans = self.plans().await?;
        plans.into_iter().find(|view| view.plan.code == code).ok_or(Error::PlanNotFound)
    }

    /// Deletes a saved plan. If it overrides a configured plan, that one applies again.
    ///
    /// # Errors
    /// [`Error::PlanNotFound`] (also if the plan is only configured), [`Error::PlanInUse`].
    pub async fn delete_plan(&self, actor: Actor, code: &PlanCode) -> Result<(), Error> {
        let is_configured = self.catalog.configured_plan(code).is_some();
        let now = self.clock.now();
        let deleted = self.store.delete_plan(code.clone(), is_configured, actor, now);
        match deleted.await.map_err(log_store_error)? {
            DeletePlanOutcome::Done => self.refresh_catalog(Some(code.clone())).await,
            DeletePlanOutcome::NotFound => Err(Error::PlanNotFound),
            DeletePlanOutcome::InUse => Err(Error::PlanInUse),
        }
    }

    /// Reloads the catalog and updates accounts. Runs to its end even if the request goes away.
    pub(super) async fn refresh_catalog(&self, code: Option<PlanCode>) -> Result<(), Error> {
        let catalog = Arc::clone(&self.catalog);
        let refreshed = async move {
            catalog.refresh().await?;
            // Another task may have reloaded the catalog first, and may not be done with the accounts.
            match code.and_then(|code| catalog.plans().find(&code).map(Arc::clone)) {
                Some(plan) => catalog.apply_plan(&plan).await,
                None => Ok(()),
            }
        };
        self.placements.tasks.run_to_end(refreshed).await?
    }

    fn check_plan(&self, plan: &Plan) -> Result<(), Error> {
        let refuse = |text: String| Err(Error::InvalidRequest(text));
        if let Err(error) = plan.check() {
            return refuse(error.to_string());
        }
        // A command that runs without the server knows no clusters.
        let clusters = &self.placements.clusters;
        let is_known = |id| clusters.is_empty() || clusters.get(id).is_some();
        match plan.limits.clusters.as_ref().and_then(|ids| ids.iter().find(|id| !is_known(*id))) {
            Some(id) => refuse(format!("Unknown cluster: {id}")),
            None => Ok(()),
        }
    }
}
