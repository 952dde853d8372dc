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
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};

use crate::blocks::HoldName;

mod journal;
mod record;

use record::decode_location;
pub(super) use record::{Damage, Edge, HeldRecord, HoldRecord, Location, SegmentRecord, Stored};

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
pub(super) enum IndexError {
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
    kept: Keyspace,
    keepers: Keyspace,
    holds: Keyspace,
    names: Keyspace,
    going: Keyspace,
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
            kept: db.keyspace("kept", options)?,
            keepers: db.keyspace("keepers", options)?,
            holds: db.keyspace("holds", options)?,
            names: db.keyspace("names", options)?,
            going: db.keyspace("going", options)?,
            dead: db.keyspace("dead", options)?,
            segments: db.keyspace("segments", options)?,
            damaged: db.keyspace("damaged", options)?,
            meta: db.keyspace("meta", options)?,
            db,
        })
    }

    /// Writes everything out of memory into table files, so that nothing depends on the journals.
    fn flush(&self) -> Result<()> {
        let Self { db: _, blocks, kept, keepers, holds, names, going, dead, segments, damaged, meta } = self;
        for table in [blocks, kept, keepers, holds, names, going, dead, segments, damaged, meta] {
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
pub(super) struct Index {
    path: PathBuf,
    tables: RwLock<Option<Tables>>,
}

impl Index {
    pub(super) fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), tables: RwLock::new(Some(Tables::open(path)?)) })
    }

    /// Closes the database and opens it again, which reads what its journals have. Until the disk can be written
    /// again it fails, and the tables that were open go on answering; then it can be called once more.
    ///
    /// After a failed sync the page cache may show what never reached the disk, as if it had. A journal that is
    /// read from there must not be added to: what is acknowledged behind a part that is lost would be lost with it.
    /// So what the journals show is written once more, and synced, before they are read.
    pub(super) fn reopen(&self) -> Result<()> {
        journal::write_again(&self.path)?;
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        // Closing may write what was still in a buffer.
        *tables = None;
        journal::write_again(&self.path)?;
        *tables = Some(Tables::open(&self.path)?);
        Ok(())
    }

    /// Writes everything out of memory, for an index that is complete.
    pub(super) fn flush(&self) -> Result<()> {
        self.with(Tables::flush)
    }

    fn with<T>(&self, work: impl FnOnce(&Tables) -> Result<T>) -> Result<T> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        work(tables.as_ref().ok_or(IndexError::Down)?)
    }

    pub(super) fn find(&self, hash: &Multihash<64>) -> Result<Option<Stored>> {
        self.with(|tables| {
            let Some(value) = tables.blocks.get(hash.to_bytes())? else { return Ok(None) };
            Stored::decode(&value).map(Some).ok_or(IndexError::Corrupt("block"))
        })
    }

    /// Up to `limit` blocks in the order of their multihashes, from after `after`.
    pub(super) fn blocks(
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
    pub(super) fn blocks_in(
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

    pub(super) fn has_edge(&self, hold: u64, block: u64) -> Result<bool> {
        self.with(|tables| Ok(tables.keepers.contains_key(pair(block, hold))?))
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
    pub(super) fn edges(&self, hold: u64, after: Option<u64>, limit: usize) -> Result<Vec<Edge>> {
        let start = match after {
            Some(after) => Excluded(pair(hold, after)),
            None => Included(pair(hold, 0)),
        };
        self.with(|tables| {
            let items = tables.kept.range((start, Included(pair(hold, u64::MAX)))).take(limit);
            items.map(|item| decode_edge(hold, item.into_inner()?)).collect()
        })
    }

    /// Up to `limit` holds that keep a block.
    pub(super) fn keepers(&self, block: u64, limit: usize) -> Result<Vec<u64>> {
        self.with(|tables| {
            let items = tables.keepers.prefix(block.to_be_bytes()).take(limit);
            items
                .map(|item| item.key()?.get(8..).and_then(number).ok_or(IndexError::Corrupt("keeper")))
                .collect()
        })
    }

    /// What is dead in a segment and not given back yet; at most `limit`.
    pub(super) fn dead(&self, segment: u32, limit: usize) -> Result<Vec<Location>> {
        self.with(|tables| {
            let items = tables.dead.prefix(segment.to_be_bytes()).take(limit);
            items.map(|item| decode_dead(item.into_inner()?)).collect()
        })
    }

    /// The segments with something dead that is not given back yet.
    pub(super) fn dead_segments(&self) -> Result<BTreeSet<u32>> {
        self.with(|tables| {
            tables.dead.iter().map(|item| Ok(decode_dead(item.into_inner()?)?.segment)).collect()
        })
    }

    /// Blocks that were found damaged, in the order of multihashes, at most `limit` from after `after`.
    pub(super) fn damaged(
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
        let decode = |bytes: &[u8]| bytes.try_into().ok().map(u32::from_be_bytes);
        Ok(self.with(|tables| tables.meta("next_segment", decode))?.unwrap_or(1))
    }

    pub(super) fn next_block(&self) -> Result<u64> {
        Ok(self.with(|tables| tables.meta("next_block", number))?.unwrap_or(1))
    }

    pub(super) fn held(&self) -> Result<HeldRecord> {
        Ok(self.with(|tables| tables.meta("held", HeldRecord::decode))?.unwrap_or_default())
    }

    /// How far the scrub is: the last block that was looked at, and when its round began.
    pub(super) fn scrubbed(&self) -> Result<Option<(Multihash<64>, u64)>> {
        let decode = |bytes: &[u8]| {
            let (began, hash) = bytes.split_first_chunk()?;
            Some((Multihash::from_bytes(hash).ok()?, u64::from_be_bytes(*began)))
        };
        self.with(|tables| tables.meta("scrubbed", decode))
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
    pub(super) fn put_block(&mut self, hash: &Multihash<64>, stored: &Stored) {
        self.batch.insert(&self.tables.blocks, hash.to_bytes(), stored.encode());
    }

    pub(super) fn remove_block(&mut self, hash: &Multihash<64>) {
        self.batch.remove(&self.tables.blocks, hash.to_bytes());
    }

    pub(super) fn put_edge(&mut self, edge: &Edge) {
        let value = [&edge.length.to_be_bytes()[..], &edge.hash.to_bytes()].concat();
        self.batch.insert(&self.tables.kept, pair(edge.hold, edge.block), value);
        self.batch.insert(&self.tables.keepers, pair(edge.block, edge.hold), []);
    }

    pub(super) fn remove_edge(&mut self, edge: &Edge) {
        self.batch.remove(&self.tables.kept, pair(edge.hold, edge.block));
        self.batch.remove(&self.tables.keepers, pair(edge.block, edge.hold));
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

    pub(super) fn put_dead(&mut self, location: &Location) {
        let mut value = location.length.to_be_bytes().to_vec();
        value.push(location.head);
        self.batch.insert(&self.tables.dead, location.key(), value);
    }

    pub(super) fn remove_dead(&mut self, location: &Location) {
        self.batch.remove(&self.tables.dead, location.key());
    }

    pub(super) fn put_segment(&mut self, id: u32, record: &SegmentRecord) {
        self.batch.insert(&self.tables.segments, id.to_be_bytes(), record.encode());
    }

    pub(super) fn remove_segment(&mut self, id: u32) {
        self.batch.remove(&self.tables.segments, id.to_be_bytes());
    }

    pub(super) fn put_damaged(&mut self, hash: &Multihash<64>, damage: &Damage) {
        self.batch.insert(&self.tables.damaged, hash.to_bytes(), damage.encode());
    }

    pub(super) fn remove_damaged(&mut self, hash: &Multihash<64>) {
        self.batch.remove(&self.tables.damaged, hash.to_bytes());
    }

    pub(super) fn set_next_segment(&mut self, id: u32) {
        self.batch.insert(&self.tables.meta, "next_segment", id.to_be_bytes());
    }

    pub(super) fn set_next_block(&mut self, id: u64) {
        self.batch.insert(&self.tables.meta, "next_block", id.to_be_bytes());
    }

    pub(super) fn set_held(&mut self, held: &HeldRecord) {
        self.batch.insert(&self.tables.meta, "held", held.encode());
    }

    pub(super) fn set_scrubbed(&mut self, last: Option<&Multihash<64>>, began_ms: u64) {
        match last {
            Some(last) => {
                let value = [&began_ms.to_be_bytes()[..], &last.to_bytes()].concat();
                self.batch.insert(&self.tables.meta, "scrubbed", value);
            }
            None => self.batch.remove(&self.tables.meta, "scrubbed"),
        }
    }
}

/// The key of an edge, from either side.
fn pair(first: u64, second: u64) -> [u8; 16] {
    (u128::from(first) << 64 | u128::from(second)).to_be_bytes()
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
    decoded.ok_or(IndexError::Corrupt("kept"))
}

fn decode_dead((key, value): (fjall::UserKey, fjall::UserValue)) -> Result<Location> {
    let location = key.as_ref().try_into().ok().and_then(|key| decode_location(key, &value));
    location.ok_or(IndexError::Corrupt("dead"))
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}
