//! `pinfold add`: uploads a file, or a directory in one request.
//!
//! Files are opened one after another and read in small chunks, so that neither memory nor the number of open files
//! depends on the size of the upload.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use futures::stream::{self, Stream, TryStreamExt};
use indicatif::ProgressBar;
use reqwest::multipart::{Form, Part};
use reqwest::{Body, Method};
use tokio_util::io::ReaderStream;

use super::api_client::{Client, text};
use super::output::{byte_progress, print, size};
use super::{PinOptionArgs, ServerArgs};

/// Read buffer size, in bytes.
const READ_SIZE: usize = 256 * 1024;
/// Maximum number of files in a directory upload. Their list is kept in memory.
const FILES_MAX: usize = 1_000_000;
/// Maximum depth of nested directories.
const DEPTH_MAX: usize = 256;

/// A file to upload.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    path: PathBuf,
    /// Path relative to the uploaded directory, separated by `/`.
    name: String,
    /// In bytes.
    size: u64,
}

/// The error that ended the request body, with the name of the file. The HTTP client reports only that the body ended.
type ReadError = Arc<OnceLock<String>>;

/// Upload a file or a directory, and pin it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinfold add video.mp4
  pinfold add ./website --name site
  CID=$(pinfold add --quiet report.pdf)")]
pub(crate) struct AddArgs {
    /// File or directory.
    path: PathBuf,
    /// Custom name of the pin. Default: the name of the file or directory.
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    options: PinOptionArgs,
    /// Print only the CID.
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn run(args: AddArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.server)?;
    let metadata =
        fs::metadata(&args.path).with_context(|| format!("cannot read {}", args.path.display()))?;
    let given = base_name(&args.path)?;
    let (route, entries): (&[&str], _) = if metadata.is_dir() {
        (&["files", "directory-dag"], walk(&args.path)?)
    } else if metadata.is_file() {
        let entry = Entry { path: args.path.clone(), name: given.clone(), size: metadata.len() };
        (&["files"], vec![entry])
    } else {
        bail!("{} is neither a file nor a directory", args.path.display());
    };
    if entries.is_empty() {
        bail!("{} contains no files", args.path.display());
    }
    let total = entries.iter().map(|entry| entry.size).sum();
    let bar = if args.quiet { ProgressBar::hidden() } else { byte_progress(Some(total))? };
    let read_error = ReadError::default();
    let form = form(&args, &given, metadata.is_dir(), entries, &bar, &read_error)?;
    let answer = client.send_once(client.request(Method::POST, route)?.multipart(form)).await;
    bar.finish_and_clear();
    if let (Err(_), Some(error)) = (&answer, read_error.get()) {
        bail!("{error}; nothing was pinned");
    }
    let pin = answer?.body;
    if args.server.json {
        return print(&pin.to_string());
    }
    let cid = text(&pin, "cid");
    if args.quiet {
        return print(&cid);
    }
    let stored = pin["total_size"].as_u64().or_else(|| pin["size"].as_u64()).map(size).unwrap_or_default();
    print(&format!("added {cid} {stored} {}", args.name.as_deref().unwrap_or(&given)))
}

/// The multipart body. The options come first, so that the server can reject the request before it reads the files.
fn form(
    args: &AddArgs,
    given: &str,
    is_dir: bool,
    entries: Vec<Entry>,
    bar: &ProgressBar,
    read_error: &ReadError,
) -> anyhow::Result<Form> {
    // File names are sent as plain UTF-8, like browsers and curl do.
    let mut form = Form::new().percent_encode_noop();
    let names = [("cl", &args.options.cl), ("timelock", &args.options.timelock), ("customName", &args.name)];
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
        form = form.part(field, part(entry, bar, read_error)?);
    }
    Ok(form)
}

fn part(entry: Entry, bar: &ProgressBar, read_error: &ReadError) -> anyhow::Result<Part> {
    let bar = bar.clone();
    let (name, size) = (entry.name.clone(), entry.size);
    let chunks = chunks(entry, read_error.clone()).inspect_ok(move |chunk| bar.inc(chunk.len() as u64));
    Ok(Part::stream_with_length(Body::wrap_stream(chunks), size)
        .file_name(name)
        .mime_str("application/octet-stream")?)
}

