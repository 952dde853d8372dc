//! A full or failing disk: every request is answered with an error that says so, stored content stays available, and the
//! server recovers without a restart when the disk does. Everything that was acknowledged survives a power cut.

use std::pin::pin;
use std::time::Duration;

use pinfold_node::blocks::MemoryBlocks;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::content::Dag;
use crate::provider::{Provider, assert_stored};
use crate::server::TestServer;

const FULL: &[StatusCode] = &[StatusCode::INSUFFICIENT_STORAGE];
const BROKEN: &[StatusCode] = &[StatusCode::SERVICE_UNAVAILABLE];

/// A fault of the disk and the expected response statuses.
struct Fault {
    rule: &'static str,
    upload: &'static [StatusCode],
    /// A pin may also be accepted and retried later.
    pin: &'static [StatusCode],
    remove: &'static [StatusCode],
}

const REMOVED: &[StatusCode] = &[StatusCode::OK];
const BROKEN_OR_LATER: &[StatusCode] = &[StatusCode::SERVICE_UNAVAILABLE, StatusCode::ACCEPTED];

/// A server on a simulated disk, with pinned content and further content that it can fetch.
struct Fixture {
    server: TestServer,
    _provider: Provider<MemoryBlocks>,
    pinned: Vec<Dag>,
    available: Vec<Dag>,
    files: u8,
}

impl Fixture {
    async fn new() -> Self {
        let pinned: Vec<Dag> = (1..4).map(|seed| Dag::flat(seed, 20, 10_000)).collect();
        let mut available: Vec<Dag> = (11..13).map(|seed| Dag::flat(seed, 20, 10_000)).collect();
        available.push(Dag::flat(13, 800, 100));
        let provider = Provider::over(MemoryBlocks::new(), &[]).await;
        let all = Dag::over(pinned.iter().chain(&available).cloned().collect());
        provider.add(&all).await;
        let settings = [
            ("node.peers", &*provider.address().await),
            ("blocks.segment_bytes", "1048576"),
            ("pins.retry_first_seconds", "1"),
            ("pins.retry_max_seconds", "1"),
            ("pins.attempts_max", "100"),
        ];
        let server = TestServer::on_faulty_disk(&settings).await;
        for dag in &pinned {
            assert_eq!(server.admin().pin(&dag.text()).await.0, StatusCode::CREATED);
        }
        Self { server, _provider: provider, pinned, available, files: 0 }
    }

    /// Uploads a new file.
    async fn upload(&mut self) -> (StatusCode, Value) {
        self.files += 1;
        in_time(self.server.admin().upload("f", vec![self.files; 300_000])).await
    }

    /// The byte that the file with this CID consists of.
    fn byte_of(&self, cid: &Value) -> u8 {
        let matches = |byte: &u8| *cid == json!(Dag::raw(vec![*byte; 300_000]).text());
        (1..=self.files).find(matches).expect("the file was uploaded")
    }

    async fn pin(&self, dag: &Dag) -> (StatusCode, Value) {
        let admin = self.server.admin();
        let path = format!("/files/pin/{}", dag.text());
        in_time(admin.send(Method::POST, &path, Some("wait=2"), None)).await
    }

    async fn remove(&self, dag: &Dag) -> (StatusCode, Value) {
        in_time(self.server.admin().remove(&dag.text())).await
    }

    /// Checks that health and list requests are answered.
    async fn assert_responsive(&self) {
        let (status, health) = in_time(self.server.admin().send(Method::GET, "/health", None, None)).await;
        assert!([200, 503].contains(&status.as_u16()) && health["status"].is_string(), "{status} {health}");
        in_time(self.server.admin().uploads()).await;
    }
}

/// Requires an answer well before a lease expires, which takes a minute. Requests wait two seconds at most.
async fn in_time<T>(request: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(40), request).await.expect("the request is answered in time")
}

fn assert_answer((status, body): &(StatusCode, Value), expected: &[StatusCode], what: &str) {
    assert!(expected.contains(status), "{what}: {status} {body}");
    if status.as_u16() >= 500 {
        let message = body["message"].as_str().unwrap_or_default();
        assert!(message.len() > 20 && !message.contains('/'), "{what}: {body}");
    }
}

/// The disk fails, recovers and loses power; everything acknowledged survives.
async fn outage(fault: Fault) {
    let mut fixture = Fixture::new().await;
    let (first, second) = (fixture.pinned[0].clone(), fixture.pinned[1].clone());
    fixture.server.disk().fail(&[fault.rule]);
    for _ in 0..2 {
        let answer = fixture.upload().await;
        assert_answer(&answer, fault.upload, "upload");
    }
    let late = fixture.available[0].clone();
    let pinned = fixture.pin(&late).await;
    assert_answer(&pinned, fault.pin, "pin");
    let removed = fixture.remove(&first).await;
    assert_answer(&removed, fault.remove, "remove");
    fixture.assert_responsive().await;
    assert_stored(&fixture.server, &second).await;

    fixture.server.disk().heal();
    assert_recovered(fixture, &removed.0, pinned.0, Vec::new()).await;
}

