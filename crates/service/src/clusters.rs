//! The clusters that pins can go to, and how they are.

use std::sync::Arc;
use std::time::Duration;

use pinfold_cluster::Usage;
use pinfold_model::ClusterId;

use crate::core::{Core, UNREACHABLE};
use crate::{Caller, Error};

/// Peers in one answer.
const PEERS_MAX: usize = 1_000;

/// How long a part may take to say how it is.
const HEALTH_TIME: Duration = Duration::from_secs(3);

/// The clusters. Cheap to clone.
#[derive(Clone)]
pub struct Clusters {
    pub(crate) core: Arc<Core>,
}

/// A cluster as the operator set it up: what is shown of it, and who does its work.
#[derive(Clone)]
pub struct ClusterSetup {
    /// What is shown.
    pub info: ClusterInfo,
    /// What does the work.
    pub driver: Arc<dyn pinfold_cluster::Cluster>,
}

/// What is shown of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterInfo {
    /// Its name.
    pub id: ClusterId,
    /// Its name for people.
    pub label: String,
    /// Where it is, such as `eu`; free text.
    pub region: Option<String>,
    /// Its country; ISO 3166 code.
    pub country: Option<String>,
    /// Where its content can be read, best first.
    pub gateways: Vec<GatewayInfo>,
}

/// A gateway of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayInfo {
    /// Its base URL, which ends in `/ipfs/`.
    pub url: String,
    /// Its name for people.
    pub label: String,
}

/// A peer that a cluster knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// Its peer id.
    pub id: String,
    /// Where it can be reached: multiaddrs with `/p2p/…`.
    pub addresses: Vec<String>,
    /// Whether it is this node.
    pub is_self: bool,
    /// Whether there is a connection.
    pub connected: bool,
    /// What it calls its software.
    pub agent: Option<String>,
}

/// How the service is: it can do its job when every part is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// `None` when the database answers, else what is wrong with it.
    pub store: Option<String>,
    /// Each cluster.
    pub clusters: Vec<ClusterHealth>,
}

/// How one cluster is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterHealth {
    /// Which.
    pub cluster: ClusterId,
    /// `None` when it can do its job, else what is wrong with it.
    pub problem: Option<String>,
}

impl Health {
    /// Whether every part is well.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.store.is_none() && self.clusters.iter().all(|cluster| cluster.problem.is_none())
    }
}

impl Clusters {
    /// The clusters that the caller's plan includes.
    #[must_use]
    pub fn list(&self, caller: &Caller) -> Vec<ClusterInfo> {
        let infos = self.core.cluster_infos();
        infos.iter().filter(|info| caller.plan.allows(&info.id)).cloned().collect()
    }

    /// The ids of all clusters, the default one first.
    #[must_use]
    pub fn ids(&self) -> Vec<ClusterId> {
        self.core.clusters.iter().map(|setup| setup.info.id.clone()).collect()
    }

    /// The peers that the clusters know, this node first; at most 1,000.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no cluster answers.
    pub async fn peers(&self) -> Result<Vec<PeerInfo>, Error> {
        let mut peers = Vec::new();
        let mut answered = false;
        for setup in &self.core.clusters {
            match tokio::time::timeout(HEALTH_TIME, setup.driver.peers(PEERS_MAX - peers.len())).await {
                Ok(Ok(more)) => {
                    answered = true;
                    peers.extend(more.into_iter().map(PeerInfo::from));
                }
                Ok(Err(error)) => tracing::warn!(cluster = %setup.info.id, %error, "listing peers"),
                Err(_elapsed) => tracing::warn!(cluster = %setup.info.id, "listing peers takes too long"),
            }
        }
        peers.sort_by_key(|peer| !peer.is_self);
        peers.truncate(PEERS_MAX);
        if answered { Ok(peers) } else { Err(UNREACHABLE) }
    }

    /// How the service is. Answers within a few seconds, whatever is broken.
    pub async fn health(&self) -> Health {
        let store = match tokio::time::timeout(HEALTH_TIME, self.core.store.ping()).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => {
                tracing::error!(%error, "the database is not well");
                Some("the database does not answer".to_owned())
            }
            Err(_elapsed) => {
                tracing::error!("the database does not answer in time");
                Some("the database does not answer in time".to_owned())
            }
        };
        let clusters = self.core.clusters.iter().map(cluster_health);
        Health { store, clusters: futures::future::join_all(clusters).await }
    }
}

impl Clusters {
    /// What each cluster holds in all, as far as it answers in time.
    pub async fn usage(&self) -> Vec<(ClusterId, Usage)> {
        let asked = self.core.clusters.iter().map(|setup| async move {
            match tokio::time::timeout(HEALTH_TIME, setup.driver.usage()).await {
                Ok(Ok(usage)) => Some((setup.info.id.clone(), usage)),
                Ok(Err(error)) => {
                    tracing::warn!(cluster = %setup.info.id, %error, "asking what a cluster holds");
                    None
                }
                Err(_elapsed) => None,
            }
        });
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }
}

async fn cluster_health(setup: &ClusterSetup) -> ClusterHealth {
    let problem = match tokio::time::timeout(HEALTH_TIME, setup.driver.health()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => {
            tracing::error!(cluster = %setup.info.id, %error, "a cluster is not well");
            Some("the cluster can't do its job".to_owned())
        }
        Err(_elapsed) => {
            tracing::error!(cluster = %setup.info.id, "a cluster does not answer in time");
            Some("the cluster does not answer in time".to_owned())
        }
    };
    ClusterHealth { cluster: setup.info.id.clone(), problem }
}

impl From<pinfold_cluster::PeerInfo> for PeerInfo {
    fn from(peer: pinfold_cluster::PeerInfo) -> Self {
        let pinfold_cluster::PeerInfo { id, addresses, is_self, connected, agent } = peer;
        Self { id, addresses, is_self, connected, agent }
    }
}
