//! Throughput of the block store: `cargo bench -p pinfold-node --bench blocks [-- DIR]`.
//!
//! Prints MB/s and blocks/s of put + seal, read and release, all synced, in `DIR` (default: a folder in the working
//! directory, because `/tmp` may be in memory).

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cid::Version;
use pinfold_node::blocks::{SegmentBlocks, SegmentConfig};
use pinfold_node::unixfs::{Profile, import_file};
use pinfold_node::{Block, Blocks, HoldName};

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let home = std::env::args()
        .nth(1)
        .filter(|arg| !arg.starts_with("--"))
        .map_or_else(|| PathBuf::from("."), PathBuf::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for (count, length) in [(1024, 1024 * 1024), (20_000, 4096), (100_000, 4096)] {
        let dir = tempfile::Builder::new().prefix("bench-blocks").tempdir_in(&home)?;
        runtime.block_on(run(dir.path(), count, length))?;
    }
    let dir = tempfile::Builder::new().prefix("bench-blocks").tempdir_in(&home)?;
    runtime.block_on(import(dir.path(), 1024))?;
    Ok(())
}

async fn run(dir: &Path, count: usize, length: usize) -> Outcome {
    let blocks = SegmentBlocks::open(dir, &SegmentConfig::default())?;
    // Hashed beforehand: in the server, the receiving task does that.
    let made: Vec<Block> = (0..count).map(|n| make(n, length)).collect::<Result<_, _>>()?;
    let cids: Vec<_> = made.iter().map(|block| *block.cid()).collect();
    let name = HoldName::parse("bench").ok_or("name")?;
    let hold = blocks.open(&name)?;

    let start = Instant::now();
    for block in made {
        blocks.put(hold, block).await?;
    }
    let put = start.elapsed();
    blocks.seal(hold).await?;
    report("put + seal", count, length, start.elapsed());
    println!("    of which the seal waited {:?}", start.elapsed() - put);

    let start = Instant::now();
    for cid in &cids {
        blocks.get(cid)?.ok_or("a block is missing")?;
    }
    report("read, in order", count, length, start.elapsed());

    let again = blocks.open(&HoldName::parse("again").ok_or("name")?)?;
    let start = Instant::now();
    for cid in &cids {
        if !blocks.add_edge(again, cid)? {
            return Err("a block is missing".into());
        }
    }
    blocks.seal(again).await?;
    report("keep + seal", count, length, start.elapsed());
    blocks.release(&HoldName::parse("again").ok_or("name")?).await?;

    let start = Instant::now();
    blocks.release(&name).await?;
    println!("    release answered after {:?}", start.elapsed());
    let last = cids.last().ok_or("no blocks")?;
    while blocks.size(last)?.is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    report("release, space freed", count, length, start.elapsed());
    blocks.close().await;
    Ok(())
}

/// Imports a file from memory: chunking, hashing and storing.
async fn import(dir: &Path, mebibytes: usize) -> Outcome {
    let blocks = SegmentBlocks::open(dir, &SegmentConfig::default())?;
    let chunk = make(0, 1024 * 1024)?.into_parts().1;
    // Each chunk has different first bytes, so that none is stored already.
    let chunks = (0..mebibytes).map(move |n| {
        let mut bytes = chunk.to_vec();
        bytes[..8].copy_from_slice(&(n as u64).to_le_bytes());
        std::io::Result::Ok(Bytes::from(bytes))
    });
    let reader = tokio_util::io::StreamReader::new(futures::stream::iter(chunks));
    let hold = blocks.open(&HoldName::parse("import").ok_or("name")?)?;
    let start = Instant::now();
    import_file(reader, Profile::default(), &blocks, hold).await?;
    blocks.seal(hold).await?;
    report("import + seal", mebibytes, 1024 * 1024, start.elapsed());
    blocks.close().await;
    Ok(())
}

fn make(n: usize, length: usize) -> Result<Block, pinfold_node::BlockError> {
    let mut state = n as u64 + 1;
    let mut data = Vec::with_capacity(length);
    while data.len() < length {
        // xorshift: the data cannot be compressed.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend(state.to_le_bytes());
    }
    Block::hash(Version::V1, 0x55, 0x12, Bytes::from(data))
}

fn report(what: &str, count: usize, length: usize, time: Duration) {
    let seconds = time.as_secs_f64();
    println!(
        "{count:>7} x {length:>7} B  {what:<22} {:>8.0} MB/s {:>9.0} blocks/s  {seconds:.3} s",
        (count * length) as f64 / seconds / 1e6,
        count as f64 / seconds,
    );
}
