//! Backups of running and stopped servers, and restores from them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::StatusCode;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::server::{Client, TestServer};

/// Small segments, so that there are several.
const SETTINGS: [(&str, &str); 1] = [("blocks.segment_bytes", "4000000")];

/// Bytes that are different for each number.
fn content(number: u32, length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ (u64::from(number) + 1).wrapping_mul(0xd1b5_4a32_d192_ed03);
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(next).take(length / 8 + 1).flatten().collect();
    bytes.truncate(length);
    bytes
}

/// Uploads a file of several blocks and returns its CID once it is pinned.
async fn upload(client: &Client<'_>, number: u32) -> String {
    let (status, pin) = client.upload(&number.to_string(), content(number, 2_500_000)).await;
    assert_eq!(status, StatusCode::CREATED, "{pin}");
    assert_eq!(pin["status"], "pinned", "{pin}");
    pin["cid"].as_str().unwrap().to_owned()
}

/// Asserts that all of these are pinned and that every block of them can be read.
async fn assert_complete(server: &TestServer, cids: &[String]) {
    for cid in cids {
        let (status, pin) = server.admin().status(cid).await;
        assert_eq!((status, &pin["status"]), (StatusCode::OK, &"pinned".into()), "{cid}: {pin}");
        server.cli_ok(&["export", cid, "--output", "/dev/null"]).await;
    }
}

/// Asserts that the accounted storage equals the sizes of the pins.
async fn assert_accounting_balances(server: &TestServer) {
    let users: Value = serde_json::from_str(&server.cli_ok(&["user", "list", "--json"]).await).unwrap();
    let pins = server.cli_ok(&["ls", "--json"]).await;
    let sizes =
        pins.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["size"].as_u64().unwrap());
    assert_eq!(users["usedBytes"].as_u64().unwrap(), sizes.sum::<u64>(), "{users}");
}

