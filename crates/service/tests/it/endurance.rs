//! A seeded simulation of whole processes: service, database and the real block engine, over a network of DAGs that
//! share blocks. Accounts pin, upload and remove; sources and the cluster fail; the clock is set; the process is killed
//! at any point and starts again on the same folder.
//!
//! A seed determines the operations, not the scheduling of threads: a failing seed is printed, and may need several
//! runs to fail again. `PINFOLD_TEST_FIRST_SEED` and `PINFOLD_TEST_SEEDS` select the seeds to run.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cid::Cid;
use pinfold_cluster::{Cluster, ClusterError};
use pinfold_model::{
    Clock, FailureCode, ManualClock, PinOptions, PinState, Plan, PlanCode, PlanLimits, Plans, Timelock,
    Timestamp,
};
use pinfold_node::{Blocks, HoldName};
use pinfold_service::{Caller, PinRequest, PinView, Service, Settings, UploadRequest, Wait};
use pinfold_store::Store;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::runtime::Runtime;

use crate::disk::Disk;
use crate::network::{Fault, Grown, Hash, Lost, Network, walk};
use crate::random::Dice;
use crate::world::{DEADLINE, all_pins, new_account, setup, temp_dir};

const SEEDS: u64 = 200;
const STEPS: usize = 40;
const THREADS: usize = 2;

/// One process: its runtime and everything that runs in it.
struct Process {
    runtime: Runtime,
    store: Store,
    service: Service,
    disk: Arc<Disk>,
}

impl Process {
    fn begin(dir: &Path, network: &Network, clock: &Arc<ManualClock>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let disk = Arc::new(Disk::open(&dir.join("blocks"), network));
        let driver: Arc<dyn Cluster> = disk.clone();
        let clock: Arc<dyn Clock> = clock.clone();
        let (store, service) = runtime.block_on(async {
            let store = Store::open(&dir.join("pinfold.db")).await.unwrap();
            let service = Service::new(store.clone(), vec![setup(driver)], clock, settings()).await.unwrap();
            (store, service)
        });
        Self { runtime, store, service, disk }
    }

    /// Kills the process: nothing of it continues to run.
    fn kill(self) {
        let Self { runtime, store, service, disk } = self;
        let entered = runtime.enter();
        drop((store, service));
        drop(entered);
        drop(runtime);
        drop(Arc::into_inner(disk).expect("all tasks have ended"));
    }

    /// Runs turns until nothing is due.
    fn run_until_idle(&self) {
        self.runtime.block_on(async {
            for _ in 0..1_000 {
                if self.service.workers.turn().await.unwrap() == 0 {
                    return;
                }
            }
            panic!("the work has no end");
        });
    }

    fn pins(&self, caller: &Caller) -> Vec<PinView> {
        self.runtime.block_on(all_pins(&self.service, caller))
    }
}

fn settings() -> Settings {
    let plan = |code: &str, storage_bytes, timelock| Plan {
        code: PlanCode::new(code),
        name: code.to_owned(),
        limits: PlanLimits { storage_bytes, timelock, ..Plan::premium().limits },
        ..Plan::premium()
    };
    Settings {
        plans: Plans::new(vec![
            plan("small", 12_000, false),
            plan("medium", 60_000, true),
            plan("large", 1 << 30, true),
        ]),
        attempts_max: 3,
        placements_at_once: 4,
        upload_wait: Duration::ZERO,
        ..Settings::default()
    }
}

/// An operation of an account.
#[derive(Debug, Clone)]
enum Operation {
    CreatePin { who: usize, cid: Cid, timelock: Option<Timelock> },
    Remove { who: usize, cid: Cid },
    Upload { who: usize, bodies: Vec<Vec<u8>>, broken: bool, completed: bool, timelock: Option<Timelock> },
    Nothing,
}

/// The acknowledged pins.
#[derive(Debug, Default)]
struct Answers {
    /// Pins whose removal was at least begun.
    removed: BTreeSet<(usize, Cid)>,
    /// Pins that were requested again.
    requested: BTreeSet<(usize, Cid)>,
    /// Uploads that were acknowledged without an expiry.
    acknowledged: BTreeSet<(usize, Cid)>,
}

