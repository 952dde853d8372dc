//! The index of the segments: what is where, and who keeps it.
//!
//! Tables, all of them in one fjall database, all numbers big-endian so that keys sort as numbers do:
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `blocks` | multihash | location |
//! | `kept` | hold id, location without length | length, multihash |
//! | `keepers` | location without length, hold id | – |
//! | `holds` | hold id | sealed, blocks, bytes, name |
//! | `names` | name | hold id |
//! | `going` | id of a released hold whose space is still to be freed | – |
//! | `segments` | segment id | end, live blocks, live bytes |
//! | `meta` | `next_segment` | the id after the highest that was ever committed |
//!
//! An edge names its block by location, which is shorter than a multihash and grows as blocks arrive, so
//! that edges are written and released in order. Only the writer thread changes the index. A change is
//! one batch; what a reader can see was synced before.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use cid::multihash::Multihash;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};

use crate::blocks::{HoldName, HoldStats};

/// Bytes of the read cache: enough for the hot upper levels of some million blocks.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of one table's memory before it is written out. There are three busy tables.
const MEMTABLE_BYTES: u64 = 6 * 1024 * 1024;
/// Bytes of all journals; the least that fjall takes. Bounds what is replayed when the store is opened.
const JOURNALS_BYTES: u64 = 64 * 1024 * 1024;
/// Table files that are kept open.
const OPEN_FILES_MAX: usize = 64;

/// Where a block's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Location {
    pub(super) segment: u32,
    /// From the start of the segment file.
    pub(super) offset: u32,
    pub(super) length: u32,
}

impl Location {
    fn key(&self) -> [u8; 8] {
        (u64::from(self.segment) << 32 | u64::from(self.offset)).to_be_bytes()
    }

    fn encode(&self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&self.key());
        bytes[8..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (segment, rest) = bytes.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let length = rest.try_into().ok()?;
        Some(Self {
            segment: u32::from_be_bytes(*segment),
            offset: u32::from_be_bytes(*offset),
            length: u32::from_be_bytes(length),
        })
    }
}

/// A hold as it is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HoldRecord {
    pub(super) name: HoldName,
    pub(super) sealed: bool,
    pub(super) stats: HoldStats,
}

impl HoldRecord {
    pub(super) fn new(name: HoldName) -> Self {
        Self { name, sealed: false, stats: HoldStats::default() }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.sealed)];
        bytes.extend(self.stats.blocks.to_be_bytes());
        bytes.extend(self.stats.bytes.to_be_bytes());
        bytes.extend(self.name.as_str().as_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
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

/// A segment as it is committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SegmentRecord {
    /// The length of the file as far as it counts.
    pub(super) end: u64,
    pub(super) live_blocks: u64,
    pub(super) live_bytes: u64,
}

impl SegmentRecord {
    fn encode(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.end.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.live_blocks.to_be_bytes());
        bytes[16..].copy_from_slice(&self.live_bytes.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (end, rest) = bytes.split_first_chunk()?;
        let (live_blocks, rest) = rest.split_first_chunk()?;
        let live_bytes = rest.try_into().ok()?;
        Some(Self {
            end: u64::from_be_bytes(*end),
            live_blocks: u64::from_be_bytes(*live_blocks),
            live_bytes: u64::from_be_bytes(live_bytes),
        })
    }
}

/// An edge from a hold to a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) hold: u64,
    pub(super) hash: Multihash<64>,
    pub(super) location: Location,
}

/// Why the index did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum IndexError {
    #[error("index: {0}")]
    Fjall(#[from] fjall::Error),
    #[error("index: a {0} record cannot be read")]
    Corrupt(&'static str),
    #[error("index: it could not be reopened after an error")]
    Down,
}

type Result<T> = std::result::Result<T, IndexError>;

struct Tables {
    db: Database,
    blocks: Keyspace,
    kept: Keyspace,
    keepers: Keyspace,
    holds: Keyspace,
    names: Keyspace,
    going: Keyspace,
    segments: Keyspace,
    meta: Keyspace,
}

impl Tables {
    fn open(path: &Path) -> Result<Self> {
        let db = Database::builder(path)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNALS_BYTES)
            .max_cached_files(Some(OPEN_FILES_MAX))
            .worker_threads(1)
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        Ok(Self {
            blocks: db.keyspace("blocks", options)?,
            kept: db.keyspace("kept", options)?,
            keepers: db.keyspace("keepers", options)?,
            holds: db.keyspace("holds", options)?,
            names: db.keyspace("names", options)?,
            going: db.keyspace("going", options)?,
            segments: db.keyspace("segments", options)?,
            meta: db.keyspace("meta", options)?,
            db,
        })
    }
}

/// The open index. After an error while writing, fjall takes no more writes until it is
/// [reopened](Self::reopen).
pub(super) struct Index {
    path: PathBuf,
    tables: RwLock<Option<Tables>>,
}

