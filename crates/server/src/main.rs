//! The binary `pinfold`: the server, its command line and its configuration.
//!
//! - [`cli`]: the command line, one file for each command;
//! - [`config`]: every setting, where its value comes from, and its conversion into the settings of the other crates;
//! - [`app`]: constructs the parts of a running server, and stops them in order;
//! - [`admin_ops`]: backup, restore, import, export, and inspection of the block store;
//! - [`admin_socket`]: makes these operations available to commands while a server runs; [`admin_client`] calls them
//!   there, or in the process of the command when no server runs;
//! - [`data_dir`]: the layout and the lock of the data directory;
//! - [`files`]: creates and copies files that only their owner may read;
//! - [`logging`]: format and destination of the log.
//!
//! This crate contains no domain rule and no query. No other crate may depend on it: its tests run the built binary.

mod admin_client;
mod admin_ops;
mod admin_socket;
mod app;
mod cli;
mod config;
mod data_dir;
mod files;
mod logging;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("pinfold: cannot start the async runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(cli::run(cli));
    // Blocking tasks that are still queued must not keep the process alive.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => code,
        Err(error) if cli::output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pinfold: {error:#}");
            ExitCode::FAILURE
        }
    }
}
