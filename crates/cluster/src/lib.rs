//! Pinfold: cluster.
