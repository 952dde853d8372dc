//! `pinfold backup` and `pinfold restore`.

use anyhow::Context;

use super::blocks::Meter;
use super::operator::{BackupArgs, RestoreArgs};
use super::output::{print, size};
use crate::admin_client::{AdminClient, Needs, post};
use crate::admin_ops::backup::BackupReport;
use crate::admin_ops::restore::Restore;
use crate::admin_socket::routes::BackupBody;
use crate::data_dir::DataDir;

/// Runs `pinfold backup`.
pub(crate) async fn run(args: BackupArgs) -> anyhow::Result<()> {
    // The server has a working folder of its own.
    let dir = std::path::absolute(&args.dir).context("there is no working folder")?;
    let link = AdminClient::open(&args.place, Needs::Stores).await?;
    let request = post("/backup", &BackupBody { dir })?;
    let made = link.ask::<BackupReport>(request).await;
    link.close().await;
    let made = made?;
    if args.json {
        return print(&serde_json::to_string(&made)?);
    }
    let how = if made.linked { ", hard links to those of the store" } else { "" };
    print(&format!(
        "backed up into {}: {} segments, {}{how}; database {}",
        made.dir.display(),
        made.manifest.segments,
        size(made.manifest.segment_bytes),
        size(made.manifest.database_bytes)
    ))
}

/// Runs `pinfold restore`.
pub(crate) async fn restore(args: RestoreArgs) -> anyhow::Result<()> {
    let dir = DataDir::choose(args.place.data_dir.clone())?;
    dir.create()?;
    let lock = dir.lock()?;
    let restore = Restore {
        backup: std::path::absolute(&args.dir).context("there is no working folder")?,
        dir: dir.clone(),
        config: args.place.config.clone(),
        copy: args.copy,
    };
    let meter = Meter::start("verified")?;
    let restored = restore.run(&lock, meter.teller()).await;
    meter.end();
    let restored = restored.with_context(|| format!("nothing was restored from {}", args.dir.display()))?;
    let how = if restored.linked { "hard links to those of the backup" } else { "copies" };
    print(&format!(
        "restored the backup of {} into {}: {} segments ({how}), {} blocks, {}",
        restored.manifest.created_at,
        dir.path().display(),
        restored.manifest.segments,
        restored.verified.blocks,
        size(restored.verified.bytes)
    ))?;
    if restored.verified.damaged > 0 {
        eprintln!(
            "{} places of the segments could not be read; the pins concerned fetch what they lack",
            restored.verified.damaged
        );
    }
    eprintln!(
        "Start it with `pinfold serve --data-dir {}`. It is the same node as the one that was backed up: do not \
         run both at one time. {} pinned DAGs are walked once more in the background; `pinfold blocks stats` \
         shows how many are left.",
        dir.path().display(),
        restored.reverify_counts
    );
    Ok(())
}
