//! Pinfold: cluster.

/// A cluster.
pub trait Cluster: Send + Sync + 'static {}
