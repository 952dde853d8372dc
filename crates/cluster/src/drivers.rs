//! The drivers: one file for each kind of cluster. A new driver is a file here that implements
//! [`Cluster`](crate::Cluster), with the contract suite of `tests/it/contract.rs` run on it.

pub(crate) mod embedded;
mod limited;
pub(crate) mod scripted;
