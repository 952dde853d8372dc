//! The command line: what can be typed, and which function answers it.
//!
//! Four kinds of commands: those that run a node (`serve`, `try`), those that open the database of a data
//! folder and also work while a server runs on it (`user`, `plan`, `token`), those that care for its blocks, which the
//! server does when one runs ([`operator`]), and clients of a server (`id`, `pin`, `ls`, `status`, `rm`,
//! `add`).
//!
//! Exit status: 0 done, 1 failed (the reason is on stderr), 2 wrong usage. Stdout carries results alone,
//! so that it can be piped.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub(crate) mod add;
pub(crate) mod api_client;
pub(crate) mod backup;
pub(crate) mod blocks;
pub(crate) mod database;
pub(crate) mod demo;
pub(crate) mod export;

pub(crate) mod import;
pub(crate) mod operator;
pub(crate) mod output;
pub(crate) mod pin;
pub(crate) mod plan;
pub(crate) mod remote;
pub(crate) mod serve;
pub(crate) mod token;
pub(crate) mod user;

/// An IPFS pinning service in one binary: it fetches what you pin, verifies every block, and keeps it.
#[derive(Debug, Parser)]
#[command(
    name = "pinfold",
    version,
    after_help = "Examples:
  pinfold try                      See it work: a throw-away server, a peer, and one pin
  pinfold serve                    Run the service on http://127.0.0.1:3000
  export PINFOLD_API_KEY=…         The key that the first start printed
  pinfold pin bafybei…             Pin what is on IPFS already
  pinfold add ./photos             Upload a file or a folder
  pinfold ls                       What is pinned

`pinfold help COMMAND` says more about each."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<ServeArgs>),
    Try(TryArgs),
    User(UserArgs),
    Plan(PlanArgs),
    Token(TokenArgs),
    Id(IdArgs),
    Pin(PinArgs),
    Ls(LsArgs),
    Status(StatusArgs),
    Rm(RmArgs),
    Add(AddArgs),
    Export(operator::ExportArgs),
    Import(operator::ImportArgs),
    Backup(operator::BackupArgs),
    Restore(operator::RestoreArgs),
    Blocks(operator::BlocksArgs),
    Config(ConfigArgs),
}

/// Run the service.
///
/// The first start makes an account with every right and prints its API key once. Settings come from the
/// built-in defaults, then the configuration file, then PINFOLD_SECTION__KEY variables, then these options.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinfold serve
  pinfold serve --listen 0.0.0.0:3000 --data-dir /srv/pinfold
  pinfold serve --no-bootstrap --peer /ip4/127.0.0.1/tcp/4001/p2p/12D3Koo…
  PINFOLD_LOG__FORMAT=json pinfold serve --config /etc/pinfold.toml

`pinfold config` prints every setting with its default.")]
pub(crate) struct ServeArgs {
    /// Where to answer HTTP; port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where to listen for IPFS peers; replaces the configured addresses. Repeatable.
    #[arg(long, value_name = "MULTIADDR")]
    pub(crate) swarm_listen: Vec<String>,
    /// An address under which other peers reach this node. Repeatable.
    #[arg(long, value_name = "MULTIADDR")]
    pub(crate) announce: Vec<String>,
    /// A peer to stay connected to, with its `/p2p/ID`. Repeatable.
    #[arg(long, value_name = "MULTIADDR")]
    pub(crate) peer: Vec<String>,
    /// A peer to join the DHT through, instead of the public list. Repeatable.
    #[arg(long, value_name = "MULTIADDR", conflicts_with = "no_bootstrap")]
    pub(crate) bootstrap: Vec<String>,
    /// Join no DHT: find content only at connected peers and their networks.
    #[arg(long)]
    pub(crate) no_bootstrap: bool,
    /// Print the readiness line as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: DataDirArgs,
}

/// Show it working: a throw-away Pinfold pins from a second node and still has it when that is gone.
///
/// Both run on loopback and in a temporary folder; nothing needs the internet and nothing stays behind.
/// The server stays up until Ctrl-C, so that you can go on with it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinfold try
  pinfold try --exit && echo it works")]
pub(crate) struct TryArgs {
    /// End after the proof, with status 0 if the content was held and 1 if not.
    #[arg(long)]
    pub(crate) exit: bool,
}

