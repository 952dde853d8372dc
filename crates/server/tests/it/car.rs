//! Export and import of CAR files.

use std::path::Path;
use std::process::Output;

use cid::Cid;
use pinfold_node::Block;
use pinfold_node::car::{CarError, CarReader};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::content::Dag;
use crate::provider::{Provider, assert_stored};
use crate::server::TestServer;

/// A file with these bytes, and the temporary directory that contains it.
fn file(bytes: &[u8]) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.car");
    std::fs::write(&path, bytes).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

/// Asserts that a command failed and returns its stderr.
fn assert_failed(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    text
}

async fn assert_empty(server: &TestServer) {
    server.until_stats("empty", |stats| stats["holds"] == 0 && stats["blocks"] == 0).await;
    assert_eq!(server.admin().uploads().await["uploads"], json!([]));
}

/// The roots and the verified blocks of a CAR.
async fn read(car: &[u8]) -> Result<(Vec<Cid>, Vec<Cid>), CarError> {
    let mut reader = CarReader::open(car).await?;
    let mut cids = Vec::new();
    while let Some((cid, data)) = reader.next_section().await? {
        cids.push(*Block::verify(cid, data).unwrap().cid());
    }
    Ok((reader.roots().to_vec(), cids))
}

/// A CARv2 that contains a CARv1 and an index.
fn version_2(inside: &[u8]) -> Vec<u8> {
    let mut car = b"\x0a\xa1\x67version\x02".to_vec();
    let (start, length) = (64_u64, inside.len() as u64);
    car.extend([0; 16]);
    car.extend([start, length, start + length].map(u64::to_le_bytes).concat());
    car.resize(64, 0);
    car.extend(inside);
    car.extend(b"an index that is ignored");
    car
}