impl Index {
    pub(super) fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), tables: RwLock::new(Some(Tables::open(path)?)) })
    }

    /// Closes the database and opens it again, which reads what really reached the disk.
    pub(super) fn reopen(&self) -> Result<()> {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        *tables = None;
        *tables = Some(Tables::open(&self.path)?);
        Ok(())
    }

    fn with<T>(&self, work: impl FnOnce(&Tables) -> Result<T>) -> Result<T> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        work(tables.as_ref().ok_or(IndexError::Down)?)
    }

    pub(super) fn locate(&self, hash: &Multihash<64>) -> Result<Option<Location>> {
        self.with(|tables| {
            let Some(value) = tables.blocks.get(hash.to_bytes())? else { return Ok(None) };
            Location::decode(&value).map(Some).ok_or(IndexError::Corrupt("block"))
        })
    }

    pub(super) fn has_edge(&self, hold: u64, location: &Location) -> Result<bool> {
        self.with(|tables| Ok(tables.keepers.contains_key(keeper_key(location, hold))?))
    }

    pub(super) fn hold(&self, hold: u64) -> Result<Option<HoldRecord>> {
        self.with(|tables| {
            let Some(value) = tables.holds.get(hold.to_be_bytes())? else { return Ok(None) };
            HoldRecord::decode(&value).map(Some).ok_or(IndexError::Corrupt("hold"))
        })
    }

    pub(super) fn hold_named(&self, name: &HoldName) -> Result<Option<u64>> {
        self.with(|tables| {
            let Some(value) = tables.names.get(name.as_str())? else { return Ok(None) };
            number(&value).map(Some).ok_or(IndexError::Corrupt("name"))
        })
    }

    /// Names that start with `prefix` and their holds, in order, from after `after`.
    pub(super) fn names(
        &self,
        prefix: &str,
        after: Option<&HoldName>,
        limit: usize,
    ) -> Result<Vec<(HoldName, u64)>> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let start = match after {
            Some(after) if after.as_str() >= prefix => Excluded(after.as_str()),
            Some(_) | None => Included(prefix),
        };
        self.with(|tables| {
            let mut found = Vec::new();
            for item in tables.names.range::<&str, _>((start, Unbounded)).take(limit) {
                let (key, value) = item.into_inner()?;
                if !key.starts_with(prefix.as_bytes()) {
                    break;
                }
                let name = std::str::from_utf8(&key).ok().and_then(HoldName::parse);
                found.push(name.zip(number(&value)).ok_or(IndexError::Corrupt("name"))?);
            }
            Ok(found)
        })
    }

    /// Up to `limit` edges of a hold, in the order of locations, from after `after`.
    ///
    /// Whoever removes edges as it goes passes where it was: stepping over those that were just removed
    /// costs as much as reading them.
    pub(super) fn edges(&self, hold: u64, after: Option<&Location>, limit: usize) -> Result<Vec<Edge>> {
        use std::ops::Bound::{Excluded, Included};
        let start = match after {
            Some(after) => Excluded(kept_key(hold, after)),
            None => Included((u128::from(hold) << 64).to_be_bytes()),
        };
        let end = Included((u128::from(hold) << 64 | u128::from(u64::MAX)).to_be_bytes());
        self.with(|tables| {
            let items = tables.kept.range((start, end)).take(limit);
            items.map(|item| decode_edge(hold, item.into_inner()?)).collect()
        })
    }

    /// Whether `hold` still has its edge to a block, and whether anyone else has one.
    pub(super) fn keepers(&self, location: &Location, hold: u64) -> Result<(bool, bool)> {
        self.with(|tables| {
            let own = tables.keepers.contains_key(keeper_key(location, hold))?;
            let mut other = false;
            // Of any two one is somebody else's: a block that many keep costs no more than one that few do.
            for item in tables.keepers.prefix(location.key()).take(2) {
                let keeper = item.key()?.get(8..).and_then(number).ok_or(IndexError::Corrupt("keeper"))?;
                other |= keeper != hold;
            }
            Ok((own, other))
        })
    }

    pub(super) fn segment(&self, id: u32) -> Result<Option<SegmentRecord>> {
        self.with(|tables| {
            let Some(value) = tables.segments.get(id.to_be_bytes())? else { return Ok(None) };
            SegmentRecord::decode(&value).map(Some).ok_or(IndexError::Corrupt("segment"))
        })
    }

    pub(super) fn segments(&self) -> Result<Vec<(u32, SegmentRecord)>> {
        self.with(|tables| {
            let mut found = Vec::new();
            for item in tables.segments.iter() {
                let (key, value) = item.into_inner()?;
                let id = key.as_ref().try_into().ok().map(u32::from_be_bytes);
                let record = id.zip(SegmentRecord::decode(&value));
                found.push(record.ok_or(IndexError::Corrupt("segment"))?);
            }
            Ok(found)
        })
    }

    pub(super) fn going(&self) -> Result<Vec<u64>> {
        self.with(|tables| {
            tables.going.iter().map(|item| number(&item.key()?).ok_or(IndexError::Corrupt("going"))).collect()
        })
    }

    pub(super) fn next_segment(&self) -> Result<u32> {
        self.with(|tables| match tables.meta.get("next_segment")? {
            Some(value) => {
                value.as_ref().try_into().map(u32::from_be_bytes).map_err(|_| IndexError::Corrupt("meta"))
            }
            None => Ok(1),
        })
    }

    /// The highest hold id in use, of released ones too.
    pub(super) fn last_hold(&self) -> Result<u64> {
        self.with(|tables| {
            let mut last = 0;
            for table in [&tables.holds, &tables.going] {
                if let Some(item) = table.last_key_value() {
                    last = last.max(number(&item.key()?).ok_or(IndexError::Corrupt("hold"))?);
                }
            }
            Ok(last)
        })
    }

    /// Makes the changes that `fill` writes down, all or none, and syncs them if `synced`.
    pub(super) fn change(&self, synced: bool, fill: impl FnOnce(&mut Changes<'_>)) -> Result<()> {
        self.with(|tables| {
            let durability = if synced { PersistMode::SyncData } else { PersistMode::Buffer };
            let batch = tables.db.batch().durability(Some(durability));
            let mut changes = Changes { tables, batch };
            fill(&mut changes);
            Ok(changes.batch.commit()?)
        })
    }
}

