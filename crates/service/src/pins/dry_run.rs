//! Dry runs: the result of a pin request, without writing anything.

use std::time::Duration;

use cid::Cid;
use pinfold_cluster::{ClusterError, Reach, Survey, SurveyOptions};
use pinfold_model::{ClusterId, PinPhase};
use pinfold_store::{PinRecord, PlacementRecord};
use tokio::time::Instant;

use super::Pins;
use super::types::{PinRequest, PinView};
use crate::error::{UNREACHABLE, log_store_error};
use crate::{Caller, ClusterSetup, Error};

/// Maximum blocks that a dry run visits: about 25 GB of a file, and 20 MB of memory.
const BLOCKS_MAX: u64 = 100_000;

/// The result of a dry run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DryRun {
    pub cid: Cid,
    /// The cluster that was selected.
    pub cluster: ClusterId,
    /// The caller's existing pin of the CID.
    pub pin: Option<PinView>,
    pub dag: Survey,
    pub quota: QuotaEffect,
}

/// Effect of a pin on the account's storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaEffect {
    /// Bytes that would be charged, as far as the DAG is known.
    pub charge_bytes: u64,
    /// Whether `charge_bytes` covers the whole DAG.
    pub is_exact: bool,
    pub used_bytes: u64,
    pub limit_bytes: u64,
    pub left_bytes: u64,
    /// Whether the pin fits; `None` if that depends on unknown blocks.
    pub fits: Option<bool>,
}

impl Pins {
    /// Returns what [`pin`](Self::pin) would do, and changes nothing. Takes `time` at most: counts the local blocks of the
    /// DAG, and if some are missing, looks for providers of its root.
    ///
    /// # Errors
    /// As [`create`](Self::create), except for the quota; [`Error::Unavailable`] also if too many dry runs wait.
    pub async fn dry_run(
        &self,
        caller: &Caller,
        request: &PinRequest,
        time: Duration,
    ) -> Result<DryRun, Error> {
        let until = Instant::now() + time;
        let (placements, account) = (&self.placements, caller.account.id);
        let cluster = self.select_cluster(caller, request.cluster.as_ref(), &request.options)?;
        let setup = placements.clusters.get(&cluster).ok_or(Error::UnknownCluster)?;
        let placement =
            placements.store.placement_of(&request.cid, &cluster).await.map_err(log_store_error)?;
        let pins = placements.store.pins_of_cid(account, &request.cid).await.map_err(log_store_error)?;
        let pin = pins.into_iter().find(|pin| pin.placement.cluster == cluster);
        let before = pin.as_ref().map(PinRecord::lifetime).unwrap_or_default();
        before.renewed(request.options.lifetime(), placements.clock.now()).map_err(Error::Lifetime)?;
        let whole = placement.filter(PlacementRecord::is_whole);
        let is_live = pin.as_ref().is_some_and(|pin| pin.phase != PinPhase::Failed);
        if whole.is_none() && !is_live {
            let limit = caller.plan.limits.in_flight_pins_max;
            if placements.store.count_in_flight(account, limit).await.map_err(log_store_error)? >= limit {
                return Err(Error::TooManyInFlight { limit, at: placements.clock.now() });
            }
        }
        let dag = match whole {
            Some(whole) => known(&whole),
            None => self.survey(setup, request, until).await?,
        };
        let quota = self.quota_effect(caller, pin.as_ref(), &dag).await?;
        Ok(DryRun { cid: request.cid, cluster, pin: pin.as_ref().map(PinView::from), dag, quota })
    }

    async fn survey(
        &self,
        setup: &ClusterSetup,
        request: &PinRequest,
        until: Instant,
    ) -> Result<Survey, Error> {
        let busy = Error::Unavailable { retry_after: Some(Duration::from_secs(1)) };
        // Walks read the disk, so only few run at a time.
        let permit = match self.surveys.try_acquire() {
            Ok(permit) => permit,
            Err(_) => match tokio::time::timeout_at(until, self.surveys.acquire()).await {
                Ok(Ok(permit)) => permit,
                Ok(Err(_)) | Err(_) => return Err(busy),
            },
        };
        let time = until.saturating_duration_since(Instant::now());
        let origins = request.options.origins.iter().map(|origin| origin.as_str().to_owned()).collect();
        let blocks_max = self.placements.limits.blocks_max.min(BLOCKS_MAX);
        let options = SurveyOptions { blocks_max, time, origins };
        let survey = setup.driver.survey(&request.cid, &options).await;
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
                tracing::warn!(%error, "failed to survey DAG");
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
        let account = self.placements.store.account(caller.account.id).await.map_err(log_store_error)?;
        let account = account.ok_or(Error::AccountNotFound)?;
        let left_bytes = account.remaining_bytes();
        let is_active = pin.is_some_and(|pin| pin.phase == PinPhase::Active);
        let is_exact = is_active || dag.is_whole();
        let charge_bytes = if is_active { 0 } else { dag.bytes };
        Ok(QuotaEffect {
            charge_bytes,
            is_exact,
            used_bytes: account.used_bytes,
            limit_bytes: account.storage_limit_bytes,
            left_bytes,
            fits: match charge_bytes > left_bytes {
                true => Some(false),
                // A fetch does not begin without any storage left.
                false if !is_exact && left_bytes == 0 => Some(false),
                false => is_exact.then_some(true),
            },
        })
    }
}

/// The survey of a DAG that is completely held.
fn known(placement: &PlacementRecord) -> Survey {
    let PlacementRecord { blocks, bytes, .. } = *placement;
    Survey { blocks, bytes, missing: 0, cut: None, reach: Reach::Here, claimed_bytes: None }
}
