//! Tests of uploads.

use std::time::Duration;

use pinfold_cluster::{ClusterError, Fate, Gate};
use pinfold_model::{PinKind, PinState, Plan, PlanLimits, Plans};
use pinfold_service::{Error, Settings, UploadRequest};

use crate::world::{MIB, World};

fn body(mib: usize) -> impl tokio::io::AsyncRead + Send + Unpin {
    std::io::Cursor::new(vec![7; mib << 20])
}

#[tokio::test]
async fn upload_is_pinned_and_its_hold_released() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let background = world.service.run();
    let uploads = &world.service.uploads;
    let received = uploads.receive(&alice, &UploadRequest::default(), body(1)).await.unwrap();
    assert_eq!(received.file_bytes(), MIB);
    let receipt = uploads.keep(&alice, received, UploadRequest::default()).await.unwrap();
    assert_eq!((receipt.view.state, receipt.created), (PinState::Pinned, true));

    let again = uploads.receive(&alice, &UploadRequest::default(), body(1)).await.unwrap();
    let receipt = uploads.keep(&alice, again, UploadRequest::default()).await.unwrap();
    assert!(!receipt.created);
    background.stop().await;
    world.run_until_idle().await;
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn upload_that_is_not_kept_leaves_nothing() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let uploads = &world.service.uploads;
    drop(uploads.receive(&alice, &UploadRequest::default(), body(1)).await.unwrap());

    let broken = tokio_util::io::StreamReader::new(futures::stream::iter([
        Ok(bytes::Bytes::from_static(b"half of")),
        Err(std::io::Error::other("the client disconnected")),
    ]));
    let cut = uploads.receive(&alice, &UploadRequest::default(), broken).await;
    assert_eq!(cut.err(), Some(Error::UploadCutOff));
    world.run_until_idle().await;
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn upload_over_the_quota_is_refused() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let large = world.cluster.publish("almost all", (1 << 30) - MIB);
    world.create_pin(&alice, large).await.unwrap();
    world.run_until_idle().await;
    let uploads = &world.service.uploads;
    let over = uploads.receive(&alice, &UploadRequest::default(), body(2)).await;
    assert_eq!(over.err(), Some(Error::QuotaExceeded));

    // Two files that fit alone do not fit together.
    let one = uploads.receive(&alice, &UploadRequest::default(), body(1)).await.unwrap();
    let two = std::io::Cursor::new(vec![8; 1 << 20]);
    let two = uploads.receive(&alice, &UploadRequest::default(), two).await.unwrap();
    let background = world.service.run();
    let (one, two) = tokio::join!(
        uploads.keep(&alice, one, UploadRequest::default()),
        uploads.keep(&alice, two, UploadRequest::default())
    );
    assert_eq!([one, two].iter().filter(|outcome| **outcome == Err(Error::QuotaExceeded)).count(), 1);
    background.stop().await;
    world.run_until_idle().await;
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn detached_upload_keeps_its_failed_pin() {
    let settings = Settings { upload_wait: Duration::ZERO, attempts_max: 2, ..Settings::default() };
    let world = World::start_with(settings).await;
    let alice = world.account("alice", "free").await;
    let uploads = &world.service.uploads;
    let received = uploads.receive(&alice, &UploadRequest::default(), body(1)).await.unwrap();
    let cid = *received.cid();
    let down = Fate::Fails(ClusterError::Unavailable("connection refused".to_owned()));
    world.cluster.script_hold(&cid, [down.clone(), down]);
    let receipt = uploads.keep(&alice, received, UploadRequest::default()).await.unwrap();
    assert_eq!((receipt.view.state, receipt.created), (PinState::Queued, true));

    let background = world.service.run();
    let failed = async {
        let is_over = async || {
            world.state(&alice, &cid).await == Some(PinState::Failed) && world.cluster.all_names().is_empty()
        };
        while !is_over().await {
            world.clock.advance(Duration::from_secs(1));
            world.service.workers.wake();
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), failed).await.expect("the pin fails, and nothing is held");
    background.stop().await;
    world.run_until_idle().await;
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn upload_survives_a_failing_fetch_of_the_same_cid() {
    let world = World::start().await;
    let [alice, bob] = [world.account("alice", "free").await, world.account("bob", "free").await];
    let cid = world.cluster.publish("hello", 5);
    world.cluster.unpublish(&cid);
    // Alice has one request by then, Bob has none.
    for (uploader, requests) in [(&alice, 2), (&bob, 1)] {
        // Alice pins content that has no source yet.
        let gate = Gate::default();
        world.cluster.script_hold(&cid, [Fate::Waits(gate.clone())]);
        world.create_pin(&alice, cid).await.unwrap();
        let upload = async {
            gate.reached().await;
            let uploads = &world.service.uploads;
            let received = uploads.receive(uploader, &UploadRequest::default(), &b"hello"[..]).await.unwrap();
            let pinned = uploads.keep(uploader, received, UploadRequest::default());
            let fail_fetch = async {
                let pins = async || world.store.pins_of_cid(uploader.account.id, &cid).await.unwrap();
                while pins().await.first().is_none_or(|pin| pin.request_count < requests) {
                    tokio::task::yield_now().await;
                }
                gate.open();
            };
            tokio::join!(pinned, fail_fetch).0
        };
        let ((), outcome) = tokio::join!(world.run_until_idle(), upload);
        assert_eq!(outcome.unwrap().view.state, PinState::Pinned);
        for caller in [&alice, &bob] {
            let _ = world.remove(caller, &cid).await;
        }
        world.run_until_idle().await;
    }
    world.check_idle(&[&alice, &bob]).await;
}

#[tokio::test]
async fn directory_lists_its_files() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let background = world.service.run();
    let uploads = &world.service.uploads;
    let mut draft = uploads.directory(&alice, &UploadRequest::default()).await.unwrap();
    draft.add("a/b.txt", &b"one"[..]).await.unwrap();
    draft.add("c.txt", &b"two"[..]).await.unwrap();
    for bad in ["", "/a", "a//b", "../a", "a/./b", "c.txt", "a\0b"] {
        let refused = draft.add(bad, &b"x"[..]).await;
        assert!(matches!(refused, Err(Error::InvalidRequest(_))), "{bad:?}");
    }
    let outcome = uploads.keep_directory(&alice, draft, UploadRequest::default()).await.unwrap();
    assert_eq!(outcome.receipt.view.kind, PinKind::Directory);
    assert_eq!(
        outcome.entries.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(),
        ["a/b.txt", "c.txt"]
    );
    background.stop().await;
    world.run_until_idle().await;
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn holds_of_a_killed_process_are_released_after_its_placements_complete() {
    let mut world = World::start().await;
    let alice = world.account("alice", "free").await;
    let uploads = world.service.uploads.clone();
    let received = uploads.receive(&alice, &UploadRequest::default(), body(1)).await.unwrap();
    let cid = *received.cid();
    // The process is killed after the pin is created: the upload hold is never dropped, and the work has just begun.
    let gate = Gate::default();
    world.cluster.script_hold(&cid, [pinfold_cluster::Fate::Waits(gate.clone())]);
    let outcome = tokio::spawn(async move { uploads.keep(&alice, received, UploadRequest::default()).await });
    let alice = world.account("alice2", "free").await;
    while world.store.placements(None, 1).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    tokio::select! {
        () = world.run_until_idle() => panic!("the gate is closed"),
        () = gate.reached() => {}
    }
    let dead = std::mem::replace(&mut world, World::start().await);
    let mut next = dead;
    next.restart().await;
    next.run_until_idle().await;
    assert!(next.cluster.has(&cid), "the upload hold stays while the placement is in flight");
    next.clock.advance(std::time::Duration::from_secs(61));
    next.run_until_idle().await;
    assert!(next.cluster.all_names().iter().all(|name| name.starts_with("pin/")));
    assert!(next.cluster.has(&cid));
    next.check_idle(&[&alice]).await;
    outcome.abort();
}

#[tokio::test]
async fn plan_limits_file_and_directory_size() {
    let limits = PlanLimits {
        file_bytes_max: Some(2 * MIB),
        directory_bytes_max: Some(3 * MIB),
        ..Plan::free().limits
    };
    let plans = Plans::new(vec![Plan { limits, ..Plan::free() }]);
    let world = World::start_with(Settings { plans, ..Settings::default() }).await;
    let alice = world.account("alice", "free").await;
    let (uploads, terms) = (&world.service.uploads, UploadRequest::default());
    drop(uploads.receive(&alice, &terms, body(2)).await.unwrap());
    let over = uploads.receive(&alice, &terms, body(3)).await.err();
    assert_eq!(over, Some(Error::FileTooLarge { bytes_max: 2 * MIB }));

    let mut directory = uploads.directory(&alice, &terms).await.unwrap();
    directory.add("a", body(2)).await.unwrap();
    directory.add("b", body(1)).await.unwrap();
    let over = directory.add("c", std::io::Cursor::new([1])).await.err();
    assert_eq!(over, Some(Error::DirectoryTooLarge { bytes_max: 3 * MIB }));
    drop(directory);
    let mut directory = uploads.directory(&alice, &terms).await.unwrap();
    assert_eq!(directory.add("a", body(3)).await.err(), Some(Error::FileTooLarge { bytes_max: 2 * MIB }));
    drop(directory);
    world.run_until_idle().await;
    world.check_idle(&[&alice]).await;
}