/// Make, change and list accounts. Works on the data folder, also while the server runs.
#[derive(Debug, Args)]
pub(crate) struct UserArgs {
    #[command(subcommand)]
    pub(crate) command: UserCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Make an account.
    #[command(after_help = "Examples:
  pinfold user create --email ada@example.org --no-password
  pass show pinfold/ada | pinfold user create --email ada@example.org --plan premium --password-stdin")]
    Create(UserCreateArgs),
    /// Change an account. What is not given stays.
    #[command(after_help = "Examples:
  pinfold user set ada@example.org --plan premium
  pinfold user set eve@example.org --disable
  pinfold user set ada@example.org --storage 5000000000")]
    Set(UserSetArgs),
    /// List all accounts.
    List(UserListArgs),
    /// Give an account another password, read from the first line of stdin. Whoever is logged in to it is logged out.
    #[command(after_help = "Examples:
  pass show pinfold/ada | pinfold user password ada@example.org")]
    Password(UserNameArgs),
    /// Remove the second factor of an account whose owner has lost it. Its password is enough to log in then.
    #[command(name = "disable-2fa")]
    DisableTwoFactor(UserNameArgs),
}

/// An account.
#[derive(Debug, Args)]
pub(crate) struct UserNameArgs {
    /// The account's e-mail address.
    pub(crate) email: String,
    #[command(flatten)]
    pub(crate) place: DataDirArgs,
}

