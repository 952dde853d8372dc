//! The books: what an account is charged is what its kept pins say, whatever happens in whatever order.

use pinfold_model::{AccountId, By, PlacementId, PlacementState, Standing, Timestamp};
use pinfold_store::{Claim, Outcome, Settled, Wish, Wished};
use proptest::prelude::*;

use crate::world::{World, at, cid, created, failure, gave_up, held, now, wish};

const ACCOUNTS: usize = 3;
const CIDS: u32 = 4;
const LEASE_SECONDS: i64 = 5;

#[derive(Debug, Clone)]
enum Step {
    Wish {
        account: usize,
        cid: u32,
        expires_in: Option<i64>,
    },
    Remove {
        account: usize,
        cid: u32,
    },
    /// The first pin of an account, by the number of wishes that it has, or one less.
    Abandon {
        account: usize,
        late: bool,
    },
    Claim,
    /// The oldest claim comes to an end, well or badly.
    Settle {
        luck: u8,
    },
    /// Time passes: leases run out and pins end.
    Pass {
        seconds: i64,
    },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let (account, number) = (0..ACCOUNTS, 0..CIDS);
    prop_oneof![
        4 => (account.clone(), number.clone(), proptest::option::weighted(0.2, 1..8_i64))
            .prop_map(|(account, cid, expires_in)| Step::Wish { account, cid, expires_in }),
        2 => (account.clone(), number).prop_map(|(account, cid)| Step::Remove { account, cid }),
        1 => (account, any::<bool>()).prop_map(|(account, late)| Step::Abandon { account, late }),
        4 => Just(Step::Claim),
        4 => (0..8_u8).prop_map(|luck| Step::Settle { luck }),
        1 => (1..8_i64).prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Reopen),
    ]
}

/// The same DAG always has the same size.
fn bytes(claim: &Claim) -> u64 {
    let number = (0..CIDS).find(|number| cid(*number) == claim.placement.cid).unwrap();
    40 * u64::from(number)
}

struct Books {
    world: World,
    accounts: Vec<AccountId>,
    claims: Vec<Claim>,
    seconds: i64,
}

impl Books {
    async fn open() -> Self {
        let world = World::start().await;
        let mut accounts = Vec::new();
        for number in 0..ACCOUNTS {
            // The smallest can't have the largest, and the largest can have all.
            accounts.push(world.account(&format!("account{number}"), [100, 160, 240][number]).await);
        }
        Self { world, accounts, claims: Vec::new(), seconds: 0 }
    }

    fn now(&self) -> Timestamp {
        at(self.seconds)
    }

    async fn take(&mut self, step: Step) {
        let (now, store) = (self.now(), self.world.store.clone());
        match step {
            Step::Wish { account, cid: number, expires_in } => {
                let expires_at = expires_in.map(|seconds| at(self.seconds + seconds));
                let wish = Wish { expires_at, in_flight_max: 3, ..wish(self.accounts[account], cid(number)) };
                store.wish(wish, now).await.unwrap();
            }
            Step::Remove { account, cid: number } => {
                let owner = self.accounts[account];
                store.remove(owner, &cid(number), None, By::account(owner), now).await.unwrap();
            }
            Step::Abandon { account, late } => {
                if let Some(pin) = self.world.pins(self.accounts[account]).await.first() {
                    let ended = store.abandon(pin.id, pin.wishes - u64::from(late), now).await.unwrap();
                    assert_eq!(ended.is_some(), !late && pin.standing != Standing::Kept, "{pin:?}");
                }
            }
            Step::Claim => {
                let claims = store.claim(1, now, at(self.seconds + LEASE_SECONDS)).await.unwrap();
                self.claims.extend(claims);
            }
            Step::Settle { luck } => self.settle(luck).await,
            Step::Pass { seconds } => {
                self.seconds += seconds;
                store.expire(self.now(), 10).await.unwrap();
            }
            Step::Reopen => {
                store.close().await;
                self.world.store = self.world.open().await;
            }
        }
    }

