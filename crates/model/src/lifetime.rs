//! The lifetime of a pin: its expiry (timelock) and its retention lock.

use std::time::Duration;

use crate::time::parse_future;
use crate::{Timelock, TimelockError, Timestamp};

/// A retention lock: the time until which a pin can't be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Retention(Timestamp);

/// The text is not a valid [`Retention`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RetentionError {
    /// The text is not a time with an offset.
    #[error("retainUntil must be an ISO 8601 time with an offset, such as 2026-12-31T23:59:59Z")]
    Invalid,
    /// The time is not in the future.
    #[error("retainUntil must be in the future")]
    Past,
    /// The time is more than [`Retention::AHEAD_MAX`] ahead.
    #[error("retainUntil must be within the next 100 years")]
    TooFar,
}

impl Retention {
    /// Maximum time ahead. It rejects mistakes, such as microseconds given as milliseconds, which only an operator
    /// could undo.
    pub const AHEAD_MAX: Duration = Timelock::AHEAD_MAX;

    /// Parses an ISO 8601 time with `Z` or an offset. Fractions of a millisecond are truncated.
    ///
    /// # Errors
    /// [`RetentionError`] if the text is not such a time, or the time is in the past or too far ahead.
    pub fn parse(text: &str, now: Timestamp) -> Result<Self, RetentionError> {
        parse_future(text, now).map(Self).map_err(|error| match error {
            TimelockError::Invalid => RetentionError::Invalid,
            TimelockError::Past => RetentionError::Past,
            TimelockError::TooFar => RetentionError::TooFar,
        })
    }

    /// When the lock ends.
    #[must_use]
    pub fn until(self) -> Timestamp {
        self.0
    }
}

/// The expiry and the retention lock of a pin, or those given in a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// When the pin is removed automatically.
    pub expires_at: Option<Timestamp>,
    /// Until when only an operator can remove the pin.
    pub retain_until: Option<Timestamp>,
}

/// The requested times conflict with each other or with those of the pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LifetimeError {
    /// The request would shorten the retention lock.
    #[error("The pin is locked until {until}; retainUntil can only be extended")]
    Shortened {
        /// Until when the pin is locked.
        until: Timestamp,
    },
    /// The requested timelock is before the end of the retention lock.
    #[error("The pin is locked until {until}; its timelock can't be earlier")]
    EndsBeforeLock {
        /// End of the present or requested retention lock.
        until: Timestamp,
    },
    /// The requested retention lock ends after the pin's present timelock.
    #[error(
        "The pin ends by its timelock at {ends_at}; to lock it for longer, give a later timelock as well"
    )]
    LockBeyondEnd {
        /// The present timelock.
        ends_at: Timestamp,
    },
}

impl Lifetime {
    /// When the retention lock ends, or `None` if the pin is not locked at `now`.
    #[must_use]
    pub fn locked_until(self, now: Timestamp) -> Option<Timestamp> {
        self.retain_until.filter(|until| *until > now)
    }

