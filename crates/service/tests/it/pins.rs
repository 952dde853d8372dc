//! Tests of pins: created, failed, charged, listed, ended.

use std::time::Duration;

use pinfold_cluster::{ClusterError, Fate};
use pinfold_model::{Clock, FailureCode, PinName, PinOptions, PinState};
use pinfold_service::{Error, ListQuery, PinRequest, Wait};

use crate::world::{GIB, MIB, World};

#[tokio::test]
async fn pin_is_fetched_charged_and_kept() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let cid = world.cluster.publish("hello", 3 * MIB);

    let receipt = world.pin(&alice, PinRequest::new(cid)).await.unwrap();
    assert!(receipt.created);
    assert_eq!((receipt.view.state, receipt.view.size_bytes), (PinState::Pinned, 3 * MIB));
    assert_eq!(world.fresh(alice.account.id).await.used_bytes, 3 * MIB);

    world.cluster.unpublish(&cid);
    let again = world.create_pin(&alice, cid).await.unwrap();
    assert!(!again.created);
    assert_eq!(again.view, receipt.view);
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn second_request_sets_names_and_keeps_the_timelock() {
    let world = World::start().await;
    let alice = world.account("alice", "premium").await;
    let cid = world.cluster.publish("hello", MIB);
    let lock = world.in_an_hour();
    let name = |text| Some(PinName::parse(text).unwrap());
    let first = PinRequest::new(cid).with(PinOptions {
        timelock: Some(lock),
        original_name: name("a.txt"),
        ..PinOptions::default()
    });
    world.pin(&alice, first).await.unwrap();

    let second = PinRequest::new(cid).with(PinOptions { custom_name: name("mine"), ..PinOptions::default() });
    let view = world.service.pins.pin(&alice, second, Wait::No).await.unwrap().view;
    assert_eq!(view.expires_at, Some(lock.ends_at()));
    assert_eq!((view.original_name, view.custom_name), (name("a.txt"), name("mine")));
}

#[tokio::test]
async fn unavailable_content_leaves_nothing() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let cid = world.cluster.publish("gone", MIB);
    world.cluster.unpublish(&cid);

    assert_eq!(world.pin(&alice, PinRequest::new(cid)).await, Err(Error::CidNotFound));
    assert_eq!(world.uploads(&alice).await, []);
    assert_eq!(world.cluster.all_names(), Vec::<String>::new());
    assert_eq!(world.store.placements(None, 10).await.unwrap(), []);
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn failed_asynchronous_pin_reports_its_error_and_can_be_retried() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let cid = world.cluster.publish("later", MIB);
    world.cluster.unpublish(&cid);
    world.create_pin(&alice, cid).await.unwrap();
    world.run_until_idle().await;

    let status = world.service.pins.status(&alice, &cid, None).await.unwrap();
    assert_eq!(status.view.state, PinState::Failed);
    assert_eq!(status.error.unwrap().code, FailureCode::NotFound);
    world.check_idle(&[&alice]).await;

    world.cluster.publish("later", MIB);
    let receipt = world.pin(&alice, PinRequest::new(cid)).await.unwrap();
    assert_eq!(receipt.view.state, PinState::Pinned);
    world.check_idle(&[&alice]).await;
    world.remove(&alice, &cid).await.unwrap();
    world.run_until_idle().await;
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn unavailable_cluster_is_retried_with_growing_delays() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let cid = world.cluster.publish("hello", MIB);
    let down = || Fate::Fails(ClusterError::Unavailable("connection refused".to_owned()));
    world.cluster.script_hold(&cid, [down(), down()]);
    world.create_pin(&alice, cid).await.unwrap();
    world.run_until_idle().await;
    let status = world.service.pins.status(&alice, &cid, None).await.unwrap();
    assert_eq!((status.view.state, status.attempts), (PinState::Queued, 1));
    assert!(status.next_try_at.is_some() && status.error.is_some());

    for state in [PinState::Queued, PinState::Pinned] {
        world.clock.advance(Duration::from_secs(5));
        world.run_until_idle().await;
        assert_eq!(world.state(&alice, &cid).await, Some(state));
    }

    let other = world.cluster.publish("other", MIB);
    world.cluster.script_hold(&other, [down(), down(), down()]);
    world.create_pin(&alice, other).await.unwrap();
    for _ in 0..3 {
        world.run_until_idle().await;
        world.clock.advance(Duration::from_secs(60));
    }
    assert_eq!(world.state(&alice, &other).await, Some(PinState::Failed));
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn stopped_cluster_is_retried_after_a_delay() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let cid = world.cluster.publish("hello", MIB);
    world.cluster.script_hold(&cid, vec![Fate::Fails(ClusterError::Stopping); 2]);
    world.create_pin(&alice, cid).await.unwrap();
    world.run_until_idle().await;
    let status = world.service.pins.status(&alice, &cid, None).await.unwrap();
    assert_eq!((status.view.state, status.attempts), (PinState::Queued, 1));
    for _ in 0..2 {
        world.clock.advance(Duration::from_secs(5));
        world.run_until_idle().await;
    }
    assert_eq!(world.state(&alice, &cid).await, Some(PinState::Pinned));
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn pin_over_the_quota_is_refused() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let large = world.cluster.publish("large", GIB + 1);
    assert_eq!(world.pin(&alice, PinRequest::new(large)).await, Err(Error::QuotaExceeded));
    assert!(!world.cluster.has(&large));
    world.check_idle(&[&alice]).await;

    let exact = world.cluster.publish("exact", GIB);
    world.pin(&alice, PinRequest::new(exact)).await.unwrap();
    let tiny = world.cluster.publish("tiny", 1);
    assert_eq!(world.create_pin(&alice, tiny).await, Err(Error::QuotaExceeded));
    world.remove(&alice, &exact).await.unwrap();
    world.pin(&alice, PinRequest::new(tiny)).await.unwrap();
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn concurrent_pins_never_exceed_the_quota() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let bob = world.account("bob", "premium").await;
    for i in 0..40 {
        let cid = world.cluster.publish(&format!("part {i}"), GIB / 10 + 1);
        world.create_pin(&alice, cid).await.unwrap();
        if i % 2 == 0 {
            world.create_pin(&bob, cid).await.unwrap();
        }
    }
    world.run_until_idle().await;
    let pinned = world.uploads(&alice).await.iter().filter(|pin| pin.state == PinState::Pinned).count();
    assert_eq!(pinned, 9);
    world.check_idle(&[&alice, &bob]).await;
}

