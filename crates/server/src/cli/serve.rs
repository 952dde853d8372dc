//! `pinfold serve`: runs the server until SIGTERM or SIGINT.
//!
//! Stdout is an interface for scripts. At the first start it has the API key of the administrator. Then comes one line
//! that starts with `Pinfold is ready at http://`. With `--json`, stdout has one JSON object instead. Logs go to stderr.

use std::io::IsTerminal;
use std::net::SocketAddr;

use anyhow::Context;
use clap::Args;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::DataDirArgs;
use super::output::print;
use crate::app::App;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::logging;

/// Example content of the IPFS documentation, used in the `curl` command that the first start prints.
const EXAMPLE_CID: &str = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";

/// Run the server.
///
/// The first start creates an administrator account and prints its API key once. Settings come from the built-in
/// defaults, the configuration file, PINFOLD_SECTION__KEY environment variables and these options. Later sources take
/// precedence.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinfold serve
  pinfold serve --listen 0.0.0.0:3000 --data-dir /srv/pinfold
  pinfold serve --no-bootstrap --peer /ip4/127.0.0.1/tcp/4001/p2p/12D3Koo…
  PINFOLD_LOG__FORMAT=json pinfold serve --config /etc/pinfold.toml

`pinfold config` prints every setting with its default.")]
pub(crate) struct ServeArgs {
    /// Address of the HTTP API. Port 0 selects a free port.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Address on which the IPFS node listens for peers; replaces the configured addresses. Can be repeated.
    #[arg(long, value_name = "MULTIADDR")]
    swarm_listen: Vec<String>,
    /// Address of the IPFS node to announce to other peers. Can be repeated.
    #[arg(long, value_name = "MULTIADDR")]
    announce: Vec<String>,
    /// Peer to stay connected to, with its `/p2p/ID`. Can be repeated.
    #[arg(long, value_name = "MULTIADDR")]
    peer: Vec<String>,
    /// Peer through which to join the DHT, instead of the public bootstrap nodes. Can be repeated.
    #[arg(long, value_name = "MULTIADDR", conflicts_with = "no_bootstrap")]
    bootstrap: Vec<String>,
    /// Do not join the public DHT. Content is found only at connected peers and in private networks.
    #[arg(long)]
    no_bootstrap: bool,
    /// Print the startup output as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataDirArgs,
}

pub(super) async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let dir = args.data.data_dir()?;
    let config = load_config(&args, &dir)?;
    logging::start(&config.log)?;
    dir.create()?;
    let _lock = dir.lock()?;
    dir.expect_complete()?;
    let mut signals = StopSignals::listen()?;
    let app = tokio::select! {
        app = App::start(&config, &dir) => app?,
        () = signals.next() => return Ok(()),
    };
    print(&startup_text(&app, args.json).await)?;
    signals.next().await;
    tracing::info!("stopping; a second signal stops immediately");
    tokio::select! {
        () = app.stop() => tracing::info!("stopped"),
        () = signals.next() => tracing::warn!("stopped immediately; unfinished pins continue at the next start"),
    }
    Ok(())
}

/// The configuration with the command-line options applied.
fn load_config(args: &ServeArgs, dir: &DataDir) -> anyhow::Result<Config> {
    let mut config = args.data.load_config(dir)?;
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

/// What is printed once the server accepts requests.
async fn startup_text(app: &App, as_json: bool) -> String {
    let url = app.url();
    let first_key = app.first_key();
    if as_json {
        let mut line =
            json!({ "ready": true, "url": url, "peerId": app.peer_id(), "addresses": app.addresses().await });
        if let (Some(key), Some(fields)) = (first_key, line.as_object_mut()) {
            fields.insert("firstAccount".to_owned(), json!(app.admin_email()));
            fields.insert("firstKey".to_owned(), json!(key.reveal()));
        }
        return line.to_string();
    }
    let mut text = String::new();
    if let Some(key) = first_key {
        text = format!(
            "\nCreated the administrator account {}. Its API key is shown only once:\n\n  {key}\n\n\
             Use it with the pinfold commands:\n\n  export PINFOLD_SERVER={url} PINFOLD_API_KEY={key}\n\n\
             Or pin content over HTTP:\n\n{}\n\n",
            app.admin_email(),
            pin_command(&url, key.reveal(), EXAMPLE_CID),
            key = key.reveal(),
        );
    }
    text.push_str(&format!("Pinfold is ready at {url} (peer {})", app.peer_id()));
    if std::io::stdout().is_terminal() {
        text.push_str("\nPress Ctrl-C to stop.");
    }
    text
}

/// A `curl` command that pins `cid`, ready to be pasted into a shell.
pub(super) fn pin_command(url: &str, key: &str, cid: &str) -> String {
    format!(
        "  curl -X POST \"{url}/api/v3/files/pin/{cid}\" \\\n    -H \"X-API-Key: {key}\" \\\n    \
         -H \"Content-Type: application/json\" \\\n    -d '{{\"cl\": \"cl0-global\"}}'"
    )
}

/// SIGTERM and SIGINT. From its creation on, these signals do not end the process.
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    pub(super) fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot install a signal handler");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for the next signal. Cancel-safe: no signal is lost.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
