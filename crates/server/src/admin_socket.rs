//! The administration socket: a Unix socket in the data directory on which a running server accepts administrative
//! commands.
//!
//! The socket lies in the data folder, for its user alone. Its folder's lock proves that whoever left one
//! there is dead, so it is replaced. A server without a socket (its path is too long, or the file system has
//! none) runs all the same, and says so in its log.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) mod routes;

/// Commands that are answered at one time; more wait.
const COMMANDS_MAX: usize = 16;
/// Connections that the system keeps for us until they are answered.
const BACKLOG: i32 = 64;
/// How long the head of a request may take.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// How long commands may go on when the server stops.
const GRACE_TIME: Duration = Duration::from_secs(2);
/// How long to pause after an accept that failed: the usual cause is a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
                let task = tokio::spawn(answer(listener, owner, router, stopping));
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

async fn answer(listener: UnixListener, owner: u32, router: Router, stopping: CancellationToken) {
    let (cut, commands) = (CancellationToken::new(), TaskTracker::new());
    let places = Arc::new(Semaphore::new(COMMANDS_MAX));
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            Some((accept(&listener, owner).await?, place))
        };
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = accepted => accepted,
        };
        let Some((stream, place)) = accepted else { continue };
        let (router, cut, stopping) = (router.clone(), cut.clone(), stopping.clone());
        commands.spawn(async move {
            tokio::select! {
                () = converse(stream, router, stopping) => {}
                () = cut.cancelled() => {}
            }
            drop(place);
        });
    }
    drop(listener);
    commands.close();
    if tokio::time::timeout(GRACE_TIME, commands.wait()).await.is_err() {
        cut.cancel();
        commands.wait().await;
    }
}

/// The next connection of the socket's owner, or of root.
async fn accept(listener: &UnixListener, owner: u32) -> Option<UnixStream> {
    match listener.accept().await {
        Ok((stream, _)) => {
            let user = stream.peer_cred().ok()?.uid();
            (user == owner || user == 0).then_some(stream)
        }
        Err(error) => {
            tracing::warn!(%error, "accepting on the control socket");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn converse(stream: UnixStream, router: Router, stopping: CancellationToken) {
    let service = TowerToHyperService::new(router);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = &mut connection => outcome,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a command's connection broke");
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
