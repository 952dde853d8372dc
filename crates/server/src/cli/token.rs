//! `pinfold token`: API keys, straight in the store, also beside a running server.

use std::time::Duration;

use anyhow::Context;
use pinfold_model::{Clock, Email, IpRules, Role, Scope, ScopeSet, SystemClock, Token, TokenName};
use pinfold_service::NewToken;
use serde_json::{Value, json};

use super::database::Database;
use super::output::{plain, print, table};
use super::{TokenCommand, TokenCreateArgs, TokenListArgs, TokenRevokeArgs};

/// Runs the command.
pub(crate) async fn run(command: TokenCommand) -> anyhow::Result<()> {
    match command {
        TokenCommand::Create(args) => create(args).await,
        TokenCommand::List(args) => list(args).await,
        TokenCommand::Revoke(args) => revoke(args).await,
    }
}

async fn create(args: TokenCreateArgs) -> anyhow::Result<()> {
    let email = Email::parse(&args.email)?;
    let name = TokenName::parse(&args.name)?;
    let known = || format!("the scopes are {}", ScopeSet::of_role(Role::Admin));
    let scopes: Option<ScopeSet> = match args.scopes.as_slice() {
        [] => None,
        scopes => Some(scopes.join(",").parse().with_context(known)?),
    };
    let day = Duration::from_hours(24);
    let expires_at = args.expires_in_days.map(|days| SystemClock.now().after(day * days));
    let database = Database::open(&args.place).await?;
    let made = async {
        let account = database.accounts.by_email(&email).await.with_context(|| email.to_string())?;
        let scopes = scopes.unwrap_or_else(|| ScopeSet::of_role(account.role));
        let new = NewToken { name, label: None, scopes, ip_allowlist: IpRules::default(), expires_at };
        database.tokens.create(account.id, new).await.map_err(anyhow::Error::from)
    }
    .await;
    database.close().await;
    print(made?.secret.reveal())
}

async fn list(args: TokenListArgs) -> anyhow::Result<()> {
    let email = Email::parse(&args.email)?;
    let database = Database::open(&args.place).await?;
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
            format!("used {}", time(token.last_used_at, "never")),
            format!("ends {}", time(token.expires_at, "never")),
            if ScopeSet::all().is_subset(token.scopes) {
                all_scopes(token)
            } else {
                token.scopes.to_string()
            },
        ]
    };
    print(&table(&tokens.iter().map(cells).collect::<Vec<_>>()))
}

/// How a key is listed that has every scope for its account's own things.
fn all_scopes(token: &Token) -> String {
    let is_admin = token.scopes.contains(Scope::Admin);
    if is_admin { "all scopes and admin".to_owned() } else { "all scopes".to_owned() }
}

async fn revoke(args: TokenRevokeArgs) -> anyhow::Result<()> {
    let email = Email::parse(&args.email)?;
    let name = TokenName::parse(&args.name)?;
    let database = Database::open(&args.place).await?;
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