/// One sync fails and later ones succeed. The kernel has then discarded what it could not write, and the server must not
/// rely on it: everything acknowledged afterwards is durable.
async fn single_sync_failure(rule: &str) {
    let fixture = Fixture::new().await;
    let first = fixture.pinned[0].clone();
    fixture.server.disk().fail(&[rule]);
    // Many blocks, so that many pages are written, which are not written again.
    let large = fixture.available[2].clone();
    let pinned = fixture.pin(&large).await;
    assert_answer(&pinned, &[&[StatusCode::CREATED], BROKEN_OR_LATER].concat(), "pin");
    let removed = fixture.remove(&first).await;
    assert_answer(&removed, &[StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE], "remove");
    fixture.server.disk().heal();
    let mut kept: Vec<Value> = Vec::new();
    if pinned.0.is_success() {
        fixture.server.admin().until_pinned(&large.text()).await;
        kept.push(json!(large.text()));
    }
    assert_recovered(fixture, &removed.0, StatusCode::SERVICE_UNAVAILABLE, kept).await;
}

/// Checks that all requests succeed immediately and are durable.
async fn assert_recovered(mut fixture: Fixture, removed: &StatusCode, pinned: StatusCode, kept: Vec<Value>) {
    let (first, second, late) =
        (fixture.pinned[0].clone(), fixture.pinned[1].clone(), fixture.available[0].clone());
    let (status, file) = fixture.upload().await;
    assert_eq!(status, StatusCode::CREATED, "after recovery: {file}");
    let new = fixture.available[1].clone();
    let (status, body) = fixture.pin(&new).await;
    assert_eq!(status, StatusCode::CREATED, "after recovery: {body}");
    if *removed != StatusCode::OK {
        let (status, body) = fixture.remove(&first).await;
        assert_eq!(status, StatusCode::OK, "after recovery: {body}");
    }
    let mut expected = vec![json!(second.text()), json!(fixture.pinned[2].text()), json!(new.text())];
    expected.push(file["cid"].clone());
    expected.extend(kept);
    if pinned == StatusCode::ACCEPTED {
        fixture.server.admin().until_pinned(&late.text()).await;
        expected.push(json!(late.text()));
    }
    for cut in [true, false] {
        fixture.server.kill().await;
        if cut {
            fixture.server.disk().cut_power(None);
        }
        fixture.server.restart().await;
        let listed = fixture.server.admin().uploads().await;
        let mut listed: Vec<_> =
            listed["uploads"].as_array().unwrap().iter().map(|pin| pin["cid"].clone()).collect();
        let by_text = |a: &Value, b: &Value| a.as_str().cmp(&b.as_str());
        listed.sort_by(by_text);
        expected.sort_by(by_text);
        assert_eq!(listed, expected);
        let dags = fixture.pinned.iter().chain(&fixture.available);
        for dag in dags.filter(|dag| listed.contains(&json!(dag.text()))) {
            fixture.server.admin().until_pinned(&dag.text()).await;
            assert_stored(&fixture.server, dag).await;
        }
        for file in listed.iter().filter(|cid| cid.as_str().unwrap().starts_with("bafkrei")) {
            let leaf = Dag::raw(vec![fixture.byte_of(file); 300_000]);
            assert_stored(&fixture.server, &leaf).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_space_for_segments() {
    let rule = "write ENOSPC segments/ 0";
    outage(Fault { rule, upload: FULL, pin: FULL, remove: REMOVED }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_space_within_a_segment() {
    let rule = "write ENOSPC segments/ 250000";
    outage(Fault { rule, upload: FULL, pin: FULL, remove: REMOVED }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_space_for_the_database() {
    let rule = "write ENOSPC pinfold.db 0";
    outage(Fault { rule, upload: FULL, pin: FULL, remove: FULL }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn segment_writes_fail() {
    let rule = "write EIO segments/ 0";
    outage(Fault { rule, upload: BROKEN, pin: BROKEN_OR_LATER, remove: REMOVED }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn database_writes_fail() {
    let rule = "write EIO pinfold.db 0";
    outage(Fault { rule, upload: BROKEN, pin: BROKEN, remove: BROKEN }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn segment_syncs_fail() {
    let rule = "sync EIO segments/ 0";
    outage(Fault { rule, upload: BROKEN, pin: BROKEN_OR_LATER, remove: REMOVED }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn database_syncs_fail() {
    let rule = "sync EIO pinfold.db 0";
    outage(Fault { rule, upload: BROKEN, pin: BROKEN, remove: BROKEN }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn single_segment_sync_fails() {
    single_sync_failure("sync EIO segments/ 0 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn single_database_sync_fails() {
    single_sync_failure("sync EIO pinfold.db 0 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_space_for_the_database_during_an_upload() {
    let mut fixture = Fixture::new().await;
    for room in (0..90_000).step_by(5_000) {
        let faults = |fixture: &Fixture| fixture.server.log_text().matches("no space left").count();
        let before = faults(&fixture);
        fixture.server.disk().fail(&[&format!("write ENOSPC pinfold.db {room}")]);
        // The upload fails immediately, or waits until there is space and succeeds.
        let answer = {
            let admin = fixture.server.admin();
            let mut upload = pin!(in_time(admin.upload("f", room.to_string().into_bytes())));
            let mut ticks = tokio::time::interval(Duration::from_millis(10));
            loop {
                tokio::select! {
                    answer = &mut upload => break answer,
                    _ = ticks.tick() => {}
                }
                if faults(&fixture) > before {
                    fixture.server.disk().heal();
                }
            }
        };
        fixture.server.disk().heal();
        assert_answer(&answer, &[StatusCode::CREATED, StatusCode::INSUFFICIENT_STORAGE], "upload");
        let (status, body) = fixture.upload().await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn database_reads_fail() {
    let mut fixture = Fixture::new().await;
    fixture.server.disk().fail(&["read EIO pinfold.db 0"]);
    let ok_or_broken = [StatusCode::OK, StatusCode::CREATED, StatusCode::SERVICE_UNAVAILABLE];
    let (first, second) = (fixture.pinned[0].clone(), fixture.pinned[1].clone());
    let answer = fixture.upload().await;
    assert_answer(&answer, &ok_or_broken, "upload");
    assert_answer(&fixture.pin(&second).await, &ok_or_broken, "pin");
    let list = in_time(fixture.server.admin().send(Method::GET, "/users/me/uploads", None, None)).await;
    assert_answer(&list, &ok_or_broken, "list");
    let removed = fixture.remove(&first).await;
    assert_answer(&removed, &ok_or_broken, "remove");
    fixture.server.disk().heal();
    let kept = (answer.0 == StatusCode::CREATED).then(|| answer.1["cid"].clone());
    assert_recovered(fixture, &removed.0, StatusCode::SERVICE_UNAVAILABLE, kept.into_iter().collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn segment_reads_fail() {
    let mut fixture = Fixture::new().await;
    let bob = fixture.server.account("bob").await;
    fixture.server.disk().fail(&["read EIO segments/ 0"]);
    let path = format!("/files/pin/{}", fixture.pinned[0].text());
    let answer = in_time(bob.send(Method::POST, &path, Some("wait=2"), None)).await;
    assert_answer(
        &answer,
        &[StatusCode::CREATED, StatusCode::ACCEPTED, StatusCode::SERVICE_UNAVAILABLE],
        "pin",
    );
    assert_eq!(fixture.server.admin().uploads().await["total"], 3);
    fixture.server.disk().heal();
    let (status, body) = in_time(bob.send(Method::POST, &path, None, None)).await;
    assert!([StatusCode::OK, StatusCode::CREATED].contains(&status), "{body}");
    assert_stored(&fixture.server, &fixture.pinned[0]).await;
    let (status, body) = fixture.upload().await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
}

/// With a full index, a pin may also be accepted and retried later.
const FULL_OR_LATER: &[StatusCode] = &[StatusCode::INSUFFICIENT_STORAGE, StatusCode::ACCEPTED];

#[tokio::test(flavor = "multi_thread")]
async fn index_writes_fail() {
    let rule = "write EIO index/ 0";
    outage(Fault { rule, upload: BROKEN, pin: BROKEN_OR_LATER, remove: REMOVED }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_space_for_the_index() {
    let rule = "write ENOSPC index/ 0";
    outage(Fault { rule, upload: FULL, pin: FULL_OR_LATER, remove: REMOVED }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_space_within_an_index_batch() {
    let rule = "write ENOSPC index/ 100";
    outage(Fault { rule, upload: FULL, pin: FULL_OR_LATER, remove: REMOVED }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn index_syncs_fail() {
    let rule = "sync EIO index/ 0";
    outage(Fault { rule, upload: BROKEN, pin: BROKEN_OR_LATER, remove: REMOVED }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn single_index_sync_fails() {
    single_sync_failure("sync EIO index/ 0 1").await;
}
