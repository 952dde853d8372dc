//! The interface of an engine. Each gets about 32 MiB of memory and syncs every batch.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `blocks` | multihash | the block's place, 25 bytes |
//! | `kept` | hold id, block id | length and multihash, 40 bytes |
//! | `keepers` | block id, hold id | – |

mod fjall;
mod redb;
mod sqlite;

use std::path::{Path, PathBuf};

use crate::Result;
use crate::data::{Hash, Value};

/// All engines by their names on the command line.
pub(crate) const KINDS: [&str; 5] = ["fjall", "fjall-tuned", "redb", "redb-quick", "sqlite"];

/// One change of a batch. Hashes and values are derived from the block's number.
pub(crate) enum Change {
    PutBlock { block: u64 },
    RemoveBlock { hash: Hash },
    /// A row in `kept` and one in `keepers`.
    PutEdge { hold: u64, block: u64 },
    RemoveEdge { hold: u64, block: u64 },
}

/// An open index.
pub(crate) trait Engine {
    /// Applies all changes atomically. They are synced when it returns.
    fn commit(&mut self, changes: &[Change]) -> Result<()>;
    fn block(&self, hash: &Hash) -> Result<Option<Value>>;
    /// Up to `limit` blocks of a hold in order, starting with `first`.
    fn kept(&self, hold: u64, first: u64, limit: usize) -> Result<Vec<(u64, Hash)>>;
    /// Up to `limit` holds that reference a block.
    fn keepers(&self, block: u64, limit: usize) -> Result<Vec<u64>>;
    /// Waits for the engine's background work, or does it if the engine defers it to the close.
    fn settle(&mut self) -> Result<()>;
    /// Compacts the files as far as possible.
    fn compact(&mut self) -> Result<()>;
    /// The current journal, and its length up to the end of the last commit.
    fn journal(&self) -> Result<Option<(PathBuf, u64)>>;
}

/// Opens or creates the index in an existing folder.
pub(crate) fn open(kind: &str, dir: &Path) -> Result<Box<dyn Engine>> {
    Ok(match kind {
        "fjall" => Box::new(fjall::Fjall::open(dir, false)?),
        "fjall-tuned" => Box::new(fjall::Fjall::open(dir, true)?),
        "redb" => Box::new(redb::Redb::open(dir, false)?),
        "redb-quick" => Box::new(redb::Redb::open(dir, true)?),
        "sqlite" => Box::new(sqlite::Sqlite::open(dir)?),
        other => return Err(format!("there is no engine {other}").into()),
    })
}

/// The newest journal of a closed index, if the engine has one.
pub(crate) fn newest_journal(kind: &str, dir: &Path) -> Result<Option<PathBuf>> {
    match kind {
        "fjall" | "fjall-tuned" => fjall::newest_journal(dir),
        "sqlite" => Ok(Some(sqlite::journal(dir))),
        _ => Ok(None),
    }
}

/// The value of a row in `kept`: the block's length, its multihash, and two spare bytes.
fn kept_value(block: u64) -> [u8; 40] {
    let mut value = [0; 40];
    value[..4].copy_from_slice(&65_536_u32.to_be_bytes());
    value[4..38].copy_from_slice(&crate::data::hash(block));
    value
}

fn kept_hash(value: &[u8]) -> Result<Hash> {
    Ok(value.get(4..38).ok_or("a short row in kept")?.try_into()?)
}