/// A batch in the making. No key may be changed twice in one batch.
pub(super) struct Changes<'a> {
    tables: &'a Tables,
    batch: OwnedWriteBatch,
}

impl Changes<'_> {
    pub(super) fn put_block(&mut self, hash: &Multihash<64>, location: &Location) {
        self.batch.insert(&self.tables.blocks, hash.to_bytes(), location.encode());
    }

    pub(super) fn remove_block(&mut self, hash: &Multihash<64>) {
        self.batch.remove(&self.tables.blocks, hash.to_bytes());
    }

    pub(super) fn put_edge(&mut self, edge: &Edge) {
        let mut value = edge.location.length.to_be_bytes().to_vec();
        value.extend(edge.hash.to_bytes());
        self.batch.insert(&self.tables.kept, kept_key(edge.hold, &edge.location), value);
        self.batch.insert(&self.tables.keepers, keeper_key(&edge.location, edge.hold), []);
    }

    pub(super) fn remove_keeper(&mut self, edge: &Edge) {
        self.batch.remove(&self.tables.keepers, keeper_key(&edge.location, edge.hold));
    }

    pub(super) fn remove_kept(&mut self, edge: &Edge) {
        self.batch.remove(&self.tables.kept, kept_key(edge.hold, &edge.location));
    }

    pub(super) fn put_hold(&mut self, id: u64, record: &HoldRecord) {
        self.batch.insert(&self.tables.holds, id.to_be_bytes(), record.encode());
    }

    pub(super) fn remove_hold(&mut self, id: u64) {
        self.batch.remove(&self.tables.holds, id.to_be_bytes());
    }

    pub(super) fn name_hold(&mut self, name: &HoldName, id: Option<u64>) {
        match id {
            Some(id) => self.batch.insert(&self.tables.names, name.as_str(), id.to_be_bytes()),
            None => self.batch.remove(&self.tables.names, name.as_str()),
        }
    }

    pub(super) fn put_going(&mut self, id: u64) {
        self.batch.insert(&self.tables.going, id.to_be_bytes(), []);
    }

    pub(super) fn remove_going(&mut self, id: u64) {
        self.batch.remove(&self.tables.going, id.to_be_bytes());
    }

    pub(super) fn put_segment(&mut self, id: u32, record: &SegmentRecord) {
        self.batch.insert(&self.tables.segments, id.to_be_bytes(), record.encode());
    }

    pub(super) fn remove_segment(&mut self, id: u32) {
        self.batch.remove(&self.tables.segments, id.to_be_bytes());
    }

    pub(super) fn set_next_segment(&mut self, id: u32) {
        self.batch.insert(&self.tables.meta, "next_segment", id.to_be_bytes());
    }
}

fn kept_key(hold: u64, location: &Location) -> [u8; 16] {
    (u128::from(hold) << 64 | u128::from(u64::from_be_bytes(location.key()))).to_be_bytes()
}

fn keeper_key(location: &Location, hold: u64) -> [u8; 16] {
    (u128::from(u64::from_be_bytes(location.key())) << 64 | u128::from(hold)).to_be_bytes()
}

fn decode_edge(hold: u64, (key, value): (fjall::UserKey, fjall::UserValue)) -> Result<Edge> {
    let corrupt = || IndexError::Corrupt("kept");
    let (length, hash) = value.split_at_checked(4).ok_or_else(corrupt)?;
    let place = key.get(8..16).ok_or_else(corrupt)?;
    let location = Location::decode(&[place, length].concat()).ok_or_else(corrupt)?;
    let hash = Multihash::from_bytes(hash).map_err(|_| corrupt())?;
    Ok(Edge { hold, hash, location })
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}
