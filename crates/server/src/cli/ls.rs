//! `pinfold ls`: requests one page after another and prints each as it arrives.

use anyhow::Context;
use clap::Args;
use reqwest::Method;
use serde_json::Value;

use super::ServerArgs;
use super::api_client::{Client, text};
use super::output::{print, size, table};

/// Maximum number of pins per page in the API.
const PAGE: u64 = 100;

/// List pins, newest first.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinfold ls
  pinfold ls --status failed
  pinfold ls --json | jq -r .cid")]
pub(crate) struct LsArgs {
    /// List only pins in this state: queued, pinning, pinned or failed.
    #[arg(long)]
    status: Option<String>,
    /// List only pins whose name contains this text.
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// List only pins in this cluster.
    #[arg(long, value_name = "CLUSTER")]
    cl: Option<String>,
    /// Maximum number of pins to list.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    limit: u64,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn run(args: LsArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.server)?;
    let mut left = args.limit;
    let mut cursor: Option<String> = None;
    loop {
        let mut query = vec![("limit", left.min(PAGE).to_string())];
        let filters =
            [("status", &args.status), ("search", &args.search), ("cl", &args.cl), ("cursor", &cursor)];
        query.extend(filters.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
        let request = client.request(Method::GET, &["users", "me", "uploads"])?.query(&query);
        let page = client.send(request).await?.body;
        let pins = page["uploads"].as_array().context("the response of the server contains no list")?;
        print_pins(pins, args.server.json)?;
        left = left.saturating_sub(pins.len() as u64);
        cursor = page["nextCursor"].as_str().map(str::to_owned);
        if cursor.is_none() || pins.is_empty() {
            return Ok(());
        }
        if left == 0 {
            eprintln!("pinfold: there are more pins; increase --limit to list them");
            return Ok(());
        }
    }
}

fn print_pins(pins: &[Value], as_json: bool) -> anyhow::Result<()> {
    if pins.is_empty() {
        return Ok(());
    }
    if as_json {
        let lines: Vec<String> = pins.iter().map(Value::to_string).collect();
        return print(&lines.join("\n"));
    }
    let row = |pin: &Value| {
        let name =
            [text(pin, "customName"), text(pin, "originalName")].into_iter().find(|name| !name.is_empty());
        vec![
            text(pin, "cid"),
            text(pin, "status"),
            pin["size"].as_u64().map_or_else(|| "-".to_owned(), size),
            text(pin, "createdAt"),
            name.unwrap_or_default(),
        ]
    };
    print(&table(&pins.iter().map(row).collect::<Vec<_>>()))
}
