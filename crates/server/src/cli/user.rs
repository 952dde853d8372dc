//! `pinfold user`: accounts, directly in the database.

use std::io::BufRead;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use pinfold_model::{Account, Actor, Email, PlanCode, Role};
use pinfold_service::{AccountEdit, NewAccount, Password};
use serde_json::{Value, json};

use super::DataDirArgs;
use super::database::Database;
use super::output::{print, size, table};

/// Value of `--storage` that removes the storage override.
const PLAN: &str = "plan";

/// Create, change and list accounts. Operates on the data directory, with or without a running server.
#[derive(Debug, Args)]
pub(crate) struct UserArgs {
    #[command(subcommand)]
    pub(super) command: UserCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Create an account.
    #[command(after_help = "Examples:
  pinfold user create --email ada@example.org --no-password
  pass show pinfold/ada | pinfold user create --email ada@example.org --plan premium --password-stdin")]
    Create(CreateArgs),
    /// Change an account. Omitted options leave their value unchanged.
    #[command(after_help = "Examples:
  pinfold user set ada@example.org --plan premium
  pinfold user set eve@example.org --disable
  pinfold user set ada@example.org --storage 5000000000")]
    Set(SetArgs),
    /// List all accounts.
    List(ListArgs),
    /// Set the password of an account, read from the first line of stdin. Ends all sessions of the account.
    #[command(after_help = "Examples:
  pass show pinfold/ada | pinfold user password ada@example.org")]
    Password(EmailArgs),
    /// Remove the second factor of an account whose owner has lost it. The password then suffices to log in.
    #[command(name = "disable-2fa")]
    DisableTwoFactor(EmailArgs),
}

