//! The configured clusters and their descriptions.

use std::sync::Arc;

use cid::Cid;
use pinfold_cluster::HoldName;
use pinfold_model::ClusterId;

/// A configured cluster: its description and its driver.
#[derive(Clone)]
pub struct ClusterSetup {
    pub info: ClusterInfo,
    pub driver: Arc<dyn pinfold_cluster::Cluster>,
}

/// Public description of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterInfo {
    pub id: ClusterId,
    /// Display name.
    pub label: String,
    /// Where the cluster is, such as `eu`; free text.
    pub region: Option<String>,
    /// ISO 3166 code.
    pub country: Option<String>,
    /// Gateways that serve the cluster's content, best first.
    pub gateways: Vec<GatewayInfo>,
}

/// A gateway of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayInfo {
    /// Base URL; ends in `/ipfs/`.
    pub url: String,
    /// Display name.
    pub label: String,
}

/// The configured clusters; the first is the default. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ClusterSet(Arc<Vec<ClusterSetup>>);

impl ClusterSet {
    pub(crate) fn new(clusters: Vec<ClusterSetup>) -> Self {
        Self(Arc::new(clusters))
    }

    pub(crate) fn get(&self, id: &ClusterId) -> Option<&ClusterSetup> {
        self.iter().find(|setup| setup.info.id == *id)
    }

    pub(crate) fn default_cluster(&self) -> Option<&ClusterSetup> {
        self.0.first()
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, ClusterSetup> {
        self.0.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The name under which a cluster holds the DAG of a placement: `pin/CLUSTER/CID`.
pub(crate) fn placement_hold_name(cluster: &ClusterId, cid: &Cid) -> Option<HoldName> {
    HoldName::parse(format!("pin/{cluster}/{cid}"))
}

/// The placement whose DAG is held under this name. Reverses [`placement_hold_name`].
pub(crate) fn parse_placement_hold_name(name: &HoldName) -> Option<(ClusterId, Cid)> {
    let (cluster, cid) = name.as_str().strip_prefix("pin/")?.split_once('/')?;
    Some((ClusterId::parse(cluster).ok()?, cid.parse().ok()?))
}
