//! `pinfold blocks`: the store looked at, and mended.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use pinfold_node::blocks::{LostSegment, SegmentBlocks, VerifyProgress};

use super::operator::{BlocksCommand, BlocksShowArgs, RebuildArgs};
use super::output::{print, size, table};
use crate::admin_client::{AdminClient, Found, Lines, Needs, find, get, post};
use crate::admin_ops::blocks::{Damaged, DamagedPage, Repair, Stats, Verified};
use crate::admin_ops::blocks_place;
use crate::admin_ops::restore::rebuild;
use crate::config::Config;
use crate::data_dir::DataDir;

/// Runs the command.
pub(crate) async fn run(command: BlocksCommand) -> anyhow::Result<ExitCode> {
    match command {
        BlocksCommand::Stats(args) => stats(args).await?,
        BlocksCommand::Verify(args) => return verify(args).await,
        BlocksCommand::Repair(args) => repair(args).await?,
        BlocksCommand::RebuildIndex(args) => rebuild_index(args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Progress on a terminal: how many blocks, and how much.
pub(crate) struct Meter(ProgressBar, &'static str);

impl Meter {
    /// Shows it, if stderr is a terminal.
    pub(crate) fn start(what: &'static str) -> anyhow::Result<Self> {
        let bar =
            if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        Ok(Self(bar.with_style(ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}")?), what))
    }

    /// What may be called from anywhere as it goes on.
    pub(crate) fn teller(&self) -> impl FnMut(&VerifyProgress) + Send + use<> {
        let meter = Self(self.0.clone(), self.1);
        move |progress| meter.tell(&Verified::of(progress, false))
    }

    fn tell(&self, verified: &Verified) {
        let of =
            if verified.blocks_total > 0 { format!(" of {}", verified.blocks_total) } else { String::new() };
        self.0.set_message(format!("{} {}{of} blocks, {}", self.1, verified.blocks, size(verified.bytes)));
        self.0.tick();
    }

    /// Takes it away.
    pub(crate) fn end(self) {
        self.0.finish_and_clear();
    }
}

async fn stats(args: BlocksShowArgs) -> anyhow::Result<()> {
    let link = AdminClient::open(&args.place, Needs::Stores).await?;
    let stats = link.ask::<Stats>(get("/blocks/stats")?).await;
    link.close().await;
    let stats = stats?;
    if args.json {
        return print(&serde_json::to_string(&stats)?);
    }
    let rows = [
        ("blocks", stats.blocks.to_string()),
        ("stored", format!("{} (each block once)", size(stats.bytes))),
        ("kept", format!("{} (added up over {} holds)", size(stats.held_bytes), stats.holds)),
        ("on disk", format!("{} ({} segments and the index)", size(stats.disk_bytes), stats.segments)),
        ("damaged", format!("{} blocks", stats.damaged_blocks)),
        (
            "to be walked again",
            format!("{} pinned DAGs, {} of them lack blocks", stats.reverify_counts, stats.incomplete_pins),
        ),
    ];
    print(&table(&rows.map(|(name, value)| vec![name.to_owned(), value])))
}

async fn verify(args: BlocksShowArgs) -> anyhow::Result<ExitCode> {
    let link = AdminClient::open(&args.place, Needs::Stores).await?;
    let verified = look(&link, &args).await;
    link.close().await;
    let (verified, damaged) = verified?;
    if !args.json {
        eprintln!("verified {} blocks, {}: {damaged} damaged", verified.blocks, size(verified.bytes));
    }
    let is_whole = damaged == 0 && verified.damaged == 0;
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads everything, then lists what is damaged; gives how many blocks that are.
async fn look(link: &AdminClient, args: &BlocksShowArgs) -> anyhow::Result<(Verified, u64)> {
    let meter = Meter::start("verified")?;
    let mut lines = Lines::new(link.stream(post("/blocks/verify", &())?).await?);
    let mut last = Verified::default();
    while let Some(verified) = lines.next::<Verified>(link).await? {
        meter.tell(&verified);
        last = verified;
    }
    meter.end();
    anyhow::ensure!(last.done, "the store was not read to its end");
    let (mut damaged, mut next) = (0, None);
    loop {
        let query = next.map_or_else(String::new, |next: String| format!("?after={next}"));
        let page: DamagedPage = link.ask(get(&format!("/blocks/damaged{query}"))?).await?;
        for block in &page.blocks {
            damaged += 1;
            if args.json {
                print(&serde_json::to_string(block)?)?;
            } else {
                print(&sentence(block))?;
            }
        }
        next = page.next;
        if next.is_none() {
            return Ok((last, damaged));
        }
    }
}

/// `damaged bafk… 1 MiB`, and a line for each pin.
fn sentence(block: &Damaged) -> String {
    let mut text = format!("damaged {} {}", block.cid, size(block.bytes));
    for pin in &block.pins {
        text.push_str(&format!("\n  in {} ({}) of {}", pin.cid, pin.cluster, pin.accounts.join(", ")));
    }
    text
}

async fn repair(args: BlocksShowArgs) -> anyhow::Result<()> {
    let link = match find(&args.place).await? {
        Found::Server(link) => link,
        Found::Nobody(dir, lock) => {
            for segment in accept_losses(&args, &dir).await? {
                eprintln!(
                    "{} has {} of {} bytes: {} blocks are lost",
                    segment.path.display(),
                    segment.found_bytes,
                    segment.expected_bytes,
                    segment.blocks
                );
            }
            AdminClient::own(&args.place, dir, lock, Needs::Stores).await?
        }
    };
    let begun = link.ask::<Repair>(post("/blocks/repair", &())?).await;
    let runs = matches!(link, AdminClient::Server(_));
    link.close().await;
    let begun = begun?;
    if args.json {
        return print(&serde_json::to_string(&begun)?);
    }
    print(&format!("{} blocks are damaged; {} pinned DAGs are walked again", begun.damaged, begun.pins))?;
    if begun.damaged > 0 {
        let when = if runs { "now" } else { "at the next start of the server" };
        eprintln!("They are fetched from the network {when}; `pinfold blocks stats` shows what is left.");
    }
    Ok(())
}

/// Accepts that segments of a stopped server are missing or cut short.
async fn accept_losses(args: &BlocksShowArgs, dir: &DataDir) -> anyhow::Result<Vec<LostSegment>> {
    let config = Config::load(dir.config_file(args.place.config.as_deref()).as_deref())?;
    let (blocks, _) = blocks_place(&config, dir);
    let lost = tokio::task::spawn_blocking(move || SegmentBlocks::accept_losses(&blocks)).await?;
    lost.context("cannot tell what is lost; if the index is, `pinfold blocks rebuild-index` makes it anew")
}

async fn rebuild_index(args: RebuildArgs) -> anyhow::Result<()> {
    let dir = DataDir::choose(args.place.data_dir.clone())?;
    dir.expect_pinfold()?;
    let _lock = dir.lock().context("the index can only be made anew while no server runs")?;
    let config = Config::load(dir.config_file(args.place.config.as_deref()).as_deref())?;
    let (blocks, _) = blocks_place(&config, &dir);
    let meter = Meter::start("verified")?;
    let rebuilt = rebuild(&dir, blocks.clone(), meter.teller()).await;
    meter.end();
    let (verified, reverify_counts) = rebuilt?;
    print(&format!("made the index anew: {} blocks, {}", verified.blocks, size(verified.bytes)))?;
    if verified.damaged > 0 {
        eprintln!("{} places of the segments could not be read", verified.damaged);
    }
    eprintln!(
        "{reverify_counts} pinned DAGs are walked once more after the next start; the old index is at {}, delete it when \
         all is well.",
        blocks.join("index.old").display()
    );
    Ok(())
}
