//! Tests of pin event streams.

use std::future::Future;

use pinfold_cluster::{ClusterError, Fate, Gate};
use pinfold_model::{Clock, FailureCode, PinState};
use pinfold_service::{Caller, Error, EventId, EventKind, PinEvent, PinEventStream, PinRequest, Settings};

use crate::world::{DEADLINE, LONG, MIB, World};

async fn watch(world: &World, caller: &Caller, cid: &cid::Cid, seen: Option<EventId>) -> PinEventStream {
    world.service.pins.events(caller, cid, None, seen).await.unwrap()
}

async fn next(watch: &mut PinEventStream) -> PinEvent {
    tokio::time::timeout(DEADLINE, watch.next()).await.expect("an event arrives").unwrap().unwrap()
}

/// The first event that matches.
async fn until(watch: &mut PinEventStream, is_it: impl Fn(&PinEvent) -> bool) -> PinEvent {
    loop {
        let event = next(watch).await;
        if is_it(&event) {
            return event;
        }
        assert_ne!(event.kind, EventKind::End, "{event:?}");
    }
}

/// Runs turns of the worker until the future completes.
async fn run_workers_during<T>(world: &World, future: impl Future<Output = T>) -> T {
    let background = world.service.run();
    let event = future.await;
    background.stop().await;
    event
}

fn quick() -> Settings {
    Settings { watch_events_per_second: 100, ..Settings::default() }
}

#[tokio::test]
async fn events_cover_a_pin_from_queue_to_end() {
    let world = World::start_with(quick()).await;
    let alice = world.account("alice", "free").await;
    let (cid, gate) = (world.cluster.publish("hello", 3 * MIB), Gate::default());
    world.cluster.script_hold(&cid, [Fate::Waits(gate.clone())]);
    world.create_pin(&alice, cid).await.unwrap();
    let mut watch = watch(&world, &alice, &cid, None).await;
    let first = next(&mut watch).await;
    assert_eq!((first.kind, first.state, first.cid), (EventKind::State, PinState::Queued, cid));

    run_workers_during(&world, async {
        gate.reached().await;
        let begun = until(&mut watch, |event| event.state == PinState::Pinning).await;
        assert_eq!(begun.kind, EventKind::State);
        world.cluster.bring(&cid, 2, MIB, 1);
        let some = until(&mut watch, |event| event.progress.bytes == MIB).await;
        assert_eq!((some.kind, some.progress.blocks, some.progress.peers), (EventKind::Progress, 2, 1));
        world.cluster.bring(&cid, 3, 2 * MIB, 2);
        let more = until(&mut watch, |event| event.progress.bytes == 2 * MIB).await;
        assert!(more.rate > 0, "{more:?}");
        gate.open();
        let end = until(&mut watch, |event| event.kind == EventKind::End).await;
        assert_eq!((end.state, end.progress.bytes), (PinState::Pinned, 3 * MIB));
        assert_eq!(end.progress.total_bytes, Some(3 * MIB));
        assert_eq!(watch.next().await, Ok(None), "no event follows");
    })
    .await;
}

#[tokio::test]
async fn reconnecting_client_gets_new_events_and_the_end() {
    let mut world = World::start_with(quick()).await;
    let alice = world.account("alice", "free").await;
    let cid = world.cluster.publish("hello", MIB);
    world.create_pin(&alice, cid).await.unwrap();
    let seen = next(&mut watch(&world, &alice, &cid, None).await).await.id;
    assert_eq!(seen.to_string().parse(), Ok(seen));

    // Another process also accepts the id: the event it names was seen, so the next event is a later one.
    world.restart().await;
    let again = next(&mut watch(&world, &alice, &cid, None).await).await;
    assert_eq!(again.id, seen, "nothing has changed");
    let mut watched = watch(&world, &alice, &cid, Some(seen)).await;
    let (later, ()) = tokio::join!(next(&mut watched), world.run_until_idle());
    assert_ne!(later.id, seen);
    let end = match later.kind {
        EventKind::End => later,
        EventKind::State | EventKind::Progress => {
            until(&mut watched, |event| event.kind == EventKind::End).await
        }
    };
    assert_eq!(end.state, PinState::Pinned);

    world.restart().await;
    let event = next(&mut watch(&world, &alice, &cid, Some(end.id)).await).await;
    assert_eq!((event.id, event.kind), (end.id, EventKind::End), "the final event is sent again at once");
}

