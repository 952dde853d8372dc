//! A disk that is full or fails: every request is answered, with a sentence that says so; what was kept before
//! stays; and once the disk is well again, so is the server, without a restart. What it answered with success,
//! before, meanwhile or after, survives a power cut.

use std::pin::pin;
use std::time::Duration;

use pinfold_node::blocks::MemoryBlocks;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::content::Dag;
use crate::provider::{Provider, assert_held};
use crate::server::TestServer;

const FULL: &[StatusCode] = &[StatusCode::INSUFFICIENT_STORAGE];
const BROKEN: &[StatusCode] = &[StatusCode::SERVICE_UNAVAILABLE];

/// What fails, and what the answers are then.
struct Fault {
    rule: &'static str,
    upload: &'static [StatusCode],
    /// A pin may also be taken on: then it is tried again later.
    pin: &'static [StatusCode],
    remove: &'static [StatusCode],
}

const REMOVED: &[StatusCode] = &[StatusCode::OK];
const BROKEN_OR_LATER: &[StatusCode] = &[StatusCode::SERVICE_UNAVAILABLE, StatusCode::ACCEPTED];

/// A server on a disk, with content that it holds and some that it can get.
struct Scene {
    server: TestServer,
    _provider: Provider<MemoryBlocks>,
    kept: Vec<Dag>,
    wanted: Vec<Dag>,
    files: u8,
}

impl Scene {
    async fn new() -> Self {
        let kept: Vec<Dag> = (1..4).map(|seed| Dag::flat(seed, 20, 10_000)).collect();
        let mut wanted: Vec<Dag> = (11..13).map(|seed| Dag::flat(seed, 20, 10_000)).collect();
        wanted.push(Dag::flat(13, 800, 100));
        let provider = Provider::over(MemoryBlocks::new(), &[]).await;
        let all = Dag::over(kept.iter().chain(&wanted).cloned().collect());
        provider.add(&all).await;
        let settings = [
            ("node.peers", &*provider.address().await),
            ("blocks.segment_bytes", "1048576"),
            ("pins.retry_first_seconds", "1"),
            ("pins.retry_max_seconds", "1"),
            ("pins.attempts_max", "100"),
        ];
        let server = TestServer::on_disk(&settings).await;
        for dag in &kept {
            assert_eq!(server.admin().pin(&dag.text()).await.0, StatusCode::CREATED);
        }
        Self { server, _provider: provider, kept, wanted, files: 0 }
    }

    /// Uploads a file that is new.
    async fn upload(&mut self) -> (StatusCode, Value) {
        self.files += 1;
        in_time(self.server.admin().upload("f", vec![self.files; 300_000])).await
    }

    /// What the file with this CID is made of.
    fn byte_of(&self, cid: &Value) -> u8 {
        let is_it = |byte: &u8| *cid == json!(Dag::raw(vec![*byte; 300_000]).text());
        (1..=self.files).find(is_it).expect("it was uploaded")
    }

    async fn pin(&self, dag: &Dag) -> (StatusCode, Value) {
        let admin = self.server.admin();
        let path = format!("/files/pin/{}", dag.text());
        in_time(admin.send(Method::POST, &path, Some("wait=2"), None)).await
    }

    async fn remove(&self, dag: &Dag) -> (StatusCode, Value) {
        in_time(self.server.admin().remove(&dag.text())).await
    }

    /// It lives and can tell what it has, whatever else does not work.
    async fn answers(&self) {
        let (status, health) = in_time(self.server.admin().send(Method::GET, "/health", None, None)).await;
        assert!([200, 503].contains(&status.as_u16()) && health["status"].is_string(), "{status} {health}");
        in_time(self.server.admin().uploads()).await;
    }
}

/// No request takes much longer than the two seconds that some of them may wait; and none waits for a lease to
/// run out, which takes a minute.
async fn in_time<T>(request: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(40), request).await.expect("it is answered")
}

fn assert_told((status, body): &(StatusCode, Value), expected: &[StatusCode], what: &str) {
    assert!(expected.contains(status), "{what}: {status} {body}");
    if status.as_u16() >= 500 {
        let message = body["message"].as_str().unwrap_or_default();
        assert!(message.len() > 20 && !message.contains('/'), "{what}: {body}");
    }
}

