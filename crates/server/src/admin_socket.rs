//! The administration socket: a Unix socket in the data directory on which a running server accepts administrative
//! commands from its own user and from root.
//!
//! The server holds the lock of the data directory, so an existing socket belongs to a dead process and is replaced. If
//! the socket cannot be created, because its path is too long or the file system does not support sockets, the server
//! logs a warning and runs without it.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use pinfold_http::{Accepted, ConnectionLimits, Listener, serve_listener};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) mod routes;

/// Maximum number of concurrent connections; further ones wait.
const CONNECTIONS_MAX: usize = 16;
/// Length of the listen queue.
const BACKLOG: i32 = 64;
/// Maximum time to receive a request head.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// How long running commands may continue when the server stops.
const GRACE_TIME: Duration = Duration::from_secs(2);
/// Maximum size of a request head, in bytes.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// A running administration socket.
pub(crate) struct AdminSocket {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl AdminSocket {
    /// Serves `router` on a socket at `path` until `stopping` is cancelled. Logs a warning and returns `None` if the
    /// socket cannot be created. The data directory must be locked.
    pub(crate) fn start(path: PathBuf, router: Router, stopping: CancellationToken) -> Option<Self> {
        match bind(&path) {
            Ok((listener, owner)) => {
                let listener = AdminConnections { listener, owner };
                let task = tokio::spawn(serve_listener(listener, router, limits(), stopping));
                Some(Self { path, task })
            }
            Err(error) => {
                tracing::warn!(
                    path = %path.display(), %error,
                    "failed to create the admin socket; export, import, backup and blocks do not work while this \
                     server runs"
                );
                None
            }
        }
    }

    /// Waits for the running commands and removes the socket.
    pub(crate) async fn stop(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "admin socket task failed");
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "failed to remove the admin socket");
        }
    }
}

/// Creates the socket with mode 0600. Returns the listener and the user id of the owner.
fn bind(path: &Path) -> io::Result<(UnixListener, u32)> {
    match path.symlink_metadata() {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::other("a file that is not a socket has this name")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // No connection is possible before `listen`, so the mode is set in time.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let owner = path.symlink_metadata()?.uid();
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener = std::os::unix::net::UnixListener::from(std::os::fd::OwnedFd::from(socket));
    Ok((UnixListener::from_std(listener)?, owner))
}

/// Accepts connections from the owner of the socket and from root; those of other users are refused.
struct AdminConnections {
    listener: UnixListener,
    owner: u32,
}

impl Listener for AdminConnections {
    type Stream = UnixStream;
    type Guard = ();

    async fn accept(&self) -> io::Result<Option<Accepted<UnixStream, ()>>> {
        let (stream, _) = self.listener.accept().await?;
        let user = stream.peer_cred().ok().map(|peer| peer.uid());
        let is_allowed = user.is_some_and(|user| user == self.owner || user == 0);
        Ok(is_allowed.then_some(Accepted { stream, address: None, guard: () }))
    }
}

fn limits() -> ConnectionLimits {
    ConnectionLimits {
        max: CONNECTIONS_MAX,
        header_time: HEADER_TIME,
        // An export may wait for a slow disk.
        write_time: None,
        header_bytes_max: HEADER_BYTES_MAX,
        grace_time: GRACE_TIME,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(path: PathBuf) -> (Option<AdminSocket>, CancellationToken) {
        let stopping = CancellationToken::new();
        (AdminSocket::start(path, Router::new(), stopping.clone()), stopping)
    }

    #[tokio::test]
    async fn stale_socket_is_replaced_and_removed_at_shutdown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pinfold.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (socket, stopping) = start(path.clone());
        UnixStream::connect(&path).await.unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        stopping.cancel();
        socket.unwrap().stop().await;
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn path_that_is_too_long_gives_no_socket() {
        let dir = tempfile::tempdir().unwrap();
        assert!(start(dir.path().join("x".repeat(200))).0.is_none());
    }

    #[tokio::test]
    async fn regular_file_at_the_path_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pinfold.sock");
        std::fs::write(&path, "mine").unwrap();
        assert!(start(path.clone()).0.is_none());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }
}
