//! The index of the segments: what is where, and who keeps it.
//!
//! Tables, all of them in one fjall database, all numbers big-endian so that keys sort as numbers do:
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `blocks` | multihash | block id, location |
//! | `kept` | hold id, block id | length, multihash |
//! | `keepers` | block id, hold id | – |
//! | `holds` | hold id | sealed, blocks, bytes, name |
//! | `names` | name | hold id |
//! | `going` | id of a released hold whose edges are still to be removed | – |
//! | `dead` | segment, offset | length, head: bytes that nobody keeps, to be given back |
//! | `segments` | segment id | end, live blocks, their bytes, their sections' bytes, bytes given back |
//! | `damaged` | multihash | CID, and when it was found |
//! | `meta` | `next_segment`, `next_block` | the id after the highest that was ever committed |
//! | `meta` | `held` | holds, and the blocks and bytes of all of them added up |
//! | `meta` | `scrubbed` | how far the scrub is |
//!
//! An edge names its block by an id, which is shorter than a multihash, grows as blocks arrive, so that
//! edges are written and released in order, and stays the same when the block moves to another segment:
//! then one row changes, however many keep it. Ids and locations are never used twice. Only the writer
//! thread changes the index. A change is one batch; what a reader can see was synced before.

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

/// Bytes of the read cache: enough for the hot upper levels of some million blocks.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;
/// Bytes of one table's memory before it is written out. There are three busy tables.
const MEMTABLE_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes of all journals; the least that fjall takes. Bounds what is replayed when the store is opened.
const JOURNALS_BYTES: u64 = 64 * 1024 * 1024;
/// Threads that write tables out and merge them. With one, memtables wait behind merges and grow meanwhile, and the
/// journals with them, which are what is read when the store is opened.
const WORKERS: usize = 2;
/// Tables are merged when so many are new, and are so large: small ones, so that a merge is short.
const NEW_TABLES_MAX: u8 = 8;
const TABLE_BYTES: u64 = 16 * 1024 * 1024;
/// Table files that are kept open.
const OPEN_FILES_MAX: usize = 64;

/// Why the index did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    #[error("index: {0}")]
    Fjall(#[from] fjall::Error),
    #[error("index: {0}")]
    Io(#[from] io::Error),
    #[error("index: a {0} record cannot be read")]
    Corrupt(&'static str),
    #[error("index: it could not be reopened after an error")]
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
        // Hashes cannot be compressed.
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
        // Read in blocks, not whole: a look-up needs a few KiB of them, and the cache holds the rest.
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

    /// Writes everything out of memory into table files, so that nothing depends on the journals.
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

/// The open index. After an error while writing, fjall takes no more writes until it is
/// [reopened](Self::reopen).
pub(crate) struct Index {
    path: PathBuf,
    tables: RwLock<Option<Tables>>,
}

impl Index {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), tables: RwLock::new(Some(Tables::open(path)?)) })
    }

    /// Closes the database and opens it again, which reads what its journals have. Until the disk can be written
    /// again it fails, and the tables that were open go on answering; then it can be called once more.
    ///
    /// After a failed sync the page cache may show what never reached the disk, as if it had. A journal that is
    /// read from there must not be added to: what is acknowledged behind a part that is lost would be lost with it.
    /// So what the journals show is written once more, and synced, before they are read.
    pub(crate) fn reopen(&self) -> Result<()> {
        journal::write_again(&self.path)?;
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        // Closing may write what was still in a buffer.
        *tables = None;
        journal::write_again(&self.path)?;
        *tables = Some(Tables::open(&self.path)?);
        Ok(())
    }

    /// Writes everything out of memory, for an index that is complete.
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

    /// Up to `limit` blocks in the order of their multihashes, from after `after`.
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

    /// The blocks of one segment from `offset` on, at most `limit` of them, in the order of their offsets. Looks
    /// at every block there is: for when the segment itself cannot be read.
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

    /// Names that start with `prefix` and their holds, in order, from after `after`.
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

    /// Up to `limit` edges of a hold, in the order of block ids, from after `after`.
    ///
    /// Whoever removes edges as it goes passes where it was: stepping over those that were just removed
    /// costs as much as reading them.
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

    /// Up to `limit` holds that keep a block.
    pub(crate) fn holds_of(&self, block: u64, limit: usize) -> Result<Vec<u64>> {
        self.with(|tables| {
            let items = tables.block_holds.prefix(block.to_be_bytes()).take(limit);
            items
                .map(|item| item.key()?.get(8..).and_then(number).ok_or(IndexError::Corrupt("block_holds")))
                .collect()
        })
    }

    /// What is dead in a segment and not given back yet; at most `limit`.
    pub(crate) fn dead(&self, segment: u32, limit: usize) -> Result<Vec<Location>> {
        self.with(|tables| {
            let items = tables.dead.prefix(segment.to_be_bytes()).take(limit);
            items.map(|item| decode_dead(item.into_inner()?)).collect()
        })
    }

    /// The segments with something dead that is not given back yet.
    pub(crate) fn dead_segments(&self) -> Result<BTreeSet<u32>> {
        self.with(|tables| {
            tables.dead.iter().map(|item| Ok(decode_dead(item.into_inner()?)?.segment)).collect()
        })
    }

    /// Blocks that were found damaged, in the order of multihashes, at most `limit` from after `after`.
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

    /// How far the scrub is: the last block that was looked at, and when its round began.
    pub(crate) fn scrubbed(&self) -> Result<Option<(Multihash<64>, u64)>> {
        let decode = |bytes: &[u8]| {
            let (began, hash) = bytes.split_first_chunk()?;
            Some((Multihash::from_bytes(hash).ok()?, u64::from_be_bytes(*began)))
        };
        self.with(|tables| tables.meta("scrubbed", decode))
    }

    /// The highest hold id in use, of released ones too.
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

    /// Makes the changes that `fill` writes down, all or none, and syncs them if `synced`.
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