/// The disk fails, is healed, loses its power: what was promised is there all the same.
async fn outage(fault: Fault) {
    let mut scene = Scene::new().await;
    let (first, second) = (scene.kept[0].clone(), scene.kept[1].clone());
    scene.server.disk().fail(&[fault.rule]);
    for _ in 0..2 {
        let told = scene.upload().await;
        assert_told(&told, fault.upload, "upload");
    }
    let late = scene.wanted[0].clone();
    let pinned = scene.pin(&late).await;
    assert_told(&pinned, fault.pin, "pin");
    let removed = scene.remove(&first).await;
    assert_told(&removed, fault.remove, "remove");
    scene.answers().await;
    assert_held(&scene.server, &second).await;

    scene.server.disk().heal();
    healthy(scene, &removed.0, pinned.0, Vec::new()).await;
}

/// One sync fails, and none after it: what is answered with success from then on is durable all the same. The
/// kernel has forgotten by then what it could not save.
async fn hiccup(rule: &str) {
    let scene = Scene::new().await;
    let first = scene.kept[0].clone();
    scene.server.disk().fail(&[rule]);
    // Of many blocks: what is written for it takes many pages, which nobody writes again.
    let large = scene.wanted[2].clone();
    let pinned = scene.pin(&large).await;
    assert_told(&pinned, &[&[StatusCode::CREATED], BROKEN_OR_LATER].concat(), "pin");
    let removed = scene.remove(&first).await;
    assert_told(&removed, &[StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE], "remove");
    scene.server.disk().heal();
    let mut kept: Vec<Value> = Vec::new();
    if pinned.0.is_success() {
        scene.server.admin().until_pinned(&large.text()).await;
        kept.push(json!(large.text()));
    }
    healthy(scene, &removed.0, StatusCode::SERVICE_UNAVAILABLE, kept).await;
}