#[tokio::test]
async fn quota_of_one_account_does_not_fail_another() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let bob = world.account("bob", "premium").await;
    let cid = world.cluster.publish("large", 2 * GIB);
    let gate = pinfold_cluster::Gate::default();
    world.cluster.script_hold(&cid, [Fate::Waits(gate.clone())]);
    world.create_pin(&alice, cid).await.unwrap();
    // Bob pins while the fetch runs with Alice's budget.
    tokio::join!(world.run_until_idle(), async {
        gate.reached().await;
        world.create_pin(&bob, cid).await.unwrap();
        gate.open();
    });
    assert_eq!(world.state(&alice, &cid).await, Some(PinState::Failed));
    assert_eq!(world.state(&bob, &cid).await, Some(PinState::Pinned));
    world.check_idle(&[&alice, &bob]).await;
}

#[tokio::test]
async fn shared_content_is_released_with_the_last_pin() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let bob = world.account("bob", "free").await;
    let cid = world.cluster.publish("shared", MIB);
    world.pin(&alice, PinRequest::new(cid)).await.unwrap();
    world.cluster.unpublish(&cid);
    assert!(world.create_pin(&bob, cid).await.unwrap().created, "the content is local");

    world.remove(&alice, &cid).await.unwrap();
    world.run_until_idle().await;
    assert_eq!(world.remove(&alice, &cid).await, Err(Error::PinNotFound));
    assert!(world.cluster.has(&cid));
    world.check_idle(&[&alice, &bob]).await;

    world.remove(&bob, &cid).await.unwrap();
    world.run_until_idle().await;
    assert!(!world.cluster.has(&cid));
    world.check_idle(&[&alice, &bob]).await;
}

#[tokio::test]
async fn expired_pin_is_released_at_its_time() {
    let mut world = World::start().await;
    let alice = world.account("alice", "premium").await;
    let cid = world.cluster.publish("for an hour", MIB);
    let lock = world.in_an_hour();
    world
        .pin(&alice, PinRequest::new(cid).with(PinOptions { timelock: Some(lock), ..PinOptions::default() }))
        .await
        .unwrap();

    world.clock.advance(Duration::from_millis(3_599_999));
    world.run_until_idle().await;
    assert!(world.cluster.has(&cid));
    // The pin expires while the server is stopped.
    world.clock.advance(Duration::from_millis(1));
    world.restart().await;
    world.run_until_idle().await;
    assert!(!world.cluster.has(&cid));
    assert_eq!(world.uploads(&alice).await, []);
    world.check_idle(&[&alice]).await;
}

