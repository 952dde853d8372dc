//! Clusters: places that hold DAGs, behind one trait.
//!
//! A [`Cluster`] holds a DAG under a name, releases it, and imports uploads. Every operation is idempotent, so that
//! interrupted work is simply repeated. The drivers are [`Embedded`] (the node in this process) and [`Scripted`] (a cluster in
//! memory for tests, with scripted failures); one contract suite runs on each of them. This crate must not know accounts or
//! pins.

mod drivers;
mod traits;

pub use drivers::embedded::Embedded;
pub use drivers::scripted::{Fate, Gate, Scripted};
pub use pinfold_node::car::import::ImportedCar;
pub use pinfold_node::{HoldName, Progress, ProgressReading};
pub use traits::{
    Body, Cluster, ClusterError, Cut, Distinct, EntryKind, Held, HoldOptions, Imported, ImportedKind,
    PeerInfo, Position, Reach, Survey, SurveyOptions, UPLOAD_PREFIX, Usage, WalkEntry, WalkPage, WalkRequest,
};
