//! The measured steps. Each is a separate process: `step NAME ENGINE FOLDER BLOCKS …`.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::data::{self, Layout, mix};
use crate::engine::{self, Change, Engine};
use crate::{Result, crash};

/// Blocks or edges of a full group of the writer, and of one step of a release.
pub(crate) const GROUP: u64 = 8_192;
const RELEASE_BATCH: usize = 1_024;
/// Measured lookups.
const LOOKUPS: u64 = 200_000;
/// Measured small commits, and their time limit.
const SMALL_COMMITS: u64 = 20_000;
const SMALL_TIME: Duration = Duration::from_secs(20);

struct Step {
    kind: String,
    dir: PathBuf,
    blocks: u64,
    layout: Layout,
}

/// Runs the step given by the arguments.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let [name, kind, dir, blocks, rest @ ..] = args else { return Err("a step needs more arguments".into()) };
    let blocks = blocks.parse()?;
    let step = Step { kind: kind.clone(), dir: dir.into(), blocks, layout: Layout::new(blocks) };
    let number = |index: usize| -> Result<u64> { Ok(rest.get(index).ok_or("a number is missing")?.parse()?) };
    match name.as_str() {
        "fill" => step.fill(),
        "small" => step.small(number(0)?, number(1)?),
        "open" => step.open(&rest[0], &rest[1]),
        "lookups" => step.lookups(&rest[0]),
        "dirty" => step.dirty(number(0)?),
        "release" => step.release(),
        "halve" => step.halve(),
        "crash" => crash::child(&step.kind, &step.dir, number(0)?),
        other => Err(format!("there is no step {other}").into()),
    }
}

impl Step {
    fn engine(&self) -> Result<Box<dyn Engine>> {
        engine::open(&self.kind, &self.dir)
    }

    fn fill(&self) -> Result<()> {
        let mut engine = self.engine()?;
        let (start, mut slowest, mut tail) = (Instant::now(), Duration::ZERO, None);
        for first in (0..self.blocks).step_by(GROUP as usize) {
            if first >= self.blocks / 10 * 9 {
                tail.get_or_insert((first, Instant::now()));
            }
            let batch = self.layout.put(first..self.blocks.min(first + GROUP));
            let before = Instant::now();
            engine.commit(&batch)?;
            slowest = slowest.max(before.elapsed());
        }
        row("insert, batches of 8,192", per_second(self.blocks, start, "blocks"));
        if let Some((first, start)) = tail {
            row("insert, the last tenth", per_second(self.blocks - first, start, "blocks"));
        }
        row("slowest batch of 8,192", seconds(slowest));
        row("size after inserting", mebibytes(used(&self.dir)?));
        row("memory while inserting, highest", memory("VmHWM")?);
        let start = Instant::now();
        engine.settle()?;
        row("time to settle after it", seconds(start.elapsed()));
        row("size when settled", mebibytes(used(&self.dir)?));
        row("memory when settled", memory("VmRSS")?);
        Ok(())
    }

    fn small(&self, from: u64, size: u64) -> Result<()> {
        let mut engine = self.engine()?;
        let (start, mut slowest, mut done) = (Instant::now(), Duration::ZERO, 0);
        while done < SMALL_COMMITS && start.elapsed() < SMALL_TIME {
            let first = from + done * size;
            let before = Instant::now();
            engine.commit(&self.layout.put(first..first + size))?;
            slowest = slowest.max(before.elapsed());
            done += 1;
        }
        row(&format!("insert, batches of {size}"), per_second(done, start, "batches"));
        row(&format!("slowest batch of {size}"), seconds(slowest));
        Ok(())
    }

    fn open(&self, state: &str, cache: &str) -> Result<()> {
        let (start, _engine) = self.open_timed(cache)?;
        row(&format!("open, {state}, {cache}"), seconds(start));
        row(&format!("processor time of that ({state}, {cache})"), processor_time()?);
        row(&format!("memory then, highest ({state}, {cache})"), memory("VmHWM")?);
        Ok(())
    }

    /// Opens the index and looks up one block, after everything was written back and, if cold, dropped from the page cache.
    fn open_timed(&self, cache: &str) -> Result<(Duration, Box<dyn Engine>)> {
        if cache == "cold" {
            evict(&self.dir)?;
        }
        let start = Instant::now();
        let engine = self.engine()?;
        engine.block(&data::hash(self.blocks / 3))?.ok_or("a block is missing")?;
        Ok((start.elapsed(), engine))
    }

