//! What can be typed to care for the store itself. All of it works on the data folder of this machine, whether
//! a server runs on it or not.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::DataDirArgs;

/// Write a DAG that is here into a CAR file, on stdout or into --output.
///
/// The CAR has the CID as its root and each block once, depth first; every block is verified as it is read.
/// A block that is missing or damaged ends it with status 1, and what was written is no whole CAR then: every
/// reader finds it cut off. A file of --output appears only when it is whole.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinfold export bafybei… > photos.car
  pinfold export bafybei… --output photos.car
  pinfold export bafybei… | ssh other pinfold import -")]
pub(crate) struct ExportArgs {
    /// The root of what to write.
    pub(crate) cid: String,
    /// The file to write; stdout if left out.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) place: DataDirArgs,
}

/// Take the blocks of a CAR file in and pin its roots for an account.
///
/// Versions 1 and 2 are read. Every block is verified; a CAR that is cut off or has a bad block is refused and
/// leaves nothing. What a root's DAG needs beyond the CAR is fetched from the network, as for any pin. The
/// account's plan and storage bound what can be taken in.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinfold import photos.car
  pinfold import photos.car --email ada@example.org --name photos
  pinfold import rootless.car --root bafybei…
  curl -s https://example.org/a.car | pinfold import - --no-wait")]
pub(crate) struct ImportArgs {
    /// The CAR file; - reads stdin.
    pub(crate) file: PathBuf,
    /// The account that gets the pins; the one that the first start made if left out.
    #[arg(long)]
    pub(crate) email: Option<String>,
    /// A name for the pins.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The cluster that shall hold them; the default one if left out.
    #[arg(long, value_name = "CLUSTER")]
    pub(crate) cl: Option<String>,
    /// Pin this instead of the roots that the CAR names. Repeatable.
    #[arg(long, value_name = "CID")]
    pub(crate) root: Vec<String>,
    /// Do not wait until the pins are held: the blocks are here, `pinfold status` shows the rest.
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Print the outcome as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: DataDirArgs,
}

/// Copy everything into a folder, beside a running server or without one.
///
/// The folder gets the database, the blocks, the node's key and the settings, as they were at one moment; it
/// appears only when it is whole. Blocks are hard links where the file system makes them: that takes no space
/// and no time, and is safe, because a segment with a second name is never changed. Space of pins that are
/// removed later comes back only when the backup is deleted. For a copy on another disk, name a folder there, or
/// copy the backup with any tool.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinfold backup /backups/pinfold-monday
  pinfold backup /srv/pinfold-snapshot && rsync -a /srv/pinfold-snapshot/ other:/backups/pinfold/

It has secrets in it: API keys as hashes, the node's key, your settings. Only its owner can read it.")]
pub(crate) struct BackupArgs {
    /// The folder to make; it must not be there, or be empty.
    pub(crate) dir: PathBuf,
    /// Print what it is as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: DataDirArgs,
}

/// Make a data folder from a backup. No server may run on it.
///
/// The data folder must be empty or absent. Every block is verified while its index is made. Pins are `pinned`
/// from the start; the server walks each of them once more in the background, and fetches what turns out to be
/// missing. A restore that was interrupted can be run again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinfold restore /backups/pinfold-monday --data-dir /srv/pinfold
  pinfold restore /mnt/usb/pinfold --copy && pinfold serve

Segments become hard links to the backup's where both are on one file system. Both sides are safe then, since
a segment with a second name is never changed; but a disk that dies takes both. --copy makes copies.")]
pub(crate) struct RestoreArgs {
    /// The backup.
    pub(crate) dir: PathBuf,
    /// Copy the segments, also where they could be hard links.
    #[arg(long)]
    pub(crate) copy: bool,
    #[command(flatten)]
    pub(crate) place: DataDirArgs,
}

/// Look at the stored blocks, and mend them.
#[derive(Debug, Args)]
pub(crate) struct BlocksArgs {
    #[command(subcommand)]
    pub(crate) command: BlocksCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BlocksCommand {
    /// Show how much is stored, pinned and damaged.
    #[command(after_help = "Examples:
  pinfold blocks stats
  pinfold blocks stats --json | jq .damagedBlocks")]
    Stats(BlocksShowArgs),
    /// Read and verify every block; list the damaged ones and whose pins they are in. Status 1 if there are any.
    #[command(after_help = "Examples:
  pinfold blocks verify
  pinfold blocks verify --json > damaged.jsonl || pinfold blocks repair

It reads the whole store once, beside a running server too.")]
    Verify(BlocksShowArgs),
    /// Have damaged blocks fetched again from the network.
    ///
    /// Every pin that has damaged blocks is walked again; what is bad is fetched from whoever has it, in the
    /// background. Without a server, segments that are missing or cut short are accepted as lost first, so that
    /// the store opens again, and the next start fetches.
    #[command(after_help = "Examples:
  pinfold blocks repair
  watch pinfold blocks stats")]
    Repair(BlocksShowArgs),
    /// Make the index anew from the segments. No server may run.
    ///
    /// For an index that is lost, damaged or older than the segments. Every block is verified. Pins stay pinned;
    /// the server walks each of them once more after its next start. The old index is kept as `index.old`.
    #[command(after_help = "Examples:
  pinfold blocks rebuild-index --data-dir /srv/pinfold")]
    RebuildIndex(RebuildArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BlocksShowArgs {
    /// Print JSON for scripts.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: DataDirArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RebuildArgs {
    #[command(flatten)]
    pub(crate) place: DataDirArgs,
}
