//! `pinfold backup`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::DataDirArgs;
use super::output::{print, size};
use crate::admin_client::{Needs, post};
use crate::admin_ops::backup::BackupReport;
use crate::admin_socket::routes::BackupBody;

/// Copy everything into a new directory, with or without a running server.
///
/// The backup contains the database, the blocks, the node's key and the configuration, consistent at one moment. The
/// directory appears when the backup is complete. Blocks are hard links where the file system supports them. This takes
/// no space and little time, and it is safe because a segment with a second link is never modified. The space of pins
/// that are removed later is freed when the backup is deleted. For a copy on another disk, choose a directory there, or
/// copy the backup with any tool.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinfold backup /backups/pinfold-monday
  pinfold backup /srv/pinfold-snapshot && rsync -a /srv/pinfold-snapshot/ other:/backups/pinfold/

A backup contains secrets: the node's key, the configuration, and hashes of API keys. Only its owner can read it.")]
pub(crate) struct BackupArgs {
    /// Directory to create. It must be empty or absent.
    dir: PathBuf,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataDirArgs,
}

pub(super) async fn run(args: BackupArgs) -> anyhow::Result<()> {
    // The server may have another working directory.
    let dir = std::path::absolute(&args.dir).context("cannot determine the working directory")?;
    let client = args.data.admin_client(Needs::Stores).await?;
    let request = post("/backup", &BackupBody { dir })?;
    let report = client.call::<BackupReport>(request).await;
    client.close().await;
    let report = report?;
    if args.json {
        return print(&serde_json::to_string(&report)?);
    }
    let how = if report.linked { " (hard links to the block store)" } else { "" };
    print(&format!(
        "backed up to {}: {} segments, {}{how}; database {}",
        report.dir.display(),
        report.manifest.segments,
        size(report.manifest.segment_bytes),
        size(report.manifest.database_bytes)
    ))
}
