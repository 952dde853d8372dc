//! `pinfold pin`: creates a pin and polls its status until it is pinned or has failed.
//!
//! The request is sent with `Prefer: respond-async`, so that progress can be shown and no long connection is needed.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use super::api_client::{Client, text};
use super::output::{print, size};
use super::status::{pin_error, pin_status};
use super::{PinOptionArgs, ServerArgs};

/// First interval between two status requests. Each interval is 1.5 times the previous one.
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Longest interval: short enough for a live display, and far below every rate limit.
const POLL_INTERVAL_MAX: Duration = Duration::from_secs(2);

/// Pin content from the IPFS network, and wait until it is stored.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinfold pin bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi
  pinfold pin QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG --name readme
  pinfold pin bafybei… --no-wait --json")]
pub(crate) struct PinArgs {
    /// Root CID of the content.
    cid: String,
    /// Custom name of the pin.
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    options: PinOptionArgs,
    /// Return immediately. The server fetches the content in the background; see `pinfold status`.
    #[arg(long)]
    no_wait: bool,
    /// How long to wait, in seconds. The server continues after that.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    timeout: u64,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn run(args: PinArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.server)?;
    let mut body = option_fields(&args.options);
    if let Some(name) = &args.name {
        body.insert("customName".to_owned(), json!(name));
    }
    let request = client
        .request(Method::POST, &["files", "pin", &args.cid])?
        .header("Prefer", "respond-async")
        .json(&Value::Object(body));
    let answer = client.send(request).await?;
    let wait = answer.status == StatusCode::ACCEPTED && !args.no_wait;
    let pin = if wait { wait_until_pinned(&client, &args).await? } else { answer.body };
    if args.server.json {
        return print(&pin.to_string());
    }
    print(&result_text(&pin))
}

/// The options as fields of a request body.
fn option_fields(options: &PinOptionArgs) -> Map<String, Value> {
    let fields = [("cl", &options.cl), ("timelock", &options.timelock)];
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value.as_ref()?)))).collect()
}

/// `pinned bafy… 3 MiB`.
fn result_text(pin: &Value) -> String {
    let bytes = pin["size"].as_u64().or_else(|| pin["progress"]["bytes"].as_u64());
    let stored = bytes.map_or_else(String::new, |bytes| format!(" {}", size(bytes)));
    format!("{} {}{stored}", text(pin, "status"), text(pin, "cid"))
}

/// Shows progress until the content is pinned, and returns the last status.
///
/// # Errors
/// The pin failed or was removed, or `--timeout` has passed.
async fn wait_until_pinned(client: &Client, args: &PinArgs) -> anyhow::Result<Value> {
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}")?);
    let mut interval = POLL_INTERVAL_MIN;
    loop {
        let pin = pin_status(client, &args.cid, args.options.cl.as_deref()).await?;
        match pin["status"].as_str() {
            Some("pinned") => {
                bar.finish_and_clear();
                return Ok(pin);
            }
            Some("queued" | "pinning") => {}
            Some("failed") => {
                let error = pin_error(&pin).unwrap_or_else(|| "the server gave no reason".to_owned());
                bail!("cannot pin {}: {error}", args.cid);
            }
            _ => bail!("the pin of {} was removed", args.cid),
        }
        if Instant::now() >= deadline {
            bail!(
                "not pinned after {} s; the server continues, see `pinfold status {}`",
                args.timeout,
                args.cid
            );
        }
        bar.set_message(progress_text(&pin));
        bar.tick();
        sleep(interval).await;
        interval = (interval * 3 / 2).min(POLL_INTERVAL_MAX);
    }
}

/// `pinning  12 MiB in 48 blocks`.
fn progress_text(pin: &Value) -> String {
    let progress = &pin["progress"];
    let bytes = progress["bytes"].as_u64().unwrap_or(0);
    let total =
        progress["totalBytes"].as_u64().map_or_else(String::new, |total| format!(" of {}", size(total)));
    format!(
        "{}  {}{total} in {} blocks",
        text(pin, "status"),
        size(bytes),
        progress["blocks"].as_u64().unwrap_or(0)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_and_result_have_sizes() {
        let pin = json!({ "cid": "bafy", "status": "pinning", "progress": { "blocks": 3, "bytes": 2048 } });
        assert_eq!(progress_text(&pin), "pinning  2.00 KiB in 3 blocks");
        let pin = json!({ "cid": "bafy", "status": "pinned", "size": 1024 });
        assert_eq!(result_text(&pin), "pinned bafy 1.00 KiB");
    }
}
