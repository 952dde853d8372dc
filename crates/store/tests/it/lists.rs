//! Lists of pins with pages, cursors, filters and totals.

use std::collections::HashSet;

use pinfold_model::{Actor, PinId, PinState};
use pinfold_store::{AuditFilter, Capacity, CreatePin, PinFilter, PinList};

use crate::world::{LEASE, World, cid, created, held, name, named, new_pin, now};

const PINS: u32 = 3_000;

/// Pins are created and removed between two pages; each of the others is listed exactly once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursor_visits_every_pin_once_during_concurrent_changes() {
    let world = World::start().await;
    let ada = world.account("ada", 1 << 40).await;
    let store = &world.store;
    let requests = (0..PINS).map(|number| store.create_pin(new_pin(ada, cid(number)), now()));
    futures::future::join_all(requests).await.into_iter().for_each(|outcome| drop(created(outcome.unwrap())));

    let filter = PinFilter::default();
    let (mut seen, mut before, mut pages) = (HashSet::new(), None, 0_u32);
    loop {
        let page: PinList = store.list_pins(ada, &filter, before, 0, 97).await.unwrap();
        let ids: Vec<PinId> = page.pins.iter().map(|pin| pin.id).collect();
        assert!(ids.is_sorted_by(|newer, older| newer > older));
        let Some(last) = ids.last() else { break };
        before = Some(*last);
        for pin in &page.pins {
            assert!(seen.insert(pin.placement.cid), "{} was listed twice", pin.placement.cid);
        }
        // Create one pin, and remove one that was listed and one that was not: every third pin stays until the end.
        created(world.create_pin(ada, cid(PINS + pages)).await);
        for gone in [PINS - 2 - pages * 3, pages * 3] {
            world.remove(ada, &cid(gone)).await;
        }
        pages += 1;
    }
    assert!(pages > 30);
    for number in (2..PINS).step_by(3) {
        assert!(seen.contains(&cid(number)), "{number} was skipped");
    }
    assert!((PINS..PINS + pages).all(|late| !seen.contains(&cid(late))), "a newer pin is before the cursor");
}

#[tokio::test]
async fn offsets_and_totals_agree_with_the_whole_list() {
    let world = World::start().await;
    let (ada, other) = (world.account("ada", 1 << 40).await, world.account("other", 1 << 40).await);
    for number in 0..50 {
        let options = named(&format!("Photo_{number}%"));
        created(
            world.store.create_pin(CreatePin { options, ..new_pin(ada, cid(number)) }, now()).await.unwrap(),
        );
        created(world.create_pin(other, cid(number)).await);
    }
    let whole = world.pins(ada).await;
    for (skip, limit) in [(0, 7), (45, 10), (50, 1), (1_000, 5)] {
        let page = world.store.list_pins(ada, &PinFilter::default(), None, skip, limit).await.unwrap();
        let expected: Vec<_> = whole.iter().skip(skip as usize).take(limit as usize).cloned().collect();
        assert_eq!((page.total, page.pins), (50, expected));
    }
}

#[tokio::test]
async fn filters_match_and_totals_agree() {
    let world = World::start().await;
    let ada = world.account("ada", 1 << 40).await;
    for number in 0..20 {
        let options = named(&format!("Photo_{number}%"));
        created(
            world.store.create_pin(CreatePin { options, ..new_pin(ada, cid(number)) }, now()).await.unwrap(),
        );
    }
    let leases = world.store.lease_placements(Capacity::each(5), now(), now().after(LEASE)).await.unwrap();
    for leased in &leases[..3] {
        world.complete_placement(leased, held(1)).await;
    }
    let count = async |filter: PinFilter| {
        let page = world.store.list_pins(ada, &filter, None, 0, 100).await.unwrap();
        assert_eq!(page.total, page.pins.len() as u64, "{filter:?}");
        page.total
    };
    let search = |text: &str| PinFilter { search: Some(text.to_owned()), ..PinFilter::default() };
    let state = |state| PinFilter { state: Some(state), ..PinFilter::default() };
    assert_eq!(count(search("pHOTO_1")).await, 11);
    assert_eq!(count(search("photo_1%")).await, 1, "wildcards are matched literally");
    assert_eq!(count(search("photo.1")).await, 0);
    assert_eq!(count(search("!")).await, 0);
    assert_eq!(count(search(&cid(7).to_string()[..20])).await, 1);
    assert_eq!(count(state(PinState::Pinned)).await, 3);
    assert_eq!(count(state(PinState::Pinning)).await, 2);
    assert_eq!(count(state(PinState::Queued)).await, 15);
    assert_eq!(count(state(PinState::Failed)).await, 0);
    assert_eq!(count(PinFilter { cid: Some(cid(3)), ..PinFilter::default() }).await, 1);
    assert_eq!(count(PinFilter { has_expiry: Some(false), ..PinFilter::default() }).await, 20);
    assert_eq!(count(PinFilter { has_expiry: Some(true), ..PinFilter::default() }).await, 0);
}

/// The total of a page is that of the list at the same moment, also during concurrent changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn total_and_page_are_read_in_one_snapshot() {
    let world = World::start().await;
    let ada = world.account("ada", 1 << 40).await;
    let changes = async {
        for number in 0..200 {
            created(world.create_pin(ada, cid(number)).await);
            if number % 3 == 0 {
                world.remove(ada, &cid(number)).await;
            }
        }
    };
    let filter = PinFilter { has_expiry: Some(false), ..PinFilter::default() };
    let reads = async {
        for read in 0..200 {
            let filter = if read % 2 == 0 { filter.clone() } else { PinFilter::default() };
            let page = world.store.list_pins(ada, &filter, None, 0, 1_000).await.unwrap();
            assert_eq!(page.total, page.pins.len() as u64);
        }
    };
    tokio::join!(changes, reads);
}

#[tokio::test]
async fn pin_is_renamed_only_by_its_owner() {
    let world = World::start().await;
    let (ada, other) = (world.account("ada", 1 << 40).await, world.account("other", 1 << 40).await);
    let pin = created(world.create_pin(ada, cid(1)).await);
    let rename = async |account, id, text| {
        let name = name(text).unwrap();
        world
            .store
            .rename_pin(account, id, name, Actor::account(account), now())
            .await
            .unwrap()
            .map(|pin| pin.custom_name)
    };
    assert_eq!(rename(other, pin.id, "mine").await, None);
    assert_eq!(rename(ada, PinId(pin.id.0 + 1), "mine").await, None);
    assert_eq!(world.pins(ada).await[0].custom_name, None);
    assert_eq!(rename(ada, pin.id, "mine").await, Some(name("mine")));
    assert_eq!(rename(ada, pin.id, "still mine").await, Some(name("still mine")));
    assert_eq!(rename(ada, pin.id, "still mine").await, Some(name("still mine")));
    assert_eq!(world.pins(ada).await[0].custom_name, name("still mine"));
    let filter = AuditFilter { action: Some("pin.update".to_owned()), ..AuditFilter::default() };
    let log = world.store.list_audit(&filter, None, 0, 10, 10).await.unwrap().entries;
    assert_eq!(log.len(), 2, "an unchanged name is not logged: {log:?}");
    assert!(log.iter().all(|entry| entry.by == Actor::account(ada) && entry.subject == cid(1).to_string()));
    assert!(log[0].details.as_ref().unwrap().contains(r#""name":"still mine""#), "{log:?}");
}
