//! The durable engine: blocks in append-only segment files, and an index of them.
//!
//! A store is a folder:
//!
//! - `VERSION`: the format, so that a later Pinfold knows what it opens;
//! - `segments/0000000001.car`, …: files of about 128 MiB, each of them a CARv1;
//! - `index/`: a fjall database ([`index`]), which can be made anew from the segments ([`rebuild`]);
//! - `MARK`: up to where segments were committed, by which an old index is recognised ([`mark`]).
//!
//! One thread writes ([`writer`]); callers queue and wait ([`state`]). Data is synced before the index
//! says so, the index before the answer. What nobody keeps is given back in the background ([`tidy`]), what
//! is kept is looked at from time to time ([`check`]). `docs/adr/0004-block-engine.md` has the reasons and the
//! figures.

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