#[derive(Debug, Args)]
pub(crate) struct UserSetArgs {
    /// The account's e-mail address.
    pub(crate) email: String,
    /// What it is called.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Its plan. Its pins stay, also when they don't fit.
    #[arg(long, value_name = "CODE")]
    pub(crate) plan: Option<String>,
    /// What it may do.
    #[arg(long, value_parser = ["user", "admin"])]
    pub(crate) role: Option<String>,
    /// Refuse its credentials.
    #[arg(long, conflicts_with = "enable")]
    pub(crate) disable: bool,
    /// Accept its credentials again.
    #[arg(long)]
    pub(crate) enable: bool,
    /// A storage of its own, in bytes, whatever its plan says; `plan` for that of its plan.
    #[arg(long, value_name = "BYTES|plan")]
    pub(crate) storage: Option<String>,
    /// Print the account as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: DataDirArgs,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("password").required(true))]
pub(crate) struct UserCreateArgs {
    /// The account's e-mail address; it names the account.
    #[arg(long)]
    pub(crate) email: String,
    /// The plan that bounds what the account may hold.
    #[arg(long, default_value = "free", value_name = "CODE")]
    pub(crate) plan: String,
    /// What the account may do.
    #[arg(long, default_value = "user", value_parser = ["user", "admin"])]
    pub(crate) role: String,
    /// Read the password from the first line of stdin.
    #[arg(long, group = "password")]
    pub(crate) password_stdin: bool,
    /// An account that signs in by API keys alone.
    #[arg(long, group = "password")]
    pub(crate) no_password: bool,
    /// Print the account as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: DataDirArgs,
}

#[derive(Debug, Args)]
pub(crate) struct UserListArgs {
    /// Print one JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: DataDirArgs,
}

/// Save plans over the configured ones. Works on the data folder; a running server follows within some seconds.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(subcommand)]
    pub(crate) command: PlanCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PlanCommand {
    /// List all plans.
    List(PlanListArgs),
    /// Save a plan, new or over the one that there is. What is not given stays.
    #[command(after_help = "Examples:
  pinfold plan set free --storage 5368709120
  pinfold plan set team --name Team --storage 1099511627776 --timelock true --self-service true")]
    Set(Box<PlanSetArgs>),
    /// Delete a saved plan. The configured one of its code comes back.
    Delete(PlanDeleteArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PlanListArgs {
    /// Print one JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: DataDirArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PlanSetArgs {
    /// Its code, such as `team`.
    pub(crate) code: String,
    /// What people call it.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// What it is for. Repeatable; replaces all there are.
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Vec<String>,
    /// What it costs a month, in hundredths. It is only shown.
    #[arg(long, value_name = "N")]
    pub(crate) price_cents: Option<u64>,
    /// Whether accounts may change to it by themselves.
    #[arg(long, value_name = "true|false")]
    pub(crate) self_service: Option<bool>,
    /// The bytes that all pins of an account may have together.
    #[arg(long, value_name = "BYTES")]
    pub(crate) storage: Option<u64>,
    /// The bytes that one uploaded file may have.
    #[arg(long, value_name = "BYTES|none")]
    pub(crate) file_max: Option<String>,
    /// The bytes that the files of one uploaded folder may have together.
    #[arg(long, value_name = "BYTES|none")]
    pub(crate) directory_max: Option<String>,
    /// Whether pins may end by themselves.
    #[arg(long, value_name = "true|false")]
    pub(crate) timelock: Option<bool>,
    /// Whether pins may be locked against their removal.
    #[arg(long, value_name = "true|false")]
    pub(crate) retention_lock: Option<bool>,
    /// The clusters that may be used, or `all`.
    #[arg(long, value_delimiter = ',', value_name = "CLUSTER,…")]
    pub(crate) clusters: Vec<String>,
    /// Pins that may be on their way at one time.
    #[arg(long, value_name = "N")]
    pub(crate) in_flight_pins: Option<u32>,
    /// Requests a minute of one key.
    #[arg(long, value_name = "N")]
    pub(crate) requests_per_minute: Option<u32>,
    /// Requests a second of one key.
    #[arg(long, value_name = "N")]
    pub(crate) requests_per_second: Option<u32>,
    /// Print the plan as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: DataDirArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PlanDeleteArgs {
    /// Its code.
    pub(crate) code: String,
    #[command(flatten)]
    pub(crate) place: DataDirArgs,
}

/// Make, list and revoke API keys. Works on the data folder, also while the server runs.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make an API key and print it, and only it, on stdout. It cannot be shown again.
    #[command(after_help = "Examples:
  export PINFOLD_API_KEY=$(pinfold token create --email ada@example.org --name laptop)
  pinfold token create --email ada@example.org --name ci --scopes files:write --expires-in-days 90")]
    Create(TokenCreateArgs),
    /// List an account's API keys, without their secrets.
    List(TokenListArgs),
    /// End an API key at once.
    Revoke(TokenRevokeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TokenCreateArgs {
    /// The account that the key acts for.
    #[arg(long)]
    pub(crate) email: String,
    /// The key's name, unique within the account.
    #[arg(long)]
    pub(crate) name: String,
    /// What the key allows, such as files:write,files:read. All scopes if left out; for an admin also
    /// `admin`, which nobody else can have.
    #[arg(long, value_delimiter = ',', value_name = "SCOPE,…")]
    pub(crate) scopes: Vec<String>,
    /// End the key by itself after so many days.
    #[arg(long, value_name = "D", value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(crate) expires_in_days: Option<u32>,
    #[command(flatten)]
    pub(crate) place: DataDirArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TokenListArgs {
    /// The account whose keys are listed.
    #[arg(long)]
    pub(crate) email: String,
    /// Print one JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: DataDirArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TokenRevokeArgs {
    /// The account that the key belongs to.
    #[arg(long)]
    pub(crate) email: String,
    /// The key's name.
    #[arg(long)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) place: DataDirArgs,
}

/// Show the server's peer id and the addresses it listens on.
#[derive(Debug, Args)]
pub(crate) struct IdArgs {
    #[command(flatten)]
    pub(crate) remote: ServerArgs,
}

/// Pin content that is on IPFS already, and wait until it is held.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinfold pin bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi
  pinfold pin QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG --name readme
  pinfold pin bafybei… --no-wait --json")]
pub(crate) struct PinArgs {
    /// The root of the content.
    pub(crate) cid: String,
    /// A name of your own for the pin.
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) terms: PinOptionArgs,
    /// Do not wait: the server goes on by itself, `pinfold status` shows how far it is.
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// How long to wait before giving up watching, in seconds; the server goes on.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) remote: ServerArgs,
}

/// List what is pinned, newest first.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinfold ls
  pinfold ls --status failed
  pinfold ls --json | jq -r .cid")]
pub(crate) struct LsArgs {
    /// Only pins in this state: queued, pinning, pinned or failed.
    #[arg(long)]
    pub(crate) status: Option<String>,
    /// Only pins whose name contains this text.
    #[arg(long, value_name = "TEXT")]
    pub(crate) search: Option<String>,
    /// Only pins in this cluster.
    #[arg(long, value_name = "CLUSTER")]
    pub(crate) cl: Option<String>,
    /// The most pins to list.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) limit: u64,
    #[command(flatten)]
    pub(crate) remote: ServerArgs,
}

/// Show how one pin stands: state, progress, and why it failed if it did.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The pinned CID.
    pub(crate) cid: String,
    /// The cluster, when the CID is pinned in several.
    #[arg(long, value_name = "CLUSTER")]
    pub(crate) cl: Option<String>,
    #[command(flatten)]
    pub(crate) remote: ServerArgs,
}

/// Remove a pin. Its space is free once nobody else pins it.
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// The pinned CIDs.
    #[arg(required = true)]
    pub(crate) cid: Vec<String>,
    /// The cluster, when a CID is pinned in several.
    #[arg(long, value_name = "CLUSTER")]
    pub(crate) cl: Option<String>,
    #[command(flatten)]
    pub(crate) remote: ServerArgs,
}

/// Upload a file or a whole folder, and pin it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinfold add video.mp4
  pinfold add ./website --name site
  CID=$(pinfold add --quiet report.pdf)")]
pub(crate) struct AddArgs {
    /// The file or folder.
    pub(crate) path: PathBuf,
    /// A name of your own for the pin; the file's or folder's name if left out.
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) terms: PinOptionArgs,
    /// Print only the CID.
    #[arg(long, short, conflicts_with = "json")]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) remote: ServerArgs,
}

/// Print the default configuration, ready to be saved and edited.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinfold config > pinfold.toml && pinfold serve --config pinfold.toml")]
pub(crate) struct ConfigArgs {
    /// Print the reference as Markdown instead (docs/configuration.md).
    #[arg(long)]
    pub(crate) markdown: bool,
}

/// Where a pin goes and how long it stays.
#[derive(Debug, Args)]
pub(crate) struct PinOptionArgs {
    /// The cluster that shall hold it; the server's default if left out.
    #[arg(long, value_name = "CLUSTER")]
    pub(crate) cl: Option<String>,
    /// When the pin ends by itself, as RFC 3339, such as 2030-01-01T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub(crate) timelock: Option<String>,
}

/// The server that a client command talks to.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// The server's base URL.
    #[arg(long, env = "PINFOLD_SERVER", value_name = "URL", default_value = "http://127.0.0.1:3000")]
    pub(crate) server: String,
    /// The API key; better given by the variable, which other users of the machine cannot see.
    #[arg(long, env = "PINFOLD_API_KEY", value_name = "KEY", hide_env_values = true)]
    pub(crate) key: Option<String>,
    /// Print JSON for scripts.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The data folder and the configuration that go together.
#[derive(Debug, Args)]
pub(crate) struct DataDirArgs {
    /// The configuration file; without it, `pinfold.toml` in the data folder if it is there.
    #[arg(long, env = "PINFOLD_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The folder of the blocks, the database and the node's identity; the platform's own if left out.
    #[arg(long, env = "PINFOLD_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// Runs what was typed.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Serve(args) => crate::cli::serve::run(*args).await?,
        Command::Try(args) => return crate::cli::demo::run(args).await,
        Command::User(args) => user::run(args.command).await?,
        Command::Plan(args) => plan::run(args.command).await?,
        Command::Token(args) => token::run(args.command).await?,
        Command::Id(args) => remote::id(args).await?,
        Command::Pin(args) => pin::run(args).await?,
        Command::Ls(args) => remote::ls(args).await?,
        Command::Status(args) => remote::status(args).await?,
        Command::Rm(args) => remote::rm(args).await?,
        Command::Add(args) => add::run(args).await?,
        Command::Export(args) => export::run(args).await?,
        Command::Import(args) => import::run(args).await?,
        Command::Backup(args) => backup::run(args).await?,
        Command::Restore(args) => backup::restore(args).await?,
        Command::Blocks(args) => return blocks::run(args.command).await,
        Command::Config(args) => print_config(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print_config(args: &ConfigArgs) -> anyhow::Result<()> {
    let text = if args.markdown { crate::config::reference() } else { crate::config::DEFAULTS.to_owned() };
    output::print(text.trim_end())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_account_needs_a_decision_about_its_password() {
        let neither = Cli::try_parse_from(["pinfold", "user", "create", "--email", "a@b.c"]);
        assert_eq!(neither.unwrap_err().exit_code(), 2);
        let both = ["pinfold", "user", "create", "--email", "a@b.c", "--no-password", "--password-stdin"];
        assert_eq!(Cli::try_parse_from(both).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn bootstrap_and_no_bootstrap_exclude_each_other() {
        let both = ["pinfold", "serve", "--no-bootstrap", "--bootstrap", "/dnsaddr/example.org"];
        assert_eq!(Cli::try_parse_from(both).unwrap_err().exit_code(), 2);
    }
}
