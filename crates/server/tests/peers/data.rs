//! Files and folders to transfer between nodes, with the same bytes in every run.

use std::path::Path;

use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Number of small files for which a folder becomes a HAMT in `unixfs-v1-2025` (over 256 KiB of links).
const HAMT_FILES: u32 = 6_000;

/// A folder with files of several blocks, of one block and of one byte, nested folders, and names beyond ASCII.
pub(crate) fn tree() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let deep = folder.path().join("a/b/c");
    std::fs::create_dir_all(&deep).expect("folders can be made");
    write(&folder.path().join("large.bin"), &bytes("large", 5 * 1024 * 1024 + 17));
    write(&folder.path().join("block.bin"), &bytes("block", 1024 * 1024));
    write(&folder.path().join("größe – 大小.txt"), "grüße, 世界\n".as_bytes());
    write(&deep.join("one"), b"1");
    write(&deep.join("large-again.bin"), &bytes("large", 5 * 1024 * 1024 + 17));
    folder
}

/// A folder with an empty file and another one.
pub(crate) fn with_an_empty_file() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(&folder.path().join("empty"), b"");
    write(&folder.path().join("one"), b"1");
    folder
}

/// A folder large enough to be sharded.
pub(crate) fn wide() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for number in 0..HAMT_FILES {
        let name = format!("entry-{number:06}");
        write(&folder.path().join(&name), name.as_bytes());
    }
    folder
}

/// One file of 12 MiB in a folder that is deleted when dropped.
pub(crate) fn file() -> (TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("file.bin");
    write(&path, &bytes("file", 12 * 1024 * 1024));
    (folder, path)
}

/// `size` bytes that depend only on `seed`: repeated SHA-256 of the seed and a counter.
pub(crate) fn bytes(seed: &str, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 32);
    for counter in 0u64.. {
        if bytes.len() >= size {
            break;
        }
        bytes.extend_from_slice(
            &Sha256::new().chain_update(seed).chain_update(counter.to_be_bytes()).finalize(),
        );
    }
    bytes.truncate(size);
    bytes
}

/// The SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256(path: &Path) -> String {
    hex(&Sha256::digest(std::fs::read(path).expect("the file can be read")))
}

/// Bytes as lower-case hexadecimal text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
