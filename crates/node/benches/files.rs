//! The block store compared with one file for each block: `cargo bench -p pinfold-node --bench files [-- DIR]`.
//!
//! Both make everything durable before they report it as written or deleted: the store with its own commit, the files with
//! one `syncfs` after all of them, which is the fastest way. The page cache is dropped before reading. Prints a Markdown
//! table; `DIR` is on the disk to measure (default: the working directory).

use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cid::{Cid, Version};
use pinfold_node::blocks::{SegmentBlocks, SegmentConfig};
use pinfold_node::{Block, Blocks, HoldName};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Blocks read in random order.
const READS: usize = 8_000;
/// Rounds, alternating between the two.
const ROUNDS: usize = 3;

fn main() -> Outcome<()> {
    let home = std::env::args()
        .nth(1)
        .filter(|arg| !arg.starts_with("--"))
        .map_or_else(|| ".".into(), PathBuf::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    println!("| work | a file a block | Pinfold | ratio |\n| --- | --- | --- | --- |");
    for (count, length) in [(8_000, 256 * 1024), (500_000, 4 * 1024)] {
        let (mut files, mut engine) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let dir = tempfile::Builder::new().prefix("bench-files").tempdir_in(&home)?;
            files.push(measure_files(dir.path(), count, length)?);
            dir.close()?;
            let dir = tempfile::Builder::new().prefix("bench-files").tempdir_in(&home)?;
            engine.push(runtime.block_on(measure_engine(dir.path(), count, length))?);
            dir.close()?;
        }
        report(count, length, &files, &engine);
    }
    Ok(())
}

/// A row of the report: name, number of blocks, and durations.
type Work = (&'static str, usize, fn(&Times) -> Duration);

/// The duration of each step.
#[derive(Clone, Copy)]
struct Times {
    write: Duration,
    read: Duration,
    delete: Duration,
}

async fn measure_engine(dir: &Path, count: usize, length: usize) -> Outcome<Times> {
    let blocks = SegmentBlocks::open(dir, &SegmentConfig::default())?;
    let name = HoldName::parse("bench").ok_or("name")?;
    let hold = blocks.open(&name)?;
    let mut write = Duration::ZERO;
    for from in (0..count).step_by(PORTION) {
        // Created and hashed beforehand: in the server, the receiving task does that.
        let portion =
            (from..count.min(from + PORTION)).map(|n| make(n, length)).collect::<Outcome<Vec<_>>>()?;
        let began = Instant::now();
        for block in portion {
            blocks.put(hold, block).await?;
        }
        write += began.elapsed();
    }
    let began = Instant::now();
    blocks.seal(hold).await?;
    write += began.elapsed();

    blocks.close().await;
    drop(blocks);
    forget(dir)?;
    let blocks = SegmentBlocks::open(dir, &SegmentConfig::default())?;
    let cids = chosen(count, length)?;
    let began = Instant::now();
    for cid in &cids {
        blocks.get(cid)?.ok_or("a block is missing")?;
    }
    let read = began.elapsed();

    let began = Instant::now();
    blocks.release(&name).await?;
    while blocks.totals()?.blocks > 0 || used(&dir.join("segments"))? > 1 << 20 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let delete = began.elapsed();
    blocks.close().await;
    Ok(Times { write, read, delete })
}

fn measure_files(dir: &Path, count: usize, length: usize) -> Outcome<Times> {
    for shard in 0..=0xfff {
        fs::create_dir(dir.join(format!("{shard:03x}")))?;
    }
    let root = File::open(dir)?;
    rustix::fs::syncfs(&root)?;
    let mut write = Duration::ZERO;
    for from in (0..count).step_by(PORTION) {
        let portion =
            (from..count.min(from + PORTION)).map(|n| make(n, length)).collect::<Outcome<Vec<_>>>()?;
        let began = Instant::now();
        for block in portion {
            fs::write(path(dir, block.cid()), block.data())?;
        }
        write += began.elapsed();
    }
    let began = Instant::now();
    rustix::fs::syncfs(&root)?;
    write += began.elapsed();

    forget(dir)?;
    let cids = chosen(count, length)?;
    let began = Instant::now();
    for cid in &cids {
        Block::verify(*cid, fs::read(path(dir, cid))?.into())?;
    }
    let read = began.elapsed();

    let began = Instant::now();
    for shard in fs::read_dir(dir)? {
        for file in fs::read_dir(shard?.path())? {
            fs::remove_file(file?.path())?;
        }
    }
    rustix::fs::syncfs(&root)?;
    Ok(Times { write, read, delete: began.elapsed() })
}

/// Blocks created at a time.
const PORTION: usize = 4_096;

fn make(n: usize, length: usize) -> Outcome<Block> {
    let mut state = n as u64 + 1;
    let mut data = Vec::with_capacity(length);
    while data.len() < length {
        // xorshift: the data cannot be compressed.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend(state.to_le_bytes());
    }
    Ok(Block::hash(Version::V1, 0x55, 0x12, Bytes::from(data))?)
}

/// The CIDs of [`READS`] blocks in random order.
fn chosen(count: usize, length: usize) -> Outcome<Vec<Cid>> {
    let step = 7_919;
    (0..READS.min(count)).map(|at| Ok(*make(at * step % count, length)?.cid())).collect()
}

fn path(dir: &Path, cid: &Cid) -> PathBuf {
    let digest = cid.hash().digest();
    let shard = u16::from(digest[0]) << 4 | u16::from(digest[1] >> 4);
    dir.join(format!("{shard:03x}")).join(cid.to_string())
}

/// Drops a folder from the page cache: all caches of the machine if that is permitted, otherwise those of the files.
fn forget(dir: &Path) -> Outcome<()> {
    rustix::fs::syncfs(File::open(dir)?)?;
    if fs::write("/proc/sys/vm/drop_caches", "3").is_ok() {
        return Ok(());
    }
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            forget(&path)?;
        } else {
            rustix::fs::fadvise(File::open(path)?, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}

fn used(dir: &Path) -> Outcome<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        // A file may be deleted in the meantime.
        bytes += entry?.metadata().map_or(0, |metadata| metadata.blocks() * 512);
    }
    Ok(bytes)
}

fn report(count: usize, length: usize, files: &[Times], engine: &[Times]) {
    let median = |times: &[Times], of: fn(&Times) -> Duration| {
        let mut seconds: Vec<f64> = times.iter().map(|times| of(times).as_secs_f64()).collect();
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    };
    let size = length / 1024;
    let works: [Work; 3] = [
        ("write, durable", count, |times| times.write),
        ("read at random, cold, verified", READS.min(count), |times| times.read),
        ("delete until the space is back, durable", count, |times| times.delete),
    ];
    for (work, blocks, of) in works {
        let (files, engine) = (median(files, of), median(engine, of));
        let rate = |seconds: f64| format!("{seconds:.2} s, {:.0} blocks/s", blocks as f64 / seconds);
        println!(
            "| {count} × {size} KiB: {work} | {} | {} | {:.1} |",
            rate(files),
            rate(engine),
            files / engine
        );
    }
}
