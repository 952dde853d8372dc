//! The whole run: every step for every engine in sequence, and the table.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::data::mix;
use crate::steps::GROUP;
use crate::{Plan, Result, crash};

/// How often each kind of open is measured.
const OPENINGS: u64 = 3;

/// A folder that is removed when it is dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Rows in order of appearance, with a cell for each engine.
struct Table {
    columns: usize,
    rows: Vec<(String, Vec<Vec<String>>)>,
}

impl Table {
    fn put(&mut self, column: usize, name: &str, cell: &str) {
        eprintln!("  {name}: {cell}");
        let at = self.rows.iter().position(|(row, _)| row == name).unwrap_or_else(|| {
            self.rows.push((name.to_owned(), vec![Vec::new(); self.columns]));
            self.rows.len() - 1
        });
        self.rows[at].1[column].push(cell.to_owned());
    }

    fn print(&self, kinds: &[String]) {
        println!("| | {} |\n|{}", kinds.join(" | "), " --- |".repeat(kinds.len() + 1));
        for (name, cells) in &self.rows {
            let cells: Vec<_> = cells.iter().map(|cell| cell.join(" / ")).collect();
            println!("| {name} | {} |", cells.join(" | "));
        }
    }
}

/// Measures all requested engines and prints the table.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let scratch = Scratch(plan.dir.join(format!("index-bench-{}", std::process::id())));
    std::fs::create_dir(&scratch.0)?;
    let mut table = Table { columns: plan.kinds.len(), rows: Vec::new() };
    for (column, kind) in plan.kinds.iter().enumerate() {
        eprintln!("{kind}, load {}", std::fs::read_to_string("/proc/loadavg")?.trim());
        let dir = scratch.0.join(kind);
        std::fs::create_dir(&dir)?;
        measure(plan, kind, &dir, &mut |name, cell| table.put(column, name, cell))?;
        std::fs::remove_dir_all(&dir)?;
    }
    table.print(&plan.kinds);
    Ok(())
}

fn measure(plan: &Plan, kind: &str, dir: &Path, put: &mut dyn FnMut(&str, &str)) -> Result<()> {
    let mut step = |name: &str, args: &[&str]| -> Result<()> {
        let mut child = start(name, kind, dir, plan.blocks, args)?;
        for line in lines(&mut child)? {
            if let Some((row, cell)) = line?.split_once('\t') {
                put(row, cell);
            }
        }
        if child.wait()?.success() { Ok(()) } else { Err(format!("{kind}: {name} failed").into()) }
    };
    step("fill", &[])?;
    for cache in ["cold", "warm"] {
        for _ in 0..OPENINGS {
            step("open", &["closed", cache])?;
        }
        step("lookups", &[cache])?;
    }
    // Further blocks come after those of the fill, and no measured step reads them.
    let mut next = plan.blocks.next_multiple_of(GROUP) + GROUP;
    for size in [1, 16] {
        step("small", &[&next.to_string(), &size.to_string()])?;
        next += 1_000_000;
    }
    for cache in ["cold", "warm"] {
        for round in 0..OPENINGS {
            next = kill_while_inserting(kind, dir, plan.blocks, next, Duration::from_millis(2_000 + mix(round) % 2_000))?;
            step("open", &["killed", cache])?;
        }
    }
    step("release", &[])?;
    step("halve", &[])?;
    for torn in [false, true] {
        crash::rounds(kind, &dir.join("crash"), plan.rounds, torn, put)?;
    }
    Ok(())
}

/// Inserts full groups starting with block `next`, kills that after some time, and returns the next block.
fn kill_while_inserting(kind: &str, dir: &Path, blocks: u64, mut next: u64, time: Duration) -> Result<u64> {
    let mut child = start("dirty", kind, dir, blocks, &[&next.to_string()])?;
    let lines = lines(&mut child)?;
    let killer = std::thread::spawn(move || {
        std::thread::sleep(time);
        child.kill()?;
        child.wait()
    });
    for line in lines {
        next = line?.parse()?;
    }
    killer.join().map_err(|_| "the killer panicked")??;
    Ok(next + GROUP) // There may be one more group than was acknowledged.
}

/// Starts a step in a separate process.
pub(crate) fn start(name: &str, kind: &str, dir: &Path, blocks: u64, args: &[&str]) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["step", name, kind]).arg(dir).arg(blocks.to_string()).args(args);
    Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?)
}

/// The output of a step.
pub(crate) fn lines(child: &mut Child) -> Result<impl Iterator<Item = std::io::Result<String>> + use<>> {
    Ok(BufReader::new(child.stdout.take().ok_or("no pipe")?).lines())
}
