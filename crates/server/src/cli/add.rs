//! `pinfold add`: streams a file, or a whole folder in one request, to the server.
//!
//! Files are opened when their turn comes and read in small pieces: memory and open files do not grow
//! with what is uploaded.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, bail};
use bytes::Bytes;
use futures::stream::{self, Stream, TryStreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::multipart::{Form, Part};
use reqwest::{Body, Method};
use tokio_util::io::ReaderStream;

use super::AddArgs;
use super::api_client::Client;
use super::output::{print, size};
use super::remote::text;

/// How much of a file is read at a time, in bytes.
const READ_SIZE: usize = 256 * 1024;
/// The most files in one folder upload: their list is held in memory.
const FILES_MAX: usize = 1_000_000;
/// The deepest folder that is looked into.
const DEPTH_MAX: usize = 256;

/// A file to send.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    /// Where it is.
    path: PathBuf,
    /// Its place inside the folder, `/`-separated.
    name: String,
    /// Its length in bytes.
    size: u64,
}

/// Why a file could not be sent, in words that name it. HTTP knows only that the body broke off.
type Fault = Arc<OnceLock<String>>;

/// Runs the command.
pub(crate) async fn run(args: AddArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.remote)?;
    let metadata =
        fs::metadata(&args.path).with_context(|| format!("cannot read {}", args.path.display()))?;
    let given = base_name(&args.path)?;
    let (route, entries): (&[&str], _) = if metadata.is_dir() {
        (&["files", "directory-dag"], walk(&args.path)?)
    } else if metadata.is_file() {
        let entry = Entry { path: args.path.clone(), name: given.clone(), size: metadata.len() };
        (&["files"], vec![entry])
    } else {
        bail!("{} is neither a file nor a folder", args.path.display());
    };
    if entries.is_empty() {
        bail!("{} has no files", args.path.display());
    }
    let bar = progress(entries.iter().map(|entry| entry.size).sum(), args.quiet)?;
    let fault = Fault::default();
    let form = form(&args, &given, metadata.is_dir(), entries, &bar, &fault)?;
    let answer = client.send_once(client.request(Method::POST, route)?.multipart(form)).await;
    bar.finish_and_clear();
    if let (Err(_), Some(fault)) = (&answer, fault.get()) {
        bail!("{fault}; nothing is pinned");
    }
    let pin = answer?.body;
    if args.remote.json {
        return print(&pin.to_string());
    }
    let cid = text(&pin, "cid");
    if args.quiet {
        return print(&cid);
    }
    let held = pin["total_size"].as_u64().or_else(|| pin["size"].as_u64()).map(size).unwrap_or_default();
    print(&format!("added {cid} {held} {}", args.name.as_deref().unwrap_or(&given)))
}

/// The multipart body; the terms come first, so that the server can refuse before it has read the files.
fn form(
    args: &AddArgs,
    given: &str,
    is_dir: bool,
    entries: Vec<Entry>,
    bar: &ProgressBar,
    fault: &Fault,
) -> anyhow::Result<Form> {
    // Names go as they are, in UTF-8, as browsers and curl send them.
    let mut form = Form::new().percent_encode_noop();
    let names = [("cl", &args.terms.cl), ("timelock", &args.terms.timelock), ("customName", &args.name)];
    for (field, value) in names {
        if let Some(value) = value {
            form = form.text(field, value.clone());
        }
    }
    if is_dir {
        form = form.text("dirName", given.to_owned());
    }
    let field = if is_dir { "files" } else { "file" };
    for entry in entries {
        form = form.part(field, part(entry, bar, fault)?);
    }
    Ok(form)
}

fn part(entry: Entry, bar: &ProgressBar, fault: &Fault) -> anyhow::Result<Part> {
    let bar = bar.clone();
    let (name, size) = (entry.name.clone(), entry.size);
    let pieces = pieces(entry, fault.clone()).inspect_ok(move |piece| bar.inc(piece.len() as u64));
    Ok(Part::stream_with_length(Body::wrap_stream(pieces), size)
        .file_name(name)
        .mime_str("application/octet-stream")?)
}