    fn lookups(&self, cache: &str) -> Result<()> {
        let (_, engine) = self.open_timed(cache)?;
        let start = Instant::now();
        for n in 0..LOOKUPS {
            let block = mix(n) % self.blocks;
            if engine.block(&data::hash(block))? != Some(data::value(block)) {
                return Err(format!("block {block} is not as it was put").into());
            }
        }
        row(&format!("lookups, present, {cache}"), per_second(LOOKUPS, start, ""));
        let start = Instant::now();
        for n in 0..LOOKUPS {
            if engine.block(&data::hash(u64::MAX / 8 + n))?.is_some() {
                return Err("a block is there that was never put".into());
            }
        }
        row(&format!("lookups, absent, {cache}"), per_second(LOOKUPS, start, ""));
        row(&format!("memory after lookups, {cache}"), memory("VmRSS")?);
        Ok(())
    }

    /// Inserts full groups starting with a block, and prints the next block after each, until it is killed.
    fn dirty(&self, from: u64) -> Result<()> {
        let mut engine = self.engine()?;
        for first in (from..).step_by(GROUP as usize) {
            engine.commit(&self.layout.put(first..first + GROUP))?;
            println!("{}", first + GROUP);
        }
        Ok(())
    }

    fn release(&self) -> Result<()> {
        let mut engine = self.engine()?;
        let start = Instant::now();
        let edges = release(engine.as_mut(), self.layout.large_hold())?;
        row("release the large hold", per_second(edges, start, "edges"));
        Ok(())
    }

    fn halve(&self) -> Result<()> {
        row("size before every second hold is released", mebibytes(used(&self.dir)?));
        let mut engine = self.engine()?;
        let (start, mut edges) = (Instant::now(), 0);
        for hold in (2..=1 + self.blocks / data::HOLD_BLOCKS).step_by(2) {
            edges += release(engine.as_mut(), hold)?;
        }
        row("release every second hold", per_second(edges, start, "edges"));
        row("size after it", mebibytes(used(&self.dir)?));
        engine.settle()?;
        row("size after it, settled", mebibytes(used(&self.dir)?));
        let start = Instant::now();
        engine.compact()?;
        row("time to compact all", seconds(start.elapsed()));
        drop(engine);
        row("size after it, compacted", mebibytes(used(&self.dir)?));
        row("memory while compacting, highest", memory("VmHWM")?);
        Ok(())
    }
}

/// Removes a hold's edges in batches, and the blocks that no other hold references.
fn release(engine: &mut dyn Engine, hold: u64) -> Result<u64> {
    let (mut edges, mut next) = (0, 0);
    loop {
        let mut changes = Vec::new();
        let rows = engine.kept(hold, next, RELEASE_BATCH)?;
        let Some((last, _)) = rows.last() else { return Ok(edges) };
        next = last + 1;
        edges += rows.len() as u64;
        for (block, hash) in rows {
            changes.push(Change::RemoveEdge { hold, block });
            if engine.keepers(block, 2)? == [hold] {
                changes.push(Change::RemoveBlock { hash });
            }
        }
        engine.commit(&changes)?;
    }
}

fn row(name: &str, cell: String) {
    println!("{name}\t{cell}");
    let _ = std::io::stdout().flush();
}

fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", grouped(bytes >> 20))
}

fn per_second(count: u64, start: Instant, unit: &str) -> String {
    format!("{} {unit}/s", grouped((count as f64 / start.elapsed().as_secs_f64()) as u64))
}

fn grouped(number: u64) -> String {
    match number / 1_000 {
        0 => number.to_string(),
        more => format!("{},{:03}", grouped(more), number % 1_000),
    }
}

/// This process's memory, by its name in `/proc/self/status`.
fn memory(name: &str) -> Result<String> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(name)).ok_or("no such line")?;
    let kibibytes: u64 = line.split_whitespace().nth(1).ok_or("no number")?.parse()?;
    Ok(mebibytes(kibibytes << 10))
}

/// The CPU time of this process, in steps of 10 ms.
fn processor_time() -> Result<String> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').ok_or("no name")?.1.split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).map(|ticks| ticks.parse().unwrap_or(0)).sum();
    Ok(seconds(Duration::from_millis(ticks * 10)))
}

/// The disk usage of a folder's files, as `du` counts it.
fn used(dir: &Path) -> Result<u64> {
    let files = files(dir)?.into_iter();
    Ok(files.filter_map(|path| path.metadata().ok()).map(|meta| meta.blocks() * 512).sum())
}

fn evict(dir: &Path) -> Result<()> {
    for path in files(dir)? {
        let file = std::fs::File::open(path)?;
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { found.extend(files(&entry.path())?) } else { found.push(entry.path()) }
    }
    Ok(found)
}