    /// The times of the pin after a request with the times `new`. A time that the request leaves out keeps its value,
    /// with one exception: an expiry in the past is dropped. Such a pin is due for removal, and a pin that was just
    /// requested again must not be removed.
    ///
    /// # Errors
    /// [`LifetimeError`] if the lock would be shortened, or the pin would expire before its lock ends.
    pub fn renewed(self, new: Self, now: Timestamp) -> Result<Self, LifetimeError> {
        if let (Some(until), Some(requested)) = (self.locked_until(now), new.retain_until)
            && requested < until
        {
            return Err(LifetimeError::Shortened { until });
        }
        let present = self.expires_at.filter(|at| *at > now);
        let next = Self {
            expires_at: new.expires_at.or(present),
            retain_until: new.retain_until.or(self.retain_until),
        };
        match (next.expires_at, next.locked_until(now)) {
            (Some(ends_at), Some(until)) if ends_at < until => match new {
                Self { expires_at: Some(_), .. } => Err(LifetimeError::EndsBeforeLock { until }),
                Self { retain_until: Some(_), .. } => Err(LifetimeError::LockBeyondEnd { ends_at }),
                // The request changes neither time: do not reject it for a conflict that existed before.
                Self { expires_at: None, retain_until: None } => Ok(next),
            },
            _ => Ok(next),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_ms(1_767_225_600_000 + hours * 3_600_000)
    }

    fn times(expires: impl Into<Option<i64>>, retain: impl Into<Option<i64>>) -> Lifetime {
        Lifetime { expires_at: expires.into().map(at), retain_until: retain.into().map(at) }
    }

    #[test]
    fn retention_must_be_in_the_next_100_years() {
        let until = |text| Retention::parse(text, at(0)).map(|lock| lock.until().to_string());
        assert_eq!(until("2026-01-02T01:00:00+01:00").unwrap(), "2026-01-02T00:00:00.000Z");
        assert_eq!(until("2026-12-31"), Err(RetentionError::Invalid));
        assert_eq!(until("2026-01-01T00:00:00Z"), Err(RetentionError::Past));
        assert_eq!(until("2999-01-01T00:00:00Z"), Err(RetentionError::TooFar));
    }

    #[test]
    fn lock_can_be_extended_but_not_shortened() {
        let renewed = |old: Lifetime, new| old.renewed(new, at(0));
        let locked = times(None, 10);
        assert_eq!(renewed(locked, times(None, None)), Ok(locked), "a time that is left out keeps its value");
        assert_eq!(renewed(locked, times(None, 10)), Ok(locked));
        assert_eq!(renewed(locked, times(None, 11)), Ok(times(None, 11)));
        assert_eq!(renewed(locked, times(None, 9)), Err(LifetimeError::Shortened { until: at(10) }));
        assert_eq!(
            renewed(times(None, -1), times(None, 5)),
            Ok(times(None, 5)),
            "an expired lock does not restrict the new one"
        );
    }

    #[test]
    fn timelock_before_the_end_of_the_lock_is_rejected() {
        let renewed = |old: Lifetime, new| old.renewed(new, at(0));
        assert_eq!(renewed(times(None, 10), times(10, None)), Ok(times(10, 10)));
        let refused = Err(LifetimeError::EndsBeforeLock { until: at(10) });
        assert_eq!(renewed(times(None, 10), times(9, None)), refused);
        assert_eq!(renewed(times(20, 10), times(9, None)), refused);
        assert_eq!(renewed(Lifetime::default(), times(9, 10)), refused);
        let beyond = Err(LifetimeError::LockBeyondEnd { ends_at: at(10) });
        assert_eq!(renewed(times(10, None), times(None, 11)), beyond);
        assert_eq!(renewed(times(10, None), times(11, 11)), Ok(times(11, 11)));
        assert_eq!(
            renewed(times(-1, -5), times(None, 11)),
            Ok(times(None, 11)),
            "an expiry in the past is dropped"
        );
        let conflicting = times(5, 10);
        assert_eq!(
            renewed(conflicting, Lifetime::default()),
            Ok(conflicting),
            "a request that changes no time succeeds"
        );
    }

    proptest! {
        /// Under any sequence of requests, the lock is never shortened, and the pin never expires before its lock ends.
        #[test]
        fn requests_never_weaken_the_lock(
            requests in proptest::collection::vec((-5_i64..40, proptest::option::of(0_i64..60), proptest::option::of(0_i64..60)), 0..30),
        ) {
            let mut pin = Lifetime::default();
            for (now, expires, retain) in requests {
                let (now, new) = (at(now), times(expires.filter(|at| *at > now), retain.filter(|at| *at > now)));
                let before = pin.locked_until(now);
                if let Ok(next) = pin.renewed(new, now) {
                    prop_assert!(next.locked_until(now) >= before);
                    let ends = next.expires_at.unwrap_or(at(1_000));
                    prop_assert!(next.locked_until(now).is_none_or(|until| until <= ends), "{next:?}");
                    pin = next;
                }
            }
        }
    }
}
