//! Quota accounting: after any sequence of operations, the usage of an account equals the sum of its active pins.

use std::collections::BTreeMap;

use futures::future::join_all;
use pinfold_model::{AccountId, Actor, PinId, PinPhase, PlacementId, PlacementState, Timestamp};
use pinfold_store::{
    Capacity, CompleteOutcome, CreatePin, CreatePinOutcome, CreatePinsOutcome, LeasedPlacement,
    PlacementOutcome, RemovePinsOutcome,
};
use proptest::prelude::*;

use crate::world::{World, at, cid, created, failed_outcome, failure, held, new_pin, now, times};

const ACCOUNTS: usize = 3;
const CIDS: u32 = 4;
const LEASE_SECONDS: i64 = 5;

#[derive(Debug, Clone)]
enum Step {
    CreatePin {
        account: usize,
        cid: u32,
        expires_in: Option<i64>,
        retain_in: Option<i64>,
    },
    /// Requests for several consecutive CIDs in one batch.
    CreateBatch {
        account: usize,
        cids: std::ops::Range<u32>,
        retain_in: Option<i64>,
    },
    /// All accounts at the same time, each for all CIDs.
    CreateTogether {
        cids: std::ops::Range<u32>,
        expires_in: Option<i64>,
        /// These run the placements of new content themselves.
        leased: bool,
    },
    RemoveAll {
        account: usize,
        cids: std::ops::Range<u32>,
    },
    Remove {
        account: usize,
        cid: u32,
    },
    /// Cancels the oldest pin of an account, by its current request count or an outdated one.
    Cancel {
        account: usize,
        late: bool,
    },
    Lease,
    /// Completes the oldest lease with success or failure.
    Complete {
        choice: u8,
    },
    /// Completes as many leases at the same time as there are numbers.
    CompleteTogether {
        choice: Vec<u8>,
    },
    /// Advances the clock: leases and pins expire.
    AdvanceClock {
        seconds: i64,
    },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let (account, number) = (0..ACCOUNTS, 0..CIDS);
    let in_time = || proptest::option::weighted(0.2, 1..8_i64);
    let cids =
        || (0..CIDS).prop_flat_map(|from| (Just(from), from + 1..=CIDS)).prop_map(|(from, to)| from..to);
    prop_oneof![
        4 => (account.clone(), number.clone(), in_time(), in_time()).prop_map(
            |(account, cid, expires_in, retain_in)| Step::CreatePin { account, cid, expires_in, retain_in }
        ),
        1 => (account.clone(), cids(), in_time())
            .prop_map(|(account, cids, retain_in)| Step::CreateBatch { account, cids, retain_in }),
        1 => (cids(), in_time(), any::<bool>())
            .prop_map(|(cids, expires_in, leased)| Step::CreateTogether { cids, expires_in, leased }),
        1 => (account.clone(), cids()).prop_map(|(account, cids)| Step::RemoveAll { account, cids }),
        2 => (account.clone(), number).prop_map(|(account, cid)| Step::Remove { account, cid }),
        1 => (account, any::<bool>()).prop_map(|(account, late)| Step::Cancel { account, late }),
        4 => Just(Step::Lease),
        4 => (0..8_u8).prop_map(|choice| Step::Complete { choice }),
        1 => proptest::collection::vec(0..8_u8, 1..5).prop_map(|choice| Step::CompleteTogether { choice }),
        1 => (1..8_i64).prop_map(|seconds| Step::AdvanceClock { seconds }),
        1 => Just(Step::Reopen),
    ]
}

/// A DAG always has the same size.
fn bytes(leased: &LeasedPlacement) -> u64 {
    let number = (0..CIDS).find(|number| cid(*number) == leased.placement.cid).unwrap();
    40 * u64::from(number)
}

struct Accounting {
    world: World,
    accounts: Vec<AccountId>,
    leases: Vec<LeasedPlacement>,
    seconds: i64,
}

impl Accounting {
    async fn open() -> Self {
        let world = World::start().await;
        let mut accounts = Vec::new();
        for number in 0..ACCOUNTS {
            // The smallest quota fits not even the largest DAG; the largest quota fits all.
            accounts.push(world.account(&format!("account{number}"), [100, 160, 240][number]).await);
        }
        Self { world, accounts, leases: Vec::new(), seconds: 0 }
    }

    fn now(&self) -> Timestamp {
        at(self.seconds)
    }

    /// The locked pins and the time until which each is locked.
    async fn locked(&self) -> Vec<(PinId, Timestamp)> {
        let mut locked = Vec::new();
        for account in &self.accounts {
            let pins = self.world.pins(*account).await;
            let live = pins.iter().filter(|pin| pin.phase != PinPhase::Failed);
            locked.extend(live.filter_map(|pin| Some((pin.id, pin.lifetime().locked_until(self.now())?))));
        }
        locked
    }

