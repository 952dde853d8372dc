//! `pinfold status`.

use clap::Args;
use reqwest::Method;
use serde_json::Value;

use super::ServerArgs;
use super::api_client::{Client, text};
use super::output::{plain, print, size, table};

/// Show the status of a pin: state, progress, and the error if it failed.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// CID of the pin.
    cid: String,
    /// Cluster of the pin, if the CID is pinned in several clusters.
    #[arg(long, value_name = "CLUSTER")]
    cl: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn run(args: StatusArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.server)?;
    let body = pin_status(&client, &args.cid, args.cl.as_deref()).await?;
    if args.server.json {
        return print(&body.to_string());
    }
    let progress = &body["progress"];
    let stored = format!(
        "{} in {} blocks",
        size(progress["bytes"].as_u64().unwrap_or(0)),
        progress["blocks"].as_u64().unwrap_or(0)
    );
    let fields = [
        ("cid", text(&body, "cid")),
        ("status", text(&body, "status")),
        ("cluster", text(&body, "clusterId")),
        ("stored", stored),
        ("error", pin_error(&body).unwrap_or_default()),
        ("created", text(&body, "createdAt")),
        ("updated", text(&body, "updatedAt")),
        ("expires", text(&body, "expiresAt")),
    ];
    let rows: Vec<Vec<String>> = fields
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect();
    print(&table(&rows))
}

/// Requests the status of a pin.
///
/// # Errors
/// As [`Client::send`].
pub(super) async fn pin_status(client: &Client, cid: &str, cluster: Option<&str>) -> anyhow::Result<Value> {
    let mut request = client.request(Method::GET, &["status", cid])?;
    if let Some(cluster) = cluster {
        request = request.query(&[("cl", cluster)]);
    }
    Ok(client.send(request).await?.body)
}

/// The error of a failed pin: a string, or an object with a `message`.
pub(super) fn pin_error(body: &Value) -> Option<String> {
    let error = &body["error"];
    error.as_str().or_else(|| error["message"].as_str()).map(plain)
}
