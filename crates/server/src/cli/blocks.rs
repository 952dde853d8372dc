//! `pinfold blocks`: inspection and repair of the block store.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use pinfold_node::blocks::{LostSegment, SegmentBlocks, VerifyProgress};

use super::DataDirArgs;
use super::output::{print, size, table};
use crate::admin_client::{AdminClient, JsonLines, Needs, Owner, find_owner, get, post};
use crate::admin_ops::blocks::{Damaged, DamagedPage, RepairReport, Stats, VerifyReport};
use crate::admin_ops::restore;
use crate::config::settings;
use crate::data_dir::DataDir;

/// Inspect and repair the block store.
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
    /// Verify every block, and list damaged blocks with the pins that they belong to.
    ///
    /// Reads the whole block store once, with or without a running server. Exits with status 1 if there are damaged
    /// blocks.
    #[command(after_help = "Examples:
  pinfold blocks verify
  pinfold blocks verify --json > damaged.jsonl || pinfold blocks repair")]
    Verify(BlocksShowArgs),
    /// Fetch damaged blocks again from the network.
    ///
    /// Schedules every pin with damaged blocks for verification. The server fetches the damaged blocks in the background.
    /// If no server runs, segments that are missing or truncated are first recorded as lost, so that the block store can
    /// be opened again.
    #[command(after_help = "Examples:
  pinfold blocks repair
  watch pinfold blocks stats")]
    Repair(BlocksShowArgs),
    /// Rebuild the index from the segments. No server may run.
    ///
    /// Use this if the index is lost, damaged or older than the segments. Every block is verified. Pins stay `pinned`; the
    /// server verifies each of them after its next start. The old index is kept as `index.old`.
    #[command(after_help = "Examples:
  pinfold blocks rebuild-index --data-dir /srv/pinfold")]
    RebuildIndex(RebuildIndexArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BlocksShowArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataDirArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RebuildIndexArgs {
    #[command(flatten)]
    data: DataDirArgs,
}

pub(super) async fn run(command: BlocksCommand) -> anyhow::Result<ExitCode> {
    match command {
        BlocksCommand::Stats(args) => stats(args).await?,
        BlocksCommand::Verify(args) => return verify(args).await,
        BlocksCommand::Repair(args) => repair(args).await?,
        BlocksCommand::RebuildIndex(args) => rebuild_index(args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Progress of a verification. Hidden unless stderr is a terminal.
pub(super) struct VerifyProgressBar(ProgressBar);

impl VerifyProgressBar {
    pub(super) fn start() -> anyhow::Result<Self> {
        let bar =
            if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        Ok(Self(bar.with_style(ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}")?)))
    }

    /// A function that updates the progress from another thread.
    pub(super) fn callback(&self) -> impl FnMut(&VerifyProgress) + Send + use<> {
        let bar = Self(self.0.clone());
        move |progress| bar.update(&VerifyReport::new(progress, false))
    }

    fn update(&self, report: &VerifyReport) {
        let total =
            if report.blocks_total > 0 { format!(" of {}", report.blocks_total) } else { String::new() };
        self.0.set_message(format!("verified {}{total} blocks, {}", report.blocks, size(report.bytes)));
        self.0.tick();
    }

    pub(super) fn finish(self) {
        self.0.finish_and_clear();
    }
}

async fn stats(args: BlocksShowArgs) -> anyhow::Result<()> {
    let client = args.data.admin_client(Needs::Stores).await?;
    let stats = client.call::<Stats>(get("/blocks/stats")?).await;
    client.close().await;
    let stats = stats?;
    if args.json {
        return print(&serde_json::to_string(&stats)?);
    }
    let rows = [
        ("blocks", stats.blocks.to_string()),
        ("stored", format!("{} (each block counted once)", size(stats.bytes))),
        ("pinned", format!("{} (sum over {} DAGs)", size(stats.held_bytes), stats.holds)),
        ("on disk", format!("{} ({} segments and the index)", size(stats.disk_bytes), stats.segments)),
        ("damaged", format!("{} blocks", stats.damaged_blocks)),
        (
            "to verify",
            format!("{} pinned DAGs, {} of them incomplete", stats.pins_to_verify, stats.incomplete_pins),
        ),
    ];
    print(&table(&rows.map(|(name, value)| vec![name.to_owned(), value])))
}

async fn verify(args: BlocksShowArgs) -> anyhow::Result<ExitCode> {
    let client = args.data.admin_client(Needs::Stores).await?;
    let verified = verify_and_list(&client, &args).await;
    client.close().await;
    let (report, damaged) = verified?;
    if !args.json {
        eprintln!("verified {} blocks, {}: {damaged} damaged", report.blocks, size(report.bytes));
    }
    let is_intact = damaged == 0 && report.damaged == 0;
    Ok(if is_intact { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Verifies all blocks and prints the damaged ones. Returns the last report and the number of damaged blocks.
async fn verify_and_list(client: &AdminClient, args: &BlocksShowArgs) -> anyhow::Result<(VerifyReport, u64)> {
    let progress = VerifyProgressBar::start()?;
    let mut reports = JsonLines::new(client.stream(post("/blocks/verify", &())?).await?);
    let mut last = VerifyReport::default();
    while let Some(report) = reports.next::<VerifyReport>(client).await? {
        progress.update(&report);
        last = report;
    }
    progress.finish();
    anyhow::ensure!(last.done, "the verification ended early");
    let (mut damaged, mut next) = (0, None);
    loop {
        let query = next.map_or_else(String::new, |next: String| format!("?after={next}"));
        let page: DamagedPage = client.call(get(&format!("/blocks/damaged{query}"))?).await?;
        for block in &page.blocks {
            damaged += 1;
            if args.json {
                print(&serde_json::to_string(block)?)?;
            } else {
                print(&damaged_text(block))?;
            }
        }
        next = page.next;
        if next.is_none() {
            return Ok((last, damaged));
        }
    }
}

/// `damaged bafk… 1 MiB`, and one line for each pin.
fn damaged_text(block: &Damaged) -> String {
    let mut text = format!("damaged {} {}", block.cid, size(block.bytes));
    for pin in &block.pins {
        text.push_str(&format!("\n  in {} ({}) of {}", pin.cid, pin.cluster, pin.accounts.join(", ")));
    }
    text
}

async fn repair(args: BlocksShowArgs) -> anyhow::Result<()> {
    let dir = args.data.data_dir()?;
    let client = match find_owner(&dir).await? {
        Owner::Server(client) => client,
        Owner::This(lock) => {
            for segment in accept_losses(&args, &dir).await? {
                eprintln!(
                    "{} has {} of {} bytes: {} blocks are lost",
                    segment.path.display(),
                    segment.found_bytes,
                    segment.expected_bytes,
                    segment.blocks
                );
            }
            AdminClient::local(&dir, args.data.config_file(), lock, Needs::Stores).await?
        }
    };
    let report = client.call::<RepairReport>(post("/blocks/repair", &())?).await;
    let is_server_running = matches!(client, AdminClient::Server(_));
    client.close().await;
    let report = report?;
    if args.json {
        return print(&serde_json::to_string(&report)?);
    }
    print(&format!("{} damaged blocks; {} pinned DAGs scheduled for repair", report.damaged, report.pins))?;
    if report.damaged > 0 {
        let when = if is_server_running { "now" } else { "after its next start" };
        eprintln!("The server fetches the blocks {when}; `pinfold blocks stats` shows what is left.");
    }
    Ok(())
}

/// Records segments that are missing or truncated as lost. The data directory must be locked.
async fn accept_losses(args: &BlocksShowArgs, dir: &DataDir) -> anyhow::Result<Vec<LostSegment>> {
    let (blocks, _) = settings::blocks(&args.data.load_config(dir)?, dir);
    let lost = tokio::task::spawn_blocking(move || SegmentBlocks::accept_losses(&blocks)).await?;
    lost.context("cannot determine what is lost; if the index is lost, run `pinfold blocks rebuild-index`")
}

async fn rebuild_index(args: RebuildIndexArgs) -> anyhow::Result<()> {
    let dir = args.data.data_dir()?;
    dir.expect_database()?;
    let _lock = dir.lock().context("cannot rebuild the index while a server runs")?;
    let (blocks, _) = settings::blocks(&args.data.load_config(&dir)?, &dir);
    let progress = VerifyProgressBar::start()?;
    let rebuilt = restore::rebuild_index(&dir, blocks.clone(), progress.callback()).await;
    progress.finish();
    let rebuilt = rebuilt?;
    print(&format!(
        "rebuilt the index: {} blocks, {}",
        rebuilt.verified.blocks,
        size(rebuilt.verified.bytes)
    ))?;
    if rebuilt.verified.damaged > 0 {
        eprintln!("{} damaged places in the segments", rebuilt.verified.damaged);
    }
    eprintln!(
        "The server verifies {} pinned DAGs after its next start. The old index is at {}; delete it when all pins are \
         verified.",
        rebuilt.pins_to_verify,
        blocks.join("index.old").display()
    );
    Ok(())
}
