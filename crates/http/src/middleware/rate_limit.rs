//! Request rates: two buckets (a minute's and a second's) for each holder and budget, in bounded memory.
//!
//! A request has several holders, such as a key, its account and the network that it comes from. It passes if all of
//! their buckets let it; if one does not, none of them loses anything. A bucket is a generic cell rate algorithm
//! (ITU-T I.371): it fills evenly, so that a client that was refused can go on after moments and not at the turn of a
//! minute. What is kept of it is one point in time, the one at which it is whole again. So a new plan counts at once,
//! and changing plans to and fro empties no bucket and fills none.
//!
//! What is forgotten when memory is full is the holder unused for longest; it starts again with full buckets. Those who
//! have shown a good credential and those who have not are remembered apart, so that strangers from many networks
//! can't make the server forget the others.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use pinfold_model::{AccountId, Clock, PlanCode, TokenId};
use sha2::{Digest, Sha256};

use crate::settings::Rate;

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// Who a request is counted for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    /// A good API key.
    Key(TokenId),
    /// Whoever is logged in to this account: logging in again gives no new budget.
    Sessions(AccountId),
    /// All keys and sessions of an account together.
    Account(AccountId),
    /// All who come from one network with good credentials of accounts with one plan.
    Network(IpAddr, PlanCode),
    /// All who come from one network without a good credential.
    Strangers(IpAddr),
    /// All who try the password of the account with this address, by [`login_of`].
    Login(LoginHash),
}

/// What a request is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Budget {
    /// Everything that is not a poll.
    Calls,
    /// Reads that clients repeat while they wait.
    Polls,
    /// Credentials that were wrong.
    Guesses,
    /// Tries to log in, and whatever else tries passwords.
    Logins,
}

/// A holder's buckets for a budget, and how fast they fill.
#[derive(Debug, Clone)]
pub(crate) struct Want {
    pub(crate) holder: Holder,
    pub(crate) budget: Budget,
    pub(crate) rate: Rate,
}

/// What the `X-RateLimit-…` headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Requests a minute; or how many of what was refused may be at once.
    pub(crate) limit: u32,
    /// Requests that could follow at once.
    pub(crate) remaining: u32,
    /// Time until the budget is whole again; for a request that was refused, the one that it lacked.
    pub(crate) whole_in: Duration,
}

/// The answer to one request, by the strictest of its buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) reading: Reading,
    /// Set when the request is refused: how long until the next one would pass.
    pub(crate) retry_after: Option<Duration>,
}

/// What time is told by.
pub(crate) enum Ticks {
    /// The time since then.
    Machine(Instant),
    /// A clock, which must not go backwards.
    Clock(Arc<dyn Clock>),
}

impl Ticks {
    fn now(&self) -> Duration {
        match self {
            Self::Machine(began) => began.elapsed(),
            Self::Clock(clock) => Duration::from_millis(u64::try_from(clock.now().as_ms()).unwrap_or(0)),
        }
    }
}

/// The buckets of every holder.
pub(crate) struct Limits {
    ticks: Ticks,
    holders: Mutex<Holders>,
}

struct Holders {
    proven: LruCache<(Holder, Budget), Buckets>,
    strangers: LruCache<(Holder, Budget), Buckets>,
}

/// When each bucket is whole again, counted from the beginning.
#[derive(Debug, Clone, Copy, Default)]
struct Buckets {
    minute: Duration,
    second: Duration,
}

impl Limits {
    /// Remembers so many holders at one time, and as many strangers.
    pub(crate) fn new(holders_max: usize, ticks: Ticks) -> Self {
        let max = NonZeroUsize::new(holders_max).unwrap_or(NonZeroUsize::MIN);
        let holders = Holders { proven: LruCache::new(max), strangers: LruCache::new(max) };
        Self { ticks, holders: Mutex::new(holders) }
    }

