//! Cost of pins with a timelock: `cargo bench -p pinfold-service --bench timelocks [-- PENDING DUE]`.
//!
//! Fills a database in the working directory (default: 1,000,000 pins that expire later). Then prints the cost of a
//! turn of the idle worker, the duration of a start, the time until all of DUE pins (default: 10,000, with as many
//! CIDs) that expire at the same time have ended, the latency of another account's writes meanwhile, and the time until
//! all of the pins are released. The cluster is in memory.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cid::Cid;
use futures::StreamExt;
use pinfold_cluster::Scripted;
use pinfold_model::{
    AccountId, Actor, Clock, ClusterId, Email, ManualClock, PinOptions, PlanCode, Role, Timelock, Timestamp,
};
use pinfold_service::{ClusterInfo, ClusterSetup, NewAccount, Service, Settings};
use pinfold_store::{CreatePin, Store};

type BenchResult<T = ()> = Result<T, Box<dyn Error>>;

/// Number of accounts that own the pending pins.
const ACCOUNTS: usize = 100;
/// Number of concurrent writes while the database is filled.
const WRITES: usize = 512;

fn main() -> BenchResult {
    let mut numbers = std::env::args().filter_map(|arg| arg.parse().ok());
    let (pending, due) = (numbers.next().unwrap_or(1_000_000), numbers.next().unwrap_or(10_000));
    let dir = tempfile::Builder::new().prefix("bench-timelocks").tempdir_in(".")?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(run(
        &dir.path().join("pinfold.db"),
        pending,
        due,
    ))
}

async fn run(path: &Path, pending: usize, due: usize) -> BenchResult {
    let (cluster, clock) = (Scripted::default(), Arc::new(ManualClock::default()));
    // High concurrency fills the database faster.
    let many = Settings { placements_at_once: 512, ..Settings::default() };
    let (store, service) = open(path, &cluster, &clock, many).await?;
    idle("with no pin", &service).await?;
    let mut accounts = Vec::new();
    for n in 0..ACCOUNTS {
        accounts.push(account(&service, &format!("account{n}")).await?);
    }
    let cids: Vec<Cid> =
        (0..pending.div_ceil(ACCOUNTS)).map(|n| cluster.publish(&format!("pending {n}"), 1)).collect();
    let later = clock.now().after(Duration::from_hours(24 * 365));
    let began = Instant::now();
    // The first account fetches the blocks; for the others they are already local.
    let (first, others) = accounts.split_first().ok_or("no accounts")?;
    pin(&store, cids.iter().map(|cid| request(*first, *cid, later)), &clock).await?;
    run_until_idle(&service).await?;
    let requests = others.iter().flat_map(|account| cids.iter().map(|cid| request(*account, *cid, later)));
    pin(&store, requests, &clock).await?;
    println!("{} pins made in {:.0?}", cids.len() * ACCOUNTS, began.elapsed());
    println!("the database has {} MB", size(path.parent())? / 1_000_000);
    idle("with all of them", &service).await?;

    let began = Instant::now();
    let (_, opened) = open(path, &cluster, &clock, Settings::default()).await?;
    println!("opening the database and the service: {:.1?}", began.elapsed());

    let soon = clock.now().after(Duration::from_hours(1));
    let cids: Vec<Cid> = (0..due).map(|n| cluster.publish(&format!("due {n}"), 1)).collect();
    let requests =
        cids.iter().zip(accounts.iter().cycle()).map(|(cid, account)| request(*account, *cid, soon));
    pin(&store, requests, &clock).await?;
    run_until_idle(&service).await?;
    end(&store, &opened, &clock, &cluster, &cids, others[0]).await
}

/// Advances the clock to the expiry of the pins and waits until they have ended.
async fn end(
    store: &Store,
    service: &Service,
    clock: &ManualClock,
    cluster: &Scripted,
    cids: &[Cid],
    other: AccountId,
) -> BenchResult {
    let background = service.run();
    let later = clock.now().after(Duration::from_hours(24 * 365));
    clock.advance(Duration::from_hours(1));
    let (began, now) = (Instant::now(), clock.now());
    service.workers.wake();
    let mut slowest = Duration::ZERO;
    let mut probes = 0;
    while store.next_expiry().await?.is_some_and(|next| next <= now) {
        let probe = Instant::now();
        store.create_pin(request(other, probe_cid(probes), later), now).await?;
        slowest = slowest.max(probe.elapsed());
        probes += 1;
    }
    println!("{} pins that expired at the same time had ended after {:.2?}", cids.len(), began.elapsed());
    println!("meanwhile {probes} other writes took {slowest:.1?} at most");
    let is_held = |cid: &Cid| cluster.holds(&format!("pin/{}/{cid}", ClusterId::default()), cid);
    while cids.iter().any(is_held) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("all were released after {:.2?}", began.elapsed());
    background.stop().await;
    Ok(())
}

/// Total size of the files in a folder.
fn size(folder: Option<&Path>) -> BenchResult<u64> {
    let files = std::fs::read_dir(folder.ok_or("no folder")?)?;
    files.map(|file| Ok(file?.metadata()?.len())).sum()
}

fn probe_cid(n: usize) -> Cid {
    Scripted::default().publish(&format!("probe {n}"), 1)
}

/// Cost of a turn without any work.
async fn idle(what: &str, service: &Service) -> BenchResult {
    const TURNS: u32 = 2_000;
    run_until_idle(service).await?;
    let began = Instant::now();
    for _ in 0..TURNS {
        service.workers.turn().await?;
    }
    println!("a turn of the idle worker {what}: {:.0?}", began.elapsed() / TURNS);
    Ok(())
}

async fn run_until_idle(service: &Service) -> BenchResult {
    while service.workers.turn().await? > 0 {}
    Ok(())
}

async fn pin(store: &Store, requests: impl Iterator<Item = CreatePin>, clock: &ManualClock) -> BenchResult {
    let now = clock.now();
    let mut writes = futures::stream::iter(requests.map(|request| store.create_pin(request, now)))
        .buffer_unordered(WRITES);
    while let Some(written) = writes.next().await {
        written?;
    }
    Ok(())
}

fn request(account: AccountId, cid: Cid, expires_at: Timestamp) -> CreatePin {
    // Some of these pins have already expired.
    let timelock = Timelock::parse(&expires_at.to_string(), Timestamp::from_ms(0)).expect("a valid timelock");
    CreatePin {
        account,
        actor: Actor::account(account),
        action: "pin.create",
        cid,
        cluster: ClusterId::default(),
        options: PinOptions { timelock: Some(timelock), ..PinOptions::default() },
        lease_until: None,
        in_flight_max: u32::MAX,
    }
}

async fn account(service: &Service, name: &str) -> BenchResult<AccountId> {
    let new = NewAccount {
        email: Email::parse(&format!("{name}@example.org"))?,
        name: name.to_owned(),
        plan: PlanCode::new("premium"),
        role: Role::User,
        password: None,
    };
    Ok(service.accounts.create(new).await?.id)
}

async fn open(
    path: &Path,
    cluster: &Scripted,
    clock: &Arc<ManualClock>,
    settings: Settings,
) -> BenchResult<(Store, Service)> {
    let store = Store::open(path).await?;
    let info = ClusterInfo {
        id: ClusterId::default(),
        label: "Here".to_owned(),
        region: None,
        country: None,
        gateways: Vec::new(),
    };
    let setup = ClusterSetup { info, driver: Arc::new(cluster.clone()) };
    let clock: Arc<dyn Clock> = clock.clone();
    let service = Service::new(store.clone(), vec![setup], clock, settings).await?;
    Ok((store, service))
}
