//! The journals of the index, as files.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// What is read and written at one time.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Writes every journal of the database in `dir` over itself and syncs it: afterwards the disk has what the page cache
/// shows, also where an earlier sync has failed.
pub(super) fn write_again(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            write_over(&File::options().read(true).write(true).open(path)?)?;
        }
    }
    Ok(())
}

fn write_over(file: &File) -> io::Result<()> {
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
