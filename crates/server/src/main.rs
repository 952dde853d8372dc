//! The binary `pinfold`: the service, its command line and its settings.
//!
//! - [`cli`]: what can be typed, the commands that open a store, and the clients of a server;
//! - [`config`]: every setting, and the only place that reads the environment;
//! - [`operate`]: what an operator can have done to a store, and [`control`]: how a command reaches it;
//! - [`data_dir`]: the folder that one process owns;
//! - [`app`]: a whole Pinfold, started and stopped in order;
//! - [`serve`] runs one until it is told to stop, [`try_it`] runs one for show;
//! - [`telemetry`]: how and where it logs.
//!
//! This crate holds no rule and no query. It must not be imported: its tests run the built binary.

mod app;
mod cli;
mod config;
mod control;
mod data_dir;
mod operate;
mod serve;
mod telemetry;
mod try_it;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("pinfold: cannot start its threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(cli::run(cli));
    // Blocking work that is still queued must not keep a stopped process alive.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => code,
        Err(error) if cli::format::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pinfold: {error:#}");
            ExitCode::FAILURE
        }
    }
}
