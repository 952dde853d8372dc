//! `pinfold id`.

use anyhow::Context;
use clap::Args;
use reqwest::Method;
use serde_json::Value;

use super::ServerArgs;
use super::api_client::{Client, text};
use super::output::{plain, print};

/// Show the peer id of the server and the addresses on which it listens.
#[derive(Debug, Args)]
pub(crate) struct IdArgs {
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn run(args: IdArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.server)?;
    let answer = client.send(client.request(Method::GET, &["peers"])?).await?;
    let peers = answer.body.get("peers").and_then(Value::as_array);
    let own = peers
        .and_then(|peers| peers.iter().find(|peer| peer["self"] == true))
        .context("the server did not report its own peer id")?;
    if args.server.json {
        return print(&own.to_string());
    }
    let addresses = own["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
    let lines: Vec<String> = std::iter::once(text(own, "id"))
        .chain(addresses.iter().map(|address| plain(address.as_str().unwrap_or(""))))
        .collect();
    print(&lines.join("\n"))
}