    /// Locked pins still exist, with a lock that ends no earlier.
    async fn check_locks(&self, locks: Vec<(PinId, Timestamp)>) {
        for (id, until) in locks.into_iter().filter(|(_, until)| *until > self.now()) {
            let pin = self.world.store.pin(id).await.unwrap().expect("the pin is locked");
            assert!(pin.retain_until >= Some(until), "{pin:?}");
            assert!(pin.expires_at.is_none_or(|end| Some(end) >= pin.retain_until), "{pin:?}");
        }
    }

    fn new_pin(
        &self,
        account: usize,
        number: u32,
        expires_in: Option<i64>,
        retain_in: Option<i64>,
    ) -> CreatePin {
        let at = |seconds| at(self.seconds + seconds);
        let options = times(expires_in.map(at), retain_in.map(at));
        CreatePin { options, in_flight_max: 3, ..new_pin(self.accounts[account], cid(number)) }
    }

    async fn take(&mut self, step: Step) {
        let (now, store) = (self.now(), self.world.store.clone());
        match step {
            Step::CreatePin { account, cid, expires_in, retain_in } => {
                store.create_pin(self.new_pin(account, cid, expires_in, retain_in), now).await.unwrap();
            }
            Step::CreateBatch { account, cids, retain_in } => {
                let before = self.world.pins(self.accounts[account]).await;
                let requests = cids.map(|cid| self.new_pin(account, cid, None, retain_in)).collect();
                if !matches!(store.create_pins(requests, now).await.unwrap(), CreatePinsOutcome::Done(_)) {
                    assert_eq!(self.world.pins(self.accounts[account]).await, before, "the batch is atomic");
                }
            }
            Step::CreateTogether { cids, expires_in, leased } => {
                self.create_together(cids, expires_in, leased).await
            }
            Step::RemoveAll { account, cids } => {
                let account = self.accounts[account];
                let before = self.world.pins(account).await;
                let pins: Vec<_> = cids.map(|number| (cid(number), None)).collect();
                match store.remove_pins(account, &pins, Actor::account(account), now).await.unwrap() {
                    RemovePinsOutcome::Done(ended) => assert_eq!(ended.len(), pins.len()),
                    RemovePinsOutcome::Refused(_) => assert_eq!(self.world.pins(account).await, before),
                }
            }
            Step::Remove { account, cid: number } => {
                let owner = self.accounts[account];
                store.remove_pin(owner, &cid(number), None, Actor::account(owner), now).await.unwrap();
            }
            Step::Cancel { account, late } => {
                if let Some(pin) = self.world.pins(self.accounts[account]).await.first() {
                    let ended =
                        store.cancel_pin(pin.id, pin.request_count - u64::from(late), now).await.unwrap();
                    let binds = pin.phase == PinPhase::Pending && pin.lifetime().locked_until(now).is_some();
                    let may_end = !late && pin.phase != PinPhase::Active && !binds;
                    assert_eq!(ended.is_some(), may_end, "{pin:?}");
                }
            }
            Step::Lease => {
                let leases = store
                    .lease_placements(Capacity::each(1), now, at(self.seconds + LEASE_SECONDS))
                    .await
                    .unwrap();
                self.leases.extend(leases);
            }
            Step::Complete { choice } => self.complete_placement(&[choice]).await,
            Step::CompleteTogether { choice } => self.complete_placement(&choice).await,
            Step::AdvanceClock { seconds } => {
                self.seconds += seconds;
                store.expire_pins(self.now(), 10).await.unwrap();
            }
            Step::Reopen => {
                store.close().await;
                self.world.store = self.world.open().await;
            }
        }
    }

    async fn create_together(&mut self, cids: std::ops::Range<u32>, expires_in: Option<i64>, leased: bool) {
        let lease_until = leased.then(|| at(self.seconds + LEASE_SECONDS));
        let each = cids.flat_map(|cid| (0..ACCOUNTS).map(move |account| (account, cid)));
        let requests = each.map(|(account, cid)| self.new_pin(account, cid, expires_in, None));
        let requests = requests
            .map(|request| self.world.store.create_pin(CreatePin { lease_until, ..request }, self.now()));
        for outcome in join_all(requests).await {
            if let CreatePinOutcome::Done { lease: Some(leased), .. } = outcome.unwrap() {
                self.leases.push(*leased);
            }
        }
    }

    /// Completes the first leases at the same time, each with its outcome.
    async fn complete_placement(&mut self, choice: &[u8]) {
        let most = choice.len().min(self.leases.len());
        let leases: Vec<_> = self.leases.drain(..most).collect();
        let completions = leases.iter().zip(choice).map(|(leased, choice)| {
            self.world.store.complete_placement(leased.lease, self.outcome(leased, *choice), self.now())
        });
        for completed in join_all(completions).await {
            completed.unwrap();
        }
    }

    fn outcome(&self, leased: &LeasedPlacement, choice: u8) -> PlacementOutcome {
        let next_at = at(self.seconds + 1);
        match choice {
            6 => PlacementOutcome::Postponed { failure: Some(failure()), next_at },
            7 => PlacementOutcome::Postponed { failure: None, next_at },
            _ if !leased.wanted => PlacementOutcome::Released,
            5 => failed_outcome(),
            _ if bytes(leased) > leased.budget_bytes => PlacementOutcome::Failed {
                failure: failure(),
                over_budget_bytes: Some(leased.budget_bytes),
                next_at,
            },
            _ => held(bytes(leased)),
        }
    }

