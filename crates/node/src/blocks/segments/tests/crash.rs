//! Kills a process repeatedly during writes, and compares the store with what was acknowledged.
//!
//! The child is this test binary with one test, [`crash_worker`], and a folder in its environment. It prints each step
//! that it starts and completes. A step that was started and not completed may be visible or not; everything else must
//! match exactly.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::*;
use crate::blocks::contract::{block, name};

const DIR: &str = "PINFOLD_TEST_CRASH_DIR";
const SEED: &str = "PINFOLD_TEST_CRASH_SEED";
const ROUNDS: u64 = 120;
const WORKERS: u64 = 3;
const HOLDS: u64 = 5;
/// Different blocks from which all holds choose.
const POOL: u64 = 300;

fn config() -> SegmentConfig {
    SegmentConfig { segment_bytes: 256 * 1024, reserve_bytes: 0 }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn pooled(n: u64) -> Block {
    let mut text = format!("block {n} ");
    text.extend(std::iter::repeat_n('.', (n * n % 9_000) as usize));
    block(text)
}

/// One step of the work, as printed to the parent.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Add { hold: String, blocks: Vec<u64>, seal: bool },
    Release { hold: String },
}

impl Step {
    fn random(worker: u64, random: &mut Random) -> Self {
        let hold = format!("worker {worker}/{}", random.below(HOLDS));
        if random.below(4) == 0 {
            return Self::Release { hold };
        }
        let blocks = (0..1 + random.below(40)).map(|_| random.below(POOL)).collect();
        Self::Add { hold, blocks, seal: random.below(3) == 0 }
    }

    async fn run(&self, blocks: &SegmentBlocks) {
        match self {
            Self::Add { hold, blocks: added, seal } => {
                let hold = blocks.open(&name(hold)).unwrap();
                for n in added {
                    let block = pooled(*n);
                    if n % 2 == 0 || !blocks.add_edge(hold, block.cid()).unwrap() {
                        blocks.put(hold, block).await.unwrap();
                    }
                }
                if *seal { blocks.seal(hold).await } else { blocks.commit(hold).await }.unwrap();
            }
            Self::Release { hold } => blocks.release(&name(hold)).await.unwrap(),
        }
    }
}

/// The expected state of a hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Expected {
    sealed: bool,
    blocks: BTreeSet<u64>,
}

type Model = BTreeMap<String, Expected>;

fn apply(model: &mut Model, step: &Step) {
    match step {
        Step::Add { hold, blocks, seal } => {
            let expected = model.entry(hold.clone()).or_default();
            expected.sealed |= seal;
            expected.blocks.extend(blocks);
        }
        Step::Release { hold } => {
            model.remove(hold);
        }
    }
}

/// The state of the store according to its index.
fn actual(blocks: &SegmentBlocks) -> Model {
    let by_cid: BTreeMap<_, _> = (0..POOL).map(|n| (pooled(n).cid().hash().to_bytes(), n)).collect();
    let mut model = Model::new();
    for info in blocks.holds("worker", None, usize::MAX).unwrap() {
        let hold = blocks.shared.index.hold_named(&info.name).unwrap().unwrap();
        let edges = blocks.shared.index.edges(hold, None, usize::MAX).unwrap();
        assert_eq!(info.stats.blocks, edges.len() as u64, "{info:?}");
        let bytes: u64 = edges.iter().map(|edge| u64::from(edge.length)).sum();
        assert_eq!(info.stats.bytes, bytes, "{info:?}");
        let kept = edges.iter().map(|edge| by_cid[&edge.hash.to_bytes()]).collect();
        model.insert(info.name.as_str().to_owned(), Expected { sealed: info.sealed, blocks: kept });
    }
    model
}

/// Checks that all blocks of the holds can be read, that there are no others, and that the counts of the segments match.
async fn check_blocks(blocks: &SegmentBlocks, model: &Model) {
    for turn in 0.. {
        if blocks.shared.index.releasing().unwrap().is_empty() {
            break;
        }
        assert!(turn < 10_000, "freeing did not complete");
        blocks.open(&name("tick")).unwrap();
        blocks.release(&name("tick")).await.unwrap();
    }
    let kept: BTreeSet<u64> = model.values().flat_map(|hold| hold.blocks.iter().copied()).collect();
    for n in 0..POOL {
        let found = blocks.get(pooled(n).cid()).unwrap();
        assert_eq!(found, kept.contains(&n).then(|| pooled(n)), "block {n}");
    }
    let segments = blocks.shared.index.segments().unwrap();
    let live_blocks: u64 = segments.iter().map(|(_, record)| record.live_blocks).sum();
    let live_bytes: u64 = segments.iter().map(|(_, record)| record.live_bytes).sum();
    assert_eq!(live_blocks, kept.len() as u64);
    assert_eq!(live_bytes, kept.iter().map(|n| pooled(*n).data().len() as u64).sum::<u64>());
}