#[tokio::test(flavor = "multi_thread")]
async fn directory_is_moved_to_another_server_as_a_car() {
    let mut first = TestServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    for at in 0..20 {
        std::fs::write(folder.path().join(format!("{at}.bin")), vec![at; 300_000]).unwrap();
    }
    let cid = first.cli_ok(&["add", folder.path().to_str().unwrap(), "-q"]).await;
    let exported = first.cli(&["export", &cid]).await;
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    let (roots, cids) = read(&exported.stdout).await.unwrap();
    assert_eq!((roots, cids.len()), (vec![cid.parse().unwrap()], 21));

    let out = folder.path().join("out.car");
    first.stop().await;
    first.cli_ok(&["export", &cid, "--output", out.to_str().unwrap()]).await;
    assert!(std::fs::read(&out).unwrap() == exported.stdout, "the export is the same without a server");

    let second = TestServer::start().await;
    let said = second.cli_ok(&["import", out.to_str().unwrap(), "--name", "moved"]).await;
    assert!(said.starts_with(&format!("pinned {cid}")), "{said}");
    let pins = second.admin().uploads().await;
    assert_eq!((&pins["total"], &pins["uploads"][0]["customName"]), (&json!(1), &json!("moved")));
    assert!(second.cli(&["export", &cid]).await.stdout == exported.stdout);
    let stats = second.until_stats("without temporary holds", |stats| stats["holds"] == 1).await;
    assert_eq!(stats["blocks"], 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_car_versions_are_imported_from_stdin_with_and_without_a_server() {
    let mut server = TestServer::start().await;
    let dags = [1, 2, 3].map(|seed| Dag::flat(seed, 5, 100_000));
    let inputs = [
        dags[0].car(&[*dags[0].root()]),
        version_2(&dags[1].car(&[*dags[1].root()])),
        version_2(&dags[2].car(&[*dags[2].root()])),
    ];
    for (at, (dag, car)) in dags.iter().zip(&inputs).enumerate() {
        if at == 2 {
            server.stop().await;
        }
        let output = server.cli_with(&["import", "-", "--json"], car).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let expected = json!([{ "cid": dag.text(), "status": "pinned", "size": dag.bytes() }]);
        assert_eq!((&report["blocks"], &report["roots"]), (&json!(6), &expected));
    }
    server.restart().await;
    for dag in &dags {
        assert_stored(&server, dag).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_root_becomes_a_pin_of_the_account() {
    let server = TestServer::start().await;
    let alice = server.account("alice").await;
    let (one, two) = (Dag::flat(1, 3, 1_000), Dag::flat(2, 4, 1_000));
    let both = Dag { blocks: [one.blocks.clone(), two.blocks.clone()].concat() };
    let (_folder, path) = file(&both.car(&[*one.root(), *two.root(), *one.root()]));
    server.cli_ok(&["import", &path, "--email", "alice@example.org", "--cl", "cl0-global"]).await;
    let pins = alice.uploads().await;
    let mut cids: Vec<&str> =
        pins["uploads"].as_array().unwrap().iter().map(|pin| pin["cid"].as_str().unwrap()).collect();
    cids.sort_unstable();
    let mut expected = [one.text(), two.text()];
    expected.sort_unstable();
    assert_eq!(cids, expected);
    assert_eq!(server.admin().uploads().await["total"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_missing_in_the_car_are_fetched() {
    let dag = Dag::flat(4, 30, 10_000);
    let provider = Provider::of(&dag).await;
    let server = TestServer::with(&[("node.peers", &provider.address().await)]).await;
    let (_folder, path) = file(&dag.part(10).car(&[*dag.root()]));
    let said = server.cli_ok(&["import", &path]).await;
    assert!(said.starts_with("pinned"), "{said}");
    provider.stop().await;
    assert_stored(&server, &dag).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn incomplete_root_is_reported_and_leaves_nothing() {
    let server = TestServer::with(&[("pins.find_seconds", "1"), ("pins.stall_seconds", "1")]).await;
    let dag = Dag::flat(5, 10, 10_000);
    let (_folder, path) = file(&dag.part(5).car(&[*dag.root()]));
    let output = server.cli(&["import", &path]).await;
    assert!(assert_failed(&output).contains("1 of 1 roots"));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with(&format!("failed {}", dag.root())), "{said}");
    assert_empty(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_or_corrupt_car_is_rejected_and_leaves_nothing() {
    let mut server = TestServer::start().await;
    let dag = Dag::flat(6, 40, 100_000);
    let car = dag.car(&[*dag.root()]);
    let mut flipped = car.clone();
    flipped[3_000_000] ^= 0x10;
    for (bad, reason) in [
        (&car[..10], "cut off"),
        (&car[..3_000_000], "cut off"),
        (&car[..car.len() - 1], "cut off"),
        (&flipped, "invalid block"),
        (
            &b"PK\x03\x04 is not what a CAR begins with, nor does anything follow here that could stand in its header"[..],
            "invalid CAR",
        ),
    ] {
        let said = assert_failed(&server.cli_with(&["import", "-"], bad).await);
        assert!(said.contains(reason), "{reason}: {said}");
        assert_empty(&server).await;
    }
    server.stop().await;
    let said = assert_failed(&server.cli_with(&["import", "-"], &flipped).await);
    assert!(said.contains("invalid block"), "{said}");
    server.restart().await;
    assert_empty(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn car_without_roots_requires_a_root_option() {
    let server = TestServer::start().await;
    let dag = Dag::flat(7, 4, 10_000);
    let rootless = dag.car(&[]);
    let segment = dag.car(&["bafkqaaa".parse().unwrap()]);
    for car in [&rootless, &segment] {
        let said = assert_failed(&server.cli_with(&["import", "-"], car).await);
        assert!(said.contains("names no root"), "{said}");
        assert_empty(&server).await;
    }
    let (_folder, path) = file(&segment);
    server.cli_ok(&["import", &path, "--root", &dag.text()]).await;
    assert_stored(&server, &dag).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn import_is_limited_by_the_plan() {
    let server = TestServer::with(&[("plans.free.storage_bytes", "200000")]).await;
    let alice = server.account("alice").await;
    let (large, small) = (Dag::flat(8, 3, 100_000), Dag::flat(9, 1, 100_000));
    let (_folder, path) = file(&large.car(&[*large.root()]));
    let said = assert_failed(&server.cli(&["import", &path, "--email", "alice@example.org"]).await);
    assert!(said.contains("Not enough storage"), "{said}");
    assert_empty(&server).await;
    let (_folder, path) = file(&small.car(&[*small.root()]));
    server.cli_ok(&["import", &path, "--email", "alice@example.org", "--no-wait"]).await;
    alice.until_pinned(&small.text()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn export_of_a_damaged_dag_fails_and_names_the_block() {
    let mut server = TestServer::start().await;
    let dag = Dag::flat(10, 40, 100_000);
    let (folder, path) = file(&dag.car(&[*dag.root()]));
    server.cli_ok(&["import", &path]).await;
    server.stop().await;
    let bad = &dag.blocks[30];
    server.damage(bad.data());
    server.restart().await;

    for way in ["over the socket", "without a server"] {
        let output = server.cli(&["export", &dag.text()]).await;
        let said = assert_failed(&output);
        assert!(said.contains(&bad.cid().to_string()) && said.contains("damaged"), "{way}: {said}");
        assert!(output.stdout.len() > 1_000_000, "{way}: earlier blocks were written");
        let read = read(&output.stdout).await;
        assert!(matches!(read, Err(CarError::CutOff(_))), "{way}: a reader detects the truncation: {read:?}");

        let out = folder.path().join("out.car");
        assert_failed(&server.cli(&["export", &dag.text(), "--output", out.to_str().unwrap()]).await);
        assert_eq!(names(folder.path()), ["x.car"], "{way}: no complete or partial file");
        if way == "over the socket" {
            server.stop().await;
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn export_of_unknown_cid_fails() {
    let server = TestServer::start().await;
    let nowhere = Dag::raw("nowhere");
    let output = server.cli(&["export", &nowhere.text()]).await;
    assert!(assert_failed(&output).contains(&nowhere.text()) && output.stdout.is_empty());
    assert!(assert_failed(&server.cli(&["export", "nonsense"]).await).contains("not a CID"));
}
