//! The index of the segments: where each block is, and which holds reference it.
//!
//! All tables are in one fjall database. Numbers are big-endian, so that keys sort like numbers:
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `blocks` | multihash | block id, location |
//! | `hold_blocks` | hold id, block id | length, multihash |
//! | `block_holds` | block id, hold id | – |
//! | `holds` | hold id | sealed, blocks, bytes, name |
//! | `names` | name | hold id |
//! | `releasing` | id of a released hold that still has edges | – |
//! | `dead` | segment, offset | length, head: a dead block whose space is to be given back |
//! | `segments` | segment id | end, live blocks, their bytes, their sections' bytes, punched bytes |
//! | `damaged` | multihash | CID, time of detection |
//! | `meta` | `next_segment`, `next_block` | the id after the highest that was ever committed |
//! | `meta` | `hold_totals` | number of holds, and the sums of their blocks and bytes |
//! | `meta` | `scrubbed` | position of the scrub |
//!
//! An edge refers to its block by an id. An id is shorter than a multihash. Ids grow as blocks arrive, so edges are
//! written and released in order. An id stays the same when its block moves to another segment: then one row changes,
//! however many holds reference the block. Ids and locations are never reused. Only the writer thread changes the
//! index. A change is one batch; everything that a reader can see was synced before.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use cid::multihash::Multihash;
use fjall::compaction::Leveled;
use fjall::config::{CompressionPolicy, PartitioningPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::blocks::HoldName;

mod changes;
mod journal;
mod record;

pub(crate) use changes::Changes;
pub(crate) use record::{Damage, Edge, HoldRecord, HoldTotals, Location, SegmentRecord, Stored, now_ms};
use record::{decode_location, number, pair};

/// Bytes of the read cache: enough for the upper levels of the tables of some million blocks.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;
/// Size at which a memtable is flushed, in bytes. Three tables are written often.
const MEMTABLE_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes of all journals: the minimum that fjall accepts. Bounds what is replayed when the store is opened.
const JOURNALS_BYTES: u64 = 64 * 1024 * 1024;
/// Threads that flush and compact tables. With one thread, memtables wait behind compactions and grow meanwhile, and so do
/// the journals, which are replayed when the store is opened.
const WORKERS: usize = 2;
/// Compaction starts at this many new tables, and writes tables of this size: small ones, so that a compaction is short.
const NEW_TABLES_MAX: u8 = 8;
const TABLE_BYTES: u64 = 16 * 1024 * 1024;
/// Table files kept open.
const OPEN_FILES_MAX: usize = 64;

/// Why an operation on the index failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    #[error("index: {0}")]
    Fjall(#[from] fjall::Error),
    #[error("index: {0}")]
    Io(#[from] io::Error),
    #[error("index: a {0} record cannot be read")]
    Corrupt(&'static str),
    #[error("index: not available: reopening it after an error failed")]
    Down,
}

type Result<T> = std::result::Result<T, IndexError>;

struct Tables {
    db: Database,
    blocks: Keyspace,
    hold_blocks: Keyspace,
    block_holds: Keyspace,
    holds: Keyspace,
    names: Keyspace,
    releasing: Keyspace,
    dead: Keyspace,
    segments: Keyspace,
    damaged: Keyspace,
    meta: Keyspace,
}

fn options() -> KeyspaceCreateOptions {
    let leveled = Leveled::default().with_l0_threshold(NEW_TABLES_MAX).with_table_target_size(TABLE_BYTES);
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE_BYTES)
        .compaction_strategy(Arc::new(leveled))
        // The values are mostly hashes, which do not compress.
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
        // Read in blocks instead of whole: a lookup needs a few KiB of them, and the cache holds the rest.
        .filter_block_partitioning_policy(PartitioningPolicy::all(true))
        .index_block_partitioning_policy(PartitioningPolicy::all(true))
}

impl Tables {
    fn open(path: &Path) -> Result<Self> {
        let db = Database::builder(path)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNALS_BYTES)
            .max_cached_files(Some(OPEN_FILES_MAX))
            .worker_threads(WORKERS)
            .open()?;
        Ok(Self {
            blocks: db.keyspace("blocks", options)?,
            hold_blocks: db.keyspace("hold_blocks", options)?,
            block_holds: db.keyspace("block_holds", options)?,
            holds: db.keyspace("holds", options)?,
            names: db.keyspace("names", options)?,
            releasing: db.keyspace("releasing", options)?,
            dead: db.keyspace("dead", options)?,
            segments: db.keyspace("segments", options)?,
            damaged: db.keyspace("damaged", options)?,
            meta: db.keyspace("meta", options)?,
            db,
        })
    }

    /// Flushes all memtables to table files, so that nothing depends on the journals.
    fn flush(&self) -> Result<()> {
        let Self {
            db: _,
            blocks,
            hold_blocks,
            block_holds,
            holds,
            names,
            releasing,
            dead,
            segments,
            damaged,
            meta,
        } = self;
        for table in
            [blocks, hold_blocks, block_holds, holds, names, releasing, dead, segments, damaged, meta]
        {
            table.rotate_memtable_and_wait()?;
        }
        Ok(())
    }

    fn meta<T>(&self, name: &'static str, decode: impl FnOnce(&[u8]) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.meta.get(name)? else { return Ok(None) };
        decode(&value).map(Some).ok_or(IndexError::Corrupt(name))
    }
}

/// The open index. After a failed write, fjall refuses further writes until it is [reopened](Self::reopen).
pub(crate) struct Index {
    path: PathBuf,
    tables: RwLock<Option<Tables>>,
}

impl Index {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), tables: RwLock::new(Some(Tables::open(path)?)) })
    }

    /// Closes the database and opens it again, which replays its journals. Fails as long as the disk cannot be written;
    /// the tables that were open continue to serve reads, and the call can be repeated.
    ///
    /// After a failed sync, the page cache may contain data that never reached the disk, without any sign of that. A
    /// journal that is read from the page cache must not be appended to: a batch acknowledged after a part that is lost
    /// would be lost with it. Therefore the contents of the journals are written again and synced before they are
    /// replayed.
    pub(crate) fn reopen(&self) -> Result<()> {
        journal::rewrite_all(&self.path)?;
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        // Closing may write buffered data.
        *tables = None;
        journal::rewrite_all(&self.path)?;
        *tables = Some(Tables::open(&self.path)?);
        Ok(())
    }

    /// Flushes an index that has been built completely.
    pub(crate) fn flush(&self) -> Result<()> {
        self.with(Tables::flush)
    }

    fn with<T>(&self, work: impl FnOnce(&Tables) -> Result<T>) -> Result<T> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        work(tables.as_ref().ok_or(IndexError::Down)?)
    }

    pub(crate) fn find(&self, hash: &Multihash<64>) -> Result<Option<Stored>> {
        self.with(|tables| {
            let Some(value) = tables.blocks.get(hash.to_bytes())? else { return Ok(None) };
            Stored::decode(&value).map(Some).ok_or(IndexError::Corrupt("block"))
        })
    }

    /// Up to `limit` blocks ordered by multihash, starting after `after`.
    pub(crate) fn blocks(
        &self,
        after: Option<&Multihash<64>>,
        limit: usize,
    ) -> Result<Vec<(Multihash<64>, Stored)>> {
        self.with(|tables| {
            let items = tables.blocks.range((from_after(after), Unbounded)).take(limit);
            items.map(|item| decode_block(item.into_inner()?)).collect()
        })
    }

    /// Up to `limit` blocks of one segment, ordered by offset, starting at `offset`. Scans every block in the index: for a
    /// segment that cannot be walked.
    pub(crate) fn blocks_in(
        &self,
        segment: u32,
        offset: u32,
        limit: usize,
    ) -> Result<Vec<(Multihash<64>, Stored)>> {
        let is_asked = |stored: &Stored| stored.at.segment == segment && stored.at.offset >= offset;
        self.with(|tables| {
            let mut found = BTreeMap::new();
            for item in tables.blocks.iter() {
                let (hash, stored) = decode_block(item.into_inner()?)?;
                if is_asked(&stored) {
                    found.insert(stored.at.offset, (hash, stored));
                    if found.len() > limit {
                        found.pop_last();
                    }
                }
            }
            Ok(found.into_values().collect())
        })
    }

    pub(crate) fn has_edge(&self, hold: u64, block: u64) -> Result<bool> {
        self.with(|tables| Ok(tables.block_holds.contains_key(pair(block, hold))?))
    }

    pub(crate) fn hold(&self, hold: u64) -> Result<Option<HoldRecord>> {
        self.with(|tables| {
            let Some(value) = tables.holds.get(hold.to_be_bytes())? else { return Ok(None) };
            HoldRecord::decode(&value).map(Some).ok_or(IndexError::Corrupt("hold"))
        })
    }

    pub(crate) fn hold_named(&self, name: &HoldName) -> Result<Option<u64>> {
        self.with(|tables| {
            let Some(value) = tables.names.get(name.as_str())? else { return Ok(None) };
            number(&value).map(Some).ok_or(IndexError::Corrupt("name"))
        })
    }

    /// Up to `limit` names that start with `prefix`, and their holds, in order, starting after `after`.
    pub(crate) fn names(
        &self,
        prefix: &str,
        after: Option<&HoldName>,
        limit: usize,
    ) -> Result<Vec<(HoldName, u64)>> {
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

    /// Up to `limit` edges of a hold ordered by block id, starting after `after`.
    ///
    /// A caller that removes edges between calls must pass its position: skipping tombstones of edges that were just
    /// removed costs as much as reading the edges.
    pub(crate) fn edges(&self, hold: u64, after: Option<u64>, limit: usize) -> Result<Vec<Edge>> {
        let start = match after {
            Some(after) => Excluded(pair(hold, after)),
            None => Included(pair(hold, 0)),
        };
        self.with(|tables| {
            let items = tables.hold_blocks.range((start, Included(pair(hold, u64::MAX)))).take(limit);
            items.map(|item| decode_edge(hold, item.into_inner()?)).collect()
        })
    }

    /// Up to `limit` holds that reference a block.
    pub(crate) fn holds_of(&self, block: u64, limit: usize) -> Result<Vec<u64>> {
        self.with(|tables| {
            let items = tables.block_holds.prefix(block.to_be_bytes()).take(limit);
            items
                .map(|item| item.key()?.get(8..).and_then(number).ok_or(IndexError::Corrupt("block_holds")))
                .collect()
        })
    }

    /// Up to `limit` dead blocks of a segment whose space has not been given back.
    pub(crate) fn dead(&self, segment: u32, limit: usize) -> Result<Vec<Location>> {
        self.with(|tables| {
            let items = tables.dead.prefix(segment.to_be_bytes()).take(limit);
            items.map(|item| decode_dead(item.into_inner()?)).collect()
        })
    }

    /// The segments with dead blocks whose space has not been given back.
    pub(crate) fn dead_segments(&self) -> Result<BTreeSet<u32>> {
        self.with(|tables| {
            tables.dead.iter().map(|item| Ok(decode_dead(item.into_inner()?)?.segment)).collect()
        })
    }

    /// Up to `limit` damaged blocks ordered by multihash, starting after `after`.
    pub(crate) fn damaged(
        &self,
        after: Option<&Multihash<64>>,
        limit: usize,
    ) -> Result<Vec<(Multihash<64>, Damage)>> {
        self.with(|tables| {
            let items = tables.damaged.range((from_after(after), Unbounded)).take(limit);
            items
                .map(|item| {
                    let (key, value) = item.into_inner()?;
                    let hash = Multihash::from_bytes(&key).ok();
                    hash.zip(Damage::decode(&value)).ok_or(IndexError::Corrupt("damaged"))
                })
                .collect()
        })
    }

    pub(crate) fn segment(&self, id: u32) -> Result<Option<SegmentRecord>> {
        self.with(|tables| {
            let Some(value) = tables.segments.get(id.to_be_bytes())? else { return Ok(None) };
            SegmentRecord::decode(&value).map(Some).ok_or(IndexError::Corrupt("segment"))
        })
    }

    pub(crate) fn segments(&self) -> Result<Vec<(u32, SegmentRecord)>> {
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

    pub(crate) fn releasing(&self) -> Result<Vec<u64>> {
        self.with(|tables| {
            tables
                .releasing
                .iter()
                .map(|item| number(&item.key()?).ok_or(IndexError::Corrupt("releasing")))
                .collect()
        })
    }

    pub(crate) fn next_segment(&self) -> Result<u32> {
        let decode = |bytes: &[u8]| bytes.try_into().ok().map(u32::from_be_bytes);
        Ok(self.with(|tables| tables.meta("next_segment", decode))?.unwrap_or(1))
    }

    pub(crate) fn next_block(&self) -> Result<u64> {
        Ok(self.with(|tables| tables.meta("next_block", number))?.unwrap_or(1))
    }

    pub(crate) fn hold_totals(&self) -> Result<HoldTotals> {
        Ok(self.with(|tables| tables.meta("hold_totals", HoldTotals::decode))?.unwrap_or_default())
    }

    /// The position of the scrub: the last block that it verified, and the start of its round in Unix milliseconds.
    pub(crate) fn scrubbed(&self) -> Result<Option<(Multihash<64>, u64)>> {
        let decode = |bytes: &[u8]| {
            let (began, hash) = bytes.split_first_chunk()?;
            Some((Multihash::from_bytes(hash).ok()?, u64::from_be_bytes(*began)))
        };
        self.with(|tables| tables.meta("scrubbed", decode))
    }

    /// The highest hold id in use, including released holds that still have edges.
    pub(crate) fn last_hold(&self) -> Result<u64> {
        self.with(|tables| {
            let mut last = 0;
            for table in [&tables.holds, &tables.releasing] {
                if let Some(item) = table.last_key_value() {
                    last = last.max(number(&item.key()?).ok_or(IndexError::Corrupt("hold"))?);
                }
            }
            Ok(last)
        })
    }

    /// Applies the changes that `fill` records as one atomic batch, and syncs it if `synced`.
    pub(crate) fn change(&self, synced: bool, fill: impl FnOnce(&mut Changes<'_>)) -> Result<()> {
        self.with(|tables| {
            let durability = if synced { PersistMode::SyncData } else { PersistMode::Buffer };
            let batch = tables.db.batch().durability(Some(durability));
            let mut changes = Changes::new(tables, batch);
            fill(&mut changes);
            Ok(changes.commit()?)
        })
    }
}

fn from_after(after: Option<&Multihash<64>>) -> std::ops::Bound<Vec<u8>> {
    after.map_or(Unbounded, |after| Excluded(after.to_bytes()))
}

fn decode_block((key, value): (fjall::UserKey, fjall::UserValue)) -> Result<(Multihash<64>, Stored)> {
    let hash = Multihash::from_bytes(&key).ok();
    hash.zip(Stored::decode(&value)).ok_or(IndexError::Corrupt("block"))
}

fn decode_edge(hold: u64, (key, value): (fjall::UserKey, fjall::UserValue)) -> Result<Edge> {
    let decoded = value.split_first_chunk().and_then(|(length, hash)| {
        let block = number(key.get(8..)?)?;
        Some(Edge {
            hold,
            hash: Multihash::from_bytes(hash).ok()?,
            block,
            length: u32::from_be_bytes(*length),
        })
    });
    decoded.ok_or(IndexError::Corrupt("hold_blocks"))
}

fn decode_dead((key, value): (fjall::UserKey, fjall::UserValue)) -> Result<Location> {
    let location = key.as_ref().try_into().ok().and_then(|key| decode_location(key, &value));
    location.ok_or(IndexError::Corrupt("dead"))
}
