//! Time to release 1 GiB, depending on how much else is stored: `cargo bench -p pinfold-node --bench release [-- DIR [GIB]]`.
//!
//! Stores 1 GiB in blocks of 1 MiB, releases it and waits until the space is free; then the same with `GIB` (default: half of
//! the free space on the disk of `DIR`, at most 100) of other data in the store. Prints a Markdown table.

use std::error::Error;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cid::Version;
use pinfold_node::blocks::{SegmentBlocks, SegmentConfig};
use pinfold_node::{Block, Blocks, HoldName};

type Outcome<T> = Result<T, Box<dyn Error>>;

const MIB: usize = 1 << 20;
const ROUNDS: usize = 5;

fn main() -> Outcome<()> {
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let home = args.next().map_or_else(|| ".".into(), PathBuf::from);
    let free = rustix::fs::statvfs(&home)?;
    let half = free.f_bavail * free.f_frsize / 2 / (1 << 30);
    let gib = args.next().map_or(Ok(half.min(100)), |text| text.parse())?;
    let dir = tempfile::Builder::new().prefix("bench-release").tempdir_in(&home)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(dir.path(), gib))?;
    dir.close()?;
    Ok(())
}

async fn run(dir: &Path, gib: u64) -> Outcome<()> {
    let blocks = SegmentBlocks::open(dir, &SegmentConfig::default())?;
    println!(
        "| other data stored | release of 1 GiB acknowledged | space freed | medians of |\n| --- | --- | --- | --- |"
    );
    let alone = measure(&blocks, dir, 1).await?;
    for at in 0..gib {
        fill(&blocks, &format!("other {at}"), 1_000_000 + at * 1024).await?;
    }
    let full = measure(&blocks, dir, 1 + gib).await?;
    println!("\nratio of the time until the space is back: {:.2}", full / alone);
    blocks.close().await;
    Ok(())
}

/// Stores 1 GiB in a hold of this name.
async fn fill(blocks: &SegmentBlocks, name: &str, first: u64) -> Outcome<()> {
    let hold = blocks.open(&HoldName::parse(name).ok_or("name")?)?;
    let mut data = vec![0x5a; MIB];
    for n in first..first + 1024 {
        data[..8].copy_from_slice(&n.to_le_bytes());
        blocks.put(hold, Block::hash(Version::V1, 0x55, 0x1e, Bytes::from(data.clone()))?).await?;
    }
    blocks.seal(hold).await?;
    Ok(())
}

/// The median time in seconds until the space of 1 GiB is free.
async fn measure(blocks: &SegmentBlocks, dir: &Path, gib: u64) -> Outcome<f64> {
    // There is always at least 1 GiB of other data.
    if gib == 1 {
        fill(blocks, "stays", 0).await?;
    }
    let mut times = Vec::new();
    for round in 0..ROUNDS as u64 {
        let name = format!("goes {round}");
        fill(blocks, &name, 2_000_000_000 + round * 1024).await?;
        let target = used(dir)? - (900 << 20);
        let began = Instant::now();
        blocks.release(&HoldName::parse(name).ok_or("name")?).await?;
        let answered = began.elapsed();
        while used(dir)? > target {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        times.push((began.elapsed().as_secs_f64(), answered));
    }
    times.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (back, answered) = times[ROUNDS / 2];
    println!("| {gib} GiB | {:.1} ms | {:.1} ms | {ROUNDS} |", answered.as_secs_f64() * 1e3, back * 1e3);
    Ok(back)
}

fn used(dir: &Path) -> Outcome<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir.join("segments"))? {
        bytes += entry?.metadata().map_or(0, |metadata| metadata.blocks() * 512);
    }
    Ok(bytes)
}
