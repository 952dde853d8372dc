//! `pinfold token`: API keys, directly in the database.

use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use pinfold_model::{Clock, Email, IpRules, Role, Scope, ScopeSet, SystemClock, Token, TokenName};
use pinfold_service::NewToken;
use serde_json::{Value, json};

use super::DataDirArgs;
use super::database::Database;
use super::output::{plain, print, table};

/// Create, list and revoke API keys. Operates on the data directory, with or without a running server.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    pub(super) command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create an API key and print only the key on stdout. It cannot be shown again.
    #[command(after_help = "Examples:
  export PINFOLD_API_KEY=$(pinfold token create --email ada@example.org --name laptop)
  pinfold token create --email ada@example.org --name ci --scopes files:write --expires-in-days 90")]
    Create(CreateArgs),
    /// List the API keys of an account, without the secrets.
    List(ListArgs),
    /// Revoke an API key. Takes effect immediately.
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// E-mail address of the account.
    #[arg(long)]
    email: String,
    /// Name of the key, unique within the account.
    #[arg(long)]
    name: String,
    /// Scopes of the key, such as files:write,files:read. Default: all scopes of the account's role. Only keys of
    /// administrators can have the scope `admin`.
    #[arg(long, value_delimiter = ',', value_name = "SCOPE,…")]
    scopes: Vec<String>,
    /// Number of days after which the key expires. Default: it does not expire.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
    expires_in_days: Option<u32>,
    #[command(flatten)]
    data: DataDirArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// E-mail address of the account.
    #[arg(long)]
    email: String,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataDirArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// E-mail address of the account.
    #[arg(long)]
    email: String,
    /// Name of the key.
    #[arg(long)]
    name: String,
    #[command(flatten)]
    data: DataDirArgs,
}

pub(super) async fn run(command: TokenCommand) -> anyhow::Result<()> {
    match command {
        TokenCommand::Create(args) => create(args).await,
        TokenCommand::List(args) => list(args).await,
        TokenCommand::Revoke(args) => revoke(args).await,
    }
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let email = Email::parse(&args.email)?;
    let name = TokenName::parse(&args.name)?;
    let known = || format!("the valid scopes are {}", ScopeSet::of_role(Role::Admin));
    let scopes: Option<ScopeSet> = match args.scopes.as_slice() {
        [] => None,
        scopes => Some(scopes.join(",").parse().with_context(known)?),
    };
    let day = Duration::from_hours(24);
    let expires_at = args.expires_in_days.map(|days| SystemClock.now().after(day * days));
    let database = Database::open(&args.data).await?;
    let created = async {
        let account = database.accounts.by_email(&email).await.with_context(|| email.to_string())?;
        let scopes = scopes.unwrap_or_else(|| ScopeSet::of_role(account.role));
        let new = NewToken { name, label: None, scopes, ip_allowlist: IpRules::default(), expires_at };
        database.tokens.create(account.id, new).await.map_err(anyhow::Error::from)
    }
    .await;
    database.close().await;
    print(created?.secret.reveal())
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let email = Email::parse(&args.email)?;
    let database = Database::open(&args.data).await?;
    let tokens = async {
        let account = database.accounts.by_email(&email).await.with_context(|| email.to_string())?;
        database.tokens.list(account.id).await.map_err(anyhow::Error::from)
    }
    .await;
    database.close().await;
    let tokens = tokens?;
    if tokens.is_empty() {
        return Ok(());
    }
    if args.json {
        let lines: Vec<String> = tokens.iter().map(|token| row(token).to_string()).collect();
        return print(&lines.join("\n"));
    }
    let cells = |token: &Token| {
        let time = |at: Option<_>, never: &str| {
            at.map_or_else(|| never.to_owned(), |at: pinfold_model::Timestamp| at.to_string())
        };
        vec![
            plain(token.name.as_str()),
            format!("{}…", token.prefix),
            format!("last used {}", time(token.last_used_at, "never")),
            format!("expires {}", time(token.expires_at, "never")),
            if ScopeSet::all().is_subset(token.scopes) {
                all_scopes(token)
            } else {
                token.scopes.to_string()
            },
        ]
    };
    print(&table(&tokens.iter().map(cells).collect::<Vec<_>>()))
}

/// Shown for a key that has every scope of an ordinary account.
fn all_scopes(token: &Token) -> String {
    let is_admin = token.scopes.contains(Scope::Admin);
    if is_admin { "all scopes and admin".to_owned() } else { "all scopes".to_owned() }
}

async fn revoke(args: RevokeArgs) -> anyhow::Result<()> {
    let email = Email::parse(&args.email)?;
    let name = TokenName::parse(&args.name)?;
    let database = Database::open(&args.data).await?;
    let revoked = async {
        let account = database.accounts.by_email(&email).await.with_context(|| email.to_string())?;
        database.tokens.revoke(account.id, &name).await.map_err(anyhow::Error::from)
    }
    .await;
    database.close().await;
    revoked?;
    print(&format!("revoked {name}"))
}

fn row(token: &Token) -> Value {
    let scopes: Vec<&str> = token.scopes.iter().map(|scope| scope.as_str()).collect();
    json!({
        "name": token.name.as_str(),
        "label": token.label,
        "prefix": token.prefix,
        "scopes": scopes,
        "createdAt": token.created_at.to_string(),
        "expiresAt": token.expires_at.map(|at| at.to_string()),
        "lastUsedAt": token.last_used_at.map(|at| at.to_string()),
    })
}
