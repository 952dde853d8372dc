//! The clients that ask one thing: `id`, `ls`, `status`, `rm`.

use anyhow::Context;
use reqwest::Method;
use serde_json::Value;

use super::api_client::Client;
use super::output::{plain, print, size, table};
use super::{IdArgs, LsArgs, RmArgs, StatusArgs};

/// How many pins one page asks for: the API's most.
const PAGE: u64 = 100;

/// `pinfold id`.
pub(crate) async fn id(args: IdArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.remote)?;
    let answer = client.send(client.request(Method::GET, &["peers"])?).await?;
    let peers = answer.body.get("peers").and_then(Value::as_array);
    let own = peers
        .and_then(|peers| peers.iter().find(|peer| peer["self"] == true))
        .context("the server does not name its own peer")?;
    if args.remote.json {
        return print(&own.to_string());
    }
    let addresses = own["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
    let lines: Vec<String> = std::iter::once(text(own, "id"))
        .chain(addresses.iter().map(|a| plain(a.as_str().unwrap_or(""))))
        .collect();
    print(&lines.join("\n"))
}

/// `pinfold ls`: page after page, each printed as it comes.
pub(crate) async fn ls(args: LsArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.remote)?;
    let mut left = args.limit;
    let mut cursor: Option<String> = None;
    loop {
        let mut query = vec![("limit", left.min(PAGE).to_string())];
        let filters =
            [("status", &args.status), ("search", &args.search), ("cl", &args.cl), ("cursor", &cursor)];
        query.extend(filters.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
        let request = client.request(Method::GET, &["users", "me", "uploads"])?.query(&query);
        let page = client.send(request).await?.body;
        let pins = page["uploads"].as_array().context("the server sent no list")?;
        print_pins(pins, args.remote.json)?;
        left = left.saturating_sub(pins.len() as u64);
        cursor = page["nextCursor"].as_str().map(str::to_owned);
        if cursor.is_none() || pins.is_empty() {
            return Ok(());
        }
        if left == 0 {
            eprintln!("pinfold: there are more; raise --limit to see them");
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

/// `pinfold status`.
pub(crate) async fn status(args: StatusArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.remote)?;
    let body = pin_status(&client, &args.cid, args.cl.as_deref()).await?;
    if args.remote.json {
        return print(&body.to_string());
    }
    let progress = &body["progress"];
    let held = format!(
        "{} in {} blocks",
        size(progress["bytes"].as_u64().unwrap_or(0)),
        progress["blocks"].as_u64().unwrap_or(0)
    );
    let fields = [
        ("cid", text(&body, "cid")),
        ("status", text(&body, "status")),
        ("cluster", text(&body, "clusterId")),
        ("held", held),
        ("error", reason(&body).unwrap_or_default()),
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

/// `pinfold rm`: all of them, one by one; the first that cannot be removed ends it.
pub(crate) async fn rm(args: RmArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.remote)?;
    for cid in &args.cid {
        let mut request = client.request(Method::DELETE, &["files", "remove", cid])?;
        if let Some(cluster) = &args.cl {
            request = request.query(&[("cl", cluster)]);
        }
        let answer = client.send(request).await.with_context(|| format!("cannot remove {cid}"))?;
        if args.remote.json {
            print(&answer.body.to_string())?;
        } else {
            print(&format!("removed {cid}"))?;
        }
    }
    Ok(())
}

/// The status resource of a pin.
///
/// # Errors
/// As [`Client::send`].
pub(crate) async fn pin_status(client: &Client, cid: &str, cluster: Option<&str>) -> anyhow::Result<Value> {
    let mut request = client.request(Method::GET, &["status", cid])?;
    if let Some(cluster) = cluster {
        request = request.query(&[("cl", cluster)]);
    }
    Ok(client.send(request).await?.body)
}

/// Why a pin failed, if the server says so: as text, or as an object with a message.
pub(crate) fn reason(body: &Value) -> Option<String> {
    let error = &body["error"];
    error.as_str().or_else(|| error["message"].as_str()).map(plain)
}

/// A text field fit for a terminal, empty if it is not there.
pub(crate) fn text(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).map(plain).unwrap_or_default()
}
