//! `pinfold try`: the main job on show, with nothing but this program.
//!
//! Three nodes run in this process, each with its own identity, store and swarm, and meet only over
//! loopback: a whole Pinfold, a second node that has content, and at the end a third one. The second node
//! is stopped before the third reads everything back from Pinfold over bitswap, so nobody else can have
//! delivered it.

use std::io::IsTerminal;
use std::net::TcpListener;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::app::App;
use crate::cli::output::{print, size};
use crate::cli::serve::{StopSignals, curl};
use crate::cli::{TryArgs, api_client};
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::logging;
use sample::{Sample, Source};

mod sample;

/// How long the pin and the proof may take each. They take a second; the rest is for slow machines.
const TIME_MAX: Duration = Duration::from_secs(120);

/// Runs the command.
pub(crate) async fn run(args: TryArgs) -> anyhow::Result<ExitCode> {
    let mut signals = StopSignals::listen()?;
    let folder = tempfile::Builder::new().prefix("pinfold-try-").tempdir().context("no temporary folder")?;
    let stage = tokio::select! {
        stage = show(folder.path()) => stage?,
        () = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    if !args.exit {
        print(&stage.how_to_go_on())?;
        signals.next().await;
    }
    tokio::select! {
        () = stage.app.stop() => {}
        () = signals.next() => {}
    }
    folder.close().context("the temporary folder could not be removed")?;
    Ok(ExitCode::SUCCESS)
}

/// A Pinfold that has shown what it can do.
struct Stage {
    app: App,
    key: String,
    cid: String,
}

/// The whole show, up to the proof.
///
/// # Errors
/// The content was not held, or something that has to run could not.
async fn show(folder: &std::path::Path) -> anyhow::Result<Stage> {
    let mut config = Config::defaults()?;
    "error".clone_into(&mut config.log.filter);
    logging::start(&config.log)?;
    let sample = Sample::make();
    let source = Source::start(&sample).await?;
    let cid = source.root().to_string();

    config.http.listen =
        if is_free(3000) { ([127, 0, 0, 1], 3000).into() } else { ([127, 0, 0, 1], 0).into() };
    config.node.listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
    config.node.bootstrap.clear();
    config.node.peers = source.addresses().await;
    let dir = DataDir::choose(Some(folder.join("data")))?;
    dir.create()?;
    let app = App::start(&config, &dir).await?;
    let key = app.first_key().context("a new Pinfold has no key")?.reveal().to_owned();
    print(&format!(
        "{}\n\n  A throw-away Pinfold runs at {}, and beside it a second IPFS node, {}.\n  \
         That node has a folder of {} files, {}. Pinfold has nothing yet, and is asked for it:\n",
        bold("Pinfold, on show. All of it stays on this machine, and nothing stays behind."),
        app.url(),
        source.peer_id(),
        sample.files.len(),
        size(sample.bytes()),
    ))?;
    pin(&app, &key, &cid).await?;

    let root = *source.root();
    source.stop().await;
    let addresses = app.addresses().await;
    let started = Instant::now();
    let proof = sample::read_back(&root, &addresses, &sample, TIME_MAX).await;
    proof.context("the content is not held")?;
    print(&format!(
        "  {}\n  The second node is gone. A third one, new and empty, asked Pinfold for the folder over bitswap\n  \
         and got {} files, {}, every byte the same, in {:.1} s.\n",
        bold("Held."),
        sample.files.len(),
        size(sample.bytes()),
        started.elapsed().as_secs_f64(),
    ))?;
    Ok(Stage { app, key, cid })
}

/// Sends the seed's request, shows it, its progress and its answer.
async fn pin(app: &App, key: &str, cid: &str) -> anyhow::Result<()> {
    let url = format!("{}/api/v3/files/pin/{cid}", app.url());
    let body = json!({ "cl": "cl0-global" });
    print(&format!(
        "  {}\n  X-API-Key: {key}\n  Content-Type: application/json\n\n  {body}\n",
        bold(&format!("POST {url}"))
    ))?;
    let http = api_client::builder(true).timeout(TIME_MAX).build()?;
    let started = Instant::now();
    let request = http.post(url).header("X-API-Key", key).json(&body).send();
    let response = tokio::select! {
        response = request => response.context("the request failed")?,
        () = progress(&http, app, key, cid) => bail!("the progress ended before the answer"),
    };
    let status = response.status();
    let answer: Value = response.json().await.context("the answer is not JSON")?;
    let took = started.elapsed().as_secs_f64();
    let text = serde_json::to_string_pretty(&answer)?.replace('\n', "\n  ");
    print(&format!("  {} after {took:.2} s\n\n  {text}\n", bold(&status.to_string())))?;
    if status != StatusCode::CREATED || answer["status"] != "pinned" {
        bail!("the pin was not made");
    }
    Ok(())
}

/// Draws how far the pin is, for as long as it is polled. It never ends by itself.
async fn progress(http: &reqwest::Client, app: &App, key: &str, cid: &str) {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg}") {
        bar.set_style(style);
    }
    let url = format!("{}/api/v3/status/{cid}", app.url());
    let mut looks = tokio::time::interval(Duration::from_millis(50));
    loop {
        looks.tick().await;
        let Ok(response) = http.get(&url).header("X-API-Key", key).send().await else { continue };
        let Ok(pin) = response.json::<Value>().await else { continue };
        let progress = &pin["progress"];
        if let (Some(bytes), Some(blocks)) = (progress["bytes"].as_u64(), progress["blocks"].as_u64()) {
            bar.set_message(format!("{} in {blocks} blocks", size(bytes)));
            bar.tick();
        }
    }
}

impl Stage {
    fn how_to_go_on(&self) -> String {
        let Self { app, key, cid } = self;
        let url = app.url();
        format!(
            "  {}\n\n{}\n\n  curl -H \"X-API-Key: {key}\" {url}/api/v3/status/{cid}\n  \
             curl -H \"X-API-Key: {key}\" -F file=@README.md {url}/api/v3/files\n\n  \
             or with this program:\n\n  export PINFOLD_SERVER={url} PINFOLD_API_KEY={key}\n  \
             pinfold ls\n  pinfold add README.md\n\n  To keep what you pin, run `pinfold serve`. Ctrl-C ends this one.\n",
            bold("Go on:"),
            curl(&url, key, cid)
        )
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

fn bold(text: &str) -> String {
    if std::io::stdout().is_terminal() { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
}
