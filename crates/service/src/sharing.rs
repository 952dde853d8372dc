//! Counts what accounts take when blocks that their pins share count once.
//!
//! Exact figures of this kind cost as much as the DAGs are large, so they follow the changes: whoever changes the pins of
//! an account marks it, and this counts it, soon after and with a bounded part of the machine. The charge of an
//! account is another figure, and exact at all times.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pinfold_cluster::{ClusterError, Distinct};
use pinfold_model::{AccountId, ClusterId};

use crate::Error;
use crate::core::{Core, unavailable};

/// The least rest between two looks.
const PAUSE: Duration = Duration::from_secs(2);
/// How many times as long as it counted it rests: a tenth of one core is what it takes.
const REST_FACTOR: u32 = 9;
/// The longest rest.
const REST_MAX: Duration = Duration::from_secs(600);
/// Placements that are read at one time.
const PAGE: u32 = 1_000;

/// Counts until the service stops.
pub(crate) async fn run(core: &Core) {
    let mut rest = PAUSE;
    let mut last = None;
    while core.stop.run_until_cancelled(tokio::time::sleep(rest)).await.is_some() {
        let began = Instant::now();
        match look(core, last).await {
            Ok(counted) => last = counted,
            Err(error) => tracing::warn!(%error, "counting what an account takes"),
        }
        rest = (began.elapsed() * REST_FACTOR).clamp(PAUSE, REST_MAX);
    }
}

/// Counts one account that has changed, the next one after `last`; `None` if there is none.
pub(crate) async fn look(core: &Core, last: Option<AccountId>) -> Result<Option<AccountId>, Error> {
    let Some(account) = core.store.start_dedup_count(last).await.map_err(unavailable)? else {
        return Ok(None);
    };
    match count(core, account).await? {
        Ok(bytes) => core.store.finish_dedup_count(account, bytes).await.map_err(unavailable)?,
        // It stays marked.
        Err(error) => tracing::warn!(%account, %error, "counting what an account takes"),
    }
    Ok(Some(account))
}

async fn count(core: &Core, account: AccountId) -> Result<Result<u64, ClusterError>, Error> {
    let mut counted: HashMap<ClusterId, Distinct> = HashMap::new();
    let mut last = None;
    loop {
        let page = core.store.active_placements(account, last, PAGE).await.map_err(unavailable)?;
        let is_last = page.len() < PAGE as usize;
        last = page.last().map(|placement| placement.id);
        let mut names: HashMap<ClusterId, Vec<_>> = HashMap::new();
        for placement in page {
            let name = Core::hold_name(&placement.cluster, &placement.cid);
            names.entry(placement.cluster).or_default().extend(name);
        }
        for (cluster, names) in names {
            let Some(setup) = core.cluster(&cluster) else { continue };
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