    async fn settle(&mut self, luck: u8) {
        if self.claims.is_empty() {
            return;
        }
        let claim = self.claims.remove(0);
        let next_at = at(self.seconds + 1);
        let outcome = match luck {
            6 => Outcome::PutOff { failure: Some(failure()), next_at },
            7 => Outcome::PutOff { failure: None, next_at },
            _ if !claim.wanted => Outcome::Released,
            5 => gave_up(),
            _ if bytes(&claim) > claim.budget_bytes => {
                Outcome::GaveUp { failure: failure(), over_budget_bytes: Some(claim.budget_bytes), next_at }
            }
            _ => held(bytes(&claim)),
        };
        self.world.store.settle(claim.lease, outcome, self.now()).await.unwrap();
    }

    /// What is so at any moment.
    async fn balance(&self) {
        for id in &self.accounts {
            let account = self.world.store.account(*id).await.unwrap().unwrap();
            let pins = self.world.pins(*id).await;
            let charged: u64 = pins.iter().map(|pin| pin.charged_bytes).sum();
            assert_eq!(account.used_bytes, charged, "{pins:?}");
            assert!(account.used_bytes <= account.storage_limit_bytes);
            for pin in &pins {
                let kept = pin.standing == Standing::Kept;
                assert!(!kept || pin.placement.state == PlacementState::Pinned, "{pin:?}");
                assert_eq!(pin.charged_bytes, if kept { pin.placement.bytes } else { 0 }, "{pin:?}");
                assert_eq!(pin.error.is_some(), pin.standing == Standing::Failed, "{pin:?}");
            }
        }
    }

    /// Whoever was at work is gone; does all that is left, and looks at what came of it.
    async fn finish(&mut self) {
        self.claims.clear();
        for _ in 0..100 {
            self.seconds += LEASE_SECONDS + 1;
            self.take(Step::Claim).await;
            if self.claims.is_empty() {
                break;
            }
            self.settle(0).await;
        }
        self.balance().await;
        let mut named: Vec<(PlacementId, bool)> = Vec::new();
        for id in &self.accounts {
            let pins = self.world.pins(*id).await;
            named.extend(pins.iter().map(|pin| (pin.placement.id, pin.standing != Standing::Failed)));
        }
        for placement in self.world.store.placements(None, 100).await.unwrap() {
            assert!(placement.state.is_settled() && !placement.leased, "{placement:?}");
            assert!(named.iter().any(|(id, _)| *id == placement.id), "nobody names {placement:?}");
            let wanted = named.contains(&(placement.id, true));
            assert_eq!(placement.state == PlacementState::Pinned, wanted, "{placement:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_books_balance_after_every_step(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut books = Books::open().await;
            for step in steps {
                books.take(step).await;
                books.balance().await;
            }
            books.finish().await;
        });
    }
}

#[tokio::test]
async fn a_charge_is_given_back_once() {
    let world = World::start().await;
    let ada = world.account("ada", 100).await;
    for _ in 0..3 {
        assert!(matches!(world.wish(ada, cid(1)).await, Wished::Done { .. }));
        let claim = world.claim(at(0)).await;
        let done = world.settle(&claim, held(100)).await;
        assert_eq!(done, Settled::Now { state: PlacementState::Pinned, work: false });
        for left in [0, 0] {
            world.remove(ada, &cid(1)).await;
            assert_eq!(world.store.account(ada).await.unwrap().unwrap().used_bytes, left);
        }
        let release = world.claim(at(0)).await;
        world.settle(&release, Outcome::Released).await;
        assert!(world.store.placements(None, 1).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn an_account_that_changes_all_the_time_keeps_no_other_from_being_counted() {
    let world = World::start().await;
    let (ada, ben) = (world.account("ada", 1_000).await, world.account("ben", 1_000).await);
    let (mut last, mut counted) = (None, Vec::new());
    for number in 0..4 {
        for account in [ada, ben] {
            created(world.wish(account, cid(number)).await);
        }
        let claim = world.claim(now()).await;
        world.settle(&claim, held(10)).await;
        last = world.store.claim_distinct(last).await.unwrap();
        counted.extend(last);
        world.store.set_distinct(last.unwrap(), 10).await.unwrap();
    }
    assert_eq!(counted.iter().filter(|account| **account == ada).count(), 2);
    assert_eq!(counted.iter().filter(|account| **account == ben).count(), 2);
}
