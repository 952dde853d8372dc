//! The administration socket: a Unix socket in the data directory on which a running server accepts administrative
//! commands.
//!
//! The socket lies in the data folder, for its user alone. Its folder's lock proves that whoever left one
//! there is dead, so it is replaced. A server without a socket (its path is too long, or the file system has
//! none) runs all the same, and says so in its log.

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

/// Commands that are answered at one time; more wait.
const COMMANDS_MAX: usize = 16;
/// Connections that the system keeps for us until they are answered.
const BACKLOG: i32 = 64;
/// How long the head of a request may take.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// How long commands may go on when the server stops.
const GRACE_TIME: Duration = Duration::from_secs(2);
/// The largest head of a request, in bytes.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// A socket that is answered.
pub(crate) struct AdminSocket {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl AdminSocket {
    /// Answers at `path` with `router` until `stopping` is cancelled; `None`, and a warning in the log, if there
    /// can be no socket. The data folder must be locked.
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
                    "no control socket: export, import, backup and blocks don't work while this server runs"
                );
                None
            }
        }
    }

    /// Waits until nobody is answered any more, and takes the socket away.
    pub(crate) async fn stop(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the control socket broke");
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "taking the control socket away");
        }
    }
}

/// Binds the socket for its user alone; gives that user's number too.
fn bind(path: &Path) -> io::Result<(UnixListener, u32)> {
    match path.symlink_metadata() {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::other("something else has this name")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Nobody can connect before it listens, so nobody comes before its mode is set.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let owner = path.symlink_metadata()?.uid();
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener = std::os::unix::net::UnixListener::from(std::os::fd::OwnedFd::from(socket));
    Ok((UnixListener::from_std(listener)?, owner))
}

/// The connections of the socket's owner and of root; those of other users are refused.
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
        max: COMMANDS_MAX,
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
    async fn the_socket_of_a_dead_process_is_replaced_and_goes_with_the_server() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pinfold.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (control, stopping) = start(path.clone());
        UnixStream::connect(&path).await.unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        stopping.cancel();
        control.unwrap().stop().await;
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_is_no_reason_to_stop() {
        let dir = tempfile::tempdir().unwrap();
        assert!(start(dir.path().join("x".repeat(200))).0.is_none());
    }

    #[tokio::test]
    async fn a_file_of_that_name_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pinfold.sock");
        std::fs::write(&path, "mine").unwrap();
        assert!(start(path.clone()).0.is_none());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }
}
