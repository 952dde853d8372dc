//! What would come of a wish, without writing it.

use std::time::Duration;

use cid::Cid;
use pinfold_cluster::{ClusterError, Reach, Survey, SurveyOptions};
use pinfold_model::{ClusterId, PinPhase};
use pinfold_store::{PinRecord, PlacementRecord};
use tokio::time::Instant;

use super::Pins;
use crate::core::{UNREACHABLE, unavailable};
use crate::{Caller, ClusterSetup, Error, PinRequest, PinView};

/// Blocks of a DAG that a dry run visits: some 25 GB of a file, and 20 MB of memory.
const BLOCKS_MAX: u64 = 100_000;

/// What would come of a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DryRun {
    /// The root of the DAG.
    pub cid: Cid,
    /// Where it would be.
    pub cluster: ClusterId,
    /// The caller's pin of it, if there is one.
    pub pin: Option<PinView>,
    /// What is known of the DAG.
    pub dag: Survey,
    /// What it would do to the caller's storage.
    pub quota: QuotaEffect,
}

/// What a wish would do to an account's storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaEffect {
    /// The bytes that would be charged, as far as they are known.
    pub charge_bytes: u64,
    /// Whether that is all of them.
    pub is_exact: bool,
    /// What the account is charged now.
    pub used_bytes: u64,
    /// What it may be charged.
    pub limit_bytes: u64,
    /// What is left.
    pub left_bytes: u64,
    /// Whether it fits; `None` when that depends on what is not known.
    pub fits: Option<bool>,
}

impl Pins {
    /// Says what [`pin`](Self::pin) would come to, and changes nothing. It takes `time` at most: what is here of the
    /// DAG is counted, and if that is not all, the network is asked who has its root.
    ///
    /// # Errors
    /// What [`pin`](Self::pin) would break of the plan and of the request, but for the quota;
    /// [`Error::Unavailable`] also when too many ask at once.
    pub async fn dry_run(&self, caller: &Caller, wish: &PinRequest, time: Duration) -> Result<DryRun, Error> {
        let until = Instant::now() + time;
        let (core, account) = (&self.core, caller.account.id);
        let cluster = core.target(caller, wish.cluster.as_ref(), &wish.options)?;
        let setup = core.cluster(&cluster).ok_or(Error::UnknownCluster)?;
        let placement = core.store.placement_of(&wish.cid, &cluster).await.map_err(unavailable)?;
        let pins = core.store.pins_of_cid(account, &wish.cid).await.map_err(unavailable)?;
        let pin = pins.into_iter().find(|pin| pin.placement.cluster == cluster);
        let before = pin.as_ref().map(PinRecord::lifetime).unwrap_or_default();
        before.renewed(wish.options.lifetime(), core.clock.now()).map_err(Error::Lifetime)?;
        let whole = placement.filter(PlacementRecord::is_whole);
        let is_live = pin.as_ref().is_some_and(|pin| pin.phase != PinPhase::Failed);
        if whole.is_none() && !is_live {
            let limit = caller.plan.limits.in_flight_pins_max;
            if core.store.count_in_flight(account, limit).await.map_err(unavailable)? >= limit {
                return Err(Error::TooManyInFlight { limit, at: core.clock.now() });
            }
        }
        let dag = match whole {
            Some(whole) => known(&whole),
            None => self.survey(setup, wish, until).await?,
        };
        let quota = self.quota_effect(caller, pin.as_ref(), &dag).await?;
        Ok(DryRun { cid: wish.cid, cluster, pin: pin.as_ref().map(PinView::from), dag, quota })
    }

    async fn survey(&self, setup: &ClusterSetup, wish: &PinRequest, until: Instant) -> Result<Survey, Error> {
        let busy = Error::Unavailable { retry_after: Some(Duration::from_secs(1)) };
        // Walks are work for the disk: few at a time.
        let permit = match self.core.surveys.try_acquire() {
            Ok(permit) => permit,
            Err(_) => match tokio::time::timeout_at(until, self.core.surveys.acquire()).await {
                Ok(Ok(permit)) => permit,
                Ok(Err(_)) | Err(_) => return Err(busy),
            },
        };
        let time = until.saturating_duration_since(Instant::now());
        let origins = wish.options.origins.iter().map(|origin| origin.as_str().to_owned()).collect();
        let terms =
            SurveyOptions { blocks_max: self.core.settings.blocks_max.min(BLOCKS_MAX), time, origins };
        let survey = setup.driver.survey(&wish.cid, &terms).await;
        drop(permit);
        survey.map_err(|error| match error {
            ClusterError::Unfit(reason) => Error::Unfit(reason),
            ClusterError::NotFound
            | ClusterError::Stalled(_)
            | ClusterError::OverLimit
            | ClusterError::Full
            | ClusterError::Source(_)
            | ClusterError::Unavailable(_)
            | ClusterError::Stopping => {
                tracing::warn!(%error, "looking at a DAG");
                UNREACHABLE
            }
        })
    }

    async fn quota_effect(
        &self,
        caller: &Caller,
        pin: Option<&PinRecord>,
        dag: &Survey,
    ) -> Result<QuotaEffect, Error> {
        let account = self.core.store.account(caller.account.id).await.map_err(unavailable)?;
        let account = account.ok_or(Error::AccountNotFound)?;
        let left_bytes = account.remaining_bytes();
        let is_kept = pin.is_some_and(|pin| pin.phase == PinPhase::Active);
        let is_exact = is_kept || dag.is_whole();
        let charge_bytes = if is_kept { 0 } else { dag.bytes };
        Ok(QuotaEffect {
            charge_bytes,
            is_exact,
            used_bytes: account.used_bytes,
            limit_bytes: account.storage_limit_bytes,
            left_bytes,
            fits: match charge_bytes > left_bytes {
                true => Some(false),
                // What has to be brought is not begun without any room.
                false if !is_exact && left_bytes == 0 => Some(false),
                false => is_exact.then_some(true),
            },
        })
    }
}

/// What the books know of a DAG that is here whole.
fn known(placement: &PlacementRecord) -> Survey {
    let PlacementRecord { blocks, bytes, .. } = *placement;
    Survey { blocks, bytes, missing: 0, cut: None, reach: Reach::Here, claimed_bytes: None }
}
