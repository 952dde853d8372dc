//! Clusters: where DAGs are held, behind one trait.
//!
//! A [`Cluster`] holds a DAG under a name, releases it, and takes uploads in. What it is asked for is
//! idempotent, so that whoever was interrupted just asks again. Its drivers: [`Embedded`] (the node in this
//! process) and [`Scripted`] (one that tests break at will). One contract suite holds for all. Nothing here
//! knows accounts or pins.

mod cluster;
mod embedded;
mod limited;
mod scripted;

pub use cluster::{
    Body, Cluster, ClusterError, Cut, Distinct, EntryKind, Held, HoldOptions, Imported, ImportedKind,
    PeerInfo, Position, Reach, Survey, SurveyOptions, UPLOAD_PREFIX, Usage, WalkEntry, WalkPage, WalkRequest,
};
pub use embedded::Embedded;
pub use pinfold_node::car::import::ImportedCar;
pub use pinfold_node::{HoldName, Progress, ProgressReading};
pub use scripted::{Fate, Gate, Scripted};
