//! Figures of the whole service. None of them counts what can be millions: they are sums that are kept.

use pinfold_cluster::Usage;
use pinfold_model::{ClusterId, PinPhase, PlanCode};
use pinfold_store::StoreStatistics;

use super::Admin;
use crate::core::unavailable;
use crate::{Clusters, Error};

/// Accounts of one plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanAccounts {
    /// The plan.
    pub plan: PlanCode,
    /// All of them.
    pub accounts: u64,
    /// Those that are disabled.
    pub disabled: u64,
}

/// Pins by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PinCounts {
    /// Those that wait for their turn.
    pub queued: u64,
    /// Those that are being brought in.
    pub pinning: u64,
    /// Those that are kept.
    pub pinned: u64,
    /// Those that were given up.
    pub failed: u64,
}

/// One cluster.
#[derive(Debug, Clone)]
pub struct ClusterStatistics {
    /// Which.
    pub cluster: ClusterId,
    /// Its pins.
    pub pins: PinCounts,
    /// What accounts are charged for them, in bytes: shared content counts for each of them.
    pub charged_bytes: u64,
    /// DAGs with damaged blocks; at most 100,000 are counted.
    pub damaged_dags: u64,
    /// What it holds, if it answers.
    pub usage: Option<Usage>,
}

/// The whole service.
#[derive(Debug, Clone)]
pub struct Statistics {
    /// Accounts by plan.
    pub accounts: Vec<PlanAccounts>,
    /// The clusters, also those that have pins and are not set up any more.
    pub clusters: Vec<ClusterStatistics>,
    /// DAGs that are due to be worked on, now or at their next try; at most 100,000 are counted.
    pub queue: u64,
}

impl Admin {
    /// The figures. Answers within a few seconds, whatever is broken.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn statistics(&self) -> Result<Statistics, Error> {
        let clusters = Clusters { core: self.core.clone() };
        let (figures, usage) = tokio::join!(self.core.store.statistics(), clusters.usage());
        let figures = figures.map_err(unavailable)?;
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
        let mut ids: Vec<ClusterId> = self.core.clusters.iter().map(|setup| setup.info.id.clone()).collect();
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
