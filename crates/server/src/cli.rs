//! The command line: one module for each command, with its arguments, help and implementation.
//!
//! - `serve` and `try` run a server.
//! - `user`, `plan` and `token` open the database of a data directory ([`database`]), also while a server uses it.
//! - `export`, `import`, `backup`, `restore` and `blocks` operate on a data directory, through the running server if there
//!   is one ([`crate::admin_client`]).
//! - `id`, `pin`, `ls`, `status`, `rm` and `add` are clients of the HTTP API ([`api_client`]).
//!
//! Exit status: 0 for success, 1 for failure (the reason is on stderr), 2 for invalid arguments. Stdout carries only
//! results, so that it can be piped.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::admin_client::{AdminClient, Needs};
use crate::config::Config;
use crate::data_dir::DataDir;

mod add;
mod api_client;
mod backup;
mod blocks;
mod config;
mod database;
mod demo;
mod export;
mod id;
mod import;
mod ls;
pub(crate) mod output;
mod pin;
mod plan;
mod reference;
mod restore;
mod rm;
mod serve;
mod status;
mod token;
mod user;

/// An IPFS pinning service in a single binary. It fetches, verifies and stores the content that you pin.
#[derive(Debug, Parser)]
#[command(
    name = "pinfold",
    version,
    after_help = "Examples:
  pinfold try                      Run a self-contained demonstration
  pinfold serve                    Run the server on http://127.0.0.1:3000
  export PINFOLD_API_KEY=…         Use the API key that the first start printed
  pinfold pin bafybei…             Pin content from the IPFS network
  pinfold add ./photos             Upload and pin a file or directory
  pinfold ls                       List pins

Run `pinfold help COMMAND` for details."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::ServeArgs>),
    Try(demo::TryArgs),
    User(user::UserArgs),
    Plan(plan::PlanArgs),
    Token(token::TokenArgs),
    Id(id::IdArgs),
    Pin(pin::PinArgs),
    Ls(ls::LsArgs),
    Status(status::StatusArgs),
    Rm(rm::RmArgs),
    Add(add::AddArgs),
    Export(export::ExportArgs),
    Import(import::ImportArgs),
    Backup(backup::BackupArgs),
    Restore(restore::RestoreArgs),
    Blocks(blocks::BlocksArgs),
    Config(config::ConfigArgs),
    #[command(hide = true)]
    CliReference(reference::CliReferenceArgs),
}

/// Options of a new pin.
#[derive(Debug, Args)]
pub(crate) struct PinOptionArgs {
    /// Cluster that stores the content. Default: the server's default cluster.
    #[arg(long, value_name = "CLUSTER")]
    pub(crate) cl: Option<String>,
    /// Time at which the pin expires, as RFC 3339, such as 2030-01-01T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub(crate) timelock: Option<String>,
}

/// The server that a client command connects to.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// Base URL of the server.
    #[arg(long, env = "PINFOLD_SERVER", value_name = "URL", default_value = "http://127.0.0.1:3000")]
    pub(crate) server: String,
    /// API key. Prefer the environment variable: other users of this machine can see command lines.
    #[arg(long, env = "PINFOLD_API_KEY", value_name = "KEY", hide_env_values = true)]
    pub(crate) key: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The data directory that a command operates on, and its configuration file.
#[derive(Debug, Args)]
pub(crate) struct DataDirArgs {
    /// Configuration file. Default: `pinfold.toml` in the data directory, if it exists.
    #[arg(long, env = "PINFOLD_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Data directory: the database, the blocks and the node's key. Default: the platform's data directory, such as
    /// ~/.local/share/pinfold.
    #[arg(long, env = "PINFOLD_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

impl DataDirArgs {
    fn data_dir(&self) -> anyhow::Result<DataDir> {
        DataDir::choose(self.data_dir.clone())
    }

    fn config_file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    fn load_config(&self, dir: &DataDir) -> anyhow::Result<Config> {
        Config::load(dir.config_file(self.config_file()).as_deref())
    }

    async fn admin_client(&self, needs: Needs) -> anyhow::Result<AdminClient> {
        AdminClient::open(&self.data_dir()?, self.config_file(), needs).await
    }
}

/// Runs a parsed command line.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Serve(args) => serve::run(*args).await?,
        Command::Try(args) => return demo::run(args).await,
        Command::User(args) => user::run(args.command).await?,
        Command::Plan(args) => plan::run(args.command).await?,
        Command::Token(args) => token::run(args.command).await?,
        Command::Id(args) => id::run(args).await?,
        Command::Pin(args) => pin::run(args).await?,
        Command::Ls(args) => ls::run(args).await?,
        Command::Status(args) => status::run(args).await?,
        Command::Rm(args) => rm::run(args).await?,
        Command::Add(args) => add::run(args).await?,
        Command::Export(args) => export::run(args).await?,
        Command::Import(args) => import::run(args).await?,
        Command::Backup(args) => backup::run(args).await?,
        Command::Restore(args) => restore::run(args).await?,
        Command::Blocks(args) => return blocks::run(args.command).await,
        Command::Config(args) => config::run(&args)?,
        Command::CliReference(args) => reference::run(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_definition_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn new_account_requires_exactly_one_password_option() {
        let neither = Cli::try_parse_from(["pinfold", "user", "create", "--email", "a@b.c"]);
        assert_eq!(neither.unwrap_err().exit_code(), 2);
        let both = ["pinfold", "user", "create", "--email", "a@b.c", "--no-password", "--password-stdin"];
        assert_eq!(Cli::try_parse_from(both).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn bootstrap_and_no_bootstrap_are_mutually_exclusive() {
        let both = ["pinfold", "serve", "--no-bootstrap", "--bootstrap", "/dnsaddr/example.org"];
        assert_eq!(Cli::try_parse_from(both).unwrap_err().exit_code(), 2);
    }
}