/// The content of a file: exactly `entry.size` bytes, or an error that is also stored in `read_error`.
fn chunks(entry: Entry, read_error: ReadError) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let content = stream::once(tokio::fs::File::open(entry.path.clone()))
        .map_ok(|file| ReaderStream::with_capacity(file, READ_SIZE))
        .try_flatten();
    let changed = || io::Error::other("the file changed during the upload");
    stream::try_unfold((Box::pin(content), entry.size), move |(mut content, left)| async move {
        match content.try_next().await? {
            Some(chunk) => {
                let left = left.checked_sub(chunk.len() as u64).ok_or_else(changed)?;
                Ok(Some((chunk, (content, left))))
            }
            None if left == 0 => Ok(None),
            None => Err(changed()),
        }
    })
    .inspect_err(move |error: &io::Error| {
        read_error.get_or_init(|| format!("cannot read {}: {error}", entry.path.display()));
    })
}

/// The name of a file or directory, also for `.` and `..`.
fn base_name(path: &Path) -> anyhow::Result<String> {
    let whole = path.canonicalize().with_context(|| format!("cannot read {}", path.display()))?;
    let named = if path.file_name().is_some() { path } else { &whole };
    let name = named.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).with_context(|| format!("the name of {} is not UTF-8", path.display()))
}

/// Every file under `root`, sorted by name.
///
/// # Errors
/// An entry is neither a file nor a directory (a symbolic link could upload files from elsewhere), has a name that is
/// not UTF-8, or cannot be read; or there are too many files or levels.
fn walk(root: &Path) -> anyhow::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut directories = vec![(root.to_owned(), String::new(), 0)];
    while let Some((directory, prefix, depth)) = directories.pop() {
        if depth > DEPTH_MAX {
            bail!("{} has more than {DEPTH_MAX} levels of directories", directory.display());
        }
        for item in
            fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?
        {
            let item = item.with_context(|| format!("cannot read {}", directory.display()))?;
            let path = item.path();
            let name = item.file_name();
            let name =
                name.to_str().with_context(|| format!("the name of {} is not UTF-8", path.display()))?;
            let metadata = item.metadata().with_context(|| format!("cannot read {}", path.display()))?;
            if metadata.is_dir() {
                directories.push((path, format!("{prefix}{name}/"), depth + 1));
            } else if metadata.is_file() {
                entries.push(Entry { path, name: format!("{prefix}{name}"), size: metadata.len() });
            } else {
                bail!(
                    "{} is neither a file nor a directory; remove it, or replace a symbolic link by a copy of its target",
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
    fn directory_is_walked_in_order_with_relative_paths() {
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
    async fn file_that_changes_during_upload_is_named_in_the_error() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("log.txt");
        fs::write(&path, "four").unwrap();
        let sent = |path: &Path, size| {
            let read_error = ReadError::default();
            let entry = Entry { path: path.to_owned(), name: String::new(), size };
            let chunks = chunks(entry, read_error.clone());
            async move {
                (chunks.try_collect::<Vec<_>>().await.ok(), read_error.get().cloned().unwrap_or_default())
            }
        };
        assert_eq!(sent(&path, 4).await, (Some(vec![Bytes::from("four")]), String::new()));
        for size in [0, 3, 5] {
            let (content, error) = sent(&path, size).await;
            assert!(content.is_none() && error.contains("log.txt: the file changed"), "{size}: {error}");
        }
        let (content, error) = sent(&temp.path().join("gone.txt"), 4).await;
        assert!(content.is_none() && error.contains("gone.txt"), "{error}");
    }

    #[test]
    fn symbolic_link_is_rejected_by_name() {
        let temp = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/hostname", temp.path().join("link")).unwrap();
        let message = walk(temp.path()).unwrap_err().to_string();
        assert!(message.contains("link"), "{message}");
    }
}
