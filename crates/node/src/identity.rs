//! The node's identity: an ed25519 key in a file that only its owner can read.
//!
//! The file contains the key as libp2p's `PrivateKey` protobuf. It is written to a temporary file, synced and renamed, so
//! that a crash leaves a complete key or none. The key is never logged: [`Identity`]'s `Debug` shows only the peer id.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use libp2p::PeerId;
use libp2p::identity::Keypair;

/// The maximum size of a key file in bytes. An ed25519 key takes 68, an RSA-4096 key about 2,400.
const FILE_SIZE_MAX: u64 = 8 * 1024;

/// The node's private key.
#[derive(Clone)]
pub struct Identity(Keypair);

/// Why the key could not be read or created.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or written.
    #[error("cannot {action} the node's key at {}: {source}", path.display())]
    Io {
        /// `read` or `write`.
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The file does not contain a key. It is left unchanged: a new key would change the peer id.
    #[error("{} does not contain a libp2p private key; restore it, or move it away to create a new identity", .0.display())]
    NotAKey(PathBuf),
}

impl Identity {
    /// A new key that is not stored.
    #[must_use]
    pub fn generate() -> Self {
        Self(Keypair::generate_ed25519())
    }

    /// Reads the key at `path`, or creates and stores a new one if there is no such file. The folder must exist. If other
    /// users can read the file, its permissions are restricted.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        let failed = |action| move |source| IdentityError::Io { action, path: path.to_owned(), source };
        match File::open(path) {
            Ok(file) => {
                make_private(&file).map_err(failed("close to others"))?;
                let mut bytes = Vec::new();
                file.take(FILE_SIZE_MAX).read_to_end(&mut bytes).map_err(failed("read"))?;
                let key = Keypair::from_protobuf_encoding(&bytes);
                key.map(Self).map_err(|_| IdentityError::NotAKey(path.to_owned()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let identity = Self::generate();
                identity.store(path).map_err(failed("write"))?;
                Ok(identity)
            }
            Err(error) => Err(failed("read")(error)),
        }
    }

    /// The peer id of this node.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.0.public().to_peer_id()
    }

    /// The key pair, for handshakes.
    pub(crate) fn keypair(&self) -> &Keypair {
        &self.0
    }

    fn store(&self, path: &Path) -> io::Result<()> {
        let bytes = self.0.to_protobuf_encoding().map_err(io::Error::other)?;
        let draft = path.with_extension("new");
        // A temporary file was left by a crash; its key was never used.
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = private_file(&draft)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        sync_folder_of(path)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.peer_id()).finish()
    }
}

fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}

#[cfg(unix)]
fn make_private(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if file.metadata()?.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    tracing::warn!("the node's key file is readable by other users; restricting its permissions");
    file.set_permissions(fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn make_private(_file: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => File::open(folder)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

#[cfg(not(unix))]
fn sync_folder_of(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_id_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        let first = Identity::load_or_create(&path).unwrap();
        let second = Identity::load_or_create(&path).unwrap();
        assert_eq!(first.peer_id(), second.peer_id());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft stays");
    }

    #[cfg(unix)]
    #[test]
    fn key_file_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let made = Identity::load_or_create(&path).unwrap();
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(Identity::load_or_create(&path).unwrap().peer_id(), made.peer_id());
        assert_eq!(mode(), 0o600, "a key that was left open is closed");
    }

    #[test]
    fn damaged_key_is_refused_and_left_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        fs::write(&path, b"not a key").unwrap();
        assert!(matches!(Identity::load_or_create(&path), Err(IdentityError::NotAKey(_))));
        assert_eq!(fs::read(&path).unwrap(), b"not a key");
    }

    #[test]
    fn debug_shows_no_secret() {
        let identity = Identity::generate();
        assert_eq!(format!("{identity:?}"), format!("Identity({:?})", identity.peer_id()));
    }
}
