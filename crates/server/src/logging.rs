//! Structured logs on stderr: text for terminals, JSON for log collectors.
//!
//! Credentials must never be logged: their types have no `Debug` implementation that shows them.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Log, LogFormat};

/// Installs the global logger of this process. Must be called at most once.
///
/// # Errors
/// `log.filter` is invalid.
pub(crate) fn start(log: &Log) -> anyhow::Result<()> {
    let filter: Targets = log
        .filter
        .parse()
        .with_context(|| format!("log.filter: {:?} is not a list of LEVEL or TARGET=LEVEL", log.filter))?;
    let layer = layer().with_writer(std::io::stderr);
    let layer = match log.format {
        LogFormat::Text => layer.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(true).boxed(),
    };
    let started = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
    started.context("failed to start logging")
}
