//! The plan of an account, and changing it.

use std::sync::Arc;

use pinfold_model::{Account, Clock, Plan, PlanCode};
use pinfold_store::{AccountChanges, Store, UpdateAccountOutcome};

use crate::catalog::Catalog;
use crate::error::log_store_error;
use crate::{Caller, Error};

/// The plans that accounts may select for themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanChange {
    /// Plans that are marked as self-service.
    SelfService,
    /// All plans.
    Any,
    /// None: only the operator changes plans.
    Operator,
}

/// The plans of accounts. Cheap to clone.
#[derive(Clone)]
pub struct Subscriptions {
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) plan_change: PlanChange,
}

impl Subscriptions {
    /// Lists the plans, that of new accounts first.
    #[must_use]
    pub fn plans(&self) -> Vec<Arc<Plan>> {
        self.catalog.plans().iter().map(Arc::clone).collect()
    }

    /// Reads the caller's account and its plan.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn of(&self, caller: &Caller) -> Result<(Account, Arc<Plan>), Error> {
        let account = self.store.account(caller.account.id).await.map_err(log_store_error)?;
        let account = account.ok_or(Error::AccountNotFound)?;
        let plan = self.catalog.plan_of(&account).await?.unwrap_or_else(|| Arc::clone(&caller.plan));
        Ok((account, plan))
    }

    /// Changes the plan of the caller's account. Existing pins are unchanged: they keep a timelock even if the new plan does not
    /// allow it.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] (unknown plan), [`Error::PlanChangeNotAllowed`], [`Error::PlanTooSmall`].
    pub async fn change(&self, caller: &Caller, code: &PlanCode) -> Result<(Account, Arc<Plan>), Error> {
        let plan = self.catalog.requested_plan(code).await?;
        let is_allowed = match self.plan_change {
            PlanChange::SelfService => plan.self_service,
            PlanChange::Any => true,
            PlanChange::Operator => false,
        };
        // Selecting the present plan is not a change.
        if !is_allowed && caller.account.plan != *code {
            return Err(Error::PlanChangeNotAllowed);
        }
        let grant = self.catalog.grant(&plan, true);
        let changes = AccountChanges { plan: Some(grant), ..AccountChanges::default() };
        let (id, now) = (caller.account.id, self.clock.now());
        let done =
            self.store.update_account(id, changes, caller.actor(), now).await.map_err(log_store_error)?;
        Ok((updated_account(done)?, plan))
    }
}

/// The account after an update.
///
/// # Errors
/// Why it was not updated.
pub(crate) fn updated_account(outcome: UpdateAccountOutcome) -> Result<Account, Error> {
    match outcome {
        UpdateAccountOutcome::Done(account) => Ok(*account),
        UpdateAccountOutcome::NotFound => Err(Error::AccountNotFound),
        UpdateAccountOutcome::Removing => Err(Error::AccountLeaving),
        UpdateAccountOutcome::LastAdmin => Err(Error::LastAdmin),
        UpdateAccountOutcome::UnknownPlan => {
            Err(Error::InvalidRequest("The plan does not exist any more".to_owned()))
        }
        UpdateAccountOutcome::DoesNotFit { used_bytes, limit_bytes } => {
            Err(Error::PlanTooSmall { used_bytes, limit_bytes })
        }
    }
}
