//! The administration socket, and commands that cannot use it.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::content::Dag;
use crate::server::{TIMEOUT, TestServer};

#[tokio::test(flavor = "multi_thread")]
async fn socket_is_private_removed_at_shutdown_and_replaced_after_a_kill() {
    let mut server = TestServer::start().await;
    let socket = server.data_dir().join("pinfold.sock");
    let metadata = socket.metadata().unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    server.cli_ok(&["blocks", "stats"]).await;

    server.kill().await;
    assert!(socket.exists(), "a kill leaves the socket");
    server.cli_ok(&["blocks", "stats"]).await;
    server.restart().await;
    server.cli_ok(&["blocks", "stats"]).await;
    server.stop().await;
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn server_without_a_socket_runs_and_commands_say_what_to_do() {
    let server = TestServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("x".repeat(100));
    let mut child = server
        .command(&["serve", "--listen", "127.0.0.1:0", "--swarm-listen", "/ip4/127.0.0.1/tcp/0"])
        .env("PINFOLD_DATA_DIR", &long)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = async {
        while !lines.next_line().await.unwrap().expect("the server starts").starts_with("Pinfold is ready") {}
    };
    tokio::time::timeout(TIMEOUT, ready).await.expect("the server starts in time");

    let refused = server.command(&["blocks", "stats"]).env("PINFOLD_DATA_DIR", &long).output().await.unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("pinfold.sock") && said.contains("stop it"), "{said}");
    child.kill().await.unwrap();
    let served = server.command(&["blocks", "stats"]).env("PINFOLD_DATA_DIR", &long).output().await.unwrap();
    assert!(served.status.success(), "the command works without a server");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_create_nothing_in_a_directory_without_a_database() {
    let server = TestServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    for command in [&["blocks", "stats"][..], &["backup", "/tmp/never"], &["blocks", "rebuild-index"]] {
        let refused = server.command(command).env("PINFOLD_DATA_DIR", folder.path()).output().await.unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.status.code() == Some(1) && said.contains("contains no Pinfold data"), "{said}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_ends_a_running_import() {
    // A full segment is committed, which makes the hold visible.
    let mut server = TestServer::with(&[("blocks.segment_bytes", "1000000")]).await;
    let mut import = server
        .command(&["import", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let dag = Dag::flat(40, 100, 100_000);
    let mut stdin = import.stdin.take().unwrap();
    stdin.write_all(&dag.car(&[*dag.root()])[..9_000_000]).await.unwrap();
    server.until_stats("importing", |stats| stats["holds"] == 1).await;
    server.stop().await;
    drop(stdin);
    let output =
        tokio::time::timeout(TIMEOUT, import.wait_with_output()).await.expect("the import ends").unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    server.restart().await;
    server.until_stats("empty", |stats| stats["holds"] == 0).await;
}
