//! `pinfold plan`: saved plans, directly in the database.

use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use pinfold_model::{Actor, ClusterId, Plan, PlanCode};
use pinfold_service::{PlanSource, PlanView};
use serde_json::{Value, json};

use super::DataDirArgs;
use super::database::Database;
use super::output::{plain, print, size, table};

/// Value of `--file-max` and `--directory-max` for no limit other than the storage.
const NONE: &str = "none";

/// List, save and delete plans. Operates on the data directory; a running server applies changes within seconds.
///
/// A saved plan replaces the configured plan with the same code.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(subcommand)]
    pub(super) command: PlanCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PlanCommand {
    /// List all plans.
    List(ListArgs),
    /// Save a plan. Omitted options keep the value of the existing plan.
    #[command(after_help = "Examples:
  pinfold plan set free --storage 5368709120
  pinfold plan set team --name Team --storage 1099511627776 --timelock true --self-service true")]
    Set(Box<SetArgs>),
    /// Delete a saved plan. The configured plan with the same code applies again.
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataDirArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// Code of the plan, such as `team`.
    code: String,
    /// Display name.
    #[arg(long)]
    name: Option<String>,
    /// Description. Can be repeated; replaces all existing descriptions.
    #[arg(long, value_name = "TEXT")]
    description: Vec<String>,
    /// Price per month in hundredths of the currency. For display only.
    #[arg(long, value_name = "N")]
    price_cents: Option<u64>,
    /// Whether accounts may switch to this plan themselves.
    #[arg(long, value_name = "true|false")]
    self_service: Option<bool>,
    /// Maximum total size of all pins of an account, in bytes.
    #[arg(long, value_name = "BYTES")]
    storage: Option<u64>,
    /// Maximum size of an uploaded file, in bytes.
    #[arg(long, value_name = "BYTES|none")]
    file_max: Option<String>,
    /// Maximum total size of the files in an uploaded directory, in bytes.
    #[arg(long, value_name = "BYTES|none")]
    directory_max: Option<String>,
    /// Whether pins may have an expiry time.
    #[arg(long, value_name = "true|false")]
    timelock: Option<bool>,
    /// Whether pins may be protected against removal.
    #[arg(long, value_name = "true|false")]
    retention_lock: Option<bool>,
    /// Clusters that accounts may use, or `all`.
    #[arg(long, value_delimiter = ',', value_name = "CLUSTER,…")]
    clusters: Vec<String>,
    /// Maximum number of pins in flight for an account.
    #[arg(long, value_name = "N")]
    in_flight_pins: Option<u32>,
    /// Maximum number of requests per minute for an API key.
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<u32>,
    /// Maximum number of requests per second for an API key.
    #[arg(long, value_name = "N")]
    requests_per_second: Option<u32>,
    /// Print the plan as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataDirArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Code of the plan.
    code: String,
    #[command(flatten)]
    data: DataDirArgs,
}

pub(super) async fn run(command: PlanCommand) -> anyhow::Result<()> {
    match command {
        PlanCommand::List(args) => list(args).await,
        PlanCommand::Set(args) => set(*args).await,
        PlanCommand::Delete(args) => delete(args).await,
    }
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let database = Database::open(&args.data).await?;
    let plans = database.admin.plans().await;
    database.close().await;
    let plans = plans?;
    if args.json {
        let lines: Vec<String> = plans.iter().map(|view| row(view).to_string()).collect();
        return print(&lines.join("\n"));
    }
    let cells = |view: &PlanView| {
        let limits = &view.plan.limits;
        vec![
            view.plan.code.to_string(),
            plain(&view.plan.name),
            size(limits.storage_bytes),
            if limits.timelock { "timelock".to_owned() } else { String::new() },
            format!("{} accounts", view.accounts),
            source(view).to_owned(),
        ]
    };
    print(&table(&plans.iter().map(cells).collect::<Vec<_>>()))
}

async fn set(args: SetArgs) -> anyhow::Result<()> {
    let code = PlanCode::parse(&args.code)?;
    let database = Database::open(&args.data).await?;
    let saved = async {
        let plans = database.admin.plans().await?;
        let existing = plans.into_iter().find(|view| view.plan.code == code).map(|view| view.plan);
        let plan = apply(existing.as_deref(), code, &args)?;
        anyhow::Ok(database.admin.save_plan(Actor::OPERATOR, plan).await?)
    }
    .await;
    database.close().await;
    let view = saved?;
    if args.json { print(&row(&view).to_string()) } else { print(&format!("saved {}", view.plan.code)) }
}

