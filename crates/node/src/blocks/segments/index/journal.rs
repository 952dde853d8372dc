//! The journal files of the index.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Bytes that are read and written at a time.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Overwrites every journal of the database in `dir` with its own contents and syncs it. Afterwards the disk has what the
/// page cache shows, even if an earlier sync failed.
pub(super) fn rewrite_all(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            rewrite(&File::options().read(true).write(true).open(path)?)?;
        }
    }
    Ok(())
}

fn rewrite(file: &File) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = 0;
    loop {
        let length = file.read_at(&mut chunk, at)?;
        if length == 0 {
            return file.sync_all();
        }
        file.write_all_at(&chunk[..length], at)?;
        at += length as u64;
    }
}
