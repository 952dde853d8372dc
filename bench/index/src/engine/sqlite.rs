//! SQLite, a B-tree in one file with a write-ahead log.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};

use super::{Change, Engine, kept_hash, kept_value};
use crate::Result;
use crate::data::{self, Hash, Value};

const SETUP: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA cache_size = -32768;
    PRAGMA wal_autocheckpoint = 0;
    CREATE TABLE IF NOT EXISTS blocks (hash BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS kept (hold INTEGER, block INTEGER, value BLOB NOT NULL, PRIMARY KEY (hold, block))
        WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS keepers (block INTEGER, hold INTEGER, PRIMARY KEY (block, hold)) WITHOUT ROWID;
";

/// Bytes of the log's header, and of the header of each page in it.
const LOG_HEAD: u64 = 32;
const FRAME_HEAD: u64 = 24;
const PAGE: u64 = 4_096;
/// Pages in the log before a checkpoint, as in SQLite's default. SQLite itself would run the checkpoint before a commit
/// returns, and then there would be no part of the log after the last acknowledged commit that could be torn.
const LOG_PAGES: u64 = 1_000;

pub(super) struct Sqlite {
    db: Connection,
    journal: PathBuf,
}

impl Sqlite {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let db = Connection::open(dir.join("index.db"))?;
        db.execute_batch(SETUP)?;
        Ok(Self { db, journal: journal(dir) })
    }

    fn run(&self, sql: &str, params: impl rusqlite::Params) -> Result<()> {
        self.db.prepare_cached(sql)?.execute(params)?;
        Ok(())
    }

    fn log_pages(&self) -> Result<u64> {
        let mut query = self.db.prepare_cached("PRAGMA wal_checkpoint(NOOP)")?;
        Ok(query.query_row([], |row| row.get::<_, i64>(1))?.max(0) as u64)
    }
}

impl Engine for Sqlite {
    fn commit(&mut self, changes: &[Change]) -> Result<()> {
        if self.log_pages()? >= LOG_PAGES {
            self.db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        }
        self.run("BEGIN IMMEDIATE", [])?;
        for change in changes {
            match *change {
                Change::PutBlock { block } => {
                    self.run("INSERT INTO blocks VALUES (?, ?)", params![data::hash(block), data::value(block)])?;
                }
                Change::RemoveBlock { hash } => self.run("DELETE FROM blocks WHERE hash = ?", [hash])?,
                Change::PutEdge { hold, block } => {
                    let (hold, block, value) = (hold as i64, block as i64, kept_value(block));
                    self.run("INSERT INTO kept VALUES (?, ?, ?)", params![hold, block, value])?;
                    self.run("INSERT INTO keepers VALUES (?, ?)", [block, hold])?;
                }
                Change::RemoveEdge { hold, block } => {
                    let (hold, block) = (hold as i64, block as i64);
                    self.run("DELETE FROM kept WHERE hold = ? AND block = ?", [hold, block])?;
                    self.run("DELETE FROM keepers WHERE block = ? AND hold = ?", [block, hold])?;
                }
            }
        }
        self.run("COMMIT", [])
    }

    fn block(&self, hash: &Hash) -> Result<Option<Value>> {
        let mut query = self.db.prepare_cached("SELECT value FROM blocks WHERE hash = ?")?;
        Ok(query.query_row([hash], |row| row.get(0)).optional()?)
    }

    fn kept(&self, hold: u64, first: u64, limit: usize) -> Result<Vec<(u64, Hash)>> {
        let sql = "SELECT block, value FROM kept WHERE hold = ? AND block >= ? ORDER BY block LIMIT ?";
        let mut query = self.db.prepare_cached(sql)?;
        let mut rows = query.query(params![hold as i64, first as i64, limit as i64])?;
        let mut kept = Vec::new();
        while let Some(row) = rows.next()? {
            kept.push((row.get::<_, i64>(0)? as u64, kept_hash(row.get_ref(1)?.as_blob()?)?));
        }
        Ok(kept)
    }

    fn keepers(&self, block: u64, limit: usize) -> Result<Vec<u64>> {
        let mut query = self.db.prepare_cached("SELECT hold FROM keepers WHERE block = ? LIMIT ?")?;
        let rows = query.query_map([block as i64, limit as i64], |row| row.get::<_, i64>(0))?;
        rows.map(|hold| Ok(hold? as u64)).collect()
    }

    fn settle(&mut self) -> Result<()> {
        Ok(self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
    }

    fn compact(&mut self) -> Result<()> {
        self.db.execute_batch("VACUUM")?;
        self.settle()
    }

    fn journal(&self) -> Result<Option<(PathBuf, u64)>> {
        Ok(Some((self.journal.clone(), LOG_HEAD + self.log_pages()? * (FRAME_HEAD + PAGE))))
    }
}

pub(super) fn journal(dir: &Path) -> PathBuf {
    dir.join("index.db-wal")
}
