//! `pinfold pin`: asks for a pin, then watches it until it is held or has failed.
//!
//! The request is sent with `Prefer: respond-async`, so that progress can be shown and nothing depends on
//! one long connection; the status resource is asked until the pin settles.

use std::time::Duration;

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use super::api_client::Client;
use super::output::{print, size};
use super::remote::{pin_status, reason, text};
use super::{PinArgs, PinOptionArgs};

/// The first pause between two looks at a pin; each next one is half as long again.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(100);
/// The longest pause: still a live display, and far below every rate limit.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(2);

/// Runs the command.
pub(crate) async fn run(args: PinArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.remote)?;
    let mut body = terms(&args.terms);
    if let Some(name) = &args.name {
        body.insert("customName".to_owned(), json!(name));
    }
    let request = client
        .request(Method::POST, &["files", "pin", &args.cid])?
        .header("Prefer", "respond-async")
        .json(&Value::Object(body));
    let answer = client.send(request).await?;
    let waits = answer.status == StatusCode::ACCEPTED && !args.no_wait;
    let pin = if waits { watch(&client, &args).await? } else { answer.body };
    if args.remote.json {
        return print(&pin.to_string());
    }
    print(&sentence(&pin))
}

/// The fields of a request body that [`PinOptionArgs`] stand for.
pub(crate) fn terms(terms: &PinOptionArgs) -> Map<String, Value> {
    let fields = [("cl", &terms.cl), ("timelock", &terms.timelock)];
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value.as_ref()?)))).collect()
}

/// `pinned bafy… 3 MiB`.
pub(crate) fn sentence(pin: &Value) -> String {
    let bytes = pin["size"].as_u64().or_else(|| pin["progress"]["bytes"].as_u64());
    let held = bytes.map_or_else(String::new, |bytes| format!(" {}", size(bytes)));
    format!("{} {}{held}", text(pin, "status"), text(pin, "cid"))
}

/// Shows progress until the pin is held, and returns its status resource.
///
/// # Errors
/// The pin failed, was removed meanwhile, or took longer than `--timeout`.
async fn watch(client: &Client, args: &PinArgs) -> anyhow::Result<Value> {
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}")?);
    let mut pause = LOOK_AGAIN_MIN;
    loop {
        let pin = pin_status(client, &args.cid, args.terms.cl.as_deref()).await?;
        match pin["status"].as_str() {
            Some("pinned") => {
                bar.finish_and_clear();
                return Ok(pin);
            }
            Some("queued" | "pinning") => {}
            Some("failed") => {
                let why = reason(&pin).unwrap_or_else(|| "the server gave no reason".to_owned());
                bail!("{} was not pinned: {why}", args.cid);
            }
            _ => bail!("{} is not pinned any more; somebody removed it", args.cid),
        }
        if Instant::now() >= deadline {
            bail!(
                "still not pinned after {} s; the server goes on, see `pinfold status {}`",
                args.timeout,
                args.cid
            );
        }
        bar.set_message(reached(&pin));
        bar.tick();
        sleep(pause).await;
        pause = (pause * 3 / 2).min(LOOK_AGAIN_MAX);
    }
}

/// `pinning  12 MiB in 48 blocks`.
fn reached(pin: &Value) -> String {
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
    fn what_was_reached_reads_as_a_sentence() {
        let pin = json!({ "cid": "bafy", "status": "pinning", "progress": { "blocks": 3, "bytes": 2048 } });
        assert_eq!(reached(&pin), "pinning  2.00 KiB in 3 blocks");
        let pin = json!({ "cid": "bafy", "status": "pinned", "size": 1024 });
        assert_eq!(sentence(&pin), "pinned bafy 1.00 KiB");
    }
}