    /// Counts one request in all of these buckets, or in none if one of them is empty.
    pub(crate) fn take(&self, wants: &[Want]) -> Verdict {
        self.take_at(wants, self.ticks.now())
    }

    /// What [`take`](Self::take) would say; nothing is counted.
    pub(crate) fn look(&self, wants: &[Want]) -> Verdict {
        self.look_at(wants, self.ticks.now())
    }

    fn take_at(&self, wants: &[Want], now: Duration) -> Verdict {
        // Nothing that runs under this lock can leave the maps half changed.
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = holders.judge(wants, now);
        if verdict.retry_after.is_none() {
            for want in wants {
                let after = holders.buckets(want).after(want.rate, now);
                holders.map(&want.holder).put((want.holder.clone(), want.budget), after);
            }
        }
        verdict
    }

    fn look_at(&self, wants: &[Want], now: Duration) -> Verdict {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner).judge(wants, now)
    }
}

impl Holders {
    fn map(&mut self, holder: &Holder) -> &mut LruCache<(Holder, Budget), Buckets> {
        match holder {
            Holder::Strangers(_) | Holder::Login(_) => &mut self.strangers,
            Holder::Key(_) | Holder::Sessions(_) | Holder::Account(_) | Holder::Network(..) => {
                &mut self.proven
            }
        }
    }

    fn buckets(&mut self, want: &Want) -> Buckets {
        let key = (want.holder.clone(), want.budget);
        self.map(&want.holder).get(&key).copied().unwrap_or_default()
    }

    /// The verdict of the strictest: of those that refuse, the one that does so for longest; else of those that have
    /// least left.
    fn judge(&mut self, wants: &[Want], now: Duration) -> Verdict {
        let verdicts = wants.iter().map(|want| self.buckets(want).judge(want.rate, now));
        let strictest = verdicts.reduce(|one, other| {
            let rank = |verdict: &Verdict| (verdict.retry_after, u32::MAX - verdict.reading.remaining);
            if rank(&other) > rank(&one) { other } else { one }
        });
        let free = Reading { limit: u32::MAX, remaining: u32::MAX, whole_in: Duration::ZERO };
        strictest.unwrap_or(Verdict { reading: free, retry_after: None })
    }
}

impl Buckets {
    /// What it says to one more request.
    fn judge(self, rate: Rate, now: Duration) -> Verdict {
        let limit = rate.per_minute.get();
        let minute = wait(self.minute, MINUTE, limit, now);
        let second = wait(self.second, SECOND, rate.per_second.get(), now);
        let (retry_after, period) = if minute >= second { (minute, MINUTE) } else { (second, SECOND) };
        if retry_after.is_some() {
            return Verdict { reading: Reading { limit, remaining: 0, whole_in: period }, retry_after };
        }
        let whole_in = self.after(rate, now).minute.saturating_sub(now);
        let left = MINUTE.saturating_sub(whole_in) + slack(limit);
        let remaining = u32::try_from(left.as_nanos() / share(MINUTE, limit).as_nanos().max(1));
        Verdict {
            reading: Reading { limit, remaining: remaining.unwrap_or(limit).min(limit), whole_in },
            retry_after: None,
        }
    }

    /// As it is when one more request was let through.
    fn after(self, rate: Rate, now: Duration) -> Self {
        Self {
            minute: self.minute.max(now) + share(MINUTE, rate.per_minute.get()),
            second: self.second.max(now) + share(SECOND, rate.per_second.get()),
        }
    }
}

/// How long until a bucket lets the next request through; `None` if it does now.
fn wait(whole_at: Duration, period: Duration, limit: u32, now: Duration) -> Option<Duration> {
    let used_then = whole_at.saturating_sub(now) + share(period, limit);
    let over = used_then.saturating_sub(period + slack(limit));
    (!over.is_zero()).then_some(over)
}

/// The part of a period that one request uses up, rounded to a nanosecond.
fn share(period: Duration, limit: u32) -> Duration {
    period / limit
}

