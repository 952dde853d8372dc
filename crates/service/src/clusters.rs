//! Clusters: descriptions, peers, health and usage.

pub(crate) mod cluster_set;

use std::sync::Arc;
use std::time::Duration;

use pinfold_cluster::Usage;
use pinfold_model::ClusterId;
use pinfold_store::Store;

use self::cluster_set::{ClusterInfo, ClusterSet, ClusterSetup};
use crate::catalog::Catalog;
use crate::error::UNREACHABLE;
use crate::{Caller, Error};

/// Maximum peers in one reply.
const PEERS_MAX: usize = 1_000;

/// Time limit for the reply of a component.
const REPLY_TIME: Duration = Duration::from_secs(3);

/// The clusters. Cheap to clone.
#[derive(Clone)]
pub struct Clusters {
    pub(crate) set: ClusterSet,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) store: Store,
}

/// A peer that is connected to a cluster, or the cluster itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    pub id: String,
    /// Multiaddrs with `/p2p/…`.
    pub addresses: Vec<String>,
    /// Whether it is this node.
    pub is_self: bool,
    pub connected: bool,
    /// Name and version of the peer's software.
    pub agent: Option<String>,
}

/// Health of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The problem of the database; `None` if it is healthy.
    pub store: Option<String>,
    pub clusters: Vec<ClusterHealth>,
}

/// Health of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterHealth {
    pub cluster: ClusterId,
    /// `None` if the cluster is healthy.
    pub problem: Option<String>,
}

impl Health {
    /// Whether every component is healthy.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.store.is_none() && self.clusters.iter().all(|cluster| cluster.problem.is_none())
    }
}

impl Clusters {
    /// Lists the clusters that the caller's plan includes.
    #[must_use]
    pub fn list(&self, caller: &Caller) -> Vec<ClusterInfo> {
        let infos = self.catalog.cluster_infos();
        infos.iter().filter(|info| caller.plan.allows(&info.id)).cloned().collect()
    }

    /// The ids of all clusters, the default one first.
    #[must_use]
    pub fn ids(&self) -> Vec<ClusterId> {
        self.set.iter().map(|setup| setup.info.id.clone()).collect()
    }

    /// Lists the peers of all clusters, this node first; at most 1,000.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no cluster replies.
    pub async fn peers(&self) -> Result<Vec<PeerInfo>, Error> {
        let mut peers = Vec::new();
        let mut has_reply = false;
        for setup in self.set.iter() {
            match tokio::time::timeout(REPLY_TIME, setup.driver.peers(PEERS_MAX - peers.len())).await {
                Ok(Ok(more)) => {
                    has_reply = true;
                    peers.extend(more.into_iter().map(PeerInfo::from));
                }
                Ok(Err(error)) => tracing::warn!(cluster = %setup.info.id, %error, "failed to list peers"),
                Err(_elapsed) => tracing::warn!(cluster = %setup.info.id, "timeout while listing peers"),
            }
        }
        peers.sort_by_key(|peer| !peer.is_self);
        peers.truncate(PEERS_MAX);
        if has_reply { Ok(peers) } else { Err(UNREACHABLE) }
    }

    /// Checks the health of the service. Returns within a few seconds, even if components hang.
    pub async fn health(&self) -> Health {
        let store = match tokio::time::timeout(REPLY_TIME, self.store.ping()).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => {
                tracing::error!(%error, "database health check failed");
                Some("the database does not respond".to_owned())
            }
            Err(_elapsed) => {
                tracing::error!("database health check timed out");
                Some("the database does not respond in time".to_owned())
            }
        };
        let clusters = self.set.iter().map(cluster_health);
        Health { store, clusters: futures::future::join_all(clusters).await }
    }

    /// Returns the storage usage of each cluster that replies in time.
    pub async fn usage(&self) -> Vec<(ClusterId, Usage)> {
        let asked = self.set.iter().map(|setup| async move {
            match tokio::time::timeout(REPLY_TIME, setup.driver.usage()).await {
                Ok(Ok(usage)) => Some((setup.info.id.clone(), usage)),
                Ok(Err(error)) => {
                    tracing::warn!(cluster = %setup.info.id, %error, "failed to read cluster usage");
                    None
                }
                Err(_elapsed) => None,
            }
        });
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }
}

async fn cluster_health(setup: &ClusterSetup) -> ClusterHealth {
    let problem = match tokio::time::timeout(REPLY_TIME, setup.driver.health()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => {
            tracing::error!(cluster = %setup.info.id, %error, "cluster health check failed");
            Some("the cluster is not working".to_owned())
        }
        Err(_elapsed) => {
            tracing::error!(cluster = %setup.info.id, "cluster health check timed out");
            Some("the cluster does not respond in time".to_owned())
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
