//! The first start, and accounts and plans that are managed from the command line.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::server::TestServer;

async fn json(server: &TestServer, arguments: &[&str]) -> Value {
    serde_json::from_str(&server.cli_ok(arguments).await).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn first_start_reads_the_password_and_writes_the_key_to_files() {
    let secrets = tempfile::tempdir().unwrap();
    let (password, key) = (secrets.path().join("password"), secrets.path().join("key"));
    std::fs::write(&password, "correct horse battery\nand more\n").unwrap();
    let settings = [
        ("admin.email", "ops@example.org"),
        ("admin.password_file", password.to_str().unwrap()),
        ("admin.key_file", key.to_str().unwrap()),
    ];
    let mut server = TestServer::without_key(&settings).await;
    assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&key).unwrap();
    server.key = text.trim().to_owned();
    server.cli_ok(&["ls"]).await;
    let listed = json(&server, &["user", "list", "--json"]).await;
    assert_eq!((&listed["email"], &listed["role"]), (&"ops@example.org".into(), &"admin".into()));

    // The settings are ignored once there is an account, so the password file may be missing.
    std::fs::remove_file(&password).unwrap();
    server.stop().await;
    server.restart().await;
    server.cli_ok(&["ls"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_and_plans_are_changed_while_the_server_runs() {
    let server = TestServer::start().await;
    server.cli_ok(&["user", "create", "--email", "ada@example.org", "--no-password"]).await;
    let small =
        json(&server, &["plan", "set", "small", "--storage", "10", "--name", "Small", "--json"]).await;
    assert_eq!((&small["source"], &small["storageBytes"]), (&"saved".into(), &10.into()));
    let set = ["user", "set", "ada@example.org", "--plan", "small", "--json"];
    assert_eq!(json(&server, &set).await["storageLimitBytes"], 10);
    let token = ["token", "create", "--email", "ada@example.org", "--name", "k"];
    let key = server.cli_ok(&token).await;
    let (status, body) = server.client(&key).upload("a.txt", b"more than ten bytes".to_vec()).await;
    assert_eq!((status.as_u16(), &body["code"]), (403, &"quota_exceeded".into()), "{body}");

    let in_use = server.cli(&["plan", "delete", "small"]).await;
    assert_eq!(in_use.status.code(), Some(1));
    server.cli_ok(&["plan", "set", "small", "--storage", "1000"]).await;
    let (status, body) = server.client(&key).upload("a.txt", b"more than ten bytes".to_vec()).await;
    assert_eq!(status.as_u16(), 201, "the new limit applies immediately: {body}");

    server.cli_ok(&["user", "set", "ada@example.org", "--disable"]).await;
    assert_eq!(server.cli(&["ls", "--key", &key]).await.status.code(), Some(1));
    server.cli_ok(&["user", "set", "ada@example.org", "--enable", "--plan", "free"]).await;
    server.cli_ok(&["ls", "--key", &key]).await;
    server.cli_ok(&["plan", "delete", "small"]).await;
    let listed = server.cli_ok(&["plan", "list"]).await;
    assert!(listed.contains("free") && !listed.contains("small"), "{listed}");

    let last = server.cli(&["user", "set", "admin@localhost", "--role", "user"]).await;
    let message = String::from_utf8(last.stderr).unwrap();
    assert!(last.status.code() == Some(1) && message.contains("last enabled account"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_admin_settings_are_named_without_the_password() {
    for (settings, part) in [
        ([("admin.email", "nobody"), ("admin.password", "")], "admin.email"),
        ([("admin.email", "a@b.c"), ("admin.password", "short")], "password"),
        ([("admin.email", "a@b.c"), ("admin.password_file", "/no/such/file")], "/no/such/file"),
    ] {
        let message = TestServer::fail_to_start(&settings).await;
        assert!(message.contains(part), "{message}");
        assert!(!message.contains("short"), "a password is not shown: {message}");
    }
}
