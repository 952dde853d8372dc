//! `pinfold export`: writes a stored DAG as a CAR to stdout or to a file.

use std::fs::{File, Permissions};
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use pinfold_node::car::export::TRUNCATION_MARK;

use super::DataDirArgs;
use crate::admin_client::{AdminClient, Needs, ResponseStream, get};

/// Write a stored DAG as a CAR file to stdout or to --output.
///
/// The CAR has the CID as its root and each block once, in depth-first order. Every block is verified as it is read. If a
/// block is missing or damaged, the command exits with status 1 and leaves a truncated CAR, which readers reject. A file
/// given by --output appears only when it is complete.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinfold export bafybei… > photos.car
  pinfold export bafybei… --output photos.car
  pinfold export bafybei… | ssh other pinfold import -")]
pub(crate) struct ExportArgs {
    /// Root CID of the DAG.
    cid: String,
    /// File to write. Default: stdout.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    data: DataDirArgs,
}

pub(super) async fn run(args: ExportArgs) -> anyhow::Result<()> {
    if args.output.is_none() && std::io::stdout().is_terminal() {
        bail!("stdout is a terminal; redirect it, or use --output FILE");
    }
    let cid =
        cid::Cid::try_from(args.cid.as_str()).with_context(|| format!("{:?} is not a CID", args.cid))?;
    let client = args.data.admin_client(Needs::Stores).await?;
    let written = async {
        let mut stream = client.stream(get(&format!("/export/{cid}"))?).await?;
        match &args.output {
            Some(path) => write_file(&client, &mut stream, path).await,
            None => write(&client, &mut stream, &mut stdout()?).await,
        }
    }
    .await;
    client.close().await;
    written.with_context(|| format!("cannot export {cid}"))
}

/// Writes to a temporary file and renames it when it is complete.
async fn write_file(client: &AdminClient, stream: &mut ResponseStream, path: &Path) -> anyhow::Result<()> {
    // A pipe or a device is written to, not replaced.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        let out = File::options().write(true).open(path);
        return write(client, stream, &mut out.with_context(|| format!("cannot write {}", path.display()))?)
            .await;
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().with_context(|| format!("{} is not a file name", path.display()))?;
    let mut prefix = name.to_os_string();
    prefix.push(".partial-");
    // The mode of an ordinary file; the umask applies.
    let mut file = tempfile::Builder::new()
        .prefix(&prefix)
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(parent)
        .with_context(|| format!("cannot write in {}", parent.display()))?;
    write(client, stream, file.as_file_mut()).await?;
    file.as_file().sync_all().with_context(|| format!("cannot write {}", path.display()))?;
    file.persist(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

/// Stdout as a file, because Rust's `Stdout` is line-buffered.
fn stdout() -> std::io::Result<File> {
    Ok(std::io::stdout().as_fd().try_clone_to_owned()?.into())
}

async fn write(client: &AdminClient, stream: &mut ResponseStream, out: &mut File) -> anyhow::Result<()> {
    let mut has_started = false;
    loop {
        match client.next(stream).await {
            Ok(Some(chunk)) => out.write_all(&chunk)?,
            Ok(None) => return Ok(()),
            Err(error) if has_started => {
                // The stream may have ended exactly after a block. This makes the CAR invalid in any case.
                out.write_all(TRUNCATION_MARK)?;
                return Err(error);
            }
            Err(error) => return Err(error),
        }
        has_started = true;
    }
}