/// A file's content: as many bytes as the server was told to expect, or the reason in `fault`.
fn pieces(entry: Entry, fault: Fault) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let content = stream::once(tokio::fs::File::open(entry.path.clone()))
        .map_ok(|file| ReaderStream::with_capacity(file, READ_SIZE))
        .try_flatten();
    let changed = || io::Error::other("it changed while it was read");
    stream::try_unfold((Box::pin(content), entry.size), move |(mut content, left)| async move {
        match content.try_next().await? {
            Some(piece) => {
                let left = left.checked_sub(piece.len() as u64).ok_or_else(changed)?;
                Ok(Some((piece, (content, left))))
            }
            None if left == 0 => Ok(None),
            None => Err(changed()),
        }
    })
    .inspect_err(move |error: &io::Error| {
        fault.get_or_init(|| format!("cannot read {}: {error}", entry.path.display()));
    })
}

fn progress(total: u64, quiet: bool) -> anyhow::Result<ProgressBar> {
    if quiet || !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let style = "{wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}";
    Ok(ProgressBar::new(total).with_style(ProgressStyle::with_template(style)?))
}

/// The name of a file or folder, also for `.` and `..`.
fn base_name(path: &Path) -> anyhow::Result<String> {
    let whole = path.canonicalize().with_context(|| format!("cannot read {}", path.display()))?;
    let named = if path.file_name().is_some() { path } else { &whole };
    let name = named.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).with_context(|| format!("the name of {} is not UTF-8", path.display()))
}

/// Every file under `root`, in the order of names.
///
/// # Errors
/// Something in it is neither file nor folder (a symbolic link would upload what lies elsewhere), has a
/// name that is not UTF-8, or cannot be read; too many files or too deep.
fn walk(root: &Path) -> anyhow::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut folders = vec![(root.to_owned(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        if depth > DEPTH_MAX {
            bail!("{} is more than {DEPTH_MAX} folders deep", folder.display());
        }
        for item in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let item = item.with_context(|| format!("cannot read {}", folder.display()))?;
            let path = item.path();
            let name = item.file_name();
            let name =
                name.to_str().with_context(|| format!("the name of {} is not UTF-8", path.display()))?;
            let metadata = item.metadata().with_context(|| format!("cannot read {}", path.display()))?;
            if metadata.is_dir() {
                folders.push((path, format!("{prefix}{name}/"), depth + 1));
            } else if metadata.is_file() {
                entries.push(Entry { path, name: format!("{prefix}{name}"), size: metadata.len() });
            } else {
                bail!(
                    "{} is neither a file nor a folder; leave it out or copy what it points to",
                    path.display()
                );
            }
            if entries.len() > FILES_MAX {
                bail!("{} has more than {FILES_MAX} files", root.display());
            }
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_walked_in_order_and_keeps_its_paths() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir_all(temp.path().join("b/c")).unwrap();
        for (name, text) in [("z.txt", "zz"), ("b/c/deep", "d"), ("b/a", ""), (".hidden", "h")] {
            fs::write(temp.path().join(name), text).unwrap();
        }
        let found: Vec<(String, u64)> =
            walk(temp.path()).unwrap().into_iter().map(|entry| (entry.name, entry.size)).collect();
        let expected = [(".hidden", 1), ("b/a", 0), ("b/c/deep", 1), ("z.txt", 2)];
        assert_eq!(found, expected.map(|(name, size)| (name.to_owned(), size)));
    }

    #[tokio::test]
    async fn a_file_that_is_not_as_it_was_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("log.txt");
        fs::write(&path, "four").unwrap();
        let sent = |path: &Path, size| {
            let fault = Fault::default();
            let entry = Entry { path: path.to_owned(), name: String::new(), size };
            let pieces = pieces(entry, fault.clone());
            async move { (pieces.try_collect::<Vec<_>>().await.ok(), fault.get().cloned().unwrap_or_default()) }
        };
        assert_eq!(sent(&path, 4).await, (Some(vec![Bytes::from("four")]), String::new()));
        for size in [0, 3, 5] {
            let (content, fault) = sent(&path, size).await;
            assert!(content.is_none() && fault.contains("log.txt: it changed"), "{size}: {fault}");
        }
        let (content, fault) = sent(&temp.path().join("gone.txt"), 4).await;
        assert!(content.is_none() && fault.contains("gone.txt"), "{fault}");
    }

    #[test]
    fn a_symbolic_link_is_refused_by_name() {
        let temp = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/hostname", temp.path().join("link")).unwrap();
        let message = walk(temp.path()).unwrap_err().to_string();
        assert!(message.contains("link"), "{message}");
    }
}
