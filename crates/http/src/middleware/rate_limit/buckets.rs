//! Request rates: two buckets (a minute's and a second's) for each subject and budget, in bounded memory.
//!
//! A request has several subjects, such as a key, its account and its network. It passes if all of their buckets have room;
//! if one is empty, nothing is taken from any of them. A bucket is a generic cell rate algorithm (ITU-T I.371): it fills
//! evenly, so a refused client can continue after moments and not at the start of the next minute. Its state is one point
//! in time, at which it is full again. A changed rate therefore applies at once, and alternating between plans neither
//! empties nor fills a bucket.
//!
//! When memory is full, the least recently used subject is forgotten; it starts again with full buckets. Authenticated and
//! anonymous subjects are stored separately, so that anonymous requests from many networks can't evict the others.

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
pub(crate) enum Subject {
    /// A valid API key.
    Key(TokenId),
    /// All sessions of an account together: a new login gives no new budget.
    Sessions(AccountId),
    /// All keys and sessions of an account together.
    Account(AccountId),
    /// All requests from one network with valid credentials of accounts with one plan.
    Network(IpAddr, PlanCode),
    /// All requests from one network without a valid credential.
    Anonymous(IpAddr),
    /// All attempts on the password of the account with this e-mail address, by [`hash_of_login`].
    Login(LoginHash),
}

/// What a request is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Budget {
    /// Requests that belong to no other budget.
    Calls,
    /// Reads that clients repeat while they wait.
    Polls,
    /// Wrong credentials.
    Guesses,
    /// Logins, and other requests that check a password.
    Logins,
}

/// A subject's buckets for a budget, and how fast they fill.
#[derive(Debug, Clone)]
pub(crate) struct Charge {
    pub(crate) subject: Subject,
    pub(crate) budget: Budget,
    pub(crate) rate: Rate,
}

/// The values of the `X-RateLimit-…` headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Requests a minute; for a limit on concurrent work, how much may run at once.
    pub(crate) limit: u32,
    /// Requests that would pass now.
    pub(crate) remaining: u32,
    /// Time until the budget is full again; for a refused request, the budget that refused it.
    pub(crate) full_in: Duration,
}

/// The answer to one request, by the strictest of its buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) reading: Reading,
    /// Set when the request is refused: how long until the next one would pass.
    pub(crate) retry_after: Option<Duration>,
}

/// Where the limiter takes the time from.
pub(crate) enum TimeSource {
    /// The machine's monotonic clock, from this moment on.
    Machine(Instant),
    /// A clock, which must not go backwards.
    Clock(Arc<dyn Clock>),
}

impl TimeSource {
    fn now(&self) -> Duration {
        match self {
            Self::Machine(began) => began.elapsed(),
            Self::Clock(clock) => Duration::from_millis(u64::try_from(clock.now().as_ms()).unwrap_or(0)),
        }
    }
}

/// The buckets of every subject.
pub(crate) struct RateLimiter {
    time: TimeSource,
    subjects: Mutex<Subjects>,
}

struct Subjects {
    authenticated: LruCache<(Subject, Budget), Buckets>,
    anonymous: LruCache<(Subject, Budget), Buckets>,
}

/// When each bucket is full again, by the limiter's time.
#[derive(Debug, Clone, Copy, Default)]
struct Buckets {
    minute: Duration,
    second: Duration,
}

impl RateLimiter {
    /// Stores at most `subjects_max` authenticated and as many anonymous subjects.
    pub(crate) fn new(subjects_max: usize, time: TimeSource) -> Self {
        let max = NonZeroUsize::new(subjects_max).unwrap_or(NonZeroUsize::MIN);
        let subjects = Subjects { authenticated: LruCache::new(max), anonymous: LruCache::new(max) };
        Self { time, subjects: Mutex::new(subjects) }
    }

    /// Counts one request in all of these buckets, or in none if one of them is empty.
    pub(crate) fn take(&self, charges: &[Charge]) -> Decision {
        self.take_at(charges, self.time.now())
    }

    /// The decision that [`take`](Self::take) would make; nothing is counted.
    pub(crate) fn peek(&self, charges: &[Charge]) -> Decision {
        self.peek_at(charges, self.time.now())
    }

    fn take_at(&self, charges: &[Charge], now: Duration) -> Decision {
        // No panic under this lock can leave the maps inconsistent.
        let mut subjects = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
        let decision = subjects.decide(charges, now);
        if decision.retry_after.is_none() {
            for charge in charges {
                let after = subjects.buckets(charge).after(charge.rate, now);
                subjects.map(&charge.subject).put((charge.subject.clone(), charge.budget), after);
            }
        }
        decision
    }

    fn peek_at(&self, charges: &[Charge], now: Duration) -> Decision {
        self.subjects.lock().unwrap_or_else(PoisonError::into_inner).decide(charges, now)
    }
}

impl Subjects {
    fn map(&mut self, subject: &Subject) -> &mut LruCache<(Subject, Budget), Buckets> {
        match subject {
            Subject::Anonymous(_) | Subject::Login(_) => &mut self.anonymous,
            Subject::Key(_) | Subject::Sessions(_) | Subject::Account(_) | Subject::Network(..) => {
                &mut self.authenticated
            }
        }
    }

