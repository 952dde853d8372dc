//! `pinfold restore`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::DataDirArgs;
use super::blocks::VerifyProgressBar;
use super::output::{print, size};
use crate::admin_ops::restore::{Restore, RestoreReport};

/// Create a data directory from a backup. No server may run on it.
///
/// The data directory must be empty or absent. Every block is verified while the index is rebuilt. All pins are
/// `pinned` from the start. The server verifies each of them in the background and fetches blocks that are missing. An
/// interrupted restore can be repeated.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinfold restore /backups/pinfold-monday --data-dir /srv/pinfold
  pinfold restore /mnt/usb/pinfold --copy && pinfold serve

If backup and data directory are on the same file system, the segments become hard links. This is safe for both, because
a segment with a second link is never modified. But a failing disk destroys both; --copy makes independent copies.")]
pub(crate) struct RestoreArgs {
    /// Directory of the backup.
    dir: PathBuf,
    /// Copy the segments even where hard links are possible.
    #[arg(long)]
    copy: bool,
    #[command(flatten)]
    data: DataDirArgs,
}

pub(super) async fn run(args: RestoreArgs) -> anyhow::Result<()> {
    let dir = args.data.data_dir()?;
    dir.create()?;
    let lock = dir.lock()?;
    let restore = Restore {
        backup: std::path::absolute(&args.dir).context("cannot determine the working directory")?,
        dir: dir.clone(),
        config: args.data.config.clone(),
        copy: args.copy,
    };
    let progress = VerifyProgressBar::start()?;
    let restored = restore.run(&lock, progress.callback()).await;
    progress.finish();
    let report = restored.with_context(|| format!("cannot restore {}", args.dir.display()))?;
    let RestoreReport { manifest, linked, rebuilt } = report;
    let how = if linked { "hard links to the backup" } else { "copies" };
    print(&format!(
        "restored the backup of {} into {}: {} segments ({how}), {} blocks, {}",
        manifest.created_at,
        dir.path().display(),
        manifest.segments,
        rebuilt.verified.blocks,
        size(rebuilt.verified.bytes)
    ))?;
    if rebuilt.verified.damaged > 0 {
        eprintln!(
            "{} damaged places in the segments; the server fetches the missing blocks",
            rebuilt.verified.damaged
        );
    }
    eprintln!(
        "Start it with `pinfold serve --data-dir {}`. It has the same node key as the original server: do not run \
         both at the same time. The server verifies {} pinned DAGs in the background; `pinfold blocks stats` shows how \
         many are left.",
        dir.path().display(),
        rebuilt.pins_to_verify
    );
    Ok(())
}
