//! Time and memory to open a store with many blocks: `cargo bench -p pinfold-node --bench open [-- DIR [BLOCKS]]`.
//!
//! Fills a store with small blocks (default: 10,000,000) in holds of 1,000, and opens it in separate processes, with the page
//! cache dropped if that is permitted: once after a close, once after a kill during writes. Prints a Markdown table.

use std::error::Error;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use bytes::Bytes;
use cid::Version;
use pinfold_node::blocks::{SegmentBlocks, SegmentConfig};
use pinfold_node::{Block, Blocks, HoldName};

type Outcome<T> = Result<T, Box<dyn Error>>;

const HOLD: u64 = 1_000;

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if let ["phase", phase, dir, blocks] = args[..] {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        return runtime.block_on(run(phase, Path::new(dir), blocks.parse()?));
    }
    let home = args.first().map_or_else(|| ".".into(), PathBuf::from);
    let blocks: u64 = args.get(1).map_or(Ok(10_000_000), |text| text.parse())?;
    let dir = tempfile::Builder::new().prefix("bench-open").tempdir_in(&home)?;
    println!("| {blocks} blocks | |\n| --- | --- |");
    for phase in ["fill", "open", "killed", "open"] {
        let _ = Command::new("sync").status();
        let _ = fs::write("/proc/sys/vm/drop_caches", "3");
        let mut command = Command::new(std::env::current_exe()?);
        let status = command.args(["phase", phase]).arg(dir.path()).arg(blocks.to_string()).status()?;
        if !status.success() && phase != "killed" {
            return Err(format!("{phase} failed").into());
        }
    }
    println!("| the index on disk | {} MB |", used(&dir.path().join("index"))? / 1_000_000);
    println!("| the segments on disk | {} MB |", used(&dir.path().join("segments"))? / 1_000_000);
    dir.close()?;
    Ok(())
}

async fn run(phase: &str, dir: &Path, count: u64) -> Outcome<()> {
    let began = Instant::now();
    let blocks = SegmentBlocks::open(dir, &SegmentConfig::default())?;
    let opened = began.elapsed();
    match phase {
        "fill" => {
            fill(&blocks, 0, count).await?;
            println!(
                "| put and sealed, 1,000 a hold | {:.0} blocks/s |",
                count as f64 / began.elapsed().as_secs_f64()
            );
            println!("| peak memory | {} MB |", memory("VmHWM")? / 1_000_000);
        }
        "killed" => {
            fill(&blocks, count, count + 100 * HOLD).await?;
            let _ = Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
        }
        _ => {
            println!("| opened, cold | {:.0} ms |", opened.as_secs_f64() * 1e3);
            println!("| peak memory then | {} MB |", memory("VmHWM")? / 1_000_000);
            let began = Instant::now();
            let looked = 20_000;
            for at in 0..looked {
                blocks.size(make(at * 7_919 % count)?.cid())?.ok_or("a block is missing")?;
            }
            println!("| found at random, cold | {:.0}/s |", looked as f64 / began.elapsed().as_secs_f64());
            println!("| peak memory after that | {} MB |", memory("VmHWM")? / 1_000_000);
        }
    }
    blocks.close().await;
    Ok(())
}

async fn fill(blocks: &SegmentBlocks, from: u64, to: u64) -> Outcome<()> {
    for first in (from..to).step_by(HOLD as usize) {
        let hold = blocks.open(&HoldName::parse(format!("hold/{first}")).ok_or("name")?)?;
        for n in first..to.min(first + HOLD) {
            blocks.put(hold, make(n)?).await?;
        }
        blocks.seal(hold).await?;
    }
    Ok(())
}

fn make(n: u64) -> Outcome<Block> {
    let data = Bytes::from(format!("block {n} of many, and small as they come"));
    Ok(Block::hash(Version::V1, 0x55, 0x12, data)?)
}

/// A line of `/proc/self/status`, in bytes.
fn memory(name: &str) -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(name)).ok_or("no such line")?;
    Ok(line.split_whitespace().nth(1).ok_or("no figure")?.parse::<u64>()? * 1024)
}

fn used(dir: &Path) -> Outcome<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let metadata = path.symlink_metadata()?;
        bytes += if metadata.is_dir() { used(&path)? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}
