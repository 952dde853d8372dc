//! redb, a copy-on-write B-tree in one file: with default settings, and with `quick_repair`, which avoids a scan of the
//! whole file after a crash.

use std::path::{Path, PathBuf};

use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Change, Engine, kept_hash, kept_value};
use crate::Result;
use crate::data::{self, Hash, Value};

const BLOCKS: TableDefinition<&Hash, &Value> = TableDefinition::new("blocks");
const KEPT: TableDefinition<(u64, u64), &[u8; 40]> = TableDefinition::new("kept");
const KEEPERS: TableDefinition<(u64, u64), ()> = TableDefinition::new("keepers");

pub(super) struct Redb {
    db: Database,
    quick: bool,
}

impl Redb {
    pub(super) fn open(dir: &Path, quick: bool) -> Result<Self> {
        let db = Builder::new().set_cache_size(32 << 20).create(dir.join("index.redb"))?;
        let mut index = Self { db, quick };
        index.commit(&[])?; // Creates the tables.
        Ok(index)
    }
}

impl Engine for Redb {
    fn commit(&mut self, changes: &[Change]) -> Result<()> {
        let mut txn = self.db.begin_write()?;
        txn.set_quick_repair(self.quick);
        {
            let mut blocks = txn.open_table(BLOCKS)?;
            let mut kept = txn.open_table(KEPT)?;
            let mut keepers = txn.open_table(KEEPERS)?;
            for change in changes {
                match *change {
                    Change::PutBlock { block } => {
                        blocks.insert(&data::hash(block), &data::value(block))?;
                    }
                    Change::RemoveBlock { hash } => {
                        blocks.remove(&hash)?;
                    }
                    Change::PutEdge { hold, block } => {
                        kept.insert((hold, block), &kept_value(block))?;
                        keepers.insert((block, hold), ())?;
                    }
                    Change::RemoveEdge { hold, block } => {
                        kept.remove((hold, block))?;
                        keepers.remove((block, hold))?;
                    }
                }
            }
        }
        Ok(txn.commit()?)
    }

    fn block(&self, hash: &Hash) -> Result<Option<Value>> {
        let table = self.db.begin_read()?.open_table(BLOCKS)?;
        Ok(table.get(hash)?.map(|value| *value.value()))
    }

    fn kept(&self, hold: u64, first: u64, limit: usize) -> Result<Vec<(u64, Hash)>> {
        let table = self.db.begin_read()?.open_table(KEPT)?;
        let rows = ReadableTable::range(&table, (hold, first)..=(hold, u64::MAX))?.take(limit);
        rows.map(|row| {
            let (key, value) = row?;
            Ok((key.value().1, kept_hash(value.value())?))
        })
        .collect()
    }

    fn keepers(&self, block: u64, limit: usize) -> Result<Vec<u64>> {
        let table = self.db.begin_read()?.open_table(KEEPERS)?;
        let rows = ReadableTable::range(&table, (block, 0)..=(block, u64::MAX))?.take(limit);
        rows.map(|row| Ok(row?.0.value().1)).collect()
    }

    fn settle(&mut self) -> Result<()> {
        Ok(())
    }

    fn compact(&mut self) -> Result<()> {
        while self.db.compact()? {}
        Ok(())
    }

    fn journal(&self) -> Result<Option<(PathBuf, u64)>> {
        Ok(None)
    }
}