    fn buckets(&mut self, charge: &Charge) -> Buckets {
        let key = (charge.subject.clone(), charge.budget);
        self.map(&charge.subject).get(&key).copied().unwrap_or_default()
    }

    /// The decision of the strictest bucket: the one that refuses for longest, or else the one that has least left.
    fn decide(&mut self, charges: &[Charge], now: Duration) -> Decision {
        let decisions = charges.iter().map(|charge| self.buckets(charge).decide(charge.rate, now));
        let strictest = decisions.reduce(|one, other| {
            let rank = |decision: &Decision| (decision.retry_after, u32::MAX - decision.reading.remaining);
            if rank(&other) > rank(&one) { other } else { one }
        });
        let free = Reading { limit: u32::MAX, remaining: u32::MAX, full_in: Duration::ZERO };
        strictest.unwrap_or(Decision { reading: free, retry_after: None })
    }
}

impl Buckets {
    /// The decision on one more request.
    fn decide(self, rate: Rate, now: Duration) -> Decision {
        let limit = rate.per_minute.get();
        let minute = wait(self.minute, MINUTE, limit, now);
        let second = wait(self.second, SECOND, rate.per_second.get(), now);
        let (retry_after, period) = if minute >= second { (minute, MINUTE) } else { (second, SECOND) };
        if retry_after.is_some() {
            return Decision { reading: Reading { limit, remaining: 0, full_in: period }, retry_after };
        }
        let full_in = self.after(rate, now).minute.saturating_sub(now);
        let left = MINUTE.saturating_sub(full_in) + slack(limit);
        let remaining = u32::try_from(left.as_nanos() / share(MINUTE, limit).as_nanos().max(1));
        Decision {
            reading: Reading { limit, remaining: remaining.unwrap_or(limit).min(limit), full_in },
            retry_after: None,
        }
    }

    /// The state after one more request has passed.
    fn after(self, rate: Rate, now: Duration) -> Self {
        Self {
            minute: self.minute.max(now) + share(MINUTE, rate.per_minute.get()),
            second: self.second.max(now) + share(SECOND, rate.per_second.get()),
        }
    }
}

/// Time until the next request passes a bucket; `None` if it passes now.
fn wait(full_at: Duration, period: Duration, limit: u32, now: Duration) -> Option<Duration> {
    let used_then = full_at.saturating_sub(now) + share(period, limit);
    let over = used_then.saturating_sub(period + slack(limit));
    (!over.is_zero()).then_some(over)
}

/// The part of a period that one request uses, rounded to a nanosecond.
fn share(period: Duration, limit: u32) -> Duration {
    period / limit
}

/// The largest sum of rounding errors over a whole period.
fn slack(limit: u32) -> Duration {
    Duration::from_nanos(limit.into())
}

/// The network of a peer's address: an IPv4 address itself, the /64 of an IPv6 one (a single
/// subscriber has that many addresses).
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
    }
}

/// The hash of an e-mail address, which need not belong to an account. No list of addresses is stored here.
pub(crate) type LoginHash = [u8; 32];

