//! Counts the storage of accounts with shared blocks counted once.
//!
//! An exact figure costs as much as the DAGs are large, so it follows the changes: a change of an account's pins marks the
//! account, and this loop counts it soon after, with a bounded share of the machine. The account's charge is another figure,
//! which is always exact.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pinfold_cluster::{ClusterError, Distinct};
use pinfold_model::{AccountId, ClusterId};

use crate::Error;
use crate::clusters::cluster_set::placement_hold_name;
use crate::error::log_store_error;
use crate::placements::Placements;

/// Minimum wait between two accounts.
const WAIT_MIN: Duration = Duration::from_secs(2);
/// The wait is this many times the time of the last count: counting takes a tenth of one core.
const WAIT_FACTOR: u32 = 9;
const WAIT_MAX: Duration = Duration::from_secs(600);
/// Placements that are read at one time.
const PAGE: u32 = 1_000;

/// Runs until the service stops.
pub(super) async fn run(placements: &Placements) {
    let mut wait = WAIT_MIN;
    let mut last = None;
    while placements.tasks.sleep(wait).await {
        let began = Instant::now();
        match turn(placements, last).await {
            Ok(counted) => last = counted,
            Err(error) => tracing::warn!(%error, "failed to count deduplicated usage"),
        }
        wait = (began.elapsed() * WAIT_FACTOR).clamp(WAIT_MIN, WAIT_MAX);
    }
}

/// Counts one changed account, the next one after `last`; `None` if there is none.
pub(super) async fn turn(
    placements: &Placements,
    last: Option<AccountId>,
) -> Result<Option<AccountId>, Error> {
    let store = &placements.store;
    let Some(account) = store.start_dedup_count(last).await.map_err(log_store_error)? else {
        return Ok(None);
    };
    match count(placements, account).await? {
        Ok(bytes) => store.finish_dedup_count(account, bytes).await.map_err(log_store_error)?,
        // The account stays marked.
        Err(error) => tracing::warn!(%account, %error, "failed to count deduplicated usage"),
    }
    Ok(Some(account))
}

async fn count(placements: &Placements, account: AccountId) -> Result<Result<u64, ClusterError>, Error> {
    let mut counted: HashMap<ClusterId, Distinct> = HashMap::new();
    let mut last = None;
    loop {
        let page = placements.store.active_placements(account, last, PAGE).await.map_err(log_store_error)?;
        let is_last = page.len() < PAGE as usize;
        last = page.last().map(|placement| placement.id);
        let mut names: HashMap<ClusterId, Vec<_>> = HashMap::new();
        for placement in page {
            let name = placement_hold_name(&placement.cluster, &placement.cid);
            names.entry(placement.cluster).or_default().extend(name);
        }
        for (cluster, names) in names {
            let Some(setup) = placements.clusters.get(&cluster) else { continue };
            let before = counted.remove(&cluster).unwrap_or_default();
            match setup.driver.distinct(names, before).await {
                Ok(after) => drop(counted.insert(cluster, after)),
                Err(error) => return Ok(Err(error)),
            }
        }
        if is_last {
            return Ok(Ok(counted.values().map(Distinct::bytes).sum()));
        }
    }
}
