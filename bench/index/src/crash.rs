//! Checks that an engine keeps acknowledged batches when it is killed, and never shows a part of a batch.
//!
//! A child commits batches and acknowledges each. The parent kills it at a random time and starts the next one, which
//! checks the whole store before it continues. Batch `n` puts up to 256 blocks into hold `n` and removes hold `n - 64`
//! with its blocks. A torn tail is simulated after the kill: the part of the journal after the last acknowledged batch is
//! truncated at a random place, or a random sector of it is zeroed.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use crate::data::{self, mix};
use crate::engine::{self, Change, Engine};
use crate::{Result, measure};

/// Batches that exist at a time.
const KEPT: u64 = 64;
/// Time without output after which a round counts as hung.
const HUNG: Duration = Duration::from_secs(60);
const SECTOR: u64 = 512;

fn blocks(batch: u64) -> std::ops::Range<u64> {
    batch * 256..batch * 256 + 1 + mix(batch) % 256
}

fn changes(batch: u64) -> Vec<Change> {
    let put = blocks(batch)
        .flat_map(|block| [Change::PutBlock { block }, Change::PutEdge { hold: batch, block }]);
    let old = batch.saturating_sub(KEPT);
    let remove = (old > 0).then(|| blocks(old)).into_iter().flatten().flat_map(|block| {
        [Change::RemoveBlock { hash: data::hash(block) }, Change::RemoveEdge { hold: old, block }]
    });
    put.chain(remove).collect()
}

/// Checks a store that acknowledged batches up to `acknowledged`, then commits more until it is killed.
pub(crate) fn child(kind: &str, dir: &Path, acknowledged: u64) -> Result<()> {
    let mut engine = engine::open(kind, dir)?;
    let mut last = check(engine.as_ref(), acknowledged)?;
    println!("{last}");
    loop {
        last += 1;
        engine.commit(&changes(last))?;
        let (path, end) = engine.journal()?.unwrap_or_default();
        println!("{last}\t{end}\t{}", path.display());
    }
}

/// Finds the last batch; an error if any batch is not complete.
fn check(engine: &dyn Engine, acknowledged: u64) -> Result<u64> {
    let last = acknowledged + u64::from(!engine.kept(acknowledged + 1, 0, 1)?.is_empty());
    for batch in acknowledged.saturating_sub(KEPT * 2).max(1)..=last + 2 {
        let there = batch <= last && batch + KEPT > last;
        let kept: Vec<_> = blocks(batch).map(|block| (block, data::hash(block))).collect();
        if engine.kept(batch, 0, 1_000)? != if there { kept.clone() } else { Vec::new() } {
            return Err(format!("the hold of batch {batch} is not whole (last is {last})").into());
        }
        for (block, hash) in kept {
            let value = there.then(|| data::value(block));
            let holds = if there { vec![batch] } else { Vec::new() };
            if engine.block(&hash)? != value || engine.keepers(block, 2)? != holds {
                return Err(format!("block {block} of batch {batch} is not right (last is {last})").into());
            }
        }
    }
    Ok(last)
}

/// The result of a round.
struct Round {
    acknowledged: u64,
    /// The journal with the last batch, and the length up to its end.
    journal: Option<(PathBuf, u64)>,
    checked: bool,
    hung: bool,
}

/// Runs all rounds, each on the store of the previous one, and adds the results to the table.
pub(crate) fn rounds(
    kind: &str,
    dir: &Path,
    rounds: u64,
    torn: bool,
    put: &mut dyn FnMut(&str, &str),
) -> Result<()> {
    let name = if torn { "killed and torn" } else { "killed" };
    std::fs::create_dir(dir)?;
    if torn && engine::newest_journal(kind, dir)?.is_none() && kind.starts_with("redb") {
        put(name, "no journal to tear");
        return Ok(std::fs::remove_dir_all(dir)?);
    }
    let (mut acknowledged, mut batches, mut tears, mut bad, mut hung) = (0, 0, 0, 0, 0);
    for number in 0..=rounds {
        let round = round(kind, dir, acknowledged, number)?;
        hung += u64::from(round.hung);
        if !round.checked {
            bad += 1;
            std::fs::remove_dir_all(dir)?;
            std::fs::create_dir(dir)?;
            acknowledged = 0;
            continue;
        }
        batches += round.acknowledged - acknowledged;
        acknowledged = round.acknowledged;
        if let Some((path, end)) = round.journal.filter(|_| torn) {
            tears += u64::from(tear(kind, dir, &path, end, number)?);
        }
    }
    let tears = if torn { format!(", {tears} torn") } else { String::new() };
    put(name, &format!("{rounds} rounds{tears}, {batches} batches, {bad} not as acknowledged, {hung} hung"));
    Ok(std::fs::remove_dir_all(dir)?)
}

/// Starts a child and kills it some time after its check succeeded; every fourth time possibly before its first batch.
fn round(kind: &str, dir: &Path, acknowledged: u64, number: u64) -> Result<Round> {
    let mut child = measure::start("crash", kind, dir, 0, &[&acknowledged.to_string()])?;
    let lines = measure::lines(&mut child)?;
    let (started, start) = sync_channel(2);
    let killer = std::thread::spawn(move || {
        let signs = if number % 4 == 0 { 1 } else { 2 };
        let hung = (0..signs).any(|_| start.recv_timeout(HUNG).is_err());
        std::thread::sleep(Duration::from_micros(mix(number) % 200_000));
        let ended = child.try_wait()?.is_some();
        child.kill()?;
        child.wait()?;
        Ok::<_, std::io::Error>(hung && !ended)
    });
    let mut round = Round { acknowledged, journal: None, checked: false, hung: false };
    for line in lines {
        let _ = started.try_send(());
        round.checked = true;
        let line = line?;
        let mut fields = line.split('\t');
        round.acknowledged = fields.next().ok_or("an empty line")?.parse()?;
        round.journal = fields.next().zip(fields.next()).map(|(end, path)| Ok::<_, std::num::ParseIntError>((path.into(), end.parse()?))).transpose()?;
    }
    drop(started);
    round.hung = killer.join().map_err(|_| "the killer panicked")??;
    Ok(round)
}

/// Damages the newest journal after the last acknowledged batch. Returns whether there was any data.
fn tear(kind: &str, dir: &Path, path: &Path, end: u64, number: u64) -> Result<bool> {
    let Some(newest) = engine::newest_journal(kind, dir)? else { return Ok(false) };
    let end = if newest == path { end } else { 0 };
    let more = data_end(&newest)?.saturating_sub(end);
    if more == 0 {
        return Ok(false);
    }
    let at = end + mix(number) % more;
    let file = OpenOptions::new().write(true).open(&newest)?;
    let sector = at.next_multiple_of(SECTOR);
    if number.is_multiple_of(2) && sector < end + more {
        file.write_all_at(&[0; SECTOR as usize], sector)?;
    } else {
        file.set_len(at)?;
    }
    Ok(true)
}

/// The end of a file's data, before the zeros with which a journal may be preallocated.
pub(crate) fn data_end(path: &Path) -> Result<u64> {
    let file = File::open(path)?;
    let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0))?;
    let mut tail = vec![0; hole.min(64 << 10) as usize];
    let start = hole - tail.len() as u64;
    file.read_exact_at(&mut tail, start)?;
    Ok(start + tail.iter().rposition(|&byte| byte != 0).map_or(0, |last| last as u64 + 1))
}
