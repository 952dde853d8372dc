//! Measures three candidates for Pinfold's block index with ten million blocks: fjall, redb and SQLite.
//!
//! ```text
//! cargo run --release --manifest-path bench/index/Cargo.toml -- [--dir FOLDER] [--blocks N] [--rounds N] [ENGINE…]
//! ```
//!
//! It writes a few GiB into a new folder in FOLDER (default: the working directory; it should be on a real disk), removes
//! that folder at the end, and prints a Markdown table. Without ENGINE it measures all of [`engine::KINDS`].
//! [`measure`] has the steps and their order, [`data`] the stored data.
//!
//! Every step runs in a separate process: the program starts itself with the name of the step. So memory is measured for
//! each step, and a step can be killed. A step prints lines with the name of a row, a tab, and the cell; cells of the same
//! row are printed side by side.

mod crash;
mod data;
mod engine;
mod measure;
mod steps;

use std::error::Error;
use std::path::PathBuf;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The arguments of the whole run.
struct Plan {
    dir: PathBuf,
    blocks: u64,
    rounds: u64,
    kinds: Vec<String>,
}

impl Plan {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut plan = Self { dir: ".".into(), blocks: 10_000_000, rounds: 100, kinds: Vec::new() };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--dir" => plan.dir = value()?.into(),
                "--blocks" => plan.blocks = value()?.parse()?,
                "--rounds" => plan.rounds = value()?.parse()?,
                kind if engine::KINDS.contains(&kind) => plan.kinds.push(kind.to_owned()),
                _ => return Err(format!("{arg} is none of {:?}", engine::KINDS).into()),
            }
        }
        if plan.kinds.is_empty() {
            plan.kinds = engine::KINDS.map(str::to_owned).to_vec();
        }
        Ok(plan)
    }
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1).peekable();
    if args.next_if(|arg| arg == "step").is_some() {
        return steps::run(&args.collect::<Vec<_>>());
    }
    measure::run(&Plan::parse(args)?)
}
