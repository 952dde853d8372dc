//! fjall, a log-structured merge tree: with Pinfold's first settings, and tuned.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fjall::compaction::Leveled;
use fjall::config::{CompressionPolicy, PartitioningPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Change, Engine, kept_hash, kept_value};
use crate::Result;
use crate::data::{self, Hash, Value};

pub(super) struct Fjall {
    dir: PathBuf,
    db: Database,
    blocks: Keyspace,
    kept: Keyspace,
    keepers: Keyspace,
}

impl Fjall {
    pub(super) fn open(dir: &Path, tuned: bool) -> Result<Self> {
        let db = Database::builder(dir)
            .cache_size(if tuned { 32 << 20 } else { 8 << 20 })
            .max_journaling_size(64 << 20)
            .max_cached_files(Some(64))
            // With one thread, memtables and journals grow while they wait for compactions.
            .worker_threads(if tuned { 2 } else { 1 })
            .open()?;
        let options = if tuned { tuned_options } else { first_options };
        Ok(Self {
            dir: dir.to_owned(),
            blocks: db.keyspace("blocks", options)?,
            kept: db.keyspace("kept", options)?,
            keepers: db.keyspace("keepers", options)?,
            db,
        })
    }

    fn tables(&self) -> [&Keyspace; 3] {
        [&self.blocks, &self.kept, &self.keepers]
    }
}

impl Engine for Fjall {
    fn commit(&mut self, changes: &[Change]) -> Result<()> {
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
        for change in changes {
            match *change {
                Change::PutBlock { block } => batch.insert(&self.blocks, data::hash(block), data::value(block)),
                Change::RemoveBlock { hash } => batch.remove(&self.blocks, hash),
                Change::PutEdge { hold, block } => {
                    batch.insert(&self.kept, pair(hold, block), kept_value(block));
                    batch.insert(&self.keepers, pair(block, hold), []);
                }
                Change::RemoveEdge { hold, block } => {
                    batch.remove(&self.kept, pair(hold, block));
                    batch.remove(&self.keepers, pair(block, hold));
                }
            }
        }
        Ok(batch.commit()?)
    }

    fn block(&self, hash: &Hash) -> Result<Option<Value>> {
        Ok(self.blocks.get(hash)?.map(|value| value.as_ref().try_into()).transpose()?)
    }

    fn kept(&self, hold: u64, first: u64, limit: usize) -> Result<Vec<(u64, Hash)>> {
        let rows = self.kept.range(pair(hold, first)..=pair(hold, u64::MAX)).take(limit);
        rows.map(|row| {
            let (key, value) = row.into_inner()?;
            Ok((second(&key)?, kept_hash(&value)?))
        })
        .collect()
    }

    fn keepers(&self, block: u64, limit: usize) -> Result<Vec<u64>> {
        self.keepers.prefix(block.to_be_bytes()).take(limit).map(|row| second(&row.key()?)).collect()
    }

    fn settle(&mut self) -> Result<()> {
        let mut quiet = 0;
        let mut done = 0;
        while quiet < 10 {
            std::thread::sleep(Duration::from_millis(100));
            let now = self.db.compactions_completed();
            let busy = self.db.outstanding_flushes() + self.db.active_compactions() > 0 || now != done;
            quiet = if busy { 0 } else { quiet + 1 };
            done = now;
        }
        Ok(())
    }

    fn compact(&mut self) -> Result<()> {
        for table in self.tables() {
            table.rotate_memtable_and_wait()?;
            table.major_compact()?;
        }
        self.settle()
    }

    fn journal(&self) -> Result<Option<(PathBuf, u64)>> {
        let Some(path) = newest_journal(&self.dir)? else { return Ok(None) };
        let end = crate::crash::data_end(&path)?;
        Ok(Some((path, end)))
    }
}

fn first_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(6 << 20)
}

fn tuned_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(4 << 20)
        // Small tables, so that a compaction is short.
        .compaction_strategy(Arc::new(Leveled::default().with_l0_threshold(8).with_table_target_size(16 << 20)))
        // Hashes do not compress.
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
        // Read in blocks instead of whole: a lookup needs a few KiB of them, and the cache holds the rest.
        .filter_block_partitioning_policy(PartitioningPolicy::all(true))
        .index_block_partitioning_policy(PartitioningPolicy::all(true))
}

/// The names of journals are increasing numbers.
pub(super) fn newest_journal(dir: &Path) -> Result<Option<PathBuf>> {
    let mut newest = None;
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let number: u64 = path.file_stem().and_then(|stem| stem.to_str()).ok_or("a journal's name")?.parse()?;
            newest = newest.max(Some((number, path)));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

fn pair(first: u64, second: u64) -> [u8; 16] {
    (u128::from(first) << 64 | u128::from(second)).to_be_bytes()
}

fn second(key: &[u8]) -> Result<u64> {
    Ok(u64::from_be_bytes(key.get(8..).ok_or("a short key")?.try_into()?))
}
