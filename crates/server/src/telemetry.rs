//! Logs: structured, on stderr, for people on a terminal and as JSON for machines.
//!
//! Secrets never get here: credentials have no `Debug` and no field that is logged.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Starts logging for this process. Called once.
///
/// # Errors
/// The filter cannot be read.
pub(crate) fn start(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.filter)
        .with_context(|| format!("log.filter cannot be read: {:?}", log.filter))?;
    let ansi = std::io::stderr().is_terminal();
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Text => base.with_ansi(ansi).with_target(false).try_init(),
        LogFormat::Json => base.json().flatten_event(true).with_current_span(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}