/// The SHA-256 of every file in a directory.
fn checksums(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(checksums(&path));
        } else {
            found.insert(path.clone(), Sha256::digest(std::fs::read(&path).unwrap()).to_vec());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_under_load_contains_all_earlier_pins() {
    let mut server = TestServer::with(&SETTINGS).await;
    let place = tempfile::tempdir().unwrap();
    let (mut kept, mut removed) = (Vec::new(), Vec::new());
    for number in 0..16 {
        let cid = upload(&server.admin(), number).await;
        if number % 2 == 0 { &mut kept } else { &mut removed }.push(cid);
    }
    let backups: Vec<PathBuf> = (0..3).map(|at| place.path().join(format!("backup {at}"))).collect();
    {
        let is_done = AtomicBool::new(false);
        let make = async {
            for backup in &backups {
                server.cli_ok(&["backup", backup.to_str().unwrap()]).await;
            }
            is_done.store(true, Ordering::Relaxed);
        };
        let remove = async {
            for cid in &removed {
                assert_eq!(server.admin().remove(cid).await.0, StatusCode::OK);
            }
        };
        let work = |client: u32| {
            let (server, is_done) = (&server, &is_done);
            async move {
                let mut number = 1_000 * client;
                while !is_done.load(Ordering::Relaxed) {
                    let cid = upload(&server.admin(), number).await;
                    if !number.is_multiple_of(3) {
                        assert_eq!(server.admin().remove(&cid).await.0, StatusCode::OK);
                    }
                    number += 1;
                }
            }
        };
        tokio::join!(make, remove, work(1), work(2));
    }
    assert_complete(&server, &kept).await;
    server.stop().await;
    std::fs::remove_dir_all(server.data_dir()).unwrap();

    for (backup, options) in backups.iter().zip([&[][..], &["--copy"], &[]]) {
        let mut restored = server.restored(backup, options).await;
        assert_complete(&restored, &kept).await;
        restored.until_stats("verified", |stats| stats["pinsToVerify"] == 0).await;
        assert_complete(&restored, &kept).await;
        assert_accounting_balances(&restored).await;
        let pins = restored.admin().uploads().await["total"].clone();
        let stats = restored.until_stats("without temporary holds", |stats| stats["holds"] == pins).await;
        assert_eq!(stats["damagedBlocks"], 0);
        restored.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_is_not_changed_by_the_original_server() {
    let mut server = TestServer::with(&SETTINGS).await;
    let place = tempfile::tempdir().unwrap();
    let backup = place.path().join("backup");
    let mut cids = Vec::new();
    for number in 0..8 {
        cids.push(upload(&server.admin(), number).await);
    }
    server.cli_ok(&["backup", backup.to_str().unwrap()]).await;
    let before = checksums(&backup);

    // Segments lose some or all of their blocks and are appended to; then the server restarts on them.
    for cid in &cids[..7] {
        assert_eq!(server.admin().remove(cid).await.0, StatusCode::OK);
    }
    for number in 100..104 {
        upload(&server.admin(), number).await;
    }
    server.until_stats("freed", |stats| stats["bytes"].as_u64() < Some(13_000_000)).await;
    server.stop().await;
    server.restart().await;
    upload(&server.admin(), 200).await;
    assert_complete(&server, &cids[7..]).await;
    assert!(checksums(&backup) == before, "the backup is unchanged");

    let restored = server.restored(&backup, &[]).await;
    assert_complete(&restored, &cids).await;
    restored.until_stats("verified", |stats| stats["holds"] == 8 && stats["pinsToVerify"] == 0).await;
    for cid in &cids {
        assert_eq!(restored.admin().remove(cid).await.0, StatusCode::OK);
    }
    restored.until_stats("empty", |stats| stats["blocks"] == 0).await;
    assert!(checksums(&backup) == before, "the restored server does not change the backup either");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_server_is_backed_up_with_keys_and_configuration() {
    let mut server = TestServer::start().await;
    let place = tempfile::tempdir().unwrap();
    let backup = place.path().join("backup");
    let key = server.account("alice").await;
    let (status, pin) = key.upload("file", content(1, 100_000)).await;
    assert_eq!(status, StatusCode::CREATED);
    let peer = server.cli_ok(&["id", "--json"]).await;
    server.stop().await;
    std::fs::write(server.data_dir().join("pinfold.toml"), "[http]\nwait_default_seconds = 61\n").unwrap();
    server.cli_ok(&["backup", backup.to_str().unwrap()]).await;
    for (name, mode) in [("pinfold.db", 0o600), ("identity.key", 0o600), ("pinfold.toml", 0o600), ("", 0o700)]
    {
        use std::os::unix::fs::PermissionsExt;
        let found = std::fs::metadata(backup.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{name}");
    }
    let restored = server.restored(&backup, &[]).await;
    let id: Value = serde_json::from_str(&restored.cli_ok(&["id", "--json"]).await).unwrap();
    assert_eq!(
        id["id"],
        serde_json::from_str::<Value>(&peer).unwrap()["id"],
        "the restored node has the same identity"
    );
    assert!(restored.data_dir().join("pinfold.toml").exists());
    let owners = restored.cli_ok(&["user", "list"]).await;
    assert!(owners.contains("alice@example.org") && pin["cid"].is_string(), "{owners}");
    restored.cli_ok(&["export", pin["cid"].as_str().unwrap(), "--output", "/dev/null"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn incomplete_backup_and_interrupted_restore_are_rejected() {
    let mut server = TestServer::start().await;
    let place = tempfile::tempdir().unwrap();
    let backup = place.path().join("backup");
    let cid = upload(&server.admin(), 1).await;
    server.cli_ok(&["backup", backup.to_str().unwrap()]).await;
    let refused = server.cli(&["backup", backup.to_str().unwrap()]).await;
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(1) && said.contains("not empty"), "{said}");
    assert!(
        server.cli(&["restore", backup.to_str().unwrap()]).await.status.code() == Some(1),
        "a server runs"
    );
    server.stop().await;

    let refused = server.cli(&["restore", backup.to_str().unwrap()]).await;
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(1) && said.contains("is not empty"), "{said}");
    server.cli_ok(&["blocks", "verify"]).await;

    let manifest = std::fs::read(backup.join("backup.json")).unwrap();
    std::fs::remove_file(backup.join("backup.json")).unwrap();
    let empty = tempfile::tempdir().unwrap();
    let data = ["--data-dir", empty.path().to_str().unwrap()];
    let restore = [&["restore", backup.to_str().unwrap()], &data[..]].concat();
    let refused = server.cli(&restore).await;
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(1) && said.contains("not a complete backup"), "{said}");
    std::fs::write(backup.join("backup.json"), manifest).unwrap();

    // An interrupted restore leaves its files and the marker file.
    server.cli_ok(&restore).await;
    let blocks = empty.path().join("blocks");
    std::fs::write(empty.path().join("restore.unfinished"), blocks.to_str().unwrap()).unwrap();
    std::fs::remove_file(empty.path().join("identity.key")).unwrap();
    for command in [&["serve", "--no-bootstrap"][..], &["blocks", "stats"], &["user", "list"]] {
        let refused = server.cli(&[command, &data[..]].concat()).await;
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.status.code() == Some(1) && said.contains("did not finish"), "{command:?}: {said}");
    }
    server.cli_ok(&restore).await;
    server.cli_ok(&[&["blocks", "verify"], &data[..]].concat()).await;
    server.cli_ok(&[&["export", &cid, "--output", "/dev/null"], &data[..]].concat()).await;
}
