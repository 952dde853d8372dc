//! `pinfold config`: prints the default configuration, or its reference.

use clap::Args;

use super::output::print;
use crate::config::{DEFAULTS, reference};

/// Print the default configuration as TOML, with a comment for each setting.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinfold config > pinfold.toml && pinfold serve --config pinfold.toml")]
pub(crate) struct ConfigArgs {
    /// Print the reference as Markdown instead (docs/reference/configuration.md).
    #[arg(long)]
    markdown: bool,
}

pub(super) fn run(args: &ConfigArgs) -> anyhow::Result<()> {
    let text = if args.markdown { reference() } else { DEFAULTS.to_owned() };
    print(text.trim_end())
}
