//! The durable block store: blocks in append-only segment files, and an index of them.
//!
//! A store is a folder:
//!
//! - `VERSION`: the format of the store;
//! - `segments/0000000001.car`, …: files of about 128 MiB, each of them a CARv1;
//! - `index/`: a fjall database, which can be rebuilt from the segments;
//! - `WATERMARK`: how far segments were committed. It tells an outdated index from a crash before a commit.
//!
//! One thread writes ([`writer_thread`]); callers queue operations and wait. Data is synced before the index batch that
//! refers to it, and the index before the answer. The space of blocks that no hold references is reclaimed in the
//! background; stored blocks are read and verified from time to time.
//!
//! Imports go one way, from the last to the first:
//!
//! - [`index`]: the database and its records;
//! - [`storage`]: segment files, the queue, the writer and its commits;
//! - [`reclaim`]: freeing, hole punching, compaction;
//! - [`writer_thread`]: the loop that drives both;
//! - [`store`]: [`SegmentBlocks`], the interface to callers;
//! - [`scrub`]: verification, and rebuilding a lost index.
//!
//! `docs/adr/0004-block-engine.md` has the reasons and the measurements.

mod index;
mod reclaim;
mod scrub;
mod storage;
mod store;
mod writer_thread;

#[cfg(test)]
mod tests;

pub use scrub::rebuild::LostSegment;
pub use scrub::scrub;
#[cfg(test)]
pub(crate) use scrub::step as scrub_step;
pub use scrub::verify::{ScrubStep, VerifyProgress};
pub use storage::SegmentConfig;
pub use storage::error::OpenError;
pub use store::SegmentBlocks;
pub use store::damage::DamagedBlock;
pub use store::snapshot::{ReclaimPause, Snapshot};
