//! The stored blocks and holds. Everything is derived from a block's number, so the steps need not pass data to each
//! other.
//!
//! Each hold has 1,000 consecutive blocks, except one in the middle with 100,000. Every tenth block is also in an earlier
//! hold, like a block that was stored before.

use crate::engine::Change;

/// A sha2-256 multihash.
pub(crate) type Hash = [u8; 34];
/// Block id u64, segment u32, offset u32, length u32, head u8, and four spare bytes.
pub(crate) type Value = [u8; 25];

/// Blocks of an ordinary hold.
pub(crate) const HOLD_BLOCKS: u64 = 1_000;

/// The finaliser of SplitMix64: pseudo-random and reproducible.
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub(crate) fn hash(block: u64) -> Hash {
    let mut hash = [0; 34];
    hash[..2].copy_from_slice(&[0x12, 0x20]);
    for (word, bytes) in hash[2..].chunks_exact_mut(8).enumerate() {
        bytes.copy_from_slice(&mix(block.wrapping_mul(4).wrapping_add(word as u64)).to_be_bytes());
    }
    hash
}

pub(crate) fn value(block: u64) -> Value {
    let mut value = [0; 25];
    value[..8].copy_from_slice(&block.to_be_bytes());
    value[8..12].copy_from_slice(&((block / 2_048) as u32).to_be_bytes());
    value[12..16].copy_from_slice(&((block % 2_048) as u32 * 65_536).to_be_bytes());
    value[16..20].copy_from_slice(&65_536_u32.to_be_bytes());
    value[20] = 42;
    value
}

/// The position of the large hold in a store of this many blocks.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    first: u64,
    end: u64,
}

impl Layout {
    pub(crate) fn new(blocks: u64) -> Self {
        let first = blocks / 2 / HOLD_BLOCKS * HOLD_BLOCKS;
        Self { first, end: first + 100_000.min(blocks / 4) }
    }

    pub(crate) fn large_hold(self) -> u64 {
        1 + self.first / HOLD_BLOCKS
    }

    fn hold(self, block: u64) -> u64 {
        if (self.first..self.end).contains(&block) { self.large_hold() } else { 1 + block / HOLD_BLOCKS }
    }

    /// The changes of a batch of these new blocks.
    pub(crate) fn put(self, blocks: std::ops::Range<u64>) -> Vec<Change> {
        let mut changes = Vec::with_capacity(blocks.clone().count() * 3);
        for block in blocks {
            let hold = self.hold(block);
            changes.push(Change::PutBlock { block });
            changes.push(Change::PutEdge { hold, block });
            if block % 10 == 9 {
                let earlier = self.hold(mix(block) % block);
                if earlier != hold {
                    changes.push(Change::PutEdge { hold: earlier, block });
                }
            }
        }
        changes
    }
}
