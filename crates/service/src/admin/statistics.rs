//! Statistics of the whole service. Large figures are kept as sums in the store and never counted here.

use pinfold_cluster::Usage;
use pinfold_model::{ClusterId, PinPhase, PlanCode};
use pinfold_store::StoreStatistics;

use super::Admin;
use crate::Error;
use crate::error::log_store_error;

/// Number of accounts with one plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanAccounts {
    pub plan: PlanCode,
    pub accounts: u64,
    /// Disabled accounts, included in `accounts`.
    pub disabled: u64,
}

/// Number of pins by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PinCounts {
    pub queued: u64,
    pub pinning: u64,
    pub pinned: u64,
    pub failed: u64,
}

/// Statistics of one cluster.
#[derive(Debug, Clone)]
pub struct ClusterStatistics {
    pub cluster: ClusterId,
    pub pins: PinCounts,
    /// Bytes that accounts are charged for; shared content counts for each account.
    pub charged_bytes: u64,
    /// DAGs with damaged blocks; at most 100,000 are counted.
    pub damaged_dags: u64,
    /// `None` if the cluster does not reply.
    pub usage: Option<Usage>,
}

/// Statistics of the service.
#[derive(Debug, Clone)]
pub struct Statistics {
    pub accounts: Vec<PlanAccounts>,
    /// Includes clusters that have pins but are not configured any more.
    pub clusters: Vec<ClusterStatistics>,
    /// Placements that are due, now or at their next attempt; at most 100,000 are counted.
    pub queue: u64,
}

impl Admin {
    /// Reads the statistics. Returns within a few seconds, even if components hang.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn statistics(&self) -> Result<Statistics, Error> {
        let (figures, usage) = tokio::join!(self.store.statistics(), self.clusters.usage());
        let figures = figures.map_err(log_store_error)?;
        let mut accounts: Vec<PlanAccounts> = Vec::new();
        for sum in &figures.accounts {
            let disabled = if sum.disabled { sum.accounts } else { 0 };
            match accounts.iter_mut().find(|known| known.plan == sum.plan) {
                Some(known) => {
                    known.accounts += sum.accounts;
                    known.disabled += disabled;
                }
                None => {
                    accounts.push(PlanAccounts { plan: sum.plan.clone(), accounts: sum.accounts, disabled });
                }
            }
        }
        let mut ids: Vec<ClusterId> =
            self.placements.clusters.iter().map(|setup| setup.info.id.clone()).collect();
        for sum in &figures.pins {
            if !ids.contains(&sum.cluster) {
                ids.push(sum.cluster.clone());
            }
        }
        let of = |id| cluster(id, &figures, &usage);
        Ok(Statistics { accounts, clusters: ids.into_iter().map(of).collect(), queue: figures.due })
    }
}

fn cluster(id: ClusterId, figures: &StoreStatistics, usage: &[(ClusterId, Usage)]) -> ClusterStatistics {
    let sums = |phase| figures.pins.iter().filter(move |sum| sum.phase == phase);
    let pins = |phase| -> u64 { sums(phase).filter(|sum| sum.cluster == id).map(|sum| sum.pins).sum() };
    let of = |list: &[(ClusterId, u64)]| {
        list.iter().find(|(cluster, _)| *cluster == id).map_or(0, |(_, count)| *count)
    };
    let waiting = pins(PinPhase::Pending);
    let pinning = of(&figures.pinning).min(waiting);
    ClusterStatistics {
        pins: PinCounts {
            queued: waiting - pinning,
            pinning,
            pinned: pins(PinPhase::Active),
            failed: pins(PinPhase::Failed),
        },
        charged_bytes: figures.pins.iter().filter(|sum| sum.cluster == id).map(|sum| sum.bytes).sum(),
        damaged_dags: of(&figures.damaged),
        usage: usage.iter().find(|(cluster, _)| *cluster == id).map(|(_, usage)| *usage),
        cluster: id,
    }
}
