//! Timestamps, and the timelock of a pin.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A point in time in Unix milliseconds. Displayed as RFC 3339 in UTC, with milliseconds and `Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From Unix milliseconds. Clamped to the years 0 to 9999, the range of RFC 3339.
    #[must_use]
    pub fn from_ms(ms: i64) -> Self {
        Self(ms.clamp(-62_167_219_200_000, 253_402_207_199_999))
    }

    /// In Unix milliseconds.
    #[must_use]
    pub fn as_ms(self) -> i64 {
        self.0
    }

    /// The time `by` later.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        let by_ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        Self::from_ms(self.0.saturating_add(by_ms))
    }

    /// The time `by` earlier.
    #[must_use]
    pub fn before(self, by: Duration) -> Self {
        let by_ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        Self::from_ms(self.0.saturating_sub(by_ms))
    }

    /// The duration from `earlier` to this time; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_out_of_range) => write!(f, "{}ms", self.0),
        }
    }
}

/// The text is not a [`Timestamp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("A time is ISO 8601 with an offset, such as 2026-01-31T12:00:00Z, or a day, such as 2026-01-31")]
pub struct TimestampError;

impl FromStr for Timestamp {
    type Err = TimestampError;

    /// Parses a time with an offset, or a date, which stands for its start in UTC.
    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let text = text.trim();
        if text.len() > 64 {
            return Err(TimestampError);
        }
        let time = match text.parse::<jiff::civil::Date>() {
            Ok(day) if text.len() <= 10 => format!("{day}T00:00:00Z").parse::<jiff::Timestamp>(),
            Ok(_) | Err(_) => text.parse(),
        };
        time.map(|time| Self::from_ms(time.as_millisecond())).map_err(|_| TimestampError)
    }
}

/// The time at which a pin is removed automatically.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timelock(Timestamp);

/// The text is not a valid [`Timelock`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimelockError {
    /// The text is not a time with an offset.
    #[error("The timelock must be an ISO 8601 time with an offset, such as 2026-12-31T23:59:59Z")]
    Invalid,
    /// The time is not in the future.
    #[error("The timelock must be in the future")]
    Past,
    /// The time is more than [`Timelock::AHEAD_MAX`] ahead.
    #[error("The timelock must be within the next 100 years")]
    TooFar,
}

impl Timelock {
    /// Maximum time ahead. A later time is a mistake, such as microseconds given as milliseconds.
    pub const AHEAD_MAX: Duration = Duration::from_hours(100 * 366 * 24);

    /// Parses an ISO 8601 time with `Z` or an offset. Fractions of a millisecond are truncated.
    ///
    /// # Errors
    /// [`TimelockError`] if the text is not such a time, or the time is in the past or too far ahead.
    pub fn parse(text: &str, now: Timestamp) -> Result<Self, TimelockError> {
        let time = parse_future(text, now)?;
        Ok(Self(time))
    }

    /// When the pin is removed.
    #[must_use]
    pub fn ends_at(self) -> Timestamp {
        self.0
    }
}

/// Parses a time with an offset that is in the future, at most [`Timelock::AHEAD_MAX`] ahead.
pub(crate) fn parse_future(text: &str, now: Timestamp) -> Result<Timestamp, TimelockError> {
    if text.len() > 64 {
        return Err(TimelockError::Invalid);
    }
    let text = text.trim();
    let time: jiff::Timestamp = match text.parse() {
        Ok(time) => time,
        Err(_) if is_after_last_year(text) => return Err(TimelockError::TooFar),
        Err(_) => return Err(TimelockError::Invalid),
    };
    let time = Timestamp::from_ms(time.as_millisecond());
    if time <= now {
        return Err(TimelockError::Past);
    }
    if time > now.after(Timelock::AHEAD_MAX) {
        return Err(TimelockError::TooFar);
    }
    Ok(time)
}

/// Whether the text is a time in a year that [`Timestamp`] cannot represent: the end of the year 9999, or a later year
/// with a sign, such as `+012345-06-07T00:00:00Z`. Decided by parsing it with an earlier year.
fn is_after_last_year(text: &str) -> bool {
    let digits = text.strip_prefix('+').map_or(4, |_| 7);
    let Some((year, rest)) = text.split_at_checked(digits) else { return false };
    let is_late = year.starts_with('+') || year == "9999";
    // 2000 is a leap year, so that February 29 is accepted.
    is_late
        && year[1..].bytes().all(|b| b.is_ascii_digit())
        && format!("2000{rest}").parse::<jiff::Timestamp>().is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp(1_767_225_600_000);

    #[test]
    fn timelock_requires_an_offset_and_a_future_time() {
        let end = |text| Timelock::parse(text, NOW).map(|lock| lock.ends_at().to_string());
        assert_eq!(end("2026-12-31T23:59:59.000Z").unwrap(), "2026-12-31T23:59:59.000Z");
        assert_eq!(end("2027-01-01T01:00:00+01:00").unwrap(), "2027-01-01T00:00:00.000Z");
        for bad in ["", "tomorrow", "2026-12-31", "2026-12-31T23:59:59", "2026-13-01T00:00:00Z"] {
            assert_eq!(end(bad), Err(TimelockError::Invalid), "{bad:?}");
        }
        assert_eq!(end("2026-01-01T00:00:00Z"), Err(TimelockError::Past));
        for far in [
            "2999-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999Z",
            "9999-12-31T23:59:59-12:00",
            "+010000-01-01T00:00:00Z",
            "+057969-02-10T06:40:00.000Z",
        ] {
            assert_eq!(end(far), Err(TimelockError::TooFar), "{far:?}");
        }
        for bad in [
            "9999-13-31T00:00:00Z",
            "9999-12-31",
            "+0x0000-01-01T00:00:00Z",
            "+01",
            "+é99999-01-01T00:00:00Z",
        ] {
            assert_eq!(end(bad), Err(TimelockError::Invalid), "{bad:?}");
        }
    }

    #[test]
    fn timestamp_parses_times_with_offset_and_dates() {
        let read = |text: &str| text.parse::<Timestamp>().map(|time| time.to_string());
        for (text, time) in [
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000Z"),
            (" 2026-01-31T12:00:00.1234+01:00 ", "2026-01-31T11:00:00.123Z"),
            ("2026-01-31", "2026-01-31T00:00:00.000Z"),
        ] {
            assert_eq!(read(text).unwrap(), time);
        }
        for bad in ["", "now", "2026-01-31T12:00:00", "2026-02-30", "2026-1-1", "1767225600", &"2".repeat(99)]
        {
            assert_eq!(read(bad), Err(TimestampError), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn timestamp_round_trips_through_text(ms in 0_i64..253_402_207_199_999) {
            let text = Timestamp::from_ms(ms).to_string();
            let read: jiff::Timestamp = text.parse().unwrap();
            prop_assert_eq!(read.as_millisecond(), ms);
            prop_assert!(text.ends_with('Z') && text.len() == "2026-12-31T23:59:59.000Z".len());
        }
    }
}
