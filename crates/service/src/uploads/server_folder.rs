//! Folders on the server that clients may upload: only below the roots that the operator configured.
//!
//! A folder is opened from its root down, one path segment at a time, without following symbolic links, so that no link
//! leads outside, also if entries are replaced meanwhile. An entry that is neither a file nor a folder is an error that
//! names it, so that nothing is missing silently.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;

use super::path::check_path;
use crate::Error;

/// Maximum nesting of folders, as for paths of uploads.
const DEPTH_MAX: usize = 128;

/// Maximum entries that an error names.
const NAMED_MAX: usize = 10;

/// Open without following symbolic links, and without blocking on a pipe.
const SAFELY: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// An open folder below a root, and the listing of its entries.
pub(super) struct ServerFolder {
    dir: Arc<OwnedFd>,
    pub(super) name: String,
    /// Paths of its files, sorted.
    pub(super) files: Vec<String>,
    /// Paths of empty folders in it.
    pub(super) empty_folders: Vec<String>,
}

/// A listing in progress.
struct Listing {
    entries_max: usize,
    entries: usize,
    files: Vec<String>,
    empty_folders: Vec<String>,
    misfits: Vec<String>,
}

impl ServerFolder {
    /// Opens and lists a folder with at most `entries_max` files and folders. Blocks.
    ///
    /// # Errors
    /// [`Error::FolderNotAllowed`] if it is not below a root, whether it exists or not; [`Error::InvalidRequest`].
    pub(super) fn open(roots: &[PathBuf], path: &str, entries_max: usize) -> Result<Self, Error> {
        let (root, names) = below_a_root(roots, Path::new(path)).ok_or(Error::FolderNotAllowed)?;
        let mut dir = open(CWD, root.as_os_str(), OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC)
            .map_err(|error| {
                tracing::warn!(root = %root.display(), %error, "failed to open a root for uploads");
                Error::Unavailable { retry_after: None }
            })?;
        for name in &names {
            dir =
                open(dir.as_fd(), OsStr::from_bytes(name), SAFELY | OFlags::DIRECTORY).map_err(no_folder)?;
        }
        let name = names.last().map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
        let mut listing = Listing::new(entries_max);
        listing.list(dir.as_fd(), "", 1)?;
        listing.check()?;
        let Listing { files, empty_folders, .. } = listing;
        Ok(Self { dir: Arc::new(dir), name, files, empty_folders })
    }

    /// Opens one of its files for reading.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] if it is not a readable file any more.
    pub(super) async fn file(&self, path: &str) -> Result<tokio::fs::File, Error> {
        let (dir, path) = (Arc::clone(&self.dir), path.to_owned());
        let opened = tokio::task::spawn_blocking(move || {
            let opened = open_file(dir.as_fd(), &path);
            opened.map_err(|_| {
                Error::InvalidRequest(format!("{} can't be read, or is not a file any more", shown(&path)))
            })
        });
        Ok(tokio::fs::File::from_std(opened.await.map_err(|_| Error::Internal)??))
    }
}

impl Listing {
    fn new(entries_max: usize) -> Self {
        Self { entries_max, entries: 0, files: Vec::new(), empty_folders: Vec::new(), misfits: Vec::new() }
    }

    /// Recurses as deep as [`DEPTH_MAX`].
    fn list(&mut self, dir: BorrowedFd<'_>, prefix: &str, depth: usize) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(Error::InvalidRequest(format!(
                "The folder has more than {DEPTH_MAX} levels of folders"
            )));
        }
        let names = self.names(dir)?;
        if names.is_empty() && !prefix.is_empty() {
            self.empty_folders.push(prefix.trim_end_matches('/').to_owned());
        }
        for name in names {
            let path = format!("{prefix}{}", String::from_utf8_lossy(name.as_bytes()));
            if name.to_str().is_err() || check_path(&path).is_err() {
                self.misfit(&path, "is not a valid path in a directory");
                continue;
            }
            let stat = statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(unreadable)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => self.files.push(path),
                FileType::Directory => {
                    let inner = open(dir, OsStr::from_bytes(name.as_bytes()), SAFELY | OFlags::DIRECTORY);
                    let inner = inner.map_err(no_folder)?;
                    self.list(inner.as_fd(), &format!("{path}/"), depth + 1)?;
                }
                FileType::Symlink => self.misfit(&path, "is a symbolic link"),
                FileType::Fifo => self.misfit(&path, "is a pipe"),
                FileType::Socket => self.misfit(&path, "is a socket"),
                FileType::CharacterDevice | FileType::BlockDevice => self.misfit(&path, "is a device"),
                FileType::Unknown => self.misfit(&path, "is neither a file nor a folder"),
            }
        }
        Ok(())
    }

    /// The sorted names in a folder.
    fn names(&mut self, dir: BorrowedFd<'_>) -> Result<Vec<CString>, Error> {
        let mut names = Vec::new();
        for entry in Dir::read_from(dir).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            self.entries += 1;
            if self.entries > self.entries_max {
                let text = format!("The folder has more than {} files and folders", self.entries_max);
                return Err(Error::InvalidRequest(text));
            }
            names.push(entry.file_name().to_owned());
        }
        names.sort();
        Ok(names)
    }

    fn misfit(&mut self, path: &str, what: &str) {
        if self.misfits.len() < NAMED_MAX {
            self.misfits.push(format!("{} {what}", shown(path)));
        }
    }

    /// Fails with the entries that can't be uploaded.
    fn check(&self) -> Result<(), Error> {
        if self.misfits.is_empty() {
            return Ok(());
        }
        Err(Error::InvalidRequest(format!(
            "Only files and folders can be uploaded: {}",
            self.misfits.join(", ")
        )))
    }
}

