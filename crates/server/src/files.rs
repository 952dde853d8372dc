//! Helpers for files that only their owner may read, and for durable names.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::Context;

/// Creates a file with mode 0600. The file must not exist.
pub(crate) fn create_private(path: &Path) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(path).with_context(|| format!("cannot create {}", path.display()))
}

/// Creates a file with mode 0600, writes `content` and syncs it.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let mut file = create_private(path)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Copies a file with mode 0600 and syncs it.
pub(crate) fn copy_private(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut source = File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
    let mut target = create_private(to)?;
    std::io::copy(&mut source, &mut target).with_context(|| format!("cannot write {}", to.display()))?;
    target.sync_all().with_context(|| format!("cannot write {}", to.display()))
}

/// Creates a directory with mode 0700.
pub(crate) fn create_private_dir(path: &Path) -> anyhow::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.mode(0o700);
    builder.create(path).with_context(|| format!("cannot create {}", path.display()))
}

/// Syncs a directory, which makes the names in it durable.
pub(crate) fn sync_dir(path: &Path) -> anyhow::Result<()> {
    let sync = || File::open(path)?.sync_all();
    sync().with_context(|| format!("cannot sync {}", path.display()))
}