/// What rounding can add up to over a whole period.
fn slack(limit: u32) -> Duration {
    Duration::from_nanos(limit.into())
}

/// The network that a peer's address stands for: an IPv4 address itself, the /64 of an IPv6 one (a single
/// subscriber has that many addresses).
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
    }
}

/// Stands for an e-mail address, whether there is such an account or not: so that no list of addresses grows here.
pub(crate) type LoginHash = [u8; 32];

/// What stands for an e-mail address.
pub(crate) fn login_of(email: &str) -> LoginHash {
    Sha256::digest(email.trim().to_lowercase()).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALICE: Holder = Holder::Key(TokenId(1));
    const BEGIN: Duration = Duration::from_secs(1_000);

    fn limits() -> Limits {
        Limits::new(8, Ticks::Machine(Instant::now()))
    }

    fn want(holder: Holder, rate: Rate) -> Want {
        Want { holder, budget: Budget::Calls, rate }
    }

    fn network(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn a_minute_has_no_more_requests_than_it_says() {
        let limits = limits();
        let wants = [want(ALICE, Rate::new(3, 100))];
        let remaining: Vec<_> = (0..3).map(|_| limits.take_at(&wants, BEGIN).reading.remaining).collect();
        assert_eq!(remaining, [2, 1, 0]);

        let refused = limits.take_at(&wants, BEGIN);
        assert_eq!(refused.reading, Reading { limit: 3, remaining: 0, whole_in: MINUTE });
        let wait = refused.retry_after.expect("it is refused");
        assert!(wait <= Duration::from_secs(20) && wait > Duration::from_millis(19_999), "{wait:?}");
        assert_eq!(
            limits.take_at(&wants, BEGIN + wait).retry_after,
            None,
            "a third of a minute gives one back"
        );
    }

    #[test]
    fn a_burst_within_a_second_is_refused_for_a_moment() {
        let limits = limits();
        let wants = [want(ALICE, Rate::new(1000, 2))];
        let take = |now| limits.take_at(&wants, now);
        assert_eq!((take(BEGIN).retry_after, take(BEGIN).retry_after), (None, None));
        let refused = take(BEGIN);
        assert_eq!(
            refused.reading,
            Reading { limit: 1000, remaining: 0, whole_in: SECOND },
            "not in a minute"
        );
        assert!(refused.retry_after.is_some_and(|wait| wait <= Duration::from_millis(500)));
        assert_eq!(take(BEGIN + Duration::from_millis(500)).retry_after, None);
    }

    #[test]
    fn polls_do_not_use_up_calls_and_neighbours_do_not_share() {
        let limits = limits();
        let rate = Rate::new(1, 1);
        let take = |holder, budget| limits.take_at(&[Want { holder, budget, rate }], BEGIN).retry_after;
        assert_eq!(take(ALICE, Budget::Polls), None);
        assert_eq!(take(ALICE, Budget::Calls), None);
        assert_eq!(take(Holder::Strangers(network(7)), Budget::Calls), None);
        assert!(take(ALICE, Budget::Calls).is_some());
    }

    #[test]
    fn a_refused_request_takes_nothing_from_the_other_buckets() {
        let limits = limits();
        let (key, account) =
            (want(ALICE, Rate::new(1, 9)), want(Holder::Account(AccountId(1)), Rate::new(10, 9)));
        let both = [key, account.clone()];
        assert_eq!(limits.take_at(&both, BEGIN).retry_after, None);
        for _ in 0..50 {
            assert!(limits.take_at(&both, BEGIN).retry_after.is_some());
        }
        assert_eq!(limits.take_at(&[account], BEGIN).reading.remaining, 8);
    }

    #[test]
    fn the_strictest_bucket_is_told() {
        let limits = limits();
        let account = want(Holder::Account(AccountId(1)), Rate::new(4, 100));
        let with_key = |n| [want(Holder::Key(TokenId(n)), Rate::new(3, 100)), account.clone()];
        let reading = |n| limits.take_at(&with_key(n), BEGIN).reading;
        assert_eq!((reading(1).limit, reading(1).limit), (3, 3));
        assert_eq!(
            (reading(2).limit, reading(2).remaining),
            (4, 0),
            "the account has less left than the key"
        );
        let refused = limits.take_at(&with_key(3), BEGIN);
        assert!(refused.retry_after.is_some() && refused.reading.limit == 4);
    }

    #[test]
    fn a_new_plan_counts_at_once_and_gives_nothing_back() {
        let limits = limits();
        let take = |per_minute| limits.take_at(&[want(ALICE, Rate::new(per_minute, 600))], BEGIN);
        for _ in 0..5 {
            take(10);
        }
        let upgraded = take(100);
        assert_eq!(
            (upgraded.reading.limit, upgraded.reading.remaining),
            (100, 49),
            "half was used up, and one"
        );
        assert_eq!(take(10).reading.remaining, 3);
    }

    #[test]
    fn looking_counts_nothing() {
        let limits = limits();
        let wants = [want(ALICE, Rate::new(2, 2))];
        for _ in 0..5 {
            assert_eq!(limits.look_at(&wants, BEGIN).reading.remaining, 1);
        }
        assert_eq!(limits.take_at(&wants, BEGIN).reading.remaining, 1);
    }

    #[test]
    fn memory_is_bounded_and_strangers_push_nobody_out() {
        let limits = limits();
        let alice = [want(ALICE, Rate::new(2, 2))];
        limits.take_at(&alice, BEGIN);
        for n in 0..100 {
            limits.take_at(&[want(Holder::Strangers(network(n)), Rate::new(5, 5))], BEGIN);
        }
        assert_eq!(limits.take_at(&alice, BEGIN).reading.remaining, 0, "she is remembered");
        for n in 0..100 {
            limits.take_at(&[want(Holder::Key(TokenId(n)), Rate::new(5, 5))], BEGIN);
        }
        let holders = limits.holders.lock().expect("no test panics under it");
        assert_eq!((holders.proven.len(), holders.strangers.len()), (8, 8));
    }

    #[test]
    fn one_address_is_one_login_however_it_is_written() {
        assert_eq!(login_of(" Ada@Example.org"), login_of("ada@example.org"));
        assert_ne!(login_of("ada@example.org"), login_of("bob@example.org"));
    }

    #[test]
    fn an_ipv6_subscriber_is_one_holder() {
        let network = |text: &str| network_of(text.parse().expect("an address"));
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), network("2001:db8:1:2:ffff::1"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
    }

    proptest! {
        /// Whatever comes when, no minute and no second has more than a burst and what fills in meanwhile.
        #[test]
        fn a_rate_holds(per_minute in 1_u32..200, per_second in 1_u32..50, steps in prop::collection::vec(0_u64..3_000, 1..400)) {
            let limits = limits();
            let wants = [want(ALICE, Rate::new(per_minute, per_second))];
            let (mut now, mut passed) = (BEGIN, Vec::new());
            for step in steps {
                now += Duration::from_millis(step);
                let verdict = limits.take_at(&wants, now);
                match verdict.retry_after {
                    None => passed.push(now),
                    Some(wait) => {
                        prop_assert!(!wait.is_zero() && wait <= MINUTE);
                        prop_assert_eq!(limits.look_at(&wants, now + wait).retry_after, None, "it is as it says");
                    }
                }
            }
            for (first, at) in passed.iter().enumerate() {
                let within = |period: Duration| passed[first..].iter().filter(|other| **other - *at < period).count();
                prop_assert!(within(MINUTE) <= 2 * per_minute as usize);
                prop_assert!(within(SECOND) <= 2 * per_second as usize);
            }
        }
    }
}