/// Runs a child until it has printed `lines` lines, kills it, and returns its output.
fn run_and_kill(dir: &Path, seed: u64, lines: usize) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "blocks::segments::tests::crash::crash_worker"])
        .env(DIR, dir)
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        output.push(line.unwrap());
        if output.len() == lines {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    output
}

/// The model after the completed steps, and the steps that were not completed.
fn follow(mut model: Model, output: &[String]) -> (Model, Vec<Step>) {
    let mut begun = BTreeMap::new();
    for line in output {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["BEGIN", seed, worker, steps] => {
                let mut random = Random(seed.parse().unwrap());
                let step = Step::random(worker.parse().unwrap(), &mut random);
                begun.insert((worker.to_owned(), steps.to_owned()), step);
            }
            ["DONE", worker, steps] => {
                let step = begun.remove(&(worker.to_owned(), steps.to_owned())).unwrap();
                apply(&mut model, &step);
            }
            _ => {}
        }
    }
    (model, begun.into_values().collect())
}

/// An unfinished step may be visible completely, up to a commit, or not at all.
fn compare(expected: &Model, actual: &Model, unfinished: &[Step]) {
    let names: BTreeSet<_> = expected.keys().chain(actual.keys()).collect();
    for hold in names {
        let (before, found) = (expected.get(hold), actual.get(hold));
        let open = unfinished.iter().find(|step| match step {
            Step::Add { hold: name, .. } | Step::Release { hold: name } => name == hold,
        });
        match open {
            None => assert_eq!(found, before, "{hold}"),
            Some(Step::Release { .. }) => assert!(found.is_none() || found == before, "{hold}"),
            Some(Step::Add { blocks, seal, .. }) => {
                let Some(found) = found else {
                    assert_eq!(before, None, "{hold} is missing");
                    continue;
                };
                let before = before.cloned().unwrap_or_default();
                let most: BTreeSet<u64> = before.blocks.iter().chain(blocks).copied().collect();
                assert!(found.blocks.is_superset(&before.blocks), "{hold} has lost blocks");
                assert!(found.blocks.is_subset(&most), "{hold} has blocks that were never put");
                assert!(
                    found.sealed == before.sealed || (*seal && found.blocks == most),
                    "{hold} is sealed without all blocks"
                );
            }
        }
    }
}

#[tokio::test]
async fn acknowledged_writes_and_releases_survive_kills() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(0x5eed);
    let mut model = Model::new();
    let mut done = 0;
    for round in 1..=ROUNDS {
        let lines = 1 + random.below(80) as usize;
        let output = run_and_kill(dir.path(), round * 1_000_003, lines);
        let (expected, unfinished) = follow(model, &output);
        done += output.iter().filter(|line| line.starts_with("DONE")).count();
        let blocks = SegmentBlocks::open(dir.path(), &config()).unwrap();
        model = actual(&blocks);
        compare(&expected, &model, &unfinished);
        // In every other round the next child finds edges that are still to be removed.
        if round % 2 == 0 {
            check_blocks(&blocks, &model).await;
        }
    }
    assert!(done > 100, "the children have done {done} steps only");
}

/// With a folder in the environment, works there until it is killed. Otherwise works for a few steps and checks the result.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_worker() {
    let child = std::env::var_os(DIR);
    let seed = std::env::var_os(SEED).map_or(1, |seed| seed.to_str().unwrap().parse().unwrap());
    let own = tempfile::tempdir().unwrap();
    let dir = child.as_ref().map_or(own.path(), Path::new);
    let steps = if child.is_some() { u64::MAX } else { 40 };
    let blocks = Arc::new(SegmentBlocks::open(dir, &config()).unwrap());
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let say = if child.is_some() { print_to_parent } else { |_: &str| {} };
            tokio::spawn(work(Arc::clone(&blocks), worker, seed + worker, steps, say))
        })
        .collect();
    let mut model = Model::new();
    for worker in workers {
        model.extend(worker.await.unwrap());
    }
    assert_eq!(actual(&blocks), model);
    check_blocks(&blocks, &model).await;
}

async fn work(blocks: Arc<SegmentBlocks>, worker: u64, seed: u64, steps: u64, say: fn(&str)) -> Model {
    let mut seeds = Random(seed);
    let mut model = Model::new();
    for at in 0..steps {
        let seed = 1 + seeds.below(u64::MAX - 1);
        let step = Step::random(worker, &mut Random(seed));
        say(&format!("BEGIN {seed} {worker} {at}"));
        step.run(&blocks).await;
        apply(&mut model, &step);
        say(&format!("DONE {worker} {at}"));
    }
    model
}

/// Prints a whole line at once, so that a kill cannot leave a part of it that looks like another line.
fn print_to_parent(line: &str) {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(format!("\n{line}\n").as_bytes()).unwrap();
    stdout.flush().unwrap();
}