#[derive(Debug, Args)]
pub(crate) struct EmailArgs {
    /// E-mail address of the account.
    email: String,
    #[command(flatten)]
    data: DataDirArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// E-mail address of the account.
    email: String,
    /// Display name.
    #[arg(long)]
    name: Option<String>,
    /// Plan. Existing pins are kept even if they exceed its limits.
    #[arg(long, value_name = "CODE")]
    plan: Option<String>,
    /// Role.
    #[arg(long, value_parser = ["user", "admin"])]
    role: Option<String>,
    /// Reject the credentials of the account.
    #[arg(long, conflicts_with = "enable")]
    disable: bool,
    /// Accept the credentials of a disabled account again.
    #[arg(long)]
    enable: bool,
    /// Storage limit in bytes that overrides the one of the plan; `plan` removes it.
    #[arg(long, value_name = "BYTES|plan")]
    storage: Option<String>,
    /// Print the account as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataDirArgs,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("password").required(true))]
pub(crate) struct CreateArgs {
    /// E-mail address, which identifies the account.
    #[arg(long)]
    email: String,
    /// Plan, which sets the limits of the account.
    #[arg(long, default_value = "free", value_name = "CODE")]
    plan: String,
    /// Role.
    #[arg(long, default_value = "user", value_parser = ["user", "admin"])]
    role: String,
    /// Read the password from the first line of stdin.
    #[arg(long, group = "password")]
    password_stdin: bool,
    /// Create an account without a password, which can only use API keys.
    #[arg(long, group = "password")]
    no_password: bool,
    /// Print the account as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataDirArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataDirArgs,
}

pub(super) async fn run(command: UserCommand) -> anyhow::Result<()> {
    match command {
        UserCommand::Create(args) => create(args).await,
        UserCommand::Set(args) => set(args).await,
        UserCommand::List(args) => list(args).await,
        UserCommand::Password(args) => password(args).await,
        UserCommand::DisableTwoFactor(args) => disable_two_factor(args).await,
    }
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let email = Email::parse(&args.email)?;
    let role: Role = args.role.parse()?;
    let password = if args.password_stdin { Some(password_from_stdin()?) } else { None };
    let database = Database::open(&args.data).await?;
    let new = NewAccount {
        name: email.as_str().split('@').next().unwrap_or_default().to_owned(),
        email,
        plan: PlanCode::new(&args.plan),
        role,
        password,
    };
    let created = database.accounts.create(new).await;
    database.close().await;
    let account = created?;
    if args.json {
        return print(&row(&account).to_string());
    }
    print(&format!("created {} ({}, {})", account.email, account.plan, account.role))?;
    eprintln!("Create an API key with: pinfold token create --email {} --name NAME", account.email);
    Ok(())
}

async fn set(args: SetArgs) -> anyhow::Result<()> {
    let email = Email::parse(&args.email)?;
    let storage = match args.storage.as_deref() {
        None => None,
        Some(PLAN) => Some(None),
        Some(text) => Some(Some(text.parse().with_context(|| format!("{text:?} is not a number of bytes"))?)),
    };
    let edit = AccountEdit {
        name: args.name,
        plan: args.plan.as_deref().map(PlanCode::new),
        role: args.role.as_deref().map(str::parse).transpose()?,
        disabled: (args.disable || args.enable).then_some(args.disable),
        storage_override_bytes: storage,
    };
    let database = Database::open(&args.data).await?;
    let changed = async {
        let account = database.accounts.by_email(&email).await.with_context(|| email.to_string())?;
        anyhow::Ok(database.admin.change_account(Actor::OPERATOR, account.id, edit).await?)
    }
    .await;
    database.close().await;
    let account = changed?;
    if args.json {
        return print(&row(&account).to_string());
    }
    let disabled = if account.disabled { ", disabled" } else { "" };
    print(&format!("changed {} ({}, {}{disabled})", account.email, account.plan, account.role))
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let database = Database::open(&args.data).await?;
    let accounts = database.accounts.list().await;
    database.close().await;
    let accounts = accounts?;
    if args.json {
        let lines: Vec<String> = accounts.iter().map(|account| row(account).to_string()).collect();
        return if lines.is_empty() { Ok(()) } else { print(&lines.join("\n")) };
    }
    let cells = |account: &Account| {
        vec![
            account.email.to_string(),
            account.plan.to_string(),
            account.role.to_string(),
            format!("{} of {}", size(account.used_bytes), size(account.storage_limit_bytes)),
            format!("{} pins", account.pins),
            if account.disabled { "disabled".to_owned() } else { String::new() },
        ]
    };
    print(&table(&accounts.iter().map(cells).collect::<Vec<_>>()))
}

async fn password(args: EmailArgs) -> anyhow::Result<()> {
    let (email, new) = (Email::parse(&args.email)?, password_from_stdin()?);
    let database = Database::open(&args.data).await?;
    let set = database.accounts.reset_password(&email, new).await;
    database.close().await;
    set.with_context(|| email.to_string())?;
    print(&format!("set the password of {email} and ended all of its sessions"))
}

async fn disable_two_factor(args: EmailArgs) -> anyhow::Result<()> {
    let email = Email::parse(&args.email)?;
    let database = Database::open(&args.data).await?;
    let removed = database.accounts.remove_second_factor(&email).await;
    database.close().await;
    removed.with_context(|| email.to_string())?;
    print(&format!("removed the second factor of {email}"))
}

fn row(account: &Account) -> Value {
    json!({
        "email": account.email.as_str(),
        "plan": account.plan.as_str(),
        "role": account.role.as_str(),
        "disabled": account.disabled,
        "twoFactor": account.two_factor,
        "usedBytes": account.used_bytes,
        "distinctBytes": account.distinct_bytes,
        "storageLimitBytes": account.storage_limit_bytes,
        "pins": account.pins,
        "createdAt": account.created_at.to_string(),
    })
}

fn password_from_stdin() -> anyhow::Result<Password> {
    let mut line = String::new();
    // One byte more than the longest password with CRLF, so that longer input is rejected and not truncated.
    let bound = Password::LEN_MAX as u64 + 3;
    std::io::Read::take(std::io::stdin().lock(), bound).read_line(&mut line).context("cannot read stdin")?;
    let text = line.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        bail!("no password on stdin");
    }
    Ok(Password::parse(text)?)
}
