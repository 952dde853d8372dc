//! How long a pin lives: when it ends by itself, and until when nothing may end it.

use std::time::Duration;

use crate::time::parse_future;
use crate::{Timelock, TimelockError, Timestamp};

/// The time until which a pin can't be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Retention(Timestamp);

/// Why a text is not a [`Retention`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RetentionError {
    /// Not a time with an offset.
    #[error("retainUntil must be an ISO 8601 time with an offset, such as 2026-12-31T23:59:59Z")]
    Invalid,
    /// Not later than now.
    #[error("retainUntil must be in the future")]
    Past,
    /// Later than [`Retention::AHEAD_MAX`] from now.
    #[error("retainUntil must be within the next 100 years")]
    TooFar,
}

impl Retention {
    /// How far ahead it may be: nobody but an operator could undo a mistake, such as microseconds for milliseconds.
    pub const AHEAD_MAX: Duration = Timelock::AHEAD_MAX;

    /// Reads an ISO 8601 time with `Z` or an offset; fractions under a millisecond are cut off.
    ///
    /// # Errors
    /// [`RetentionError`] if it is none, or not in the bounded future.
    pub fn parse(text: &str, now: Timestamp) -> Result<Self, RetentionError> {
        parse_future(text, now).map(Self).map_err(|error| match error {
            TimelockError::Invalid => RetentionError::Invalid,
            TimelockError::Past => RetentionError::Past,
            TimelockError::TooFar => RetentionError::TooFar,
        })
    }

    /// Until when the pin is locked.
    #[must_use]
    pub fn until(self) -> Timestamp {
        self.0
    }
}

/// The times of a pin, or those that a wish names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// Until when nothing may end it but an operator.
    pub retain_until: Option<Timestamp>,
}

/// Why a pin can't have the times that a wish names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LifetimeError {
    /// The lock would be shorter than it is.
    #[error("The pin is locked until {until}; retainUntil can only be extended")]
    Shortened {
        /// Until when the pin is locked.
        until: Timestamp,
    },
    /// The timelock would end the pin before its lock does.
    #[error("The pin is locked until {until}; its timelock can't be earlier")]
    EndsBeforeLock {
        /// Until when the pin is locked, or shall be.
        until: Timestamp,
    },
    /// The pin ends by itself before the lock would.
    #[error(
        "The pin ends by its timelock at {ends_at}; to lock it for longer, give a later timelock as well"
    )]
    LockBeyondEnd {
        /// When the pin ends.
        ends_at: Timestamp,
    },
}

impl Lifetime {
    /// Until when the pin is locked, if it is.
    #[must_use]
    pub fn locked_until(self, now: Timestamp) -> Option<Timestamp> {
        self.retain_until.filter(|until| *until > now)
    }

    /// The times of a pin once a wish has named `new` ones. What is left out stays as it is, but for an end that is
    /// over: the pin is only still there because nobody came to end it, and who asks for it now must not lose it a
    /// moment later.
    ///
    /// # Errors
    /// [`LifetimeError`] if a lock would be shortened, or outlived by nothing.
    pub fn renewed(self, new: Self, now: Timestamp) -> Result<Self, LifetimeError> {
        if let (Some(until), Some(wished)) = (self.locked_until(now), new.retain_until)
            && wished < until
        {
            return Err(LifetimeError::Shortened { until });
        }
        let left = self.expires_at.filter(|at| *at > now);
        let next = Self {
            expires_at: new.expires_at.or(left),
            retain_until: new.retain_until.or(self.retain_until),
        };
        match (next.expires_at, next.locked_until(now)) {
            (Some(ends_at), Some(until)) if ends_at < until => match new {
                Self { expires_at: Some(_), .. } => Err(LifetimeError::EndsBeforeLock { until }),
                Self { retain_until: Some(_), .. } => Err(LifetimeError::LockBeyondEnd { ends_at }),
                // Nothing was asked to change.
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
    fn a_retention_is_a_time_in_the_bounded_future() {
        let until = |text| Retention::parse(text, at(0)).map(|lock| lock.until().to_string());
        assert_eq!(until("2026-01-02T01:00:00+01:00").unwrap(), "2026-01-02T00:00:00.000Z");
        assert_eq!(until("2026-12-31"), Err(RetentionError::Invalid));
        assert_eq!(until("2026-01-01T00:00:00Z"), Err(RetentionError::Past));
        assert_eq!(until("2999-01-01T00:00:00Z"), Err(RetentionError::TooFar));
    }

    #[test]
    fn a_lock_is_extended_and_never_shortened() {
        let renewed = |old: Lifetime, new| old.renewed(new, at(0));
        let locked = times(None, 10);
        assert_eq!(renewed(locked, times(None, None)), Ok(locked), "leaving it out drops nothing");
        assert_eq!(renewed(locked, times(None, 10)), Ok(locked));
        assert_eq!(renewed(locked, times(None, 11)), Ok(times(None, 11)));
        assert_eq!(renewed(locked, times(None, 9)), Err(LifetimeError::Shortened { until: at(10) }));
        assert_eq!(
            renewed(times(None, -1), times(None, 5)),
            Ok(times(None, 5)),
            "one that is over binds nobody"
        );
    }

    #[test]
    fn a_timelock_never_ends_a_pin_before_its_lock() {
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
            "an end that is over is none"
        );
        let strange = times(5, 10);
        assert_eq!(renewed(strange, Lifetime::default()), Ok(strange), "a new name is not refused for it");
    }

    proptest! {
        /// Whatever is wished for, and whenever: no lock becomes shorter, and no end comes before it.
        #[test]
        fn what_is_promised_is_kept(
            wishes in proptest::collection::vec((-5_i64..40, proptest::option::of(0_i64..60), proptest::option::of(0_i64..60)), 0..30),
        ) {
            let mut pin = Lifetime::default();
            for (now, expires, retain) in wishes {
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
