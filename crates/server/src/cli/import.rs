//! `pinfold import`: stores the blocks of a CAR from a file or stdin, and pins its roots.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use anyhow::{Context, bail};
use axum::body::Body;
use axum::http::Request;
use clap::Args;
use futures::TryStreamExt as _;
use indicatif::ProgressBar;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use super::DataDirArgs;
use super::output::{byte_progress, print, size};
use crate::admin_client::{AdminClient, Needs};
use crate::admin_ops::car::{ImportOptions, ImportReport, RootReport};

/// Read buffer size, in bytes.
const READ_SIZE: usize = 256 * 1024;

/// Store the blocks of a CAR file and pin its roots for an account.
///
/// CAR versions 1 and 2 are supported. Every block is verified. A CAR that is truncated or contains an invalid block is
/// rejected as a whole. Blocks that a root needs and the CAR lacks are fetched from the network, as for any pin. The plan
/// and storage limit of the account apply.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinfold import photos.car
  pinfold import photos.car --email ada@example.org --name photos
  pinfold import rootless.car --root bafybei…
  curl -s https://example.org/a.car | pinfold import - --no-wait")]
pub(crate) struct ImportArgs {
    /// CAR file, or - for stdin.
    file: PathBuf,
    /// E-mail address of the account that gets the pins. Default: the oldest account.
    #[arg(long)]
    email: Option<String>,
    /// Custom name of the pins.
    #[arg(long)]
    name: Option<String>,
    /// Cluster that stores the content. Default: the default cluster.
    #[arg(long, value_name = "CLUSTER")]
    cl: Option<String>,
    /// CID to pin instead of the roots in the CAR header. Can be repeated.
    #[arg(long, value_name = "CID")]
    root: Vec<String>,
    /// Return when the blocks are stored, without waiting for the pins; see `pinfold status`.
    #[arg(long)]
    no_wait: bool,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataDirArgs,
}

pub(super) async fn run(args: ImportArgs) -> anyhow::Result<()> {
    let (source, length) = open(&args.file).await?;
    let client = args.data.admin_client(Needs::Service).await?;
    let bar = byte_progress(length)?;
    let report = send(&client, &args, source, &bar).await;
    bar.finish_and_clear();
    client.close().await;
    let report = report.context("import failed")?;
    if args.json {
        print(&serde_json::to_string(&report)?)?;
    } else {
        eprintln!("read {} blocks, {}, for {}", report.blocks, size(report.bytes), report.email);
        for root in &report.roots {
            print(&root_text(root))?;
        }
    }
    match report.roots.iter().filter(|root| root.error.is_some()).count() {
        0 => Ok(()),
        failed => bail!("{failed} of {} roots could not be pinned", report.roots.len()),
    }
}

async fn send(
    client: &AdminClient,
    args: &ImportArgs,
    source: Pin<Box<dyn AsyncRead + Send>>,
    bar: &ProgressBar,
) -> anyhow::Result<ImportReport> {
    let options = ImportOptions {
        email: args.email.clone(),
        name: args.name.clone(),
        cl: args.cl.clone(),
        roots: (!args.root.is_empty()).then(|| args.root.join(",")),
        no_wait: args.no_wait,
    };
    // Only the path and the query are used.
    let mut url = reqwest::Url::parse("http://pinfold/import")?;
    {
        let mut query = url.query_pairs_mut();
        let fields = [
            ("email", &options.email),
            ("name", &options.name),
            ("cl", &options.cl),
            ("roots", &options.roots),
        ];
        for (field, value) in fields {
            if let Some(value) = value {
                query.append_pair(field, value);
            }
        }
        query.append_pair("no_wait", if options.no_wait { "true" } else { "false" });
    }
    let path = format!("{}?{}", url.path(), url.query().unwrap_or_default());
    let bar = bar.clone();
    let chunks =
        ReaderStream::with_capacity(source, READ_SIZE).inspect_ok(move |chunk| bar.inc(chunk.len() as u64));
    client.call(Request::post(path).body(Body::from_stream(chunks))?).await
}

/// Opens the CAR. The length in bytes is known if it is a regular file.
async fn open(path: &Path) -> anyhow::Result<(Pin<Box<dyn AsyncRead + Send>>, Option<u64>)> {
    if path.as_os_str() == "-" {
        if std::io::stdin().is_terminal() {
            bail!("stdin is a terminal; redirect it, or give a file name");
        }
        let stdin = std::fs::File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        return Ok((Box::pin(tokio::fs::File::from_std(stdin)), None));
    }
    let cannot = || format!("cannot read {}", path.display());
    let file = tokio::fs::File::open(path).await.with_context(cannot)?;
    let metadata = file.metadata().await.with_context(cannot)?;
    if metadata.is_dir() {
        bail!("{} is a directory; use `pinfold add` to upload it", path.display());
    }
    let length = metadata.is_file().then_some(metadata.len());
    Ok((Box::pin(file), length))
}

/// `pinned bafy… 3 MiB`.
fn root_text(root: &RootReport) -> String {
    match (&root.error, &root.status) {
        (Some(error), _) => format!("failed {}: {error}", root.cid),
        (None, status) => {
            let stored = root.size.filter(|bytes| *bytes > 0).map(|bytes| format!(" {}", size(bytes)));
            format!("{} {}{}", status.as_deref().unwrap_or_default(), root.cid, stored.unwrap_or_default())
        }
    }
}
