//! Identifiers of database rows: one newtype for each table, and the generator of new ids.
//!
//! An id has 63 bits: 42 bits of Unix milliseconds, an 8-bit salt that differs between processes, and a 13-bit counter.
//! Ids therefore sort by creation time, which makes them the only key that paging needs, and processes that share a
//! database generate ids without coordination.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::Timestamp;

/// The text is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("An id has 16 hexadecimal digits")]
pub struct IdError;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let plain = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
                let number = plain.then(|| i64::from_str_radix(text, 16)).ok_or(IdError)?;
                number.map(Self).map_err(|_| IdError)
            }
        }
    };
}

id!(
    /// Id of an account.
    AccountId
);
id!(
    /// Id of an API key.
    TokenId
);
id!(
    /// Id of a session. A session lasts from login to logout or expiry.
    SessionId
);
id!(
    /// Id of an audit log entry.
    AuditId
);
id!(
    /// Id of a pin. Its text is the `uploadId` of the HTTP API.
    PinId
);
id!(
    /// Id of a placement.
    PlacementId
);
id!(
    /// Id of a webhook.
    WebhookId
);
id!(
    /// Id of the delivery of an event to a webhook.
    DeliveryId
);

const SHARED_BITS: u32 = 21;
const COUNT_BITS: u32 = 13;
/// The latest time that fits into an id, in the year 2109. Later times are clamped so that ids do not wrap around.
const MS_MAX: i64 = (1 << (63 - SHARED_BITS)) - 1;

/// Generates ids that are unique within a process, and across processes with different `salt`s.
#[derive(Debug)]
pub struct IdSource {
    salt: i64,
    last: AtomicI64,
}

impl IdSource {
    /// A source whose ids contain `salt`, which should be random.
    #[must_use]
    pub fn new(salt: u8) -> Self {
        Self { salt: i64::from(salt) << COUNT_BITS, last: AtomicI64::new(0) }
    }

    /// Continues after `last`, an id from another source, so that ids increase even if the clock was set back
    /// between two runs. It continues one millisecond later and with its own salt, because the other source may
    /// still be in use.
    #[must_use]
    pub fn after(self, last: i64) -> Self {
        let next = (last >> SHARED_BITS).saturating_add(1).min(MS_MAX) << SHARED_BITS | self.salt;
        Self { last: AtomicI64::new(next.saturating_sub(1).max(last)), ..self }
    }

    /// A new id, larger than all previous ones. If the clock goes backwards, ids continue from the last one.
    pub fn next(&self, now: Timestamp) -> i64 {
        let floor = (now.as_ms().clamp(0, MS_MAX) << SHARED_BITS) | self.salt;
        let next = |last: i64| floor.max(last.saturating_add(1));
        match self.last.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(next(last))) {
            Ok(last) | Err(last) => next(last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_increase_when_the_clock_goes_backwards() {
        let source = IdSource::new(200);
        let first = source.next(Timestamp::from_ms(2_000));
        let second = source.next(Timestamp::from_ms(1_000));
        let third = source.next(Timestamp::from_ms(3_000));
        assert!(first < second && second < third);
    }

    #[test]
    fn ids_continue_after_those_of_a_previous_run() {
        let last = IdSource::new(200).next(Timestamp::from_ms(2_000));
        let source = IdSource::new(7).after(last);
        assert!(source.next(Timestamp::from_ms(1_000)) > last, "the clock was set back between the two runs");
        assert!(source.next(Timestamp::from_ms(3_000)) >> SHARED_BITS == 3_000);
    }

    #[test]
    fn ids_do_not_wrap_around_at_the_latest_time() {
        let source = IdSource::new(255);
        let first = source.next(Timestamp::from_ms(i64::MAX));
        assert!(first > 0 && source.next(Timestamp::from_ms(i64::MAX)) > first);
    }

    #[test]
    fn id_round_trips_through_text() {
        let id = PinId(IdSource::new(7).next(Timestamp::from_ms(1_767_225_600_000)));
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "+00000000000001f", "ffffffffffffffff", "12"] {
            assert_eq!(bad.parse::<PinId>(), Err(IdError), "{bad:?}");
        }
    }
}