/// The existing plan, or a new one, with the given options applied.
fn apply(existing: Option<&Plan>, code: PlanCode, args: &SetArgs) -> anyhow::Result<Plan> {
    let mut plan = match existing {
        Some(plan) => plan.clone(),
        None if args.storage.is_none() => bail!("a new plan requires --storage BYTES"),
        None => Plan {
            name: code.to_string(),
            code,
            descriptions: Vec::new(),
            self_service: false,
            ..Plan::free()
        },
    };
    if let Some(name) = &args.name {
        plan.name.clone_from(name);
    }
    if !args.description.is_empty() {
        plan.descriptions.clone_from(&args.description);
    }
    let limits = &mut plan.limits;
    for (given, slot) in
        [(&args.file_max, &mut limits.file_bytes_max), (&args.directory_max, &mut limits.directory_bytes_max)]
    {
        match given.as_deref() {
            None => {}
            Some(NONE) => *slot = None,
            Some(text) => {
                *slot = Some(text.parse().with_context(|| format!("{text:?} is not a number of bytes"))?)
            }
        }
    }
    if !args.clusters.is_empty() {
        let ids = args.clusters.iter().filter(|id| *id != "all").map(|id| ClusterId::parse(id));
        let ids: Vec<ClusterId> = ids.collect::<Result<_, _>>()?;
        limits.clusters = (!ids.is_empty()).then_some(ids);
    }
    replace(args.storage, &mut limits.storage_bytes);
    replace(args.timelock, &mut limits.timelock);
    replace(args.retention_lock, &mut limits.retention_lock);
    replace(args.in_flight_pins, &mut limits.in_flight_pins_max);
    replace(args.requests_per_minute, &mut limits.requests_per_minute);
    replace(args.requests_per_second, &mut limits.requests_per_second);
    replace(args.price_cents, &mut plan.price_cents);
    replace(args.self_service, &mut plan.self_service);
    Ok(plan)
}

fn replace<T>(given: Option<T>, slot: &mut T) {
    if let Some(given) = given {
        *slot = given;
    }
}

async fn delete(args: DeleteArgs) -> anyhow::Result<()> {
    let code = PlanCode::new(&args.code);
    let database = Database::open(&args.data).await?;
    let deleted = database.admin.delete_plan(Actor::OPERATOR, &code).await;
    database.close().await;
    deleted.with_context(|| code.to_string())?;
    print(&format!("deleted {code}"))
}

fn source(view: &PlanView) -> &'static str {
    match view.source {
        PlanSource::Configured => "configured",
        PlanSource::Saved => "saved",
        PlanSource::Overridden => "overrides the configured plan",
    }
}

fn row(view: &PlanView) -> Value {
    let plan: &Arc<Plan> = &view.plan;
    let limits = &plan.limits;
    json!({
        "code": plan.code.as_str(),
        "name": plan.name,
        "descriptions": plan.descriptions,
        "priceCents": plan.price_cents,
        "selfService": plan.self_service,
        "storageBytes": limits.storage_bytes,
        "fileBytesMax": limits.file_bytes_max,
        "directoryBytesMax": limits.directory_bytes_max,
        "timelock": limits.timelock,
        "retentionLock": limits.retention_lock,
        "clusters": limits.clusters.as_ref().map(|ids| ids.iter().map(ClusterId::as_str).collect::<Vec<_>>()),
        "inFlightPinsMax": limits.in_flight_pins_max,
        "requestsPerMinute": limits.requests_per_minute,
        "requestsPerSecond": limits.requests_per_second,
        "accounts": view.accounts,
        "source": source(view),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    fn args(line: &[&str]) -> SetArgs {
        let words = ["pinfold", "plan", "set"].into_iter().chain(line.iter().copied());
        let Command::Plan(plan) = Cli::try_parse_from(words).unwrap().command else {
            panic!("not a plan command")
        };
        let PlanCommand::Set(args) = plan.command else { panic!("not plan set") };
        *args
    }

    #[test]
    fn omitted_options_keep_their_value() {
        let args = args(&["free", "--storage", "5", "--timelock", "true", "--file-max", "none"]);
        let existing = Plan::free();
        let plan = apply(Some(&existing), existing.code.clone(), &args).unwrap();
        assert_eq!((plan.limits.storage_bytes, plan.limits.timelock), (5, true));
        assert_eq!(
            (plan.name, plan.limits.in_flight_pins_max),
            (existing.name, existing.limits.in_flight_pins_max)
        );
    }

    #[test]
    fn new_plan_requires_storage() {
        let code = PlanCode::new("team");
        assert!(apply(None, code.clone(), &args(&["team"])).is_err());
        let plan = apply(None, code, &args(&["team", "--storage", "5", "--clusters", "a,b"])).unwrap();
        assert_eq!((plan.name.as_str(), plan.self_service), ("team", false));
        assert_eq!(plan.limits.clusters.unwrap().len(), 2);
    }
}
