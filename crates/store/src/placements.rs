//! Placements: one row for each CID in a cluster. The rows are the work queue.

pub(crate) mod complete;
pub(crate) mod complete_batch;
pub(crate) mod damage;
pub(crate) mod lease;
pub(crate) mod record;
pub(crate) mod release;
pub(crate) mod reverify;