/// Hashes an e-mail address, ignoring case and spaces around it.
pub(crate) fn hash_of_login(email: &str) -> LoginHash {
    Sha256::digest(email.trim().to_lowercase()).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALICE: Subject = Subject::Key(TokenId(1));
    const BEGIN: Duration = Duration::from_secs(1_000);

    fn limiter() -> RateLimiter {
        RateLimiter::new(8, TimeSource::Machine(Instant::now()))
    }

    fn charge(subject: Subject, rate: Rate) -> Charge {
        Charge { subject, budget: Budget::Calls, rate }
    }

    fn network(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn requests_of_a_minute_are_bounded() {
        let limiter = limiter();
        let charges = [charge(ALICE, Rate::new(3, 100))];
        let remaining: Vec<_> = (0..3).map(|_| limiter.take_at(&charges, BEGIN).reading.remaining).collect();
        assert_eq!(remaining, [2, 1, 0]);

        let refused = limiter.take_at(&charges, BEGIN);
        assert_eq!(refused.reading, Reading { limit: 3, remaining: 0, full_in: MINUTE });
        let wait = refused.retry_after.expect("it is refused");
        assert!(wait <= Duration::from_secs(20) && wait > Duration::from_millis(19_999), "{wait:?}");
        assert_eq!(
            limiter.take_at(&charges, BEGIN + wait).retry_after,
            None,
            "a third of a minute gives one back"
        );
    }

    #[test]
    fn burst_within_a_second_is_refused_briefly() {
        let limiter = limiter();
        let charges = [charge(ALICE, Rate::new(1000, 2))];
        let take = |now| limiter.take_at(&charges, now);
        assert_eq!((take(BEGIN).retry_after, take(BEGIN).retry_after), (None, None));
        let refused = take(BEGIN);
        assert_eq!(
            refused.reading,
            Reading { limit: 1000, remaining: 0, full_in: SECOND },
            "not in a minute"
        );
        assert!(refused.retry_after.is_some_and(|wait| wait <= Duration::from_millis(500)));
        assert_eq!(take(BEGIN + Duration::from_millis(500)).retry_after, None);
    }

    #[test]
    fn budgets_and_subjects_are_independent() {
        let limiter = limiter();
        let rate = Rate::new(1, 1);
        let take = |subject, budget| limiter.take_at(&[Charge { subject, budget, rate }], BEGIN).retry_after;
        assert_eq!(take(ALICE, Budget::Polls), None);
        assert_eq!(take(ALICE, Budget::Calls), None);
        assert_eq!(take(Subject::Anonymous(network(7)), Budget::Calls), None);
        assert!(take(ALICE, Budget::Calls).is_some());
    }

    #[test]
    fn refused_request_takes_nothing_from_other_buckets() {
        let limiter = limiter();
        let (key, account) =
            (charge(ALICE, Rate::new(1, 9)), charge(Subject::Account(AccountId(1)), Rate::new(10, 9)));
        let both = [key, account.clone()];
        assert_eq!(limiter.take_at(&both, BEGIN).retry_after, None);
        for _ in 0..50 {
            assert!(limiter.take_at(&both, BEGIN).retry_after.is_some());
        }
        assert_eq!(limiter.take_at(&[account], BEGIN).reading.remaining, 8);
    }

    #[test]
    fn strictest_bucket_is_reported() {
        let limiter = limiter();
        let account = charge(Subject::Account(AccountId(1)), Rate::new(4, 100));
        let with_key = |n| [charge(Subject::Key(TokenId(n)), Rate::new(3, 100)), account.clone()];
        let reading = |n| limiter.take_at(&with_key(n), BEGIN).reading;
        assert_eq!((reading(1).limit, reading(1).limit), (3, 3));
        assert_eq!(
            (reading(2).limit, reading(2).remaining),
            (4, 0),
            "the account has less left than the key"
        );
        let refused = limiter.take_at(&with_key(3), BEGIN);
        assert!(refused.retry_after.is_some() && refused.reading.limit == 4);
    }

    #[test]
    fn changed_rate_applies_at_once_and_refills_nothing() {
        let limiter = limiter();
        let take = |per_minute| limiter.take_at(&[charge(ALICE, Rate::new(per_minute, 600))], BEGIN);
        for _ in 0..5 {
            take(10);
        }
        let upgraded = take(100);
        assert_eq!(
            (upgraded.reading.limit, upgraded.reading.remaining),
            (100, 49),
            "half was used, and one more"
        );
        assert_eq!(take(10).reading.remaining, 3);
    }

    #[test]
    fn peeking_counts_nothing() {
        let limiter = limiter();
        let charges = [charge(ALICE, Rate::new(2, 2))];
        for _ in 0..5 {
            assert_eq!(limiter.peek_at(&charges, BEGIN).reading.remaining, 1);
        }
        assert_eq!(limiter.take_at(&charges, BEGIN).reading.remaining, 1);
    }

    #[test]
    fn memory_is_bounded_and_anonymous_callers_evict_no_others() {
        let limiter = limiter();
        let alice = [charge(ALICE, Rate::new(2, 2))];
        limiter.take_at(&alice, BEGIN);
        for n in 0..100 {
            limiter.take_at(&[charge(Subject::Anonymous(network(n)), Rate::new(5, 5))], BEGIN);
        }
        assert_eq!(limiter.take_at(&alice, BEGIN).reading.remaining, 0, "she is not forgotten");
        for n in 0..100 {
            limiter.take_at(&[charge(Subject::Key(TokenId(n)), Rate::new(5, 5))], BEGIN);
        }
        let subjects = limiter.subjects.lock().expect("no test panics under it");
        assert_eq!((subjects.authenticated.len(), subjects.anonymous.len()), (8, 8));
    }

    #[test]
    fn login_hash_ignores_case_and_spaces() {
        assert_eq!(hash_of_login(" Ada@Example.org"), hash_of_login("ada@example.org"));
        assert_ne!(hash_of_login("ada@example.org"), hash_of_login("bob@example.org"));
    }

    #[test]
    fn ipv6_network_is_one_subject() {
        let network = |text: &str| network_of(text.parse().expect("an address"));
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), network("2001:db8:1:2:ffff::1"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
    }

    proptest! {
        /// At any times of requests, no minute and no second has more than a burst and the refill during it.
        #[test]
        fn rate_is_never_exceeded(per_minute in 1_u32..200, per_second in 1_u32..50, steps in prop::collection::vec(0_u64..3_000, 1..400)) {
            let limiter = limiter();
            let charges = [charge(ALICE, Rate::new(per_minute, per_second))];
            let (mut now, mut passed) = (BEGIN, Vec::new());
            for step in steps {
                now += Duration::from_millis(step);
                let decision = limiter.take_at(&charges, now);
                match decision.retry_after {
                    None => passed.push(now),
                    Some(wait) => {
                        prop_assert!(!wait.is_zero() && wait <= MINUTE);
                        prop_assert_eq!(limiter.peek_at(&charges, now + wait).retry_after, None, "it passes after the announced wait");
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