struct Simulation {
    network: Network,
    clock: Arc<ManualClock>,
    callers: Vec<Caller>,
    grown: Grown,
    /// Roots of uploads.
    uploaded: Vec<Cid>,
    /// Bodies that were uploaded, which may be uploaded again.
    bodies: Vec<Vec<Vec<u8>>>,
    acknowledged: BTreeSet<(usize, Cid)>,
    pinned: BTreeMap<(usize, Cid), Option<Timestamp>>,
    dice: Dice,
    process: Option<Process>,
    dir: TempDir,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let dir = temp_dir();
        let (network, clock) = (Network::default(), Arc::new(ManualClock::default()));
        let mut dice = Dice::new(seed);
        let grown = network.grow(&mut dice);
        let process = Process::begin(dir.path(), &network, &clock);
        let callers = [("ada", "small"), ("ben", "medium"), ("cyd", "large")];
        let callers =
            callers.map(|(name, plan)| process.runtime.block_on(new_account(&process.service, name, plan)));
        Self {
            network,
            clock,
            callers: callers.into(),
            grown,
            uploaded: Vec::new(),
            bodies: Vec::new(),
            acknowledged: BTreeSet::new(),
            pinned: BTreeMap::new(),
            dice,
            process: Some(process),
            dir,
        }
    }

    fn process(&self) -> &Process {
        self.process.as_ref().unwrap()
    }

    /// The two roots whose DAGs share most blocks and are not equal.
    fn relatives(&self) -> [Cid; 2] {
        let dag = |cid: &Cid| self.network.dag(cid).into_keys().collect::<BTreeSet<Hash>>();
        let pairs = self.grown.roots.iter().flat_map(|a| self.grown.roots.iter().map(move |b| [*a, *b]));
        let others = pairs.filter(|[a, b]| dag(a) != dag(b));
        others.max_by_key(|[a, b]| dag(a).intersection(&dag(b)).count()).unwrap()
    }

    fn run(mut self) {
        for _ in 0..STEPS {
            self.step();
            self.check();
        }
        self.network.end_faults();
        self.quiet_down();
        self.check_idle();
        for who in 0..self.callers.len() {
            for pin in self.process().pins(&self.callers[who]) {
                self.run_alone(Operation::Remove { who, cid: pin.cid });
            }
        }
        self.quiet_down();
        self.check_idle();
        self.check_empty();
        self.process.take().unwrap().kill();
    }

    fn step(&mut self) {
        match self.dice.roll(20) {
            0..6 => {
                let operation = self.next_operation();
                self.run_alone(operation);
            }
            6..10 => {
                let operation = self.next_operation();
                self.run_during_turn(operation);
            }
            10..13 => drop(self.process().runtime.block_on(self.process().service.workers.turn()).unwrap()),
            13 => {
                let operation = self.next_operation();
                self.crash_during(operation);
            }
            14 => self.stop_and_start(),
            15..18 => self.break_something(),
            18 => self.clock.advance(Duration::from_secs(self.dice.roll(400))),
            _ => self.set_the_clock(),
        }
    }

    fn set_the_clock(&mut self) {
        let back = i64::try_from(self.dice.roll(600)).unwrap() * 1_000;
        match self.dice.roll(3) {
            0 => self.clock.set(Timestamp::from_ms(self.clock.now().as_ms() - back)),
            _ => self.network.come_back(),
        }
    }

    fn next_operation(&mut self) -> Operation {
        let who = self.dice.roll(self.callers.len() as u64) as usize;
        let timelock = self.timelock(who);
        match self.dice.roll(10) {
            0..5 => Operation::CreatePin { who, cid: self.root(), timelock },
            5..8 => Operation::Remove { who, cid: self.root() },
            _ => {
                let bodies = self.bodies();
                let (broken, completed) = (self.dice.roll(6) == 0, self.dice.roll(6) != 0);
                Operation::Upload { who, bodies, broken, completed, timelock }
            }
        }
    }

    fn timelock(&mut self, who: usize) -> Option<Timelock> {
        let seconds = 1 + self.dice.roll(600);
        let locked = self.dice.roll(3) == 0 && self.callers[who].plan.limits.timelock;
        let now = self.clock.now();
        locked.then(|| Timelock::parse(&now.after(Duration::from_secs(seconds)).to_string(), now).unwrap())
    }

    fn root(&mut self) -> Cid {
        match self.dice.roll(4) {
            0 if !self.uploaded.is_empty() => *self.dice.pick(&self.uploaded),
            _ => *self.dice.pick(&self.grown.roots),
        }
    }

    /// Uploads one file or several, or the same as before.
    fn bodies(&mut self) -> Vec<Vec<u8>> {
        if self.dice.roll(3) == 0 && !self.bodies.is_empty() {
            return self.dice.pick(&self.bodies).clone();
        }
        let bodies: Vec<_> = (0..=self.dice.roll(3)).map(|_| self.body()).collect();
        self.bodies.push(bodies.clone());
        bodies
    }

    /// Content of a file: new bytes, or those of a block that other DAGs have.
    fn body(&mut self) -> Vec<u8> {
        let length = self.dice.roll(2_000) as usize;
        match self.dice.roll(2) {
            0 => self.dice.bytes(length),
            _ => self.dice.pick(&self.grown.leaves).to_vec(),
        }
    }

    fn run_alone(&mut self, operation: Operation) {
        let process = self.process.take().unwrap();
        let answers = process.runtime.block_on(self.perform(&process.service, operation));
        self.process = Some(process);
        self.note(answers);
    }

    /// Runs an operation while the worker runs.
    fn run_during_turn(&mut self, operation: Operation) {
        let breaths = self.dice.roll(60);
        let process = self.process.take().unwrap();
        let answers = process.runtime.block_on(async {
            let later = async {
                breathe(breaths).await;
                self.perform(&process.service, operation).await
            };
            let (turned, answers) = tokio::join!(process.service.workers.turn(), later);
            turned.unwrap();
            answers
        });
        self.process = Some(process);
        self.note(answers);
    }

    /// Kills the process during an operation and a turn of the worker.
    fn crash_during(&mut self, operation: Operation) {
        let breaths = self.dice.roll(120);
        let process = self.process.take().unwrap();
        let mut answers = Answers::default();
        // The operation may have been carried out without an acknowledgement.
        match &operation {
            Operation::Remove { who, cid } => drop(answers.removed.insert((*who, *cid))),
            Operation::CreatePin { who, cid, .. } => drop(answers.requested.insert((*who, *cid))),
            Operation::Upload { .. } | Operation::Nothing => {}
        }
        let done = process.runtime.block_on(async {
            tokio::select! {
                biased;
                (turned, done) = async { tokio::join!(process.service.workers.turn(), self.perform(&process.service, operation)) } => {
                    turned.unwrap();
                    Some(done)
                }
                () = breathe(breaths) => None,
            }
        });
        process.kill();
        self.note(done.unwrap_or(answers));
        self.start();
    }

    /// Stops the service in order while it runs, and starts it again.
    fn stop_and_start(&mut self) {
        let operation = if self.dice.roll(2) == 0 { self.next_operation() } else { Operation::Nothing };
        let breaths = self.dice.roll(60);
        let process = self.process.take().unwrap();
        let answers = process.runtime.block_on(async {
            let background = process.service.run();
            breathe(breaths).await;
            let answers = self.perform(&process.service, operation).await;
            background.stop().await;
            process.disk.blocks.close().await;
            answers
        });
        process.kill();
        self.note(answers);
        self.start();
    }

    fn start(&mut self) {
        let process = Process::begin(self.dir.path(), &self.network, &self.clock);
        if self.dice.roll(2) == 0 {
            process.runtime.block_on(process.service.workers.take_over()).unwrap();
        }
        self.process = Some(process);
    }

    fn break_something(&mut self) {
        let cid = self.root();
        let after = self.dice.roll(30);
        let own = |error| Fault { after, own: true, error };
        let down = ClusterError::Unavailable("scripted".to_owned());
        match self.dice.roll(7) {
            0 => self.network.script_hold(&cid, own(down)),
            1 => self.network.script_hold(&cid, own(ClusterError::Full)),
            2 => self.network.script_hold(&cid, Fault { after, own: false, error: ClusterError::NotFound }),
            3 => {
                let error = ClusterError::Stalled("scripted".to_owned());
                self.network.script_hold(&cid, Fault { after, own: false, error });
            }
            4 => self.network.script_release(Lost::Request),
            5 => self.network.script_release(Lost::Answer),
            _ => {
                let leaves = self.grown.hashes.iter().filter(|_| self.dice.roll(4) == 0).copied();
                self.network.leave(leaves.collect::<Vec<_>>());
            }
        }
    }

    /// A refusal is allowed as long as no acknowledged operation is affected.
    async fn perform(&self, service: &Service, operation: Operation) -> Answers {
        let mut answers = Answers::default();
        match operation {
            Operation::Nothing => {}
            Operation::CreatePin { who, cid, timelock } => {
                answers.requested.insert((who, cid));
                let request = PinRequest::new(cid).with(PinOptions { timelock, ..PinOptions::default() });
                let _ = service.pins.pin(&self.callers[who], request, Wait::No).await;
            }
            Operation::Remove { who, cid } => {
                answers.removed.insert((who, cid));
                let _ = service.pins.remove(&self.callers[who], &cid, None).await;
            }
            Operation::Upload { who, bodies, broken, completed, timelock } => {
                let terms = UploadRequest {
                    options: PinOptions { timelock, ..PinOptions::default() },
                    cluster: None,
                };
                if let Some(pin) =
                    upload(service, &self.callers[who], &bodies, broken, completed, &terms).await
                {
                    answers.requested.insert((who, pin.cid));
                    answers.acknowledged.extend(pin.expires_at.is_none().then_some((who, pin.cid)));
                }
            }
        }
        answers
    }

    fn note(&mut self, answers: Answers) {
        for gone in answers.removed.iter().chain(&answers.requested) {
            self.acknowledged.remove(gone);
        }
        for gone in &answers.removed {
            self.pinned.remove(gone);
        }
        self.uploaded.extend(answers.acknowledged.iter().map(|(_, cid)| *cid));
        self.acknowledged.extend(answers.acknowledged);
    }

    /// Invariants that hold at any time.
    fn check(&mut self) {
        let now = self.clock.now();
        let mut pinned = BTreeMap::new();
        for (who, caller) in self.callers.iter().enumerate() {
            let pins = self.check_accounting(caller);
            for pin in pins.iter().filter(|pin| pin.state == PinState::Pinned) {
                self.check_held(pin);
                pinned.insert((who, pin.cid), pin.expires_at);
            }
        }
        for (pin, expires_at) in &self.pinned {
            let is_over = expires_at.is_some_and(|at| at <= now);
            assert!(
                is_over || pinned.contains_key(pin),
                "{pin:?} was pinned until {expires_at:?}, and is lost"
            );
        }
        self.pinned = pinned;
    }

    /// Checks that the usage of accounts equals the sum of their pins, and returns the pins. Content that is local
    /// completes in the background, so a reading counts only if nothing has changed during it.
    fn check_accounting(&self, caller: &Caller) -> Vec<PinView> {
        let process = self.process();
        let read = || process.runtime.block_on(process.service.accounts.by_id(caller.account.id)).unwrap();
        let mut account = read();
        let pins = loop {
            let pins = process.pins(caller);
            let before = std::mem::replace(&mut account, read());
            if (before.used_bytes, before.pins) == (account.used_bytes, account.pins) {
                break pins;
            }
        };
        let charged: u64 = pins.iter().map(|pin| pin.size_bytes).sum();
        assert_eq!(account.used_bytes, charged, "the usage of {}", account.email);
        assert_eq!(account.pins, pins.len() as u64);
        assert!(account.used_bytes <= account.storage_limit_bytes);
        pins
    }

    /// Reads and verifies every block under a sealed hold of exactly these blocks.
    fn check_held(&self, pin: &PinView) {
        let disk = &self.process().disk;
        let dag = walk(&pin.cid, |cid| disk.load(cid));
        if self.grown.roots.contains(&pin.cid) {
            assert_eq!(dag, self.network.dag(&pin.cid), "the whole DAG of {}", pin.cid);
        }
        let name = HoldName::parse(format!("pin/{}/{}", pin.cluster, pin.cid)).unwrap();
        let hold = disk.blocks.hold(&name).unwrap().unwrap_or_else(|| panic!("{} has no hold", pin.cid));
        assert!(hold.sealed, "{}", pin.cid);
        assert_eq!(hold.stats.blocks, dag.len() as u64, "{}", pin.cid);
        assert_eq!(hold.stats.bytes, dag.values().sum::<u64>(), "{}", pin.cid);
        assert_eq!(pin.size_bytes, hold.stats.bytes, "what the account is charged for {}", pin.cid);
    }

    /// Ends all faults and advances the clock.
    fn quiet_down(&mut self) {
        for _ in 0..12 {
            self.clock.advance(Duration::from_mins(5));
            self.process().run_until_idle();
        }
        self.check();
    }

    /// Invariants that hold when all work is done.
    fn check_idle(&self) {
        let process = self.process();
        let placements = process.runtime.block_on(process.store.placements(None, 10_000)).unwrap();
        let mut wanted = BTreeSet::new();
        let mut alive: HashMap<Hash, u64> = HashMap::new();
        for placement in &placements {
            assert!(placement.state.is_terminal() && !placement.leased, "{placement:?}");
            if placement.state.is_wanted() {
                wanted.insert(format!("pin/{}/{}", placement.cluster, placement.cid));
                alive.extend(walk(&placement.cid, |cid| process.disk.load(cid)));
            }
        }
        let holds = process.disk.blocks.holds("", None, 10_000).unwrap();
        let held: BTreeSet<String> = holds.iter().map(|hold| hold.name.as_str().to_owned()).collect();
        assert_eq!(held, wanted, "the holds are those of live placements");
        self.check_pins();
        self.check_freed(&alive);
        self.check_dedup_usage(&alive);
    }

    /// Shared content counts once for each account and once for the store.
    fn check_dedup_usage(&self, alive: &HashMap<Hash, u64>) {
        let process = self.process();
        for caller in &self.callers {
            let pins = process.pins(caller).into_iter().filter(|pin| pin.state == PinState::Pinned);
            let own: HashMap<Hash, u64> =
                pins.flat_map(|pin| walk(&pin.cid, |cid| process.disk.load(cid))).collect();
            let account =
                process.runtime.block_on(process.service.accounts.by_id(caller.account.id)).unwrap();
            assert_eq!(account.dedup_bytes, own.values().sum::<u64>(), "{}", account.email);
            assert!(account.dedup_bytes <= account.used_bytes);
        }
        let totals = process.disk.blocks.totals().unwrap();
        assert_eq!((totals.blocks, totals.bytes), (alive.len() as u64, alive.values().sum()));
        let holds = process.disk.blocks.holds("", None, 10_000).unwrap();
        let held = holds.iter().map(|hold| hold.stats.bytes).sum::<u64>();
        assert_eq!((totals.holds, totals.held_bytes), (holds.len() as u64, held));
    }

    /// Each pin is pinned or has an error, none is overdue, and no upload failed for lack of its blocks.
    fn check_pins(&self) {
        let now = self.clock.now();
        for (who, caller) in self.callers.iter().enumerate() {
            for pin in self.process().pins(caller) {
                assert!(matches!(pin.state, PinState::Pinned | PinState::Failed), "{pin:?}");
                assert!(pin.expires_at.is_none_or(|at| at > now), "{pin:?}");
                if self.acknowledged.contains(&(who, pin.cid)) && pin.state == PinState::Failed {
                    let process = self.process();
                    let status = process.service.pins.status(caller, &pin.cid, None);
                    let error = process.runtime.block_on(status).unwrap().error.unwrap();
                    let own =
                        [FailureCode::Unavailable, FailureCode::StorageFull, FailureCode::QuotaExceeded];
                    assert!(own.contains(&error.code), "an upload was lost: {pin:?}, {error:?}");
                }
            }
        }
        for (who, cid) in &self.acknowledged {
            let pins = self.process().pins(&self.callers[*who]);
            assert!(pins.iter().any(|pin| pin.cid == *cid), "an acknowledged upload is gone: {cid}");
        }
    }

    /// Blocks without a hold are deleted after a short time.
    fn check_freed(&self, alive: &HashMap<Hash, u64>) {
        let disk = &self.process().disk;
        let began = Instant::now();
        let every = self.grown.hashes.iter().chain(self.uploaded.iter().map(Cid::hash));
        for hash in every.filter(|hash| !alive.contains_key(*hash)) {
            let cid = Cid::new_v1(pinfold_node::dag::RAW, *hash);
            while let Some(size) = disk.blocks.size(&cid).unwrap() {
                assert!(began.elapsed() < DEADLINE, "{size} bytes of {cid} are stored without a hold");
                std::thread::yield_now();
            }
        }
        for (hash, length) in alive {
            let size = disk.blocks.size(&Cid::new_v1(pinfold_node::dag::RAW, *hash)).unwrap();
            assert_eq!(size, Some(*length));
        }
    }

    /// The last file is deleted after the last pin.
    fn check_empty(&self) {
        assert_eq!(self.process().disk.blocks.holds("", None, 1).unwrap(), []);
        let began = Instant::now();
        let segments = self.dir.path().join("blocks/segments");
        while let Some(file) = std::fs::read_dir(&segments).unwrap().next() {
            assert!(began.elapsed() < DEADLINE, "{file:?} is stored without a hold");
            std::thread::yield_now();
        }
    }
}

