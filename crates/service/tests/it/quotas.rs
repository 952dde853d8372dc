//! Tests of quotas: concurrent operations never exceed the plan of an account, to the byte.

use pinfold_model::{PinState, Plan, PlanLimits, Plans};
use pinfold_service::{Caller, Error, PinRequest, Settings, UploadRequest};

use crate::world::{LONG, World};

/// Number of concurrent uploads.
const MANY: usize = 64;

async fn world(storage_bytes: u64) -> World {
    let limits = PlanLimits { storage_bytes, ..Plan::premium().limits };
    let plans = Plans::new(vec![Plan { limits, ..Plan::free() }]);
    World::start_with(Settings { plans, ..Settings::default() }).await
}

/// Uploads a unique file of this size and pins it.
async fn upload(world: &World, caller: &Caller, number: usize, bytes: usize) -> Result<(), Error> {
    let mut content = vec![b'x'; bytes];
    let name = number.to_be_bytes();
    content[..name.len()].copy_from_slice(&name);
    let (uploads, terms) = (&world.service.uploads, UploadRequest::default());
    let received = uploads.receive(caller, &terms, std::io::Cursor::new(content)).await?;
    uploads.keep(caller, received, terms).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_uploads_fill_the_storage_exactly() {
    // Ten files of a hundred bytes fit, with one byte too few for an eleventh.
    let world = world(1_099).await;
    let alice = world.account("alice", "free").await;
    let background = world.service.run();
    let uploads = (0..MANY).map(|number| upload(&world, &alice, number, 100));
    let done = futures::future::join_all(uploads).await;
    assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 10);
    assert!(done.iter().flat_map(|done| done.as_ref().err()).all(|error| *error == Error::QuotaExceeded));
    assert_eq!(world.fresh(alice.account.id).await.used_bytes, 1_000);
    background.stop().await;
    world.run_until_idle().await;
    world.check_idle(&[&alice]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_that_does_not_fit_leaves_room_for_one_that_does() {
    let world = world(1_000).await;
    let alice = world.account("alice", "free").await;
    let background = world.service.run();
    let sizes = (0..MANY).map(|number| 50 + number * 13);
    let uploads = sizes.enumerate().map(|(number, bytes)| upload(&world, &alice, number, bytes));
    let done = futures::future::join_all(uploads).await;
    let used = world.fresh(alice.account.id).await.used_bytes;
    assert!(done.iter().any(Result::is_ok) && used <= 1_000, "{used}");
    background.stop().await;
    world.run_until_idle().await;
    world.check_idle(&[&alice]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn same_content_pinned_many_times_is_charged_once() {
    let world = world(100).await;
    let alice = world.account("alice", "free").await;
    let background = world.service.run();
    let done = futures::future::join_all((0..MANY).map(|_| upload(&world, &alice, 7, 100))).await;
    assert!(done.iter().any(Result::is_ok));
    assert!(done.iter().flat_map(|done| done.as_ref().err()).all(|error| *error == Error::QuotaExceeded));
    let account = world.fresh(alice.account.id).await;
    assert_eq!((account.used_bytes, account.pins), (100, 1));
    background.stop().await;
    world.run_until_idle().await;
    world.check_idle(&[&alice]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_by_cid_and_uploads_share_one_storage() {
    let world = world(1_050).await;
    let (alice, bob) = (world.account("alice", "free").await, world.account("bob", "free").await);
    let background = world.service.run();
    let cids: Vec<_> = (0..MANY / 2).map(|i| world.cluster.publish(&format!("pin {i}"), 100)).collect();
    let pins = cids
        .iter()
        .map(|cid| async { world.service.pins.pin(&alice, PinRequest::new(*cid), LONG).await.map(drop) });
    let uploads = (0..MANY / 2).map(|number| upload(&world, &alice, number, 100));
    let others = (0..10).map(|number| upload(&world, &bob, number, 100));
    let (pinned, uploaded, of_bob) = tokio::join!(
        futures::future::join_all(pins),
        futures::future::join_all(uploads),
        futures::future::join_all(others)
    );
    let done = pinned.iter().chain(&uploaded).filter(|done| done.is_ok()).count();
    assert_eq!(done, 10);
    assert!(of_bob.iter().all(Result::is_ok), "the storage of another account is separate: {of_bob:?}");
    assert_eq!(world.fresh(alice.account.id).await.used_bytes, 1_000);
    background.stop().await;
    world.run_until_idle().await;
    world.check_idle(&[&alice, &bob]).await;
    let pins = world.uploads(&alice).await;
    assert!(pins.iter().all(|pin| pin.state == PinState::Pinned));
}
