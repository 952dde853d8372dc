//! The segment files and the thread-bound state that writes them.
//!
//! - [`open`]: checks a store when it is opened;
//! - [`file`]: appends to the active segment, reads from all;
//! - [`queue`]: what callers and the writer share;
//! - [`writer`]: applies queued operations and commits them in groups ([`group`]);
//! - [`garbage`]: what the writer leaves to be reclaimed;
//! - [`watermark`]: the commit watermark beside the index.

pub(crate) mod error;
pub(crate) mod file;
pub(crate) mod garbage;
pub(crate) mod group;
pub(crate) mod open;
pub(crate) mod queue;
pub(crate) mod watermark;
pub(crate) mod writer;

/// The engine's settings.
#[derive(Debug, Clone)]
pub struct SegmentConfig {
    /// Where a segment ends and the next begins, in bytes. Small enough that a dead one comes soon, large
    /// enough that there are few files. At most 1 GiB.
    pub segment_bytes: u64,
    /// Bytes of the file system that are left free: the index needs them to go on, and to release.
    pub reserve_bytes: u64,
}

impl Default for SegmentConfig {
    fn default() -> Self {
        Self { segment_bytes: 128 * 1024 * 1024, reserve_bytes: 256 * 1024 * 1024 }
    }
}
