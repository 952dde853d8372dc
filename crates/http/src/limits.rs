//! Request rates: two buckets (a minute's and a second's) for each holder and budget, in bounded memory.
//!
//! A bucket is governor's GCRA: it fills evenly, so that a client that was refused can go on after moments and
//! not at the turn of a minute. What is forgotten when memory is full is the holder unused for longest; it
//! starts again with full buckets.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use lru::LruCache;
use pinfold_model::{AccountId, TokenId};

use crate::settings::Rate;

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// Who a request is counted for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    /// A good API key.
    Key(TokenId),
    /// Whoever is logged in to this account.
    Account(AccountId),
    /// Anyone else, by [`network_of`] the peer's address.
    Address(IpAddr),
}

/// What a request is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Budget {
    /// Everything that is not a poll.
    Calls,
    /// Reads that clients repeat while they wait.
    Polls,
}

/// What the `X-RateLimit-…` headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Requests a minute.
    pub(crate) limit: u32,
    /// Requests that could follow at once.
    pub(crate) remaining: u32,
    /// Time until the budget is whole again; for a request that was refused, the one that it lacked.
    pub(crate) whole_in: Duration,
}

/// The answer to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) reading: Reading,
    /// Set when the request is refused: how long until the next one would pass.
    pub(crate) retry_after: Option<Duration>,
}

type Bucket<C> = RateLimiter<NotKeyed, InMemoryState, C, StateInformationMiddleware>;

type Holders<C> = LruCache<(Holder, Budget), Arc<Buckets<C>>>;

/// The buckets of every holder.
pub(crate) struct Limits<C: Clock = DefaultClock> {
    holders: Mutex<Holders<C>>,
    clock: C,
}

struct Buckets<C: Clock> {
    rate: Rate,
    minute: Bucket<C>,
    second: Bucket<C>,
}

impl Limits {
    /// Remembers so many holders at one time.
    pub(crate) fn new(holders_max: usize) -> Self {
        Self::with_clock(holders_max, DefaultClock::default())
    }
}

impl<C: Clock + Clone> Limits<C> {
    fn with_clock(holders_max: usize, clock: C) -> Self {
        let holders_max = NonZeroUsize::new(holders_max).unwrap_or(NonZeroUsize::MIN);
        Self { holders: Mutex::new(LruCache::new(holders_max)), clock }
    }

    /// Counts one request.
    pub(crate) fn take(&self, holder: Holder, budget: Budget, rate: Rate) -> Verdict {
        let buckets = self.buckets(holder, budget, rate);
        let now = self.clock.now();
        if let Err(refused) = buckets.second.check() {
            return buckets.refuse(refused.wait_time_from(now), SECOND);
        }
        match buckets.minute.check() {
            Ok(state) => buckets.allow(state.remaining_burst_capacity()),
            Err(refused) => buckets.refuse(refused.wait_time_from(now), MINUTE),
        }
    }

    fn buckets(&self, holder: Holder, budget: Budget, rate: Rate) -> Arc<Buckets<C>> {
        // Nothing that runs under this lock can leave the map half changed.
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (holder, budget);
        if let Some(known) = holders.get(&key).filter(|known| known.rate == rate) {
            return Arc::clone(known);
        }
        let fresh = Arc::new(Buckets::new(rate, &self.clock));
        holders.put(key, Arc::clone(&fresh));
        fresh
    }
}

impl<C: Clock + Clone> Buckets<C> {
    fn new(rate: Rate, clock: &C) -> Self {
        let bucket = |quota| RateLimiter::direct_with_clock(quota, clock.clone()).with_middleware();
        Self {
            rate,
            minute: bucket(Quota::per_minute(rate.per_minute)),
            second: bucket(Quota::per_second(rate.per_second)),
        }
    }

    fn allow(&self, remaining: u32) -> Verdict {
        let limit = self.rate.per_minute.get();
        let used = limit.saturating_sub(remaining);
        Verdict { reading: Reading { limit, remaining, whole_in: MINUTE * used / limit }, retry_after: None }
    }

    /// Refuses for the bucket that is empty, which fills in `whole_in`.
    fn refuse(&self, wait: Duration, whole_in: Duration) -> Verdict {
        let reading = Reading { limit: self.rate.per_minute.get(), remaining: 0, whole_in };
        Verdict { reading, retry_after: Some(wait) }
    }
}

/// The network that a peer's address stands for: an IPv4 address itself, the /64 of an IPv6 one (a single
/// subscriber has that many addresses).
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    const ALICE: Holder = Holder::Key(TokenId(1));

    /// Limits whose time stands still until it is moved.
    fn limits() -> (Limits<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Limits::with_clock(8, clock.clone()), clock)
    }

    #[test]
    fn a_minute_has_no_more_requests_than_it_says() {
        let (limits, clock) = limits();
        let rate = Rate::new(3, 100);
        let take = || limits.take(ALICE, Budget::Calls, rate);
        let remaining: Vec<_> = (0..3).map(|_| take().reading.remaining).collect();
        assert_eq!(remaining, [2, 1, 0]);

        let refused = take();
        let whole_in = Duration::from_secs(60);
        assert_eq!(refused.reading, Reading { limit: 3, remaining: 0, whole_in });
        assert_eq!(refused.retry_after, Some(Duration::from_secs(20)));

        clock.advance(Duration::from_secs(20));
        assert_eq!(take().retry_after, None, "a third of a minute gives one of three back");
    }

    #[test]
    fn a_burst_within_a_second_is_refused_for_a_moment() {
        let (limits, clock) = limits();
        let rate = Rate::new(1000, 2);
        let take = || limits.take(ALICE, Budget::Calls, rate).retry_after;
        assert_eq!((take(), take(), take()), (None, None, Some(Duration::from_millis(500))));
        let reading = limits.take(ALICE, Budget::Calls, rate).reading;
        assert_eq!(reading, Reading { limit: 1000, remaining: 0, whole_in: SECOND }, "not in a minute");
        clock.advance(Duration::from_millis(500));
        assert_eq!(take(), None);
    }

    #[test]
    fn polls_do_not_use_up_calls_and_neighbours_do_not_share() {
        let (limits, _) = limits();
        let rate = Rate::new(1, 1);
        assert_eq!(limits.take(ALICE, Budget::Polls, rate).retry_after, None);
        assert_eq!(limits.take(ALICE, Budget::Calls, rate).retry_after, None);
        let bob = Holder::Address(IpAddr::from([192, 0, 2, 7]));
        assert_eq!(limits.take(bob, Budget::Calls, rate).retry_after, None);
        assert!(limits.take(ALICE, Budget::Calls, rate).retry_after.is_some());
    }

    #[test]
    fn a_new_plan_counts_at_once() {
        let (limits, _) = limits();
        assert_eq!(limits.take(ALICE, Budget::Calls, Rate::new(1, 1)).reading.limit, 1);
        let upgraded = limits.take(ALICE, Budget::Calls, Rate::new(600, 60));
        assert_eq!((upgraded.reading.limit, upgraded.retry_after), (600, None));
    }

    #[test]
    fn memory_is_bounded() {
        let (limits, _) = limits();
        for n in 0..100 {
            limits.take(Holder::Key(TokenId(n)), Budget::Calls, Rate::new(5, 5));
        }
        assert_eq!(limits.holders.lock().expect("no test panics under it").len(), 8);
    }

    #[test]
    fn an_ipv6_subscriber_is_one_holder() {
        let network = |text: &str| network_of(text.parse().expect("an address"));
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), network("2001:db8:1:2:ffff::1"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
    }
}