#[tokio::test]
async fn plan_limits_are_enforced() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let cid = world.cluster.publish("hello", MIB);
    let locked =
        PinRequest::new(cid).with(PinOptions { timelock: Some(world.in_an_hour()), ..PinOptions::default() });
    assert_eq!(world.pin(&alice, locked).await, Err(Error::TimelockNotAllowed));
    let elsewhere = pinfold_model::ClusterId::parse("cl9-moon").unwrap();
    let request = PinRequest { cluster: Some(elsewhere), ..PinRequest::new(cid) };
    assert_eq!(world.pin(&alice, request).await, Err(Error::UnknownCluster));

    for i in 0..100 {
        let cid = world.cluster.publish(&format!("{i}"), 1);
        world.create_pin(&alice, cid).await.unwrap();
    }
    assert_eq!(
        world.create_pin(&alice, cid).await,
        Err(Error::TooManyInFlight { limit: 100, at: world.clock.now() })
    );
    world.run_until_idle().await;
    world.pin(&alice, PinRequest::new(cid)).await.unwrap();
}

#[tokio::test]
async fn busy_account_does_not_delay_others() {
    let world = World::start().await;
    let alice = world.account("alice", "premium").await;
    let bob = world.account("bob", "free").await;
    for i in 0..100 {
        let cid = world.cluster.publish(&format!("{i}"), 1);
        world.create_pin(&alice, cid).await.unwrap();
    }
    let cid = world.cluster.publish("bob's", 1);
    world.create_pin(&bob, cid).await.unwrap();
    world.service.workers.turn().await.unwrap();
    assert_eq!(world.state(&bob, &cid).await, Some(PinState::Pinned));
    let pinned = world.uploads(&alice).await.iter().filter(|pin| pin.state == PinState::Pinned).count();
    assert_eq!(pinned, 15, "the other worker works for Alice");
}

#[tokio::test]
async fn lists_have_pages_cursors_filters_and_exact_totals() {
    let world = World::start().await;
    let alice = world.account("alice", "premium").await;
    let mut cids = Vec::new();
    for i in 0..25 {
        let cid = world.cluster.publish(&format!("{i}"), 10);
        let name = PinName::parse(&format!("Photo_{i}%.jpg")).unwrap();
        let timelock = (i % 5 == 0).then(|| world.in_an_hour());
        let request = PinRequest::new(cid).with(PinOptions {
            custom_name: Some(name),
            timelock,
            ..PinOptions::default()
        });
        world.service.pins.pin(&alice, request, Wait::No).await.unwrap();
        cids.push(cid);
    }
    world.run_until_idle().await;
    cids.reverse();

    let list = |query| world.service.pins.list(&alice, query);
    let second = list(ListQuery { page: 2, limit: 10, ..ListQuery::default() }).await.unwrap();
    assert_eq!(second.total, 25);
    let shown = |page: &pinfold_service::PinPage| page.pins.iter().map(|pin| pin.cid).collect::<Vec<_>>();
    assert_eq!(shown(&second), cids[10..20]);
    let query = ListQuery { limit: 10, cursor: second.next_cursor, ..ListQuery::default() };
    let third = list(query).await.unwrap();
    assert_eq!((shown(&third), third.next_cursor), (cids[20..].to_vec(), None));

    let total = async |query| list(query).await.unwrap().total;
    assert_eq!(total(ListQuery { has_expiry: Some(true), ..ListQuery::default() }).await, 5);
    assert_eq!(total(ListQuery { state: Some(PinState::Pinned), ..ListQuery::default() }).await, 25);
    assert_eq!(total(ListQuery { state: Some(PinState::Queued), ..ListQuery::default() }).await, 0);
    assert_eq!(total(ListQuery { cid: Some(cids[3]), ..ListQuery::default() }).await, 1);
    for (text, found) in [("photo_7%", 1), ("PHOTO", 25), ("_", 25), ("photo%jpg", 0), ("!", 0)] {
        let query = ListQuery { search: Some(text.to_owned()), ..ListQuery::default() };
        assert_eq!(total(query).await, found, "{text}");
    }
}
