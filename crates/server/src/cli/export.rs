//! `pinfold export`: a CAR from the store to stdout or into a file.

use std::fs::{File, Permissions};
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use pinfold_node::car::export::TRUNCATION_MARK;

use super::operator::ExportArgs;
use crate::admin_client::{AdminClient, Needs, Pieces, get};

/// Runs the command.
pub(crate) async fn run(args: ExportArgs) -> anyhow::Result<()> {
    if args.output.is_none() && std::io::stdout().is_terminal() {
        bail!("a CAR is not for a terminal; redirect stdout, or name a file with --output");
    }
    let cid = cid::Cid::try_from(args.cid.as_str()).with_context(|| format!("{:?} is no CID", args.cid))?;
    let link = AdminClient::open(&args.place, Needs::Stores).await?;
    let written = async {
        let mut pieces = link.stream(get(&format!("/export/{cid}"))?).await?;
        match &args.output {
            Some(path) => to_file(&link, &mut pieces, path).await,
            None => write(&link, &mut pieces, &mut stdout()?).await,
        }
    }
    .await;
    link.close().await;
    written.with_context(|| format!("cannot export {cid}"))
}

/// Writes into a file that gets its name when it is whole.
async fn to_file(link: &AdminClient, pieces: &mut Pieces, path: &Path) -> anyhow::Result<()> {
    // A pipe or a device stays what it is.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        let out = File::options().write(true).open(path);
        return write(link, pieces, &mut out.with_context(|| format!("cannot write {}", path.display()))?)
            .await;
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().with_context(|| format!("{} is no name for a file", path.display()))?;
    let mut prefix = name.to_os_string();
    prefix.push(".partial-");
    // As any file that a command writes; the umask takes off what it shall not have.
    let mut file = tempfile::Builder::new()
        .prefix(&prefix)
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .with_context(|| format!("cannot write in {}", folder.display()))?;
    write(link, pieces, file.as_file_mut()).await?;
    file.as_file().sync_all().with_context(|| format!("cannot write {}", path.display()))?;
    file.persist(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

/// Stdout as the file that it is: Rust's own looks for ends of lines in all that is written.
fn stdout() -> std::io::Result<File> {
    Ok(std::io::stdout().as_fd().try_clone_to_owned()?.into())
}

async fn write(link: &AdminClient, pieces: &mut Pieces, out: &mut File) -> anyhow::Result<()> {
    let mut has_begun = false;
    loop {
        match link.next(pieces).await {
            Ok(Some(piece)) => out.write_all(&piece)?,
            Ok(None) => return Ok(()),
            Err(error) if has_begun => {
                // Where it broke may be just after a block.
                out.write_all(TRUNCATION_MARK)?;
                return Err(error);
            }
            Err(error) => return Err(error),
        }
        has_begun = true;
    }
}