/// Uploads a file, or a directory if there are several bodies. Returns the pin if it was acknowledged.
async fn upload(
    service: &Service,
    caller: &Caller,
    bodies: &[Vec<u8>],
    broken: bool,
    completed: bool,
    terms: &UploadRequest,
) -> Option<PinView> {
    let uploads = &service.uploads;
    let end = || -> Box<dyn tokio::io::AsyncRead + Send + Unpin> {
        if broken { Box::new(Broken) } else { Box::new(tokio::io::empty()) }
    };
    if let [body] = bodies {
        let received = uploads.receive(caller, terms, body.chain(end())).await.ok()?;
        let pin = completed.then(|| uploads.keep(caller, received, terms.clone()))?;
        return Some(pin.await.ok()?.view);
    }
    let mut draft = uploads.directory(caller, terms).await.ok()?;
    for (i, body) in bodies.iter().enumerate() {
        draft.add(&format!("{}/{i}", i % 2), body.chain(end())).await.ok()?;
    }
    let pin = completed.then(|| uploads.keep_directory(caller, draft, terms.clone()))?;
    Some(pin.await.ok()?.receipt.view)
}

/// A body whose sender disconnects.
struct Broken;

impl tokio::io::AsyncRead for Broken {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Err(std::io::Error::other("the sender disconnected")))
    }
}

