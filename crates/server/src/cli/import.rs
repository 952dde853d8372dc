//! `pinfold import`: a CAR from a file or stdin into the store, and its roots pinned.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::Path;
use std::pin::Pin;

use anyhow::{Context, bail};
use axum::body::Body;
use axum::http::Request;
use futures::TryStreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use super::operator::ImportArgs;
use super::output::{print, size};
use crate::admin_client::{AdminClient, Needs};
use crate::admin_ops::{ImportOptions, ImportReport, RootReport};

/// How much is read at a time, in bytes.
const READ_SIZE: usize = 256 * 1024;

/// Runs the command.
pub(crate) async fn run(args: ImportArgs) -> anyhow::Result<()> {
    let (source, length) = open(&args.file).await?;
    let link = AdminClient::open(&args.place, Needs::Pins).await?;
    let bar = progress(length)?;
    let report = send(&link, &args, source, &bar).await;
    bar.finish_and_clear();
    link.close().await;
    let report = report.context("nothing was imported")?;
    if args.json {
        print(&serde_json::to_string(&report)?)?;
    } else {
        eprintln!("read {} blocks, {}, for {}", report.blocks, size(report.bytes), report.email);
        for root in &report.roots {
            print(&sentence(root))?;
        }
    }
    match report.roots.iter().filter(|root| root.error.is_some()).count() {
        0 => Ok(()),
        failed => bail!("{failed} of {} roots could not be pinned", report.roots.len()),
    }
}

async fn send(
    link: &AdminClient,
    args: &ImportArgs,
    source: Pin<Box<dyn AsyncRead + Send>>,
    bar: &ProgressBar,
) -> anyhow::Result<ImportReport> {
    let terms = ImportOptions {
        email: args.email.clone(),
        name: args.name.clone(),
        cl: args.cl.clone(),
        roots: (!args.root.is_empty()).then(|| args.root.join(",")),
        no_wait: args.no_wait,
    };
    // Only a query: the host is whoever is at the other end.
    let mut url = reqwest::Url::parse("http://pinfold/import")?;
    {
        let mut query = url.query_pairs_mut();
        let fields =
            [("email", &terms.email), ("name", &terms.name), ("cl", &terms.cl), ("roots", &terms.roots)];
        for (field, value) in fields {
            if let Some(value) = value {
                query.append_pair(field, value);
            }
        }
        query.append_pair("no_wait", if terms.no_wait { "true" } else { "false" });
    }
    let path = format!("{}?{}", url.path(), url.query().unwrap_or_default());
    let bar = bar.clone();
    let pieces =
        ReaderStream::with_capacity(source, READ_SIZE).inspect_ok(move |piece| bar.inc(piece.len() as u64));
    link.ask(Request::post(path).body(Body::from_stream(pieces))?).await
}

/// The CAR, and its length if it is a file.
async fn open(path: &Path) -> anyhow::Result<(Pin<Box<dyn AsyncRead + Send>>, Option<u64>)> {
    if path.as_os_str() == "-" {
        if std::io::stdin().is_terminal() {
            bail!("stdin is a terminal; pipe a CAR in, or name a file");
        }
        let stdin = std::fs::File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        return Ok((Box::pin(tokio::fs::File::from_std(stdin)), None));
    }
    let cannot = || format!("cannot read {}", path.display());
    let file = tokio::fs::File::open(path).await.with_context(cannot)?;
    let metadata = file.metadata().await.with_context(cannot)?;
    if metadata.is_dir() {
        bail!("{} is a folder; `pinfold add` uploads one", path.display());
    }
    let length = metadata.is_file().then_some(metadata.len());
    Ok((Box::pin(file), length))
}

fn progress(length: Option<u64>) -> anyhow::Result<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    Ok(match length {
        Some(length) => ProgressBar::new(length).with_style(ProgressStyle::with_template(
            "{wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}",
        )?),
        None => ProgressBar::new_spinner()
            .with_style(ProgressStyle::with_template("{spinner} {decimal_bytes} {decimal_bytes_per_sec}")?),
    })
}

/// `pinned bafy… 3 MiB`.
fn sentence(root: &RootReport) -> String {
    match (&root.error, &root.status) {
        (Some(error), _) => format!("failed {}: {error}", root.cid),
        (None, status) => {
            let held = root.size.filter(|bytes| *bytes > 0).map(|bytes| format!(" {}", size(bytes)));
            format!("{} {}{}", status.as_deref().unwrap_or_default(), root.cid, held.unwrap_or_default())
        }
    }
}
