//! `pinfold plan`: the plans that an operator saved over the configured ones, straight in the store. A server that
//! runs on it follows within some seconds.

use std::sync::Arc;

use anyhow::{Context, bail};
use pinfold_model::{Actor, ClusterId, Plan, PlanCode};
use pinfold_service::{PlanSource, PlanView};
use serde_json::{Value, json};

use super::database::Database;
use super::output::{plain, print, size, table};
use super::{PlanCommand, PlanDeleteArgs, PlanListArgs, PlanSetArgs};

/// What stands for "no limit of its own".
const NONE: &str = "none";

/// Runs the command.
pub(crate) async fn run(command: PlanCommand) -> anyhow::Result<()> {
    match command {
        PlanCommand::List(args) => list(args).await,
        PlanCommand::Set(args) => set(*args).await,
        PlanCommand::Delete(args) => delete(args).await,
    }
}

async fn list(args: PlanListArgs) -> anyhow::Result<()> {
    let database = Database::open(&args.place).await?;
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

async fn set(args: PlanSetArgs) -> anyhow::Result<()> {
    let code = PlanCode::parse(&args.code)?;
    let database = Database::open(&args.place).await?;
    let saved = async {
        let plans = database.admin.plans().await?;
        let now = plans.into_iter().find(|view| view.plan.code == code).map(|view| view.plan);
        let plan = changed(now.as_deref(), code, &args)?;
        anyhow::Ok(database.admin.save_plan(Actor::OPERATOR, plan).await?)
    }
    .await;
    database.close().await;
    let view = saved?;
    if args.json { print(&row(&view).to_string()) } else { print(&format!("saved {}", view.plan.code)) }
}

/// The plan as it is now, or a new one, with what was given.
fn changed(now: Option<&Plan>, code: PlanCode, args: &PlanSetArgs) -> anyhow::Result<Plan> {
    let mut plan = match now {
        Some(plan) => plan.clone(),
        None if args.storage.is_none() => bail!("a new plan needs --storage BYTES"),
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
                *slot = Some(text.parse().with_context(|| format!("{text:?} is no number of bytes"))?)
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

async fn delete(args: PlanDeleteArgs) -> anyhow::Result<()> {
    let code = PlanCode::new(&args.code);
    let database = Database::open(&args.place).await?;
    let deleted = database.admin.delete_plan(Actor::OPERATOR, &code).await;
    database.close().await;
    deleted.with_context(|| code.to_string())?;
    print(&format!("deleted {code}"))
}

fn source(view: &PlanView) -> &'static str {
    match view.source {
        PlanSource::Configured => "configured",
        PlanSource::Saved => "saved",
        PlanSource::Overridden => "saved over the configured one",
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

    fn args(line: &[&str]) -> PlanSetArgs {
        let words = ["pinfold", "plan", "set"].into_iter().chain(line.iter().copied());
        let Command::Plan(plan) = Cli::try_parse_from(words).unwrap().command else { panic!("it is a plan") };
        let PlanCommand::Set(args) = plan.command else { panic!("it is set") };
        *args
    }

    #[test]
    fn what_is_not_given_stays() {
        let args = args(&["free", "--storage", "5", "--timelock", "true", "--file-max", "none"]);
        let now = Plan::free();
        let plan = changed(Some(&now), now.code.clone(), &args).unwrap();
        assert_eq!((plan.limits.storage_bytes, plan.limits.timelock), (5, true));
        assert_eq!((plan.name, plan.limits.in_flight_pins_max), (now.name, now.limits.in_flight_pins_max));
    }

    #[test]
    fn a_new_plan_needs_its_storage() {
        let code = PlanCode::new("team");
        assert!(changed(None, code.clone(), &args(&["team"])).is_err());
        let plan = changed(None, code, &args(&["team", "--storage", "5", "--clusters", "a,b"])).unwrap();
        assert_eq!((plan.name.as_str(), plan.self_service), ("team", false));
        assert_eq!(plan.limits.clusters.unwrap().len(), 2);
    }
}