async fn breathe(times: u64) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}

#[expect(clippy::disallowed_methods, reason = "the seeds of long runs are set by hand")]
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

/// Prints the seed when an invariant is violated.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "the seed was {0}; alone: PINFOLD_TEST_FIRST_SEED={0} PINFOLD_TEST_SEEDS=1 \
                 cargo test -p pinfold-service --test it endurance",
                self.0
            );
        }
    }
}

#[test]
fn removal_during_the_fetch_of_a_dag_with_shared_blocks_loses_nothing() {
    for seed in 1..=20 {
        let _seed = Seed(seed);
        let mut simulation = Simulation::new(seed);
        // The two roots that share most blocks: one is pinned, the other is in flight.
        let [old, new] = simulation.relatives();
        simulation.run_alone(Operation::CreatePin { who: 2, cid: old, timelock: None });
        simulation.process().run_until_idle();
        simulation.check();
        simulation.run_alone(Operation::CreatePin { who: 2, cid: new, timelock: None });
        simulation.run_during_turn(Operation::Remove { who: 2, cid: old });
        simulation.quiet_down();
        simulation.check_idle();
        let pinned: Vec<_> = simulation.pinned.keys().map(|(_, cid)| *cid).collect();
        assert_eq!(pinned, [new]);
        simulation.process.take().unwrap().kill();
    }
}

#[test]
fn invariants_hold_across_crashes() {
    let first = number("PINFOLD_TEST_FIRST_SEED", 1);
    let next = AtomicU64::new(first);
    let end = first + number("PINFOLD_TEST_SEEDS", SEEDS);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    let _seed = Seed(seed);
                    Simulation::new(seed).run();
                }
            });
        }
    });
}
