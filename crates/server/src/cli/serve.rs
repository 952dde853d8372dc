//! `pinfold serve`: runs the service until it is told to stop.
//!
//! Stdout gets two things that scripts may rely on: on the very first start the first API key, then one
//! line that starts with `Pinfold is ready at http://` (with `--json`: one object). Logs go to stderr.

use std::io::IsTerminal;

use anyhow::Context;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::App;
use crate::cli::ServeArgs;
use crate::cli::output::print;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::logging;

/// Content that everyone can try to pin: the example of the API's documentation.
const EXAMPLE_CID: &str = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";

/// Runs the command.
pub(crate) async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let dir = DataDir::choose(args.place.data_dir.clone())?;
    let config = settings(&args, &dir)?;
    logging::start(&config.log)?;
    dir.create()?;
    let _lock = dir.lock()?;
    dir.expect_whole()?;
    let mut signals = StopSignals::listen()?;
    let app = tokio::select! {
        app = App::start(&config, &dir) => app?,
        () = signals.next() => return Ok(()),
    };
    print(&ready(&app, args.json).await)?;
    signals.next().await;
    tracing::info!("stopping: requests that run may end; once more stops at once");
    tokio::select! {
        () = app.stop() => tracing::info!("stopped"),
        () = signals.next() => tracing::warn!("stopped at once; unfinished pins go on at the next start"),
    }
    Ok(())
}

/// The settings of this run: what is configured, then the options.
fn settings(args: &ServeArgs, dir: &DataDir) -> anyhow::Result<Config> {
    let mut config = Config::load(dir.config_file(args.place.config.as_deref()).as_deref())?;
    if let Some(listen) = args.listen {
        config.http.listen = listen;
    }
    let lists = [
        (&args.swarm_listen, &mut config.node.listen),
        (&args.announce, &mut config.node.announce),
        (&args.peer, &mut config.node.peers),
        (&args.bootstrap, &mut config.node.bootstrap),
    ];
    for (given, setting) in lists {
        if !given.is_empty() {
            setting.clone_from(given);
        }
    }
    if args.no_bootstrap {
        config.node.bootstrap.clear();
    }
    Ok(config)
}

/// What stdout says once everything answers.
async fn ready(app: &App, as_json: bool) -> String {
    let url = app.url();
    let first = app.first_key();
    if as_json {
        let mut line =
            json!({ "ready": true, "url": url, "peerId": app.peer_id(), "addresses": app.addresses().await });
        if let (Some(first), Some(fields)) = (first, line.as_object_mut()) {
            fields.insert("firstAccount".to_owned(), json!(app.admin_email()));
            fields.insert("firstKey".to_owned(), json!(first.reveal()));
        }
        return line.to_string();
    }
    let mut text = String::new();
    if let Some(first) = first {
        text = format!(
            "\nPinfold made the account {} with every right, and this API key. It is shown only now:\n\n  {}\n\n\
             Pin something with it:\n\n{}\n\n",
            app.admin_email(),
            first.reveal(),
            curl(&url, first.reveal(), EXAMPLE_CID)
        );
    }
    text.push_str(&format!("Pinfold is ready at {url} (peer {})", app.peer_id()));
    if std::io::stdout().is_terminal() {
        text.push_str("\nCtrl-C stops it.");
    }
    text
}

/// The seed's request, ready to be pasted.
pub(crate) fn curl(url: &str, key: &str, cid: &str) -> String {
    format!(
        "  curl -X POST \"{url}/api/v3/files/pin/{cid}\" \\\n    -H \"X-API-Key: {key}\" \\\n    \
         -H \"Content-Type: application/json\" \\\n    -d '{{\"cl\": \"cl0-global\"}}'"
    )
}

/// SIGTERM and Ctrl-C, listened to from the moment that this is made.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Takes both over from their default, which would end the process at once.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen to signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for either. Cancel-safe: a signal that comes meanwhile is kept.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
