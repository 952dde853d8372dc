//! The segment files, and the writer that appends to them and commits.
//!
//! - [`open`]: checks a store when it is opened;
//! - [`file`]: appends to the active segment, reads from all segments;
//! - [`queue`]: the state that callers and the writer share;
//! - [`writer`]: applies queued operations to a group ([`group`]) and commits it;
//! - [`garbage`]: what can be reclaimed;
//! - [`watermark`]: the commit watermark next to the index.

pub(crate) mod error;
pub(crate) mod file;
pub(crate) mod garbage;
pub(crate) mod group;
pub(crate) mod open;
pub(crate) mod queue;
pub(crate) mod watermark;
pub(crate) mod writer;

/// The settings of a store.
#[derive(Debug, Clone)]
pub struct SegmentConfig {
    /// The size of a segment in bytes. Small segments become empty sooner; large ones mean fewer files. At most 1 GiB.
    pub segment_bytes: u64,
    /// Bytes of the file system that block writes leave free. The index needs them to keep working and to release holds.
    pub reserve_bytes: u64,
}

impl Default for SegmentConfig {
    fn default() -> Self {
        Self { segment_bytes: 128 * 1024 * 1024, reserve_bytes: 256 * 1024 * 1024 }
    }
}