    /// Invariants that hold at any time.
    async fn check_balance(&self) {
        self.sums_are_right().await;
        for id in &self.accounts {
            let account = self.world.store.account(*id).await.unwrap().unwrap();
            let pins = self.world.pins(*id).await;
            let charged: u64 = pins.iter().map(|pin| pin.charged_bytes).sum();
            assert_eq!(account.used_bytes, charged, "{pins:?}");
            assert!(account.used_bytes <= account.storage_limit_bytes);
            for pin in &pins {
                let active = pin.phase == PinPhase::Active;
                assert!(!active || pin.placement.state == PlacementState::Pinned, "{pin:?}");
                assert_eq!(pin.charged_bytes, if active { pin.placement.bytes } else { 0 }, "{pin:?}");
                assert_eq!(pin.error.is_some(), pin.phase == PinPhase::Failed, "{pin:?}");
            }
        }
    }

    /// The stored sums equal the counted ones.
    async fn sums_are_right(&self) {
        let mut counted: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        let mut pinning = 0;
        for id in &self.accounts {
            for pin in self.world.pins(*id).await {
                let (pins, bytes) = counted.entry(pin.phase.as_str()).or_default();
                (*pins, *bytes) = (*pins + 1, *bytes + pin.charged_bytes);
                let in_work = pin.placement.state == PlacementState::Pinning;
                pinning += u64::from(pin.phase == PinPhase::Pending && in_work);
            }
        }
        let figures = self.world.store.statistics().await.unwrap();
        let active = figures.pins.iter().map(|sum| (sum.phase.as_str(), (sum.pins, sum.bytes)));
        assert_eq!(active.collect::<BTreeMap<_, _>>(), counted);
        assert_eq!(figures.pinning.iter().map(|(_, pins)| pins).sum::<u64>(), pinning);
        assert_eq!(figures.accounts.iter().map(|sum| sum.accounts).sum::<u64>(), ACCOUNTS as u64);
    }

    /// Drops all workers, completes all remaining work and checks the final state.
    async fn finish(&mut self) {
        self.leases.clear();
        for _ in 0..100 {
            self.seconds += LEASE_SECONDS + 1;
            self.take(Step::Lease).await;
            if self.leases.is_empty() {
                break;
            }
            while !self.leases.is_empty() {
                self.complete_placement(&[0, 0]).await;
            }
        }
        self.check_balance().await;
        let mut named: Vec<(PlacementId, bool)> = Vec::new();
        for id in &self.accounts {
            let pins = self.world.pins(*id).await;
            named.extend(pins.iter().map(|pin| (pin.placement.id, pin.phase != PinPhase::Failed)));
        }
        for placement in self.world.store.placements(None, 100).await.unwrap() {
            assert!(placement.state.is_terminal() && !placement.leased, "{placement:?}");
            assert!(named.iter().any(|(id, _)| *id == placement.id), "no pin references {placement:?}");
            let wanted = named.contains(&(placement.id, true));
            assert_eq!(placement.state == PlacementState::Pinned, wanted, "{placement:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn accounting_balances_after_every_step(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut accounting = Accounting::open().await;
            for step in steps {
                let locks = accounting.locked().await;
                accounting.take(step).await;
                accounting.check_locks(locks).await;
                accounting.check_balance().await;
            }
            accounting.finish().await;
        });
    }
}

#[tokio::test]
async fn charge_is_refunded_once() {
    let world = World::start().await;
    let ada = world.account("ada", 100).await;
    for _ in 0..3 {
        assert!(matches!(world.create_pin(ada, cid(1)).await, CreatePinOutcome::Done { .. }));
        let leased = world.lease_one(at(0)).await;
        let done = world.complete_placement(&leased, held(100)).await;
        assert_eq!(done, CompleteOutcome::Now { state: PlacementState::Pinned, work: false });
        for left in [0, 0] {
            world.remove(ada, &cid(1)).await;
            assert_eq!(world.store.account(ada).await.unwrap().unwrap().used_bytes, left);
        }
        let release = world.lease_one(at(0)).await;
        world.complete_placement(&release, PlacementOutcome::Released).await;
        assert!(world.store.placements(None, 1).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn frequently_changing_account_does_not_block_counting_of_others() {
    let world = World::start().await;
    let (ada, ben) = (world.account("ada", 1_000).await, world.account("ben", 1_000).await);
    let (mut last, mut counted) = (None, Vec::new());
    for number in 0..4 {
        for account in [ada, ben] {
            created(world.create_pin(account, cid(number)).await);
        }
        let leased = world.lease_one(now()).await;
        world.complete_placement(&leased, held(10)).await;
        last = world.store.start_dedup_count(last).await.unwrap();
        counted.extend(last);
        world.store.finish_dedup_count(last.unwrap(), 10).await.unwrap();
    }
    assert_eq!(counted.iter().filter(|account| **account == ada).count(), 2);
    assert_eq!(counted.iter().filter(|account| **account == ben).count(), 2);
}
