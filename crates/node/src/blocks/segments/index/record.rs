//! The records of the index and their encoding.

use std::time::{SystemTime, UNIX_EPOCH};

use cid::Cid;
use cid::multihash::Multihash;

use crate::blocks::{HoldName, HoldStats};
use crate::car;

/// The place of a block's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Location {
    pub(crate) segment: u32,
    /// Bytes from the start of the segment file to the block's bytes.
    pub(crate) offset: u32,
    pub(crate) length: u32,
    /// Bytes of the section head before the block: the section's length as a varint, and the CID.
    pub(crate) head: u8,
}

impl Location {
    pub(crate) fn key(&self) -> [u8; 8] {
        (u64::from(self.segment) << 32 | u64::from(self.offset)).to_be_bytes()
    }

    /// The offset at which its section begins.
    pub(crate) fn start(&self) -> u64 {
        u64::from(self.offset) - u64::from(self.head)
    }

    /// The offset at which its section ends.
    pub(crate) fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.length)
    }
}

/// A stored block: the id that its edges use, and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) id: u64,
    pub(crate) at: Location,
}

impl Stored {
    pub(crate) fn encode(&self) -> [u8; 21] {
        let mut bytes = [0; 21];
        bytes[..8].copy_from_slice(&self.id.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.at.key());
        bytes[16..20].copy_from_slice(&self.at.length.to_be_bytes());
        bytes[20] = self.at.head;
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk()?;
        let (place, rest) = rest.split_first_chunk()?;
        Some(Self { id: u64::from_be_bytes(*id), at: decode_location(*place, rest)? })
    }
}

/// Decodes a location from its key, and from its length and head.
pub(crate) fn decode_location(key: [u8; 8], rest: &[u8]) -> Option<Location> {
    let key = u64::from_be_bytes(key);
    let (length, head) = rest.split_first_chunk()?;
    let [head] = head else { return None };
    let (segment, offset) = ((key >> 32) as u32, key as u32);
    (u32::from(*head) <= offset).then(|| Location {
        segment,
        offset,
        length: u32::from_be_bytes(*length),
        head: *head,
    })
}

/// A committed hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HoldRecord {
    pub(crate) name: HoldName,
    pub(crate) sealed: bool,
    pub(crate) stats: HoldStats,
}

impl HoldRecord {
    pub(crate) fn new(name: HoldName) -> Self {
        Self { name, sealed: false, stats: HoldStats::default() }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.sealed)];
        bytes.extend(self.stats.blocks.to_be_bytes());
        bytes.extend(self.stats.bytes.to_be_bytes());
        bytes.extend(self.name.as_str().as_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (sealed, rest) = bytes.split_first()?;
        let (blocks, rest) = rest.split_first_chunk()?;
        let (bytes, name) = rest.split_first_chunk()?;
        Some(Self {
            name: HoldName::parse(std::str::from_utf8(name).ok()?)?,
            sealed: *sealed == 1,
            stats: HoldStats { blocks: u64::from_be_bytes(*blocks), bytes: u64::from_be_bytes(*bytes) },
        })
    }
}

/// A committed segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SegmentRecord {
    /// The committed length of the file.
    pub(crate) end: u64,
    pub(crate) live_blocks: u64,
    pub(crate) live_bytes: u64,
    /// Bytes of the sections of live blocks, including their heads.
    pub(crate) live_space: u64,
    /// Bytes of dead blocks that were given back to the file system as holes.
    pub(crate) punched_bytes: u64,
}

impl SegmentRecord {
    /// Bytes of disk space that no live block needs.
    pub(crate) fn waste_bytes(&self) -> u64 {
        let needed = car::HEADER.len() as u64 + self.live_space + self.punched_bytes;
        self.end.saturating_sub(needed)
    }

    pub(crate) fn add(&mut self, block: &Location) {
        self.live_blocks += 1;
        self.live_bytes += u64::from(block.length);
        self.live_space += block.end() - block.start();
    }

    pub(crate) fn remove(&mut self, block: &Location) {
        self.live_blocks = self.live_blocks.saturating_sub(1);
        self.live_bytes = self.live_bytes.saturating_sub(u64::from(block.length));
        self.live_space = self.live_space.saturating_sub(block.end() - block.start());
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        encode_numbers([self.end, self.live_blocks, self.live_bytes, self.live_space, self.punched_bytes])
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let [end, live_blocks, live_bytes, live_space, punched_bytes] = decode_numbers(bytes)?;
        Some(Self { end, live_blocks, live_bytes, live_space, punched_bytes })
    }
}

/// Totals over all holds: a block counts once for each hold that references it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct HoldTotals {
    pub(crate) holds: u64,
    pub(crate) stats: HoldStats,
}

impl HoldTotals {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode_numbers([self.holds, self.stats.blocks, self.stats.bytes])
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let [holds, blocks, bytes] = decode_numbers(bytes)?;
        Some(Self { holds, stats: HoldStats { blocks, bytes } })
    }
}

fn encode_numbers<const N: usize>(numbers: [u64; N]) -> Vec<u8> {
    numbers.into_iter().flat_map(u64::to_be_bytes).collect()
}

fn decode_numbers<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let mut numbers = [0; N];
    let (chunks, []) = bytes.as_chunks::<8>() else { return None };
    if chunks.len() != N {
        return None;
    }
    for (number, chunk) in numbers.iter_mut().zip(chunks) {
        *number = u64::from_be_bytes(*chunk);
    }
    Some(numbers)
}

/// An edge from a hold to a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) hold: u64,
    pub(crate) hash: Multihash<64>,
    pub(crate) block: u64,
    pub(crate) length: u32,
}

/// A block that is known to be damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    /// The CID under which it was put, or a raw CID if that cannot be read any more.
    pub(crate) cid: Cid,
    pub(crate) found_at_ms: u64,
}

impl Damage {
    pub(crate) fn encode(&self) -> Vec<u8> {
        [&self.found_at_ms.to_be_bytes()[..], &self.cid.to_bytes()].concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (found, cid) = bytes.split_first_chunk()?;
        Some(Self { found_at_ms: u64::from_be_bytes(*found), cid: Cid::try_from(cid).ok()? })
    }
}

/// The key of an edge in either table.
pub(super) fn pair(first: u64, second: u64) -> [u8; 16] {
    (u128::from(first) << 64 | u128::from(second)).to_be_bytes()
}

pub(super) fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

/// The time in Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    // Only displayed: a clock before 1970 does no harm.
    #[expect(clippy::disallowed_methods, reason = "the node does not depend on the crate with the clock")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
