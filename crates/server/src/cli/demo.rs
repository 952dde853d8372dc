//! `pinfold try`: a self-contained demonstration.
//!
//! Three IPFS nodes run in this process, each with its own identity, block store and swarm, and connect only over loopback:
//! a complete server, a second node that has a sample directory, and a third node. The server pins the directory, the
//! second node stops, and the third node reads the directory back from the server over bitswap.

use std::io::IsTerminal;
use std::net::TcpListener;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::api_client;
use super::output::{print, size};
use super::serve::{StopSignals, pin_command};
use crate::app::App;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::logging;
use sample::{Sample, SourceNode};

mod sample;

/// Maximum time for each of the two steps. They take about a second; slow machines need more.
const STEP_TIME_MAX: Duration = Duration::from_secs(120);

/// Run a self-contained demonstration.
///
/// A temporary server pins content from a second IPFS node and serves it after that node has stopped. Everything runs on
/// loopback and in a temporary directory that is deleted at the end. No internet access is needed. The server keeps
/// running until Ctrl-C.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinfold try
  pinfold try --exit")]
pub(crate) struct TryArgs {
    /// Exit after the demonstration, with status 0 if it succeeded and 1 otherwise.
    #[arg(long)]
    exit: bool,
}

pub(super) async fn run(args: TryArgs) -> anyhow::Result<ExitCode> {
    let mut signals = StopSignals::listen()?;
    let folder = tempfile::Builder::new()
        .prefix("pinfold-try-")
        .tempdir()
        .context("cannot create a temporary directory")?;
    let demo = tokio::select! {
        demo = demonstrate(folder.path()) => demo?,
        () = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    if !args.exit {
        print(&demo.next_steps())?;
        signals.next().await;
    }
    tokio::select! {
        () = demo.app.stop() => {}
        () = signals.next() => {}
    }
    folder.close().context("cannot remove the temporary directory")?;
    Ok(ExitCode::SUCCESS)
}

/// A server after a successful demonstration.
struct Demo {
    app: App,
    key: String,
    cid: String,
}

/// Runs the demonstration and prints its steps.
///
/// # Errors
/// A node or the server cannot start, the pin fails, or the content cannot be read back.
async fn demonstrate(folder: &Path) -> anyhow::Result<Demo> {
    let sample = Sample::generate();
    let source = SourceNode::start(&sample).await?;
    let cid = source.root().to_string();
    let app = start_server(folder, source.addresses().await).await?;
    let key = app.first_key().context("the server did not create an API key")?.reveal().to_owned();
    let content = format!("{} files, {}", sample.files.len(), size(sample.bytes()));
    print(&format!(
        "{}\nEverything runs on this machine and is deleted at the end.\n\n  \
         Server:       {}, with an empty block store\n  \
         Second node:  {}, with a directory of {content}\n\n\
         {}\n",
        bold("Pinfold demonstration"),
        app.url(),
        source.peer_id(),
        bold("1. Pin the directory"),
    ))?;
    pin(&app, &key, &cid).await?;

    let root = *source.root();
    source.stop().await;
    print(&format!("{}\n", bold("2. Stop the second node and read the directory back")))?;
    let started = Instant::now();
    sample::read_back(&root, &app.addresses().await, &sample, STEP_TIME_MAX)
        .await
        .context("cannot read the content back")?;
    print(&format!(
        "  A third node fetched {content} from the server over bitswap in {:.1} s.\n  All bytes are identical.\n",
        started.elapsed().as_secs_f64(),
    ))?;
    Ok(Demo { app, key, cid })
}

/// Starts a server on loopback with the default configuration, on port 3000 if it is free.
async fn start_server(folder: &Path, peers: Vec<String>) -> anyhow::Result<App> {
    let mut config = Config::defaults()?;
    "error".clone_into(&mut config.log.filter);
    logging::start(&config.log)?;
    let port = if is_port_free(3000) { 3000 } else { 0 };
    config.http.listen = ([127, 0, 0, 1], port).into();
    config.node.listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
    config.node.bootstrap.clear();
    config.node.peers = peers;
    let dir = DataDir::choose(Some(folder.join("data")))?;
    dir.create()?;
    App::start(&config, &dir).await
}

/// Pins `cid` with an HTTP request. Prints the request, its progress and the response.
async fn pin(app: &App, key: &str, cid: &str) -> anyhow::Result<()> {
    let url = format!("{}/api/v3/files/pin/{cid}", app.url());
    let body = json!({ "cl": "cl0-global" });
    print(&format!("  POST {url}\n  X-API-Key: {key}\n  Content-Type: application/json\n\n  {body}\n"))?;
    let http = api_client::builder(true).timeout(STEP_TIME_MAX).build()?;
    let started = Instant::now();
    let request = http.post(url).header("X-API-Key", key).json(&body).send();
    let response = tokio::select! {
        response = request => response.context("the request failed")?,
        () = show_progress(&http, app, key, cid) => bail!("the progress display ended unexpectedly"),
    };
    let status = response.status();
    let answer: Value = response.json().await.context("the response is not JSON")?;
    let elapsed = started.elapsed().as_secs_f64();
    let text = serde_json::to_string_pretty(&answer)?.replace('\n', "\n  ");
    print(&format!("  {status} after {elapsed:.2} s\n\n  {text}\n"))?;
    if status != StatusCode::CREATED || answer["status"] != "pinned" {
        bail!("the pin request failed");
    }
    Ok(())
}

/// Shows the progress of the pin until the future is dropped.
async fn show_progress(http: &reqwest::Client, app: &App, key: &str, cid: &str) {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg}") {
        bar.set_style(style);
    }
    let url = format!("{}/api/v3/status/{cid}", app.url());
    let mut interval = tokio::time::interval(Duration::from_millis(50));
    loop {
        interval.tick().await;
        let Ok(response) = http.get(&url).header("X-API-Key", key).send().await else { continue };
        let Ok(pin) = response.json::<Value>().await else { continue };
        let progress = &pin["progress"];
        if let (Some(bytes), Some(blocks)) = (progress["bytes"].as_u64(), progress["blocks"].as_u64()) {
            bar.set_message(format!("{} in {blocks} blocks", size(bytes)));
            bar.tick();
        }
    }
}

impl Demo {
    fn next_steps(&self) -> String {
        let Self { app, key, cid } = self;
        let url = app.url();
        format!(
            "{}\n\nThe server runs until you press Ctrl-C. In another terminal:\n\n  \
             export PINFOLD_SERVER={url} PINFOLD_API_KEY={key}\n  \
             pinfold ls\n  pinfold add README.md\n\n\
             Or over HTTP:\n\n{}\n\n  \
             curl -H \"X-API-Key: {key}\" {url}/api/v3/status/{cid}\n  \
             curl -H \"X-API-Key: {key}\" -F file=@README.md {url}/api/v3/files\n\n\
             To keep what you pin, run `pinfold serve`.",
            bold("Next steps"),
            pin_command(&url, key, cid)
        )
    }
}

fn is_port_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

fn bold(text: &str) -> String {
    if std::io::stdout().is_terminal() { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
}
