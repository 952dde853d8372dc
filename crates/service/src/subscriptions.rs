//! Which plan an account has, and how it gets another one.

use std::sync::Arc;

use pinfold_model::{Account, Plan, PlanCode};
use pinfold_store::{AccountChanges, PlanGrant, UpdateAccountOutcome};

use crate::core::{Core, unavailable};
use crate::{Caller, Error};

/// To which plans accounts may change by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanChange {
    /// To those that are marked so.
    SelfService,
    /// To any.
    Any,
    /// To none: the operator changes plans.
    Operator,
}

/// The plans of accounts. Cheap to clone.
#[derive(Clone)]
pub struct Subscriptions {
    pub(crate) core: Arc<Core>,
}

impl Subscriptions {
    /// The plans on offer, that of new accounts first.
    #[must_use]
    pub fn plans(&self) -> Vec<Arc<Plan>> {
        self.core.plans().iter().map(Arc::clone).collect()
    }

    /// The caller's account as it is now, and its plan.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn of(&self, caller: &Caller) -> Result<(Account, Arc<Plan>), Error> {
        let account = self.core.store.account(caller.account.id).await.map_err(unavailable)?;
        let account = account.ok_or(Error::AccountNotFound)?;
        let plan = self.core.plan_of(&account).await?.unwrap_or_else(|| Arc::clone(&caller.plan));
        Ok((account, plan))
    }

    /// Gives the caller's account another plan. Pins keep what they have: a timelock also when the new plan allows
    /// none.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] (no such plan), [`Error::PlanChangeNotAllowed`], [`Error::PlanTooSmall`].
    pub async fn change(&self, caller: &Caller, code: &PlanCode) -> Result<(Account, Arc<Plan>), Error> {
        let core = &self.core;
        let plan = core.plan(code).await?;
        let plan = plan.ok_or_else(|| Error::InvalidRequest(format!("Unknown plan: {code}")))?;
        let allowed = match core.settings.plan_change {
            PlanChange::SelfService => plan.self_service,
            PlanChange::Any => true,
            PlanChange::Operator => false,
        };
        // To ask for what one has is no change.
        if !allowed && caller.account.plan != *code {
            return Err(Error::PlanChangeNotAllowed);
        }
        let grant = core.grant(&plan, true);
        let changes = AccountChanges { plan: Some(grant), ..AccountChanges::default() };
        let (id, now) = (caller.account.id, core.clock.now());
        let done = core.store.update_account(id, changes, caller.by(), now).await.map_err(unavailable)?;
        Ok((changed(done)?, plan))
    }
}

impl Core {
    /// A plan to be given.
    pub(crate) fn grant(&self, plan: &Plan, must_fit: bool) -> PlanGrant {
        let configured = self.settings.plans.find(&plan.code);
        let configured_bytes = configured.map(|plan| plan.limits.storage_bytes);
        PlanGrant { code: plan.code.clone(), configured_bytes, must_fit }
    }
}

/// What came of the change of an account.
pub(crate) fn changed(changed: UpdateAccountOutcome) -> Result<Account, Error> {
    match changed {
        UpdateAccountOutcome::Done(account) => Ok(*account),
        UpdateAccountOutcome::NotFound => Err(Error::AccountNotFound),
        UpdateAccountOutcome::Removing => Err(Error::AccountLeaving),
        UpdateAccountOutcome::LastAdmin => Err(Error::LastAdmin),
        UpdateAccountOutcome::UnknownPlan => {
            Err(Error::InvalidRequest("There is no such plan any more".to_owned()))
        }
        UpdateAccountOutcome::DoesNotFit { used_bytes, limit_bytes } => {
            Err(Error::PlanTooSmall { used_bytes, limit_bytes })
        }
    }
}
