//! `pinfold user`: accounts, straight in the store, also beside a running server.

use std::io::BufRead;

use anyhow::{Context, bail};
use pinfold_model::{Account, Actor, Email, PlanCode, Role};
use pinfold_service::{AccountEdit, NewAccount, Password};
use serde_json::{Value, json};

use super::database::Database;
use super::output::{print, size, table};
use super::{UserCommand, UserCreateArgs, UserListArgs, UserNameArgs, UserSetArgs};

/// What stands for the storage of an account's plan.
const PLAN: &str = "plan";

/// Runs the command.
pub(crate) async fn run(command: UserCommand) -> anyhow::Result<()> {
    match command {
        UserCommand::Create(args) => create(args).await,
        UserCommand::Set(args) => set(args).await,
        UserCommand::List(args) => list(args).await,
        UserCommand::Password(args) => password(args).await,
        UserCommand::DisableTwoFactor(args) => disable_two_factor(args).await,
    }
}

async fn create(args: UserCreateArgs) -> anyhow::Result<()> {
    let email = Email::parse(&args.email)?;
    let role: Role = args.role.parse()?;
    let password = if args.password_stdin { Some(password_from_stdin()?) } else { None };
    let database = Database::open(&args.place).await?;
    let new = NewAccount {
        name: email.as_str().split('@').next().unwrap_or_default().to_owned(),
        email,
        plan: PlanCode::new(&args.plan),
        role,
        password,
    };
    let made = database.accounts.create(new).await;
    database.close().await;
    let account = made?;
    if args.json {
        return print(&row(&account).to_string());
    }
    print(&format!("made {} ({}, {})", account.email, account.plan, account.role))?;
    eprintln!("Give it a key: pinfold token create --email {} --name NAME", account.email);
    Ok(())
}

async fn set(args: UserSetArgs) -> anyhow::Result<()> {
    let email = Email::parse(&args.email)?;
    let storage = match args.storage.as_deref() {
        None => None,
        Some(PLAN) => Some(None),
        Some(text) => Some(Some(text.parse().with_context(|| format!("{text:?} is no number of bytes"))?)),
    };
    let edit = AccountEdit {
        name: args.name,
        plan: args.plan.as_deref().map(PlanCode::new),
        role: args.role.as_deref().map(str::parse).transpose()?,
        disabled: (args.disable || args.enable).then_some(args.disable),
        storage_override_bytes: storage,
    };
    let database = Database::open(&args.place).await?;
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
    print(&format!("{} is now {}, {}{disabled}", account.email, account.plan, account.role))
}

async fn list(args: UserListArgs) -> anyhow::Result<()> {
    let database = Database::open(&args.place).await?;
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

async fn password(args: UserNameArgs) -> anyhow::Result<()> {
    let (email, new) = (Email::parse(&args.email)?, password_from_stdin()?);
    let database = Database::open(&args.place).await?;
    let set = database.accounts.reset_password(&email, new).await;
    database.close().await;
    set.with_context(|| email.to_string())?;
    print(&format!("{email} has the new password and is logged out everywhere"))
}

async fn disable_two_factor(args: UserNameArgs) -> anyhow::Result<()> {
    let email = Email::parse(&args.email)?;
    let database = Database::open(&args.place).await?;
    let removed = database.accounts.remove_second_factor(&email).await;
    database.close().await;
    removed.with_context(|| email.to_string())?;
    print(&format!("{email} logs in with the password alone"))
}

fn row(account: &Account) -> Value {
    json!({
        "email": account.email.as_str(),
        "plan": account.plan.as_str(),
        "role": account.role.as_str(),
        "disabled": account.disabled,
        "twoFactor": account.two_factor,
        "usedBytes": account.used_bytes,
        "distinctBytes": account.dedup_bytes,
        "storageLimitBytes": account.storage_limit_bytes,
        "pins": account.pins,
        "createdAt": account.created_at.to_string(),
    })
}

fn password_from_stdin() -> anyhow::Result<Password> {
    let mut line = String::new();
    // A byte more than the longest password and its line end: longer input is refused, not cut.
    let bound = Password::LEN_MAX as u64 + 3;
    std::io::Read::take(std::io::stdin().lock(), bound).read_line(&mut line).context("cannot read stdin")?;
    let text = line.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        bail!("stdin has no password; pipe one in");
    }
    Ok(Password::parse(text)?)
}
