//! The fixture of a test: a database file, and helpers for the calls that a service makes.

use std::path::PathBuf;

use cid::Cid;
use cid::multihash::Multihash;
use pinfold_model::{
    Account, AccountId, Actor, ClusterId, Email, Failure, FailureCode, PinKind, PinName, PinOptions,
    PlanCode, Retention, Role, Timelock, Timestamp,
};
use pinfold_store::{
    Capacity, CompleteOutcome, CreatePin, CreatePinOutcome, LeasedPlacement, NewAccount, PinFilter,
    PinRecord, PlacementOutcome, RemovePinOutcome, Store, StoreError,
};
use tempfile::TempDir;

/// The time at which every test begins.
pub(crate) fn now() -> Timestamp {
    at(0)
}

/// This number of seconds after the start of the test.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_ms(1_767_225_600_000 + seconds * 1_000)
}

pub(crate) struct World {
    pub(crate) store: Store,
    dir: TempDir,
}

impl World {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { store: Store::open(&dir.path().join("pinfold.db")).await.unwrap(), dir }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("pinfold.db")
    }

    /// Opens the same file again, as another process would.
    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.path()).await.unwrap()
    }

    pub(crate) async fn account(&self, name: &str, storage_limit_bytes: u64) -> AccountId {
        account(&self.store, name, storage_limit_bytes).await.unwrap().unwrap().id
    }

    pub(crate) async fn create_pin(&self, account: AccountId, cid: Cid) -> CreatePinOutcome {
        self.store.create_pin(new_pin(account, cid), now()).await.unwrap()
    }

    /// Leases the one placement that is due.
    pub(crate) async fn lease_one(&self, now: Timestamp) -> LeasedPlacement {
        let mut leases = self.store.lease_placements(Capacity::each(2), now, now.after(LEASE)).await.unwrap();
        assert_eq!(leases.len(), 1, "{leases:?}");
        leases.remove(0)
    }

    pub(crate) async fn complete_placement(
        &self,
        leased: &LeasedPlacement,
        outcome: PlacementOutcome,
    ) -> CompleteOutcome {
        self.store.complete_placement(leased.lease, outcome, now()).await.unwrap()
    }

    /// All pins of an account, newest first.
    pub(crate) async fn pins(&self, account: AccountId) -> Vec<PinRecord> {
        let list = self.store.list_pins(account, &PinFilter::default(), None, 0, 10_000).await.unwrap();
        assert_eq!(
            list.total,
            list.pins.len() as u64,
            "the pin count in the account's row is that of its pins"
        );
        list.pins
    }

    pub(crate) async fn remove(&self, account: AccountId, cid: &Cid) -> RemovePinOutcome {
        self.store.remove_pin(account, cid, None, Actor::account(account), now()).await.unwrap()
    }
}

pub(crate) const LEASE: std::time::Duration = std::time::Duration::from_secs(60);

pub(crate) async fn account(
    store: &Store,
    name: &str,
    storage_limit_bytes: u64,
) -> Result<Option<Account>, StoreError> {
    let new = NewAccount {
        email: Email::parse(&format!("{name}@example.org")).unwrap(),
        name: name.to_owned(),
        role: Role::User,
        plan: PlanCode::new("free"),
        storage_limit_bytes,
        plan_is_configured: true,
        password_hash: None,
    };
    store.create_account(new, false, Actor::OPERATOR, now()).await
}

/// The CID of a DAG, by number.
pub(crate) fn cid(number: u32) -> Cid {
    let mut digest = [0; 32];
    digest[..4].copy_from_slice(&number.to_be_bytes());
    Cid::new_v1(0x55, Multihash::wrap(0x12, &digest).unwrap())
}

pub(crate) fn new_pin(account: AccountId, cid: Cid) -> CreatePin {
    CreatePin {
        account,
        actor: Actor::account(account),
        action: "pin.create",
        cid,
        cluster: ClusterId::default(),
        options: PinOptions::default(),
        in_flight_max: 1_000_000,
        lease_until: None,
    }
}

/// Pin options with these times.
pub(crate) fn times(expires_at: Option<Timestamp>, retain_until: Option<Timestamp>) -> PinOptions {
    // Requests accept future times only; tests also write pins whose times have passed.
    let before = |at: Timestamp| at.before(std::time::Duration::from_millis(1));
    PinOptions {
        timelock: expires_at.map(|at| Timelock::parse(&at.to_string(), before(at)).unwrap()),
        retention: retain_until.map(|at| Retention::parse(&at.to_string(), before(at)).unwrap()),
        ..PinOptions::default()
    }
}

/// Pin options with this custom name.
pub(crate) fn named(text: &str) -> PinOptions {
    PinOptions { custom_name: name(text), ..PinOptions::default() }
}

pub(crate) fn name(text: &str) -> Option<PinName> {
    Some(PinName::parse(text).unwrap())
}

pub(crate) fn held(bytes: u64) -> PlacementOutcome {
    PlacementOutcome::Held { bytes, blocks: 1, kind: PinKind::File }
}

pub(crate) fn failure() -> Failure {
    Failure::new(FailureCode::ALL[0], "fetch failed")
}

pub(crate) fn failed_outcome() -> PlacementOutcome {
    PlacementOutcome::Failed { failure: failure(), over_budget_bytes: None, next_at: now() }
}

pub(crate) fn created(outcome: CreatePinOutcome) -> PinRecord {
    match outcome {
        CreatePinOutcome::Done { pin, created: true, .. } => *pin,
        other @ (CreatePinOutcome::Done { .. }
        | CreatePinOutcome::OverQuota
        | CreatePinOutcome::TooManyInFlight
        | CreatePinOutcome::Refused(_)) => {
            panic!("the pin was not created: {other:?}")
        }
    }
}
