//! The fixture of a test: a service with its database, cluster and clock, which can be restarted.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cid::Cid;
use pinfold_cluster::{Cluster, Scripted};
use pinfold_model::{
    Account, AccountId, Clock, ClusterId, Email, IpRules, ManualClock, PinState, PlanCode, Role, ScopeSet,
    Timelock, Timestamp, TokenName,
};
use pinfold_service::{
    Caller, ClusterInfo, ClusterSetup, Error, ListQuery, NewAccount, NewToken, PinReceipt, PinRequest,
    PinView, Service, Settings, Via, Wait,
};
use pinfold_store::Store;
use tempfile::TempDir;

/// A wait that only ends a test that hangs.
pub(crate) const LONG: Wait = Wait::For(Duration::from_secs(60));
/// Nothing that happens in the background takes longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

pub(crate) struct World {
    pub(crate) cluster: Scripted,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) store: Store,
    pub(crate) service: Service,
    settings: Settings,
    dir: TempDir,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(Settings { attempts_max: 3, ..Settings::default() }).await
    }

    pub(crate) async fn start_with(settings: Settings) -> Self {
        let dir = temp_dir();
        let (cluster, clock) = (Scripted::default(), Arc::new(ManualClock::default()));
        let (store, service) = open(&dir, &cluster, &clock, &settings).await;
        Self { cluster, clock, store, service, settings, dir }
    }

    /// Restarts the process: only the database and the cluster remain.
    pub(crate) async fn restart(&mut self) {
        (self.store, self.service) = open(&self.dir, &self.cluster, &self.clock, &self.settings).await;
    }

    /// Restarts with other settings.
    pub(crate) async fn restart_with(&mut self, settings: Settings) {
        self.settings = settings;
        self.restart().await;
    }

    pub(crate) async fn account(&self, name: &str, plan: &str) -> Caller {
        new_account(&self.service, name, plan).await
    }

    pub(crate) async fn fresh(&self, account: AccountId) -> Account {
        self.service.accounts.by_id(account).await.unwrap()
    }

    /// Creates a pin without waiting.
    pub(crate) async fn create_pin(&self, caller: &Caller, cid: Cid) -> Result<PinReceipt, Error> {
        self.service.pins.pin(caller, PinRequest::new(cid), Wait::No).await
    }

    /// Creates a pin and works until it completes.
    pub(crate) async fn pin(&self, caller: &Caller, request: PinRequest) -> Result<PinReceipt, Error> {
        let done = std::cell::Cell::new(false);
        let (receipt, ()) = tokio::join!(
            async {
                let receipt = self.service.pins.pin(caller, request, LONG).await;
                done.set(true);
                receipt
            },
            async {
                while !done.get() {
                    self.run_until_idle().await;
                    tokio::task::yield_now().await;
                }
            }
        );
        self.run_until_idle().await;
        receipt
    }

    /// Works until nothing is due.
    pub(crate) async fn run_until_idle(&self) {
        for _ in 0..1_000 {
            if self.service.workers.turn().await.unwrap() == 0 {
                return;
            }
        }
        panic!("a turn never becomes idle");
    }

    pub(crate) async fn remove(&self, caller: &Caller, cid: &Cid) -> Result<(), Error> {
        self.service.pins.remove(caller, cid, None).await
    }

    pub(crate) async fn uploads(&self, caller: &Caller) -> Vec<PinView> {
        all_pins(&self.service, caller).await
    }

    pub(crate) async fn state(&self, caller: &Caller, cid: &Cid) -> Option<PinState> {
        self.service.pins.status(caller, cid, None).await.ok().map(|status| status.view.state)
    }

    /// The time at which every test begins.
    pub(crate) fn clock_at_start(&self) -> Timestamp {
        ManualClock::default().now()
    }

    pub(crate) fn in_an_hour(&self) -> Timelock {
        self.in_time(Duration::from_hours(1))
    }

    pub(crate) fn in_time(&self, time: Duration) -> Timelock {
        let now = self.clock.now();
        Timelock::parse(&now.after(time).to_string(), now).unwrap()
    }

    /// Invariants at any time: pinned content is held, and the accounting balances.
    pub(crate) async fn check(&self, callers: &[&Caller]) {
        for caller in callers {
            let account = self.fresh(caller.account.id).await;
            let pins = self.uploads(caller).await;
            for pin in pins.iter().filter(|pin| pin.state == PinState::Pinned) {
                let name = format!("pin/{}/{}", pin.cluster, pin.cid);
                assert!(self.cluster.holds(&name, &pin.cid), "{} is pinned without its blocks", pin.cid);
            }
            let charged: u64 = pins.iter().map(|pin| pin.size_bytes).sum();
            assert_eq!(account.used_bytes, charged, "the usage of {}", account.email);
            assert_eq!(account.pins, pins.len() as u64);
            assert!(account.used_bytes <= account.storage_limit_bytes);
        }
    }

    /// Invariants when all work is done: only the content of live pins is held, and nothing is in progress.
    pub(crate) async fn check_idle(&self, callers: &[&Caller]) {
        self.check(callers).await;
        let placements = self.store.placements(None, 10_000).await.unwrap();
        let mut wanted = Vec::new();
        for placement in &placements {
            assert!(placement.state.is_terminal() && !placement.leased, "{placement:?}");
            if placement.state.is_wanted() {
                wanted.push(format!("pin/{}/{}", placement.cluster, placement.cid));
            }
        }
        wanted.sort();
        assert_eq!(self.cluster.all_names(), wanted, "the holds are those of live placements");
    }
}

async fn open(
    dir: &TempDir,
    cluster: &Scripted,
    clock: &Arc<ManualClock>,
    settings: &Settings,
) -> (Store, Service) {
    let store = Store::open(&dir.path().join("pinfold.db")).await.unwrap();
    let setup = setup(Arc::new(cluster.clone()));
    let clock: Arc<dyn Clock> = clock.clone();
    let service = Service::new(store.clone(), vec![setup], clock, settings.clone()).await.unwrap();
    (store, service)
}

/// The only cluster.
pub(crate) fn setup(driver: Arc<dyn Cluster>) -> ClusterSetup {
    let info = ClusterInfo {
        id: ClusterId::default(),
        label: "Here".to_owned(),
        region: None,
        country: None,
        gateways: Vec::new(),
    };
    ClusterSetup { info, driver }
}

/// Creates an account, and returns a caller with all scopes.
pub(crate) async fn new_account(service: &Service, name: &str, plan: &str) -> Caller {
    let new = NewAccount {
        email: Email::parse(&format!("{name}@example.org")).unwrap(),
        name: name.to_owned(),
        plan: PlanCode::new(plan),
        role: Role::User,
        password: None,
    };
    let account = service.accounts.create(new).await.unwrap();
    let name = TokenName::parse("key").unwrap();
    let new = NewToken {
        name,
        label: None,
        scopes: ScopeSet::all(),
        ip_allowlist: IpRules::default(),
        expires_at: None,
    };
    let key = service.tokens.create(account.id, new).await.unwrap().secret;
    service.tokens.authenticate(key.reveal(), Via::api(None)).await.unwrap()
}

/// All pins of an account.
pub(crate) async fn all_pins(service: &Service, caller: &Caller) -> Vec<PinView> {
    let query = ListQuery { limit: 100, ..ListQuery::default() };
    service.pins.list(caller, query).await.unwrap().pins
}

/// In memory if possible, where a sync is free.
pub(crate) fn temp_dir() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}
