//! A seeded simulation with few accounts, few CIDs and all kinds of faults. A failing seed is printed.

use std::time::Duration;

use cid::Cid;
use pinfold_cluster::{ClusterError, Fate};
use pinfold_model::{PinOptions, PinState};
use pinfold_service::{Caller, PinRequest, Wait};

use crate::random::Dice;
use crate::world::{GIB, World};

const SEEDS: u64 = 200;
const STEPS: u64 = 40;

struct Play {
    world: World,
    dice: Dice,
    callers: Vec<Caller>,
    cids: Vec<Cid>,
}

impl Play {
    async fn new(seed: u64) -> Self {
        let world = World::start().await;
        let callers = vec![
            world.account("ada", "free").await,
            world.account("ben", "free").await,
            world.account("cyd", "premium").await,
        ];
        // Some of these do not fit together in an account with the free plan.
        let sizes = [10, 1_000, GIB / 2, GIB / 2 + 1, GIB - 900, GIB + 1];
        let cids = (0_u64..).zip(sizes).map(|(i, size)| world.cluster.publish(&format!("{seed} {i}"), size));
        let cids = cids.collect();
        Self { world, dice: Dice::new(seed), callers, cids }
    }

    fn pick(&mut self) -> (Caller, Cid) {
        let caller = self.dice.roll(self.callers.len() as u64) as usize;
        let cid = self.dice.roll(self.cids.len() as u64) as usize;
        (self.callers[caller].clone(), self.cids[cid])
    }

    async fn step(&mut self) {
        let (caller, cid) = self.pick();
        match self.dice.roll(12) {
            0..4 => self.create_pin(&caller, cid).await,
            4..6 => drop(self.world.remove(&caller, &cid).await),
            6 => self.break_something(cid),
            7 => self.world.clock.advance(Duration::from_secs(self.dice.roll(200))),
            8 => self.crash_during_work().await,
            _ => drop(self.world.service.workers.turn().await.unwrap()),
        }
    }

    async fn create_pin(&mut self, caller: &Caller, cid: Cid) {
        let locked = caller.plan.limits.timelock && self.dice.roll(2) == 0;
        let seconds = 1 + self.dice.roll(300);
        let timelock = locked.then(|| self.world.in_time(Duration::from_secs(seconds)));
        // A refusal is allowed as long as the accounting balances.
        let _ = self
            .world
            .service
            .pins
            .pin(
                caller,
                PinRequest::new(cid).with(PinOptions { timelock, ..PinOptions::default() }),
                Wait::No,
            )
            .await;
    }

    fn break_something(&mut self, cid: Cid) {
        let down = Fate::Fails(ClusterError::Unavailable("broken".to_owned()));
        let cluster = &self.world.cluster;
        match self.dice.roll(5) {
            0 => cluster.script_hold(&cid, [down]),
            1 => cluster.script_hold(&cid, [Fate::Fails(ClusterError::NotFound)]),
            2 => cluster.script_hold(&cid, [Fate::Fails(ClusterError::Full), down]),
            3 => cluster.script_hold(&cid, [Fate::Fails(ClusterError::Stalled("broken".to_owned()))]),
            _ => cluster.script_release([down]),
        }
    }

    /// Kills the process after some steps of its work and starts it again.
    async fn crash_during_work(&mut self) {
        let breaths = self.dice.roll(40);
        let service = self.world.service.clone();
        tokio::select! {
            biased;
            done = service.workers.turn() => drop(done.unwrap()),
            () = async { for _ in 0..breaths { tokio::task::yield_now().await; } } => {}
        }
        self.world.restart().await;
    }

    /// A pin that was seen as pinned stays pinned until its owner removes it or its timelock ends.
    async fn pinned(&self) -> Vec<(usize, Cid)> {
        let mut pinned = Vec::new();
        for (i, caller) in self.callers.iter().enumerate() {
            let pins = self.world.uploads(caller).await;
            let active =
                pins.into_iter().filter(|pin| pin.state == PinState::Pinned && pin.expires_at.is_none());
            pinned.extend(active.map(|pin| (i, pin.cid)));
        }
        pinned
    }

    async fn run(mut self) {
        for _ in 0..STEPS {
            self.step().await;
            let callers: Vec<&Caller> = self.callers.iter().collect();
            self.world.check(&callers).await;
        }
        let before = self.pinned().await;
        // Ends all faults and advances the clock.
        for cid in &self.cids {
            self.world.cluster.script_hold(cid, []);
        }
        self.world.cluster.script_release([]);
        for _ in 0..12 {
            self.world.clock.advance(Duration::from_mins(5));
            self.world.run_until_idle().await;
        }
        let after = self.pinned().await;
        assert!(before.iter().all(|pin| after.contains(pin)), "{before:?} became {after:?}");
        let callers: Vec<&Caller> = self.callers.iter().collect();
        self.world.check_idle(&callers).await;
    }
}

/// Prints the seed when an invariant is violated.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed was {}", self.0);
        }
    }
}

#[tokio::test]
async fn invariants_hold_under_random_faults() {
    for seed in 1..=SEEDS {
        let _seed = Seed(seed);
        Play::new(seed).await.run().await;
    }
}
