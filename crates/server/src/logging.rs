//! Logs: structured, on stderr, for people on a terminal and as JSON for machines.
//!
//! Secrets never get here: credentials have no `Debug` and no field that is logged.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Log, LogFormat};

/// Starts logging for this process. Called once.
///
/// # Errors
/// The filter cannot be read.
pub(crate) fn start(log: &Log) -> anyhow::Result<()> {
    let filter: Targets = log
        .filter
        .parse()
        .with_context(|| format!("log.filter is not a list of TARGET=LEVEL: {:?}", log.filter))?;
    let layer = layer().with_writer(std::io::stderr);
    let layer = match log.format {
        LogFormat::Text => layer.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(true).boxed(),
    };
    let started = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
    started.context("failed to start logging")
}
