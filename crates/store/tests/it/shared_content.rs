//! Content with several writers, and its state after the last pin is removed.

use std::collections::HashSet;

use pinfold_model::{Origin, PinOptions, PlacementState};
use pinfold_store::{Capacity, CreatePin, PinFilter, Store};

use crate::world::{
    World, account, at, cid, created, failed_outcome, failure, held, name, new_pin, now, times,
};

#[tokio::test]
async fn all_data_survives_a_restart() {
    let mut world = World::start().await;
    let ada = world.account("ada", 1_000).await;
    for (number, outcome) in [(1, Some(held(10))), (2, Some(failed_outcome())), (3, None)] {
        let request = CreatePin {
            options: PinOptions {
                custom_name: name("a name"),
                original_name: name("another"),
                origins: vec![Origin::parse("/ip4/127.0.0.1/tcp/1").unwrap()],
                ..times(Some(at(1_000)), None)
            },
            ..new_pin(ada, cid(number))
        };
        created(world.store.create_pin(request, now()).await.unwrap());
        let leased = world.lease_one(now()).await;
        assert_eq!(leased.origins, ["/ip4/127.0.0.1/tcp/1"]);
        match outcome {
            Some(outcome) => {
                world.complete_placement(&leased, outcome).await;
            }
            None => assert_eq!(leased.placement.state, PlacementState::Pinning),
        }
        // A failed placement is released.
        for release in world.store.lease_placements(Capacity::each(1), now(), at(60)).await.unwrap() {
            world.complete_placement(&release, pinfold_store::PlacementOutcome::Released).await;
        }
    }
    let before = everything(&world.store).await;
    assert_eq!(before.1.len(), 3);
    for _ in 0..2 {
        world.store.close().await;
        world.store = world.open().await;
        assert_eq!(everything(&world.store).await, before);
    }
    // Work continues after the restart.
    let late = world.lease_one(at(100)).await;
    world.complete_placement(&late, held(20)).await;
    assert_eq!(world.store.account(ada).await.unwrap().unwrap().used_bytes, 30);
}

type Everything =
    (Vec<pinfold_model::Account>, Vec<pinfold_store::PinRecord>, Vec<pinfold_store::PlacementRecord>);

async fn everything(store: &Store) -> Everything {
    let accounts = store.accounts(None, 100).await.unwrap();
    let pins = store.list_pins(accounts[0].id, &PinFilter::default(), None, 0, 100).await.unwrap().pins;
    (accounts, pins, store.placements(None, 100).await.unwrap())
}

/// As the command line does next to a running server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_on_one_file_lose_no_write() {
    const EACH: u32 = 200;
    let world = World::start().await;
    let ada = world.account("ada", 1 << 40).await;
    let mut tasks = Vec::new();
    for (side, store) in [world.store.clone(), world.open().await].into_iter().enumerate() {
        for worker in 0..4 {
            let store = store.clone();
            tasks.push(tokio::spawn(async move {
                for at in 0..EACH / 4 {
                    // Each CID is requested through both stores.
                    store.create_pin(new_pin(ada, cid(worker * EACH + at)), now()).await.unwrap();
                    let one = format!("side{side}worker{worker}at{at}");
                    account(&store, &one, 1).await.unwrap().unwrap();
                    let contested = format!("worker{worker}at{at}");
                    account(&store, &contested, 1).await.unwrap();
                }
            }));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(world.pins(ada).await.len(), EACH as usize);
    assert_eq!(world.store.placements(None, 10_000).await.unwrap().len(), EACH as usize);
    let accounts = world.store.accounts(None, 10_000).await.unwrap();
    assert_eq!(accounts.len(), 1 + 3 * EACH as usize);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn placement_is_leased_by_one_of_two_stores() {
    const PLACEMENTS: u32 = 300;
    let world = World::start().await;
    let ada = world.account("ada", 1 << 40).await;
    for number in 0..PLACEMENTS {
        created(world.create_pin(ada, cid(number)).await);
    }
    let mut tasks = Vec::new();
    for store in [world.store.clone(), world.open().await] {
        tasks.push(tokio::spawn(async move {
            let mut claimed = Vec::new();
            loop {
                let leases = store.lease_placements(Capacity::each(7), at(10_000), at(20_000)).await.unwrap();
                if leases.is_empty() {
                    return claimed;
                }
                for leased in leases {
                    store.complete_placement(leased.lease, held(1), at(10_000)).await.unwrap();
                    claimed.push(leased.lease.placement);
                }
            }
        }));
    }
    let mut seen = HashSet::new();
    for task in tasks {
        for placement in task.await.unwrap() {
            assert!(seen.insert(placement), "{placement} was leased twice");
        }
    }
    assert_eq!(seen.len(), PLACEMENTS as usize);
    assert_eq!(world.store.account(ada).await.unwrap().unwrap().used_bytes, u64::from(PLACEMENTS));
}

#[tokio::test]
async fn failed_pin_stores_its_error() {
    let world = World::start().await;
    let ada = world.account("ada", 1_000).await;
    created(world.create_pin(ada, cid(1)).await);
    let leased = world.lease_one(now()).await;
    world.complete_placement(&leased, failed_outcome()).await;
    let pin = world.open().await.pins_of_cid(ada, &cid(1)).await.unwrap().remove(0);
    assert_eq!(pin.error, Some(failure()));
}