#[tokio::test]
async fn removed_pin_ends_its_event_stream() {
    let world = World::start_with(quick()).await;
    let (alice, bob) = (world.account("alice", "free").await, world.account("bob", "free").await);
    let cid = world.cluster.publish("hello", MIB);
    world.create_pin(&alice, cid).await.unwrap();
    let mut watched = watch(&world, &alice, &cid, None).await;
    let first = next(&mut watched).await;
    let (end, removed) = tokio::join!(next(&mut watched), world.remove(&alice, &cid));
    removed.unwrap();
    assert_eq!((end.kind, end.state, end.error), (EventKind::End, PinState::Unpinned, None));

    let event = next(&mut watch(&world, &alice, &cid, Some(end.id)).await).await;
    assert_eq!((event.kind, event.id), (EventKind::End, end.id));
    let event = next(&mut watch(&world, &alice, &cid, Some(first.id)).await).await;
    assert_eq!((event.kind, event.state), (EventKind::End, PinState::Unpinned));
    let unknown = world.service.pins.events(&alice, &cid, None, None).await;
    assert_eq!(unknown.err(), Some(Error::PinNotFound));
    let others = world.service.pins.events(&bob, &cid, None, None).await;
    assert_eq!(others.err(), Some(Error::PinNotFound));
}

#[tokio::test]
async fn failure_is_reported_although_the_pin_is_removed() {
    let world = World::start_with(quick()).await;
    let alice = world.account("alice", "free").await;
    let (cid, gate) = (world.cluster.publish("gone", MIB), Gate::default());
    world.cluster.unpublish(&cid);
    world.cluster.script_hold(&cid, [Fate::Waits(gate.clone())]);
    run_workers_during(&world, async {
        let pins = &world.service.pins;
        let (waited, end) = tokio::join!(pins.pin(&alice, PinRequest::new(cid), LONG), async {
            gate.reached().await;
            let mut watched = watch(&world, &alice, &cid, None).await;
            assert_eq!(next(&mut watched).await.state, PinState::Pinning);
            gate.open();
            until(&mut watched, |event| event.kind == EventKind::End).await
        });
        assert_eq!(waited, Err(Error::CidNotFound));
        assert_eq!(end.state, PinState::Failed);
        assert_eq!(end.error.unwrap().code, FailureCode::NotFound);
        let event = next(&mut watch(&world, &alice, &cid, Some(end.id)).await).await;
        assert_eq!((event.id, event.state), (end.id, PinState::Failed));
    })
    .await;
}

#[tokio::test]
async fn failed_attempt_is_reported_with_the_next_one() {
    let world = World::start_with(quick()).await;
    let alice = world.account("alice", "free").await;
    let cid = world.cluster.publish("hello", MIB);
    let down = ClusterError::Unavailable("connection refused".to_owned());
    world.cluster.script_hold(&cid, [Fate::Fails(down)]);
    world.create_pin(&alice, cid).await.unwrap();
    let mut watched = watch(&world, &alice, &cid, None).await;
    next(&mut watched).await;
    world.run_until_idle().await;
    let tried = until(&mut watched, |event| event.error.is_some()).await;
    assert_eq!((tried.kind, tried.state, tried.attempts), (EventKind::State, PinState::Queued, 1));
    assert!(tried.next_try_at.is_some_and(|at| at > world.clock_at_start()));
}

#[tokio::test]
async fn event_streams_are_limited_per_account_and_in_total() {
    let settings = Settings { watches_max: 3, watches_per_account_max: 2, ..quick() };
    let world = World::start_with(settings).await;
    let (alice, bob) = (world.account("alice", "free").await, world.account("bob", "free").await);
    let cid = world.cluster.publish("hello", MIB);
    for caller in [&alice, &bob] {
        world.create_pin(caller, cid).await.unwrap();
    }
    let try_watch = |caller| world.service.pins.events(caller, &cid, None, None);
    let (first, _second) = (try_watch(&alice).await.unwrap(), try_watch(&alice).await.unwrap());
    assert_eq!(
        try_watch(&alice).await.err(),
        Some(Error::TooManyEventStreams { limit: 2, at: world.clock.now() })
    );
    let _third = try_watch(&bob).await.unwrap();
    let full = try_watch(&bob).await.err();
    assert!(matches!(full, Some(Error::Unavailable { retry_after: Some(_) })), "{full:?}");
    drop(first);
    let _fourth = try_watch(&bob).await.unwrap();
    assert!(try_watch(&alice).await.is_err(), "the streams can be opened again");
}
