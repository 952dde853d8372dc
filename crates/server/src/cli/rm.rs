//! `pinfold rm`: removes pins one after another and stops at the first error.

use anyhow::Context;
use clap::Args;
use reqwest::Method;

use super::ServerArgs;
use super::api_client::Client;
use super::output::print;

/// Remove pins. Their disk space is freed when no other pin needs the content.
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// CIDs of the pins.
    #[arg(required = true)]
    cid: Vec<String>,
    /// Cluster of the pins, if a CID is pinned in several clusters.
    #[arg(long, value_name = "CLUSTER")]
    cl: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn run(args: RmArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.server)?;
    for cid in &args.cid {
        let mut request = client.request(Method::DELETE, &["files", "remove", cid])?;
        if let Some(cluster) = &args.cl {
            request = request.query(&[("cl", cluster)]);
        }
        let answer = client.send(request).await.with_context(|| format!("cannot remove {cid}"))?;
        if args.server.json {
            print(&answer.body.to_string())?;
        } else {
            print(&format!("removed {cid}"))?;
        }
    }
    Ok(())
}