/// Everything works, at once, and is durable.
async fn healthy(mut scene: Scene, removed: &StatusCode, pinned: StatusCode, kept: Vec<Value>) {
    let (first, second, late) = (scene.kept[0].clone(), scene.kept[1].clone(), scene.wanted[0].clone());
    let (status, file) = scene.upload().await;
    assert_eq!(status, StatusCode::CREATED, "it is healed: {file}");
    let new = scene.wanted[1].clone();
    let (status, body) = scene.pin(&new).await;
    assert_eq!(status, StatusCode::CREATED, "it is healed: {body}");
    if *removed != StatusCode::OK {
        let (status, body) = scene.remove(&first).await;
        assert_eq!(status, StatusCode::OK, "it is healed: {body}");
    }
    let mut expected = vec![json!(second.text()), json!(scene.kept[2].text()), json!(new.text())];
    expected.push(file["cid"].clone());
    expected.extend(kept);
    if pinned == StatusCode::ACCEPTED {
        scene.server.admin().until_pinned(&late.text()).await;
        expected.push(json!(late.text()));
    }
    for cut in [true, false] {
        scene.server.kill().await;
        if cut {
            scene.server.disk().cut_power(None);
        }
        scene.server.restart().await;
        let listed = scene.server.admin().uploads().await;
        let mut listed: Vec<_> =
            listed["uploads"].as_array().unwrap().iter().map(|pin| pin["cid"].clone()).collect();
        let by_text = |a: &Value, b: &Value| a.as_str().cmp(&b.as_str());
        listed.sort_by(by_text);
        expected.sort_by(by_text);
        assert_eq!(listed, expected);
        let dags = scene.kept.iter().chain(&scene.wanted);
        for dag in dags.filter(|dag| listed.contains(&json!(dag.text()))) {
            scene.server.admin().until_pinned(&dag.text()).await;
            assert_held(&scene.server, dag).await;
        }
        for file in listed.iter().filter(|cid| cid.as_str().unwrap().starts_with("bafkrei")) {
            let leaf = Dag::raw(vec![scene.byte_of(file); 300_000]);
            assert_held(&scene.server, &leaf).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_space_for_segments() {
    let rule = "write ENOSPC segments/ 0";
    outage(Fault { rule, upload: FULL, pin: FULL, remove: REMOVED }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_space_in_the_middle_of_a_segment() {
    let rule = "write ENOSPC segments/ 250000";
    outage(Fault { rule, upload: FULL, pin: FULL, remove: REMOVED }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_space_for_the_database() {
    let rule = "write ENOSPC pinfold.db 0";
    outage(Fault { rule, upload: FULL, pin: FULL, remove: FULL }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_that_cannot_be_written() {
    let rule = "write EIO segments/ 0";
    outage(Fault { rule, upload: BROKEN, pin: BROKEN_OR_LATER, remove: REMOVED }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_written() {
    let rule = "write EIO pinfold.db 0";
    outage(Fault { rule, upload: BROKEN, pin: BROKEN, remove: BROKEN }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_that_cannot_be_synced() {
    let rule = "sync EIO segments/ 0";
    outage(Fault { rule, upload: BROKEN, pin: BROKEN_OR_LATER, remove: REMOVED }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_synced() {
    let rule = "sync EIO pinfold.db 0";
    outage(Fault { rule, upload: BROKEN, pin: BROKEN, remove: BROKEN }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sync_of_the_segments_fails() {
    hiccup("sync EIO segments/ 0 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sync_of_the_database_fails() {
    hiccup("sync EIO pinfold.db 0 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_finds_no_space_in_the_middle_of_an_upload() {
    let mut scene = Scene::new().await;
    for room in (0..90_000).step_by(5_000) {
        let faults = |scene: &Scene| scene.server.log_text().matches("no space left").count();
        let before = faults(&scene);
        scene.server.disk().fail(&[&format!("write ENOSPC pinfold.db {room}")]);
        // It is told at once, or waits until there is space again, and is kept then.
        let told = {
            let admin = scene.server.admin();
            let mut upload = pin!(in_time(admin.upload("f", room.to_string().into_bytes())));
            let mut looks = tokio::time::interval(Duration::from_millis(10));
            loop {
                tokio::select! {
                    told = &mut upload => break told,
                    _ = looks.tick() => {}
                }
                if faults(&scene) > before {
                    scene.server.disk().heal();
                }
            }
        };
        scene.server.disk().heal();
        assert_told(&told, &[StatusCode::CREATED, StatusCode::INSUFFICIENT_STORAGE], "upload");
        let (status, body) = scene.upload().await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_read() {
    let mut scene = Scene::new().await;
    scene.server.disk().fail(&["read EIO pinfold.db 0"]);
    let ok_or_broken = [StatusCode::OK, StatusCode::CREATED, StatusCode::SERVICE_UNAVAILABLE];
    let (first, second) = (scene.kept[0].clone(), scene.kept[1].clone());
    let told = scene.upload().await;
    assert_told(&told, &ok_or_broken, "upload");
    assert_told(&scene.pin(&second).await, &ok_or_broken, "pin");
    let list = in_time(scene.server.admin().send(Method::GET, "/users/me/uploads", None, None)).await;
    assert_told(&list, &ok_or_broken, "list");
    let removed = scene.remove(&first).await;
    assert_told(&removed, &ok_or_broken, "remove");
    scene.server.disk().heal();
    let kept = (told.0 == StatusCode::CREATED).then(|| told.1["cid"].clone());
    healthy(scene, &removed.0, StatusCode::SERVICE_UNAVAILABLE, kept.into_iter().collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_that_cannot_be_read() {
    let mut scene = Scene::new().await;
    let bob = scene.server.account("bob").await;
    scene.server.disk().fail(&["read EIO segments/ 0"]);
    let path = format!("/files/pin/{}", scene.kept[0].text());
    let told = in_time(bob.send(Method::POST, &path, Some("wait=2"), None)).await;
    assert_told(&told, &[StatusCode::CREATED, StatusCode::ACCEPTED, StatusCode::SERVICE_UNAVAILABLE], "pin");
    assert_eq!(scene.server.admin().uploads().await["total"], 3);
    scene.server.disk().heal();
    let (status, body) = in_time(bob.send(Method::POST, &path, None, None)).await;
    assert!([StatusCode::OK, StatusCode::CREATED].contains(&status), "{body}");
    assert_held(&scene.server, &scene.kept[0]).await;
    let (status, body) = scene.upload().await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
}

/// A pin that finds the index full may also be taken on for later.
const FULL_OR_LATER: &[StatusCode] = &[StatusCode::INSUFFICIENT_STORAGE, StatusCode::ACCEPTED];

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_cannot_be_written() {
    let rule = "write EIO index/ 0";
    outage(Fault { rule, upload: BROKEN, pin: BROKEN_OR_LATER, remove: REMOVED }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_space_for_the_index() {
    let rule = "write ENOSPC index/ 0";
    outage(Fault { rule, upload: FULL, pin: FULL_OR_LATER, remove: REMOVED }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_space_in_the_middle_of_a_batch_of_the_index() {
    let rule = "write ENOSPC index/ 100";
    outage(Fault { rule, upload: FULL, pin: FULL_OR_LATER, remove: REMOVED }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_cannot_be_synced() {
    let rule = "sync EIO index/ 0";
    outage(Fault { rule, upload: BROKEN, pin: BROKEN_OR_LATER, remove: REMOVED }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sync_of_the_index_fails() {
    hiccup("sync EIO index/ 0 1").await;
}