/// The root that contains a path, with symbolic links in the root's own path resolved, and the segments below it.
fn below_a_root(roots: &[PathBuf], path: &Path) -> Option<(PathBuf, Vec<Vec<u8>>)> {
    for root in roots {
        // The configured path may contain symbolic links, and clients may use either form.
        let Ok(real) = root.canonicalize() else { continue };
        for spelling in [root, &real] {
            let Ok(rest) = path.strip_prefix(spelling) else { continue };
            let names: Option<Vec<_>> = rest.components().map(name_of).collect();
            return Some((real.clone(), names?));
        }
    }
    None
}

/// A plain segment; `..` is rejected.
fn name_of(component: Component<'_>) -> Option<Vec<u8>> {
    match component {
        Component::Normal(name) => Some(name.as_bytes().to_vec()),
        Component::CurDir | Component::ParentDir | Component::RootDir | Component::Prefix(_) => None,
    }
}

fn open(dir: BorrowedFd<'_>, name: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat(dir, name, flags, Mode::empty())
}

fn open_file(dir: BorrowedFd<'_>, path: &str) -> Result<File, Errno> {
    let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
    let mut at: Option<OwnedFd> = None;
    for parent in parents.split('/').filter(|parent| !parent.is_empty()) {
        let from = at.as_ref().map_or(dir, AsFd::as_fd);
        at = Some(open(from, OsStr::new(parent), SAFELY | OFlags::DIRECTORY)?);
    }
    let file = open(at.as_ref().map_or(dir, AsFd::as_fd), OsStr::new(name), SAFELY)?;
    match FileType::from_raw_mode(fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(File::from(file)),
        FileType::Directory
        | FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Err(Errno::INVAL),
    }
}

/// A path from the client, quoted and shortened for an error message.
fn shown(path: &str) -> String {
    let short: String = path.chars().take(200).collect();
    format!("{short:?}")
}

fn no_folder(error: Errno) -> Error {
    tracing::debug!(%error, "failed to open a folder");
    let text = "The folder does not exist or can't be read; symbolic links are not followed";
    Error::InvalidRequest(text.to_owned())
}

fn unreadable(error: Errno) -> Error {
    tracing::warn!(%error, "failed to read a folder");
    Error::InvalidRequest("The folder can't be read, or it changed during the upload".to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tokio::io::AsyncReadExt;

    use super::*;

    /// A root with a folder that has two files, and files outside the root.
    fn home() -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join("root/site/sub")).unwrap();
        fs::create_dir(home.path().join("outside")).unwrap();
        for path in ["root/site/a", "root/site/sub/b", "outside/a", "outside/b"] {
            fs::write(home.path().join(path), path).unwrap();
        }
        home
    }

    fn open(home: &tempfile::TempDir, path: &str) -> Result<ServerFolder, Error> {
        let path = home.path().join(path);
        ServerFolder::open(&[home.path().join("root")], path.to_str().unwrap(), 3)
    }

    #[tokio::test]
    async fn entries_replaced_by_links_are_not_followed() {
        let home = home();
        let folder = open(&home, "root/site").unwrap();
        assert_eq!(folder.files, ["a", "sub/b"]);
        let site = home.path().join("root/site");
        fs::remove_file(site.join("a")).unwrap();
        symlink(home.path().join("outside/a"), site.join("a")).unwrap();
        fs::rename(site.join("sub"), site.join("old")).unwrap();
        symlink(home.path().join("outside"), site.join("sub")).unwrap();
        for path in ["a", "sub/b", "sub", "nothing"] {
            let refused = folder.file(path).await;
            assert!(matches!(refused, Err(Error::InvalidRequest(_))), "{path}: {refused:?}");
        }
        // The open folder is read even if its name leads to a link now.
        fs::rename(&site, home.path().join("root/moved")).unwrap();
        symlink(home.path().join("outside"), &site).unwrap();
        let mut text = String::new();
        folder.file("old/b").await.unwrap().read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "root/site/sub/b");
        assert!(open(&home, "root/site").is_err(), "opened again, it is a link");
    }

    #[test]
    fn folder_with_too_many_entries_is_refused() {
        let home = home();
        assert!(open(&home, "root/site").is_ok(), "two files and a folder");
        fs::write(home.path().join("root/site/sub/c"), "").unwrap();
        let refused = open(&home, "root/site").err();
        assert!(
            matches!(&refused, Some(Error::InvalidRequest(text)) if text.contains("more than 3")),
            "{refused:?}"
        );
    }
}
